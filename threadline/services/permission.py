"""What a project's own `langgraph_sdk.Auth` says: who asks, and what they may do.

The services ask, each where it finds, makes or changes a record for a caller, so that nobody gets at one without:

    grant = await permission.ask(caller, "threads", "read", {"thread_id": UUID(thread_id)})
    thread = await threads.get(thread_id)
    if thread is None or not grant.holds(thread): raise Missing(...)

`ask` raises Forbidden where a handler says no, and whatever `Auth.exceptions.HTTPException` a handler raises
(`api.problems` and `api.server.route` answer with its status). A Grant says which records the answer holds for: where a
handler was asked, those that its filter matches, everybody's; else the caller's own. A search puts both in its query.

A handler may change `value` in place: what is created, written or looked for is taken from `value` afterwards, above
all `value["metadata"]`. Ids are UUIDs, as `langgraph_sdk.auth.types` has them.

| what is asked | resource, action | value |
| --- | --- | --- |
| create a thread, import one, copy one (which is read too), also for a re-run | threads, create | `thread_id`, `metadata`, `if_exists` |
| a thread, its state, past, stream and replay | threads, read | `thread_id` |
| a run, its stream, its end, its replay | threads, read | `thread_id`, `run_id` |
| a thread's runs | threads, read and search | `thread_id`; `thread_id`, `metadata` |
| search, count and list threads | threads, search | `metadata`, `values`, `status`, `limit`, `offset` |
| change a thread | threads, update | `thread_id`, `metadata` |
| change a thread's state, also for a re-run, pin a checkpoint, name a branch or go on from it | threads, update | `thread_id` |
| cancel runs, also by leaving their stream or by starting another | threads, update | `thread_id`, `action`, `metadata`: `run_ids`, `status` |
| delete or prune a thread, delete a branch | threads, delete | `thread_id` |
| delete a run | threads, delete | `thread_id`, `run_id` |
| start a run; who reads what comes of it reads the thread too | threads, create_run | `thread_id`, `assistant_id`, `run_id`, `status`, `metadata`, `prevent_insert_if_inflight`, `multitask_strategy`, `if_not_exists`, `after_seconds`, `kwargs` |
| create an assistant | assistants, create | `assistant_id`, `graph_id`, `config`, `context`, `metadata`, `name` |
| an assistant, its versions, graph and schemas; to run one that is not a graph itself | assistants, read | `assistant_id` |
| change an assistant | assistants, update | `assistant_id`, and those of create; or `version` |
| delete an assistant | assistants, delete | `assistant_id` |
| search and count assistants | assistants, search | `graph_id`, `metadata`, `limit`, `offset` |
| create a cron | crons, create | `payload`, `schedule`, `cron_id`, `thread_id`, `user_id`, `end_time`, `metadata` |
| a cron | crons, read or delete | `cron_id` |
| change a cron | crons, update | `cron_id`, `schedule`, `end_time`, `enabled`, `on_run_completed`, `payload`, `metadata` |
| search and count crons | crons, search | `assistant_id`, `thread_id`, `limit`, `offset`, `metadata` |
| the store | store, put, get, delete, search, list_namespaces | see `api.server.store` |
"""  # noqa: E501

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, Literal

import orjson
import structlog
from langgraph_sdk.auth import Auth
from langgraph_sdk.auth.exceptions import HTTPException
from langgraph_sdk.auth.types import AuthContext

from threadline.domain import filters
from threadline.domain.errors import Forbidden, Invalid, ThreadlineError
from threadline.domain.filters import Filter
from threadline.domain.records import Caller, Owned, User

log = structlog.get_logger(__name__)

Resource = Literal["threads", "assistants", "crons", "store"]
Action = Literal["create", "read", "update", "delete", "search", "create_run", "put", "get", "list_namespaces"]
Handler = Callable[..., Awaitable[Any]]
SHARED = "shared"
"""Whose the items of the store are, where the project's own handlers decide about them."""
GIVEN = frozenset(
    ("request", "scope", "body", "path", "method", "path_params", "query_params", "headers", "authorization")
)
"""What an authenticate handler may ask for by name."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Which records a caller was allowed what was asked: those of `owner` (None: everybody's) that match `allowed`."""

    owner: str | None
    allowed: Filter | None = None

    @property
    def decided(self) -> bool:
        """Whether a handler of the project said so."""
        return self.owner is None

    def holds(self, record: Owned) -> bool:
        return self.owner in (None, record.owner) and matches(self.allowed, record.metadata)


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

    def scope(self, caller: Caller) -> str:
        """Whose the caller's items of the store are: one scope for all where a handler has a say in the store."""
        governed = any(resource in ("store", "*") for resource, _ in self._handlers)
        return SHARED if governed else caller.id

    async def ask(self, caller: Caller, resource: Resource, action: Action, value: dict[str, Any]) -> Grant:
        """Ask the most specific handler there is; see the module. Without one, a thing is its caller's alone."""
        handler = self._handler(resource, action)
        if handler is None:
            return Grant(caller.id)
        return Grant(None, await self._asked(handler, caller, resource, action, value))

    async def allow(self, caller: Caller, resource: Resource, action: Action, value: dict[str, Any]) -> Filter | None:
        """The same for what is nobody's record. The filter that a handler answers with; None allows all."""
        handler = self._handler(resource, action)
        return await self._asked(handler, caller, resource, action, value) if handler is not None else None

    def _handler(self, resource: Resource, action: Action) -> Handler | None:
        if not self._handlers:
            return None
        places = ((resource, action), (resource, "*"), ("*", action), ("*", "*"))
        return next((self._handlers[place][-1] for place in places if place in self._handlers), None)

    async def _asked(
        self, handler: Handler, caller: Caller, resource: Resource, action: Action, value: dict[str, Any]
    ) -> Filter | None:
        user: Any = caller.user if caller.user is not None else _user(caller.id)
        context = AuthContext(permissions=user["permissions"], user=user, resource=resource, action=action)
        try:
            answer = await handler(ctx=context, value=value)
            if isinstance(answer, Mapping):
                filters.check(answer)
                answer = orjson.loads(orjson.dumps(answer))  # as it is compared in a database
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


def metadata_in(value: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata to write, as a handler left it."""
    return dict(value.get("metadata") or {})


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
    if is_dataclass(found) and not isinstance(found, type):
        return asdict(found)
    return {name: value for name, value in getattr(found, "__dict__", {}).items() if not name.startswith("_")}


def _refuses(error: Exception) -> bool:
    """Whether a handler raised its web framework's own refusal, which FastAPI's is."""
    return isinstance(getattr(error, "status_code", None), int) and hasattr(error, "detail")


def _name(handler: Any) -> str:
    return str(getattr(handler, "__qualname__", handler))
