"""What a project's own `langgraph_sdk.Auth` says: who asks, and what they may do.

A router asks before it acts, in one line, and holds what it finds against the answer:

    filters = await context.permission.allow(caller, "threads", "read", {"thread_id": thread_id})
    ...
    if not permission.matches(filters, thread.metadata): raise Missing(...)

`allow` raises Forbidden where a handler says no, and whatever `Auth.exceptions.HTTPException` a handler raises
(`api.problems` and `api.server.route` answer with its status). It gives the filter a handler returned, or None.
A handler may change `value` in place: what is created or written must be taken from `value` afterwards, above all
`value["metadata"]` and, of the store, `value["namespace"]`. A search puts the filter beside its own.

| what is asked | resource, action | value |
| --- | --- | --- |
| create, read, update, delete, search a thread | threads, the same | `thread_id`, `metadata`, `if_exists`; search: `metadata`, `values`, `status`, `limit`, `offset` |
| a thread's state or history, its runs, a stream of one | threads, read | `thread_id`, and `run_id` where one is meant |
| change a thread's state, cancel a run | threads, update | `thread_id`; `action` is `interrupt` or `rollback` |
| delete a run | threads, delete | `thread_id`, `run_id` |
| start a run, also a stateless one | threads, create_run | `thread_id`, `assistant_id`, `run_id`, `status`, `metadata`, `multitask_strategy`, `if_not_exists`, `after_seconds`, `kwargs` |
| assistants (their graph, schemas and versions: read) | assistants, create … search | `assistant_id`, `graph_id`, `config`, `context`, `metadata`, `name`, `if_exists` |
| crons | crons, create … search | `payload`, `schedule`, `cron_id`, `thread_id`, `assistant_id`, `end_time` |
| the store | store, put, get, delete, search, list_namespaces | see `api.server.store` |

Whose a record is: `scope(caller, resource)` is the owner to write and to look for. It is the caller's id, or, where
the project's handlers govern that resource, one scope for all: then the handlers alone decide.
"""  # noqa: E501

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import structlog
from langgraph_sdk.auth import Auth
from langgraph_sdk.auth.exceptions import HTTPException
from langgraph_sdk.auth.types import AuthContext

from threadline.domain import filters
from threadline.domain.errors import Forbidden, Invalid, ThreadlineError
from threadline.domain.filters import Filter
from threadline.domain.records import Caller, User

log = structlog.get_logger(__name__)

Resource = Literal["threads", "assistants", "crons", "store"]
Action = Literal["create", "read", "update", "delete", "search", "create_run", "put", "get", "list_namespaces"]
SHARED = "shared"
"""The owner of everything that the project's own handlers govern."""
GIVEN = frozenset(
    ("request", "scope", "body", "path", "method", "path_params", "query_params", "headers", "authorization")
)
"""What an authenticate handler may ask for by name."""


