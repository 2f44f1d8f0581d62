"""Assistants: a graph with its config, named and versioned; one for each graph is the service's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID, uuid4

import structlog

from threadline.domain import ports
from threadline.domain.errors import Conflict, Invalid, Missing, Rejected, ThreadlineError
from threadline.domain.records import (
    Assistant,
    AssistantQuery,
    AssistantVersion,
    Caller,
    ThreadQuery,
    system_assistant_id,
)
from threadline.services.graphs import Graph, Graphs
from threadline.services.permission import Grant, Permission, matches, metadata_in

log = structlog.get_logger(__name__)

SYSTEM = ""
"""The owner of the service's own assistants."""
SYSTEM_METADATA = {"created_by": "system"}
PAGE = 1000
UNTITLED = "Untitled"
UNNAMED_GRAPH = "LangGraph"
"""The name LangGraph gives a graph that got none."""
BOTH = (
    "Cannot specify both configurable and context. Prefer setting context alone. Context was introduced in "
    "LangGraph 0.6.0 and is the long term planned replacement for configurable."
)


@dataclass(frozen=True, slots=True)
class SystemAssistant:
    graph_id: str
    name: str
    description: str | None = None


@dataclass(frozen=True, slots=True)
class NewAssistant:
    graph_id: str
    assistant_id: str | None = None
    name: str | None = None
    description: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AssistantChange:
    """What None stands at stays as it is; `metadata` is merged, the others replace."""

    graph_id: str | None = None
    name: str | None = None
    description: str | None = None
    config: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


