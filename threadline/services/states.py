"""What a thread's graph remembers: read at any checkpoint, edited, copied, pruned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import structlog
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import InvalidUpdateError
from langgraph.types import Command, StateSnapshot, StateUpdate

from threadline.domain import ports
from threadline.domain.errors import Conflict, Missing, Rejected, ThreadlineError
from threadline.domain.records import Caller, Thread, ThreadQuery
from threadline.services.documents import contains
from threadline.services.gates import Gates
from threadline.services.graphs import Graph, Graphs
from threadline.services.payload import jsonable
from threadline.services.permission import Permission, metadata_in
from threadline.services.threads import narrowed

log = structlog.get_logger(__name__)

AT_ONCE = 8
"""States read at the same time."""
PAGE = 100
"""Threads looked through at the same time."""
NO_GRAPH = (
    "Thread '{}' has no assigned graph ID. This usually occurs when no runs have been made on this particular thread. "
    "This operation requires a graph ID. Please ensure a run has been made for the thread or manually update the "
    "thread metadata (by setting the 'graph_id' field) before running this operation."
)

Checkpoint = Mapping[str, Any]
"""`{checkpoint_id, checkpoint_ns, checkpoint_map}`, none of which must be there; anything else in it is passed over."""


@dataclass(frozen=True, slots=True)
class Update:
    """One write to the state, as if `as_node` had made it."""

    values: Any
    as_node: str | None = None


class States:
    """Reads and writes the state of threads through the graph each one belongs to, which is opened for the caller."""

    def __init__(
        self,
        *,
        graphs: Graphs,
        saver: BaseCheckpointSaver[Any],
        lines: ports.Lines,
        threads: ports.Threads,
        runs: ports.Runs,
        turns: ports.Turns,
        permission: Permission,
        gates: Gates,
    ) -> None:
        self._graphs = graphs
        self._permission = permission
        self._saver = saver
        self._lines = lines
        self._threads = threads
        self._runs = runs
        self._turns = turns
        self._gates = gates

    async def get(
        self, thread: Thread, caller: Caller, checkpoint: Checkpoint | None = None, *, subgraphs: bool = False
    ) -> StateSnapshot | None:
        """The newest state, or the one at a checkpoint; None where nothing is saved. Raises Missing for its graph."""
        if not thread.metadata.get("graph_id") and not await self._begun(thread):
            return None
        async with self._graphs.of_thread(thread, caller) as graph:
            snapshot: StateSnapshot = await graph.aget_state(_config(thread, checkpoint), subgraphs=subgraphs)
        return snapshot if snapshot.created_at else None

    async def history(
        self,
        thread: Thread,
        caller: Caller,
        *,
        limit: int,
        before: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> list[StateSnapshot]:
        """Newest first: the states of the namespace of `checkpoint`, or that of `checkpoint` alone if it has an id.

        Where somebody switched to another branch, its end comes before all others: it is the thread's state now.
        """
        if not thread.metadata.get("graph_id") and not await self._begun(thread):
            return []
        named = bool(checkpoint and (checkpoint.get("checkpoint_id") or checkpoint.get("checkpoint_ns")))
        head = None if named else await self._lines.switched(thread.thread_id)
        cursor = _config(thread, {"checkpoint_id": before}) if before not in (None, head) else None
        wanted = dict(metadata or {})
        # What the saver can look for itself, safely. Everything is looked at once more below.
        filter = {
            key: value
            for key, value in wanted.items()
            if key.isascii() and key.isidentifier() and isinstance(value, str)
        }
        found: list[StateSnapshot] = []
        async with self._graphs.of_thread(thread, caller) as graph:
            config = _config(thread, checkpoint)
            if head is not None and before is None:
                snapshot = await graph.aget_state(config)
                found += [snapshot] if contains(jsonable(snapshot.metadata), wanted) else []
            snapshots = graph.aget_state_history(
                config, filter=filter or None, before=cursor, limit=limit + 1 if filter == wanted else None
            )
            async with aclosing(snapshots):  # type: ignore[type-var]
                async for snapshot in snapshots:
                    if len(found) >= limit:
                        break
                    if snapshot.config["configurable"]["checkpoint_id"] != head and contains(
                        jsonable(snapshot.metadata), wanted
                    ):
                        found.append(snapshot)
        return found

    async def values(self, threads: Sequence[Thread], caller: Caller) -> dict[str, Any]:
        """The newest values of each thread that has any, in JSON types. A graph that is gone or broken shows none."""
        found: dict[str, Any] = {}
        gate = asyncio.Semaphore(AT_ONCE)

        async def read(graph: Graph, thread: Thread) -> None:
            async with gate:
                snapshot = await graph.aget_state(_config(thread))
            if snapshot.created_at:
                found[thread.thread_id] = jsonable(snapshot.values)

        for opening, theirs in self._graphs.of_threads(threads, caller):
            async with AsyncExitStack() as stack:
                try:
                    graph = await stack.enter_async_context(opening)
                except Exception:  # anybody's code; the threads of other graphs are shown all the same
                    log.warning("graph_not_opened", threads=len(theirs), exc_info=True)
                    continue
                await asyncio.gather(*(read(graph, thread) for thread in theirs))
        return found

    async def search(
        self, caller: Caller, query: ThreadQuery, values: Mapping[str, Any]
    ) -> tuple[Sequence[Thread], int, ThreadQuery]:
        """One page of the caller's threads whose state contains `values`, how many there are in all, and the query as
        an auth handler left it. Where there are values, the state of all the others is read too."""
        query, values = await narrowed(self._permission, caller, query, values)
        if not values:
            return *await self._threads.search(query), query
        matching: list[Thread] = []
        offset = 0
        while True:
            page, total = await self._threads.search(replace(query, limit=PAGE, offset=offset))
            states = await self.values(page, caller)
            matching += [t for t in page if t.thread_id in states and contains(states[t.thread_id], dict(values))]
            offset += PAGE
            if offset >= total:
                return matching[query.offset : query.offset + query.limit], len(matching), query

    async def update(
        self, thread: Thread, caller: Caller, update: Update, checkpoint: Checkpoint | None = None
    ) -> RunnableConfig:
        """Write to the state at the newest or the given checkpoint. The config of the checkpoint that came of it.

        Raises Rejected, Missing (the thread, its graph or the checkpoint), or Conflict while something runs on it.
        """
        async with self._held(thread, idle=True) as thread:
            if not thread.metadata.get("graph_id") and not await self._begun(thread):
                raise Rejected(NO_GRAPH.format(thread.thread_id))
            config = _config(thread, checkpoint)
            checkpoint_id = config["configurable"].get("checkpoint_id")
            if checkpoint_id is not None and await self._saver.aget_tuple(config) is None:
                raise Missing(f"Checkpoint {checkpoint_id} not found")
            async with self._graphs.of_thread(thread, caller, "threads.update") as graph, _updating(thread):
                config["metadata"] = {"graph_id": self._graphs.id_of(thread)}
                made: RunnableConfig = await graph.aupdate_state(config, update.values, as_node=update.as_node)
            await self.refresh(thread, caller)
            return made

    async def apply(self, thread: Thread, caller: Caller, supersteps: Sequence[Sequence[Update]]) -> Thread:
        """Write many updates, step by step, as when a thread comes from elsewhere. Raises Rejected or Missing."""
        if not thread.metadata.get("graph_id"):
            raise Rejected(NO_GRAPH.format(thread.thread_id))
        steps = [[StateUpdate(update.values, update.as_node) for update in step] for step in supersteps]
        async with self._held(thread, idle=True) as thread:
            async with self._graphs.of_thread(thread, caller, "threads.update") as graph, _updating(thread):
                config = _config(thread)
                config["metadata"] = {"graph_id": self._graphs.id_of(thread)}
                await graph.abulk_update_state(config, steps)
            return await self.refresh(thread, caller)

    async def copy(self, thread: Thread, caller: Caller) -> Thread:
        """A new thread with the same state, past and conversation. Its runs are not copied."""

        async def fill(new: Thread) -> None:
            await self._saver.acopy_thread(thread.thread_id, new.thread_id)
            await self._turns.copy(thread.thread_id, new.thread_id)

        async with self._held(thread) as thread:
            return await self._copied(thread, caller, fill, error=thread.error)

    async def copy_line(
        self, thread: Thread, caller: Caller, checkpoint_ids: Sequence[str], *, without: Collection[str]
    ) -> Thread:
        """A new thread with these checkpoints alone, and the turns that did not end at one of those in `without`."""

        async def fill(new: Thread) -> None:
            await self._lines.copy_line(thread.thread_id, new.thread_id, checkpoint_ids)
            await self._turns.copy(thread.thread_id, new.thread_id, without=without)

        async with self._held(thread) as thread:
            return await self._copied(thread, caller, fill)

    async def _copied(
        self,
        thread: Thread,
        caller: Caller,
        fill: Callable[[Thread], Awaitable[None]],
        *,
        error: Mapping[str, Any] | None = None,
    ) -> Thread:
        now, thread_id = datetime.now(UTC), uuid4()
        value: dict[str, Any] = {"thread_id": thread_id, "metadata": dict(thread.metadata), "if_exists": "raise"}
        await self._permission.ask(caller, "threads", "create", value)
        new = Thread(
            str(thread_id),
            owner=caller.id,
            created_at=now,
            updated_at=now,
            title=thread.title,
            metadata=metadata_in(value),
            config=thread.config,
        )
        await self._threads.create(new)
        try:
            await fill(new)
            return await self.refresh(new, caller, error=error)
        except BaseException:
            await self._saver.adelete_thread(new.thread_id)
            await self._threads.delete(new.thread_id)
            raise

    async def prune(self, thread: Thread) -> None:
        """Keep the newest state and what is pinned. Raises Missing, or Conflict while something runs on the thread."""
        async with self._held(thread, idle=True) as thread:
            await self._saver.aprune([thread.thread_id], strategy="keep_latest")

    async def refresh(self, thread: Thread, caller: Caller, *, error: Mapping[str, Any] | None = None) -> Thread:
        """Keep in the thread's record how its newest state stands."""
        now = datetime.now(UTC)
        changes = {"updated_at": now, "state_updated_at": now, **standing(await self.get(thread, caller), error=error)}
        return await self._threads.change(thread.thread_id, changes) or thread

    async def _begun(self, thread: Thread) -> bool:
        return await self._saver.aget_tuple(_config(thread)) is not None

    @asynccontextmanager
    async def _held(self, thread: Thread, *, idle: bool = False) -> AsyncIterator[Thread]:
        """The thread as it is now; until this is left no run begins on it, and nobody edits or deletes it.

        Raises Missing, or Conflict if it shall be `idle` and is not.
        """
        async with self._gates.of(thread.thread_id):
            current = await self._threads.get(thread.thread_id)
            if current is None:
                raise Missing(f"Thread with ID {thread.thread_id} not found")
            if idle and await self._runs.list(thread_id=thread.thread_id, status=("pending", "running")):
                told = "has in-flight runs. Wait for them to finish, or cancel them."
                raise Conflict(f"Thread {thread.thread_id} {told}")
            yield current