class Permission:
    """Runs the handlers of an `Auth`; without one everything is allowed at no cost."""

    def __init__(self, auth: Auth | None = None) -> None:
        """Raises Invalid if the authenticate handler asks for what no request has."""
        self._authenticate = auth._authenticate_handler if auth is not None else None
        self._handlers = dict(auth._handlers) if auth is not None else {}
        if auth is not None and auth._global_handlers:
            self._handlers["*", "*"] = auth._global_handlers
        self.wants = _wants(self._authenticate) if self._authenticate is not None else frozenset[str]()

    @property
    def authenticates(self) -> bool:
        """Whether the project says who asks; else the API keys do."""
        return self._authenticate is not None

    async def caller(self, given: Mapping[str, Any]) -> Caller:
        """Who asks, from those of `GIVEN` that are in `wants`. Raises what the handler raises to refuse, and
        ThreadlineError where it fails or names nobody."""
        assert self._authenticate is not None
        try:
            found: Any = self._authenticate(**{name: given[name] for name in self.wants})
            user = _user(await found if inspect.isawaitable(found) else found)
            if not user["is_authenticated"]:
                raise HTTPException(401)
        except HTTPException:
            raise
        except Exception as error:
            if _refuses(error):
                raise
            log.error("auth_handler_failed", handler="authenticate", exc_info=error)
            raise ThreadlineError("The authentication failed. The service's log says why.") from error
        return Caller(user["identity"], user)

    def governs(self, resource: Resource) -> bool:
        """Whether any handler of the project has a say in this resource."""
        return any(named in (resource, "*") for named, _ in self._handlers)

    def scope(self, caller: Caller, resource: Resource) -> str:
        """The owner under which the caller's records of this kind are kept and looked for."""
        return SHARED if self._handlers and self.governs(resource) else caller.id

    async def allow(self, caller: Caller, resource: Resource, action: Action, value: dict[str, Any]) -> Filter | None:
        """Ask the most specific handler there is; see the module. None allows all."""
        if not self._handlers:
            return None
        places = ((resource, action), (resource, "*"), ("*", action), ("*", "*"))
        handler = next((self._handlers[place][-1] for place in places if place in self._handlers), None)
        if handler is None:
            return None
        user: Any = caller.user if caller.user is not None else _user(caller.id)
        context = AuthContext(permissions=user["permissions"], user=user, resource=resource, action=action)
        try:
            answer = await handler(ctx=context, value=value)
            if isinstance(answer, Mapping):
                filters.check(answer)
        except HTTPException:
            raise
        except Exception as error:
            if _refuses(error):
                raise
            log.error("auth_handler_failed", handler=_name(handler), exc_info=error)
            raise ThreadlineError("The authorization failed. The service's log says why.") from error
        if answer is None or answer is True:
            return None
        if isinstance(answer, Mapping):
            return answer or None
        if answer is not False:
            log.error("auth_handler_failed", handler=_name(handler), answered=type(answer).__name__)
        raise Forbidden("Forbidden")


def matches(allowed: Filter | None, metadata: Mapping[str, Any]) -> bool:
    """Whether a record with this metadata is among those allowed."""
    return allowed is None or filters.matches(allowed, metadata)


def configurable(caller: Caller) -> dict[str, Any]:
    """What graph code is told of the caller in `config["configurable"]`; nothing without the project's own auth.

    To keep it with a run, make JSON of it with `payload.jsonable`; `user_of` makes a User of what was read back.
    """
    if caller.user is None:
        return {}
    return {
        "langgraph_auth_user": caller.user,
        "langgraph_auth_user_id": caller.id,
        "langgraph_auth_permissions": list(caller.permissions),
    }


def user_of(kept: Mapping[str, Any]) -> User | None:
    """The user in a `configurable`, as it was or as it was kept in JSON."""
    user = kept.get("langgraph_auth_user")
    return User(user) if isinstance(user, Mapping) else None


def _wants(handler: Callable[..., Awaitable[Any]]) -> frozenset[str]:
    parameters = inspect.signature(handler).parameters.values()
    named = [one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    unknown = [one.name for one in named if one.name not in GIVEN and one.default is one.empty]
    if unknown:
        raise Invalid(
            f"The authenticate handler {_name(handler)} asks for {', '.join(unknown)}. "
            f"It may ask for {', '.join(sorted(GIVEN))}."
        )
    return frozenset(one.name for one in named if one.name in GIVEN)


def _user(found: Any) -> User:
    """The user an authenticate handler describes: an identity, a mapping, or an object with an identity."""
    if isinstance(found, str):
        fields: dict[str, Any] = {"identity": found}
    elif isinstance(found, Mapping):
        fields = dict(found)
    else:
        fields = {**_public(found), "identity": getattr(found, "identity", None)}
        for name in ("display_name", "is_authenticated", "permissions"):
            if hasattr(found, name):
                fields[name] = getattr(found, name)
    identity = fields.get("identity")
    if not isinstance(identity, str) or not identity:
        raise TypeError(f"the handler gave a {type(found).__name__} without an identity")
    permissions = [str(one) for one in fields.get("permissions") or ()]
    return User({"display_name": identity, "is_authenticated": True, **fields, "permissions": permissions})


def _public(found: Any) -> dict[str, Any]:
    """An object's own fields."""
    if hasattr(found, "model_dump"):
        return dict(found.model_dump())
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        return dataclasses.asdict(found)
    return {name: value for name, value in getattr(found, "__dict__", {}).items() if not name.startswith("_")}


def _refuses(error: Exception) -> bool:
    """Whether a handler raised its web framework's own refusal, which FastAPI's is."""
    return isinstance(getattr(error, "status_code", None), int) and hasattr(error, "detail")


def _name(handler: Any) -> str:
    return str(getattr(handler, "__qualname__", handler))