class Assistants:
    """Every caller sees its own and the service's, or what an auth handler lets it. Any other is missing, like one that
    never was."""

    def __init__(
        self,
        assistants: ports.Assistants,
        graphs: Graphs,
        *,
        threads: ports.Threads,
        permission: Permission,
        shared: bool,
    ) -> None:
        """`shared`: several callers use this service, so none of them may change what belongs to all, unless an auth
        handler says so."""
        self._assistants = assistants
        self._graphs = graphs
        self._threads = threads
        self._permission = permission
        self._shared = shared

    async def ensure(self, named: Iterable[SystemAssistant]) -> None:
        """Make each graph's own assistant, or bring it up to date unless somebody has changed it since."""
        for system in named:
            present = await self._assistants.get(system_assistant_id(system.graph_id))
            now = datetime.now(UTC)
            wanted = Assistant(
                system_assistant_id(system.graph_id),
                graph_id=system.graph_id,
                owner=SYSTEM,
                name=system.name,
                description=system.description,
                metadata=SYSTEM_METADATA,
                created_at=now,
                updated_at=now,
            )
            if present is not None:
                if present.owner == SYSTEM and (present.version > 1 or _same(present, wanted)):
                    continue
                await self._assistants.delete(present.assistant_id)
            await self._assistants.create(wanted)

    async def resolve(self, assistant: str, caller: Caller) -> Assistant:
        """The assistant a run names by its id or by its graph. Raises Invalid or Missing in the words clients know, or
        Forbidden. Whoever may start a run may start one of a graph: of that one's own assistant nobody is asked."""
        try:
            assistant_id = self._id(assistant)
        except ValueError:
            raise Invalid(
                f"Invalid assistant: '{assistant}'. Must be either:\n- A valid assistant UUID, or\n"
                f"- One of the registered graphs: {', '.join(self._graphs.ids)}"
            ) from None
        found = await self._assistants.get(assistant_id)
        if found is None or found.owner != SYSTEM:
            grant = await self._permission.ask(caller, "assistants", "read", {"assistant_id": UUID(assistant_id)})
            found = self._seen(found, grant)
        if found is None:
            raise Missing("Thread or assistant not found.")
        self._check_graph(found.graph_id)
        return found

    async def get(self, assistant: str, caller: Caller) -> Assistant:
        """By its id or its graph. Raises Invalid, Missing or Forbidden."""
        found = await self._find(self._uuid(assistant, names=True), caller, "read")
        if found is None:
            raise Missing("Not Found")
        return found

    @asynccontextmanager
    async def opened(self, assistant: Assistant, caller: Caller) -> AsyncIterator[Graph]:
        """The assistant's graph, made with its config and named. Raises Missing or Rejected."""
        graph_id = assistant.graph_id
        self._check_graph(graph_id)
        async with AsyncExitStack() as stack:
            try:
                graph = await stack.enter_async_context(self._graphs.of_assistant(assistant, caller))
            except ThreadlineError:
                raise
            except Exception as error:  # the factory is somebody's code
                log.warning("graph_not_opened", graph_id=graph_id, exc_info=error)
                raise Rejected(
                    f"Graph '{graph_id}' cannot be made with this assistant's config "
                    f"({type(error).__name__}). The service's log says why."
                ) from error
            unnamed = graph.name == UNNAMED_GRAPH
            yield graph.copy(update={"name": graph_id}) if unnamed else graph

    async def create(self, new: NewAssistant, caller: Caller, *, do_nothing: bool) -> Assistant:
        """A new assistant, or the present one of that id where `do_nothing`. Raises Invalid, Missing, Forbidden or
        Conflict."""
        self._check_graph(new.graph_id)
        _mirrored(new.config, new.context)
        assistant_id = self._uuid(new.assistant_id) if new.assistant_id else str(uuid4())
        value: dict[str, Any] = {
            "assistant_id": UUID(assistant_id),
            "graph_id": new.graph_id,
            "config": new.config,
            "context": new.context or None,
            "metadata": new.metadata,
            "name": new.name or UNTITLED,
        }
        grant = await self._permission.ask(caller, "assistants", "create", value)
        self._check_graph(value["graph_id"])
        config, context = _mirrored(value["config"] or {}, value["context"] or {})
        now = datetime.now(UTC)
        assistant = Assistant(
            assistant_id,
            graph_id=value["graph_id"],
            owner=caller.id,
            name=value["name"],
            description=new.description,
            config=config,
            context=context,
            metadata=metadata_in(value),
            created_at=now,
            updated_at=now,
        )
        if await self._assistants.create(assistant):
            return assistant
        present = self._seen(await self._assistants.get(assistant_id), grant) if do_nothing else None
        if present is None:
            raise Conflict(f"Assistant {assistant_id} already exists")
        return present

    async def update(self, assistant: str, change: AssistantChange, caller: Caller) -> Assistant:
        """The assistant's next version. Raises Invalid, Missing, Forbidden or Conflict."""
        value: dict[str, Any] = {
            "assistant_id": UUID(self._uuid(assistant)),
            "graph_id": change.graph_id,
            "config": change.config or {},
            "context": change.context,
            "metadata": dict(change.metadata or {}),
            "name": change.name,
        }
        found = await self._changeable(caller, value)
        wanted = {name: value[name] for name in ("graph_id", "config", "context", "name")}
        change = replace(change, **wanted, metadata=metadata_in(value))
        if change.graph_id is not None:
            self._check_graph(change.graph_id)
        now = datetime.now(UTC)
        changed = await self._assistants.change(
            found.assistant_id, lambda present, version: _changed(present, change, version=version, now=now)
        )
        if changed is None:
            raise _missing(found.assistant_id)
        return changed

    async def set_latest(self, assistant: str, version: int, caller: Caller) -> Assistant:
        """Go back, or forward, to a version, in all that a version holds. Raises Invalid, Missing, Forbidden or
        Conflict."""
        found = await self._changeable(caller, {"assistant_id": UUID(self._uuid(assistant)), "version": version})
        kept = await self._assistants.versions(found.assistant_id, version=version)
        if not kept:
            raise Missing(f"Version {version} not found for assistant {found.assistant_id}")
        chosen, now = kept[0], datetime.now(UTC)
        changed = await self._assistants.change(
            found.assistant_id,
            lambda present, _: replace(
                present,
                graph_id=chosen.graph_id,
                name=chosen.name,
                description=chosen.description,
                config=chosen.config,
                context=chosen.context,
                metadata=chosen.metadata,
                version=chosen.version,
                updated_at=now,
            ),
        )
        if changed is None:
            raise _missing(found.assistant_id)
        return changed

    async def versions(
        self, assistant: str, caller: Caller, *, metadata: Mapping[str, Any], limit: int, offset: int
    ) -> Sequence[AssistantVersion]:
        """Newest first. Raises Invalid, Missing or Forbidden."""
        found = await self._find(self._uuid(assistant, names=True), caller, "read")
        if found is None:
            raise _missing(assistant)
        return await self._assistants.versions(found.assistant_id, metadata=metadata, limit=limit, offset=offset)

    async def search(self, wanted: AssistantQuery, caller: Caller) -> tuple[Sequence[Assistant], int, AssistantQuery]:
        """One page of those the caller sees, how many there are in all, and the query as an auth handler left it.
        Raises Missing for a graph that is none, or Forbidden."""
        value: dict[str, Any] = {
            "graph_id": wanted.graph_id,
            "metadata": dict(wanted.metadata),
            "limit": wanted.limit,
            "offset": wanted.offset,
        }
        grant = await self._permission.ask(caller, "assistants", "search", value)
        query = replace(
            wanted,
            owner=grant.owner,
            allowed=grant.allowed,
            graph_id=value["graph_id"],
            metadata=metadata_in(value),
            limit=value["limit"],
            offset=value["offset"],
        )
        if query.graph_id is not None:
            self._check_graph(query.graph_id)
        return *await self._assistants.search(query), query

    async def deletable(self, assistant: str, caller: Caller) -> Assistant:
        """The assistant, if the caller may delete it. Raises Invalid, Missing or Conflict."""
        assistant_id = self._uuid(assistant)
        found = await self._find(assistant_id, caller, "delete")
        if found is None:
            raise Missing(f"Assistant with ID {assistant_id} not found")
        if found.owner == SYSTEM:
            raise Conflict(
                f"Assistant {assistant_id} is graph '{found.graph_id}' itself and cannot be deleted. "
                "Take the graph out of langgraph.json instead."
            )
        return found

    async def threads(self, assistant: Assistant) -> list[str]:
        """The ids of the threads, anybody's, that the assistant ran on last."""
        ids: list[str] = []
        while True:
            ran_on = {"assistant_id": assistant.assistant_id}
            query = ThreadQuery(metadata=ran_on, sort_by="thread_id", limit=PAGE, offset=len(ids))
            found, total = await self._threads.search(query)
            ids += [thread.thread_id for thread in found]
            if len(ids) >= total or not found:
                return ids

    async def delete(self, assistant: Assistant) -> None:
        await self._assistants.delete(assistant.assistant_id)

    @property
    def graphs(self) -> list[str]:
        """The ids of the graphs that are served."""
        return self._graphs.ids

    async def _find(self, assistant_id: str, caller: Caller, action: Literal["read", "delete"]) -> Assistant | None:
        grant = await self._permission.ask(caller, "assistants", action, {"assistant_id": UUID(assistant_id)})
        return self._seen(await self._assistants.get(assistant_id), grant)

    def _seen(self, found: Assistant | None, grant: Grant) -> Assistant | None:
        if found is None:
            return None
        if found.owner == SYSTEM:
            return found if found.graph_id in self._graphs.ids and matches(grant.allowed, found.metadata) else None
        return found if grant.holds(found) else None

    async def _changeable(self, caller: Caller, value: dict[str, Any]) -> Assistant:
        """The assistant that is meant, if the caller may change it so. An auth handler may alter `value`."""
        assistant_id = str(value["assistant_id"])
        grant = await self._permission.ask(caller, "assistants", "update", value)
        found = self._seen(await self._assistants.get(assistant_id), grant)
        if found is None:
            raise _missing(assistant_id)
        if found.owner == SYSTEM and self._shared and not grant.decided:
            raise Conflict(
                f"Assistant {assistant_id} is graph '{found.graph_id}' itself, which all callers share. "
                "Create an assistant of your own."
            )
        return found

    def _id(self, assistant: str) -> str:
        """The canonical id of what is named by an id or a graph. Raises ValueError."""
        return system_assistant_id(assistant) if assistant in self._graphs.ids else str(UUID(assistant))

    def _uuid(self, assistant: str, *, names: bool = False) -> str:
        try:
            return self._id(assistant) if names else str(UUID(assistant))
        except ValueError:
            raise Invalid("Invalid assistant ID: must be a UUID") from None

    def _check_graph(self, graph_id: str) -> None:
        if graph_id not in self._graphs.ids:
            raise Missing(f"Graph '{graph_id}' not found. Expected one of: {sorted(self._graphs.ids)}")