def standing(snapshot: StateSnapshot | None, *, error: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`{status, error, interrupts}` of a thread whose newest state this is, and whose last run failed with `error`."""
    waiting = snapshot is not None and bool(snapshot.next)
    asked = {
        task.id: [{"id": interrupt.id, "value": jsonable(interrupt.value)} for interrupt in task.interrupts]
        for task in (snapshot.tasks if snapshot else ())
        if task.interrupts
    }
    status = "error" if error else "interrupted" if waiting else "idle"
    return {"status": status, "error": dict(error) if error else None, "interrupts": asked}


def command(given: Mapping[str, Any]) -> Command[Any]:
    """A command as it comes over the wire: `{update, goto, resume}`."""
    return Command(update=given.get("update"), goto=given.get("goto") or (), resume=given.get("resume"))


@asynccontextmanager
async def _updating(thread: Thread) -> AsyncIterator[None]:
    """Words for what the graph has against an update. Its reducers are anybody's code."""
    try:
        yield
    except ThreadlineError:
        raise
    except InvalidUpdateError as error:  # written for who calls, by LangGraph
        raise Rejected(str(error)) from error
    except Exception as error:
        log.info("update_refused", thread_id=thread.thread_id, error=type(error).__name__)
        raise Rejected(f"The graph could not take these values: {type(error).__name__}.") from error


def _config(thread: Thread, checkpoint: Checkpoint | None = None) -> RunnableConfig:
    """Where to look. The thread is the one that was asked for, whatever a checkpoint says."""
    place = {"thread_id": thread.thread_id, "checkpoint_ns": ""}
    for name in ("checkpoint_ns", "checkpoint_id", "checkpoint_map"):
        if checkpoint and checkpoint.get(name) is not None:
            place[name] = checkpoint[name]
    return {"configurable": place}