def _missing(assistant_id: str) -> Missing:
    return Missing(f"Assistant {assistant_id} not found")


def _same(present: Assistant, wanted: Assistant) -> bool:
    return replace(present, created_at=wanted.created_at, updated_at=wanted.updated_at) == wanted


def _mirrored(config: dict[str, Any], context: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and context, each filled from the other: `configurable` is what the context was called before."""
    configurable = config.get("configurable")
    if configurable and context:
        raise Rejected(BOTH)
    return ({**config, "configurable": context}, context) if context else (config, configurable or {})


def _changed(present: Assistant, change: AssistantChange, *, version: int, now: datetime) -> Assistant:
    config, context = present.config, present.context
    if change.config and change.config.get("configurable") and change.context:
        raise Rejected(BOTH)
    if change.config:
        config = change.config
        context = config.get("configurable", context)
    if change.context is not None:
        context = change.context
        config = {name: value for name, value in config.items() if name != "configurable"}
        if context:
            config["configurable"] = context
    return replace(
        present,
        graph_id=present.graph_id if change.graph_id is None else change.graph_id,
        name=present.name if change.name is None else change.name,
        description=present.description if change.description is None else change.description,
        config=config,
        context=context,
        metadata={**present.metadata, **(change.metadata or {})},
        version=version,
        updated_at=now,
    )
