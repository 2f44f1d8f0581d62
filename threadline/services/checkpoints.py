"""A thread's checkpoints: listed, looked into and pinned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.types import StateSnapshot

from threadline.domain import ports
from threadline.domain.errors import Missing
from threadline.domain.records import Caller, Pin, Thread
from threadline.services.gates import Gates
from threadline.services.graphs import Graph, Graphs
from threadline.services.payload import jsonable


class Checkpoints:
    """Reads checkpoints through the thread's graph, which alone knows what comes next, and the saver."""

    def __init__(self, *, graphs: Graphs, saver: BaseCheckpointSaver[Any], pins: ports.Pins, gates: Gates) -> None:
        self._graphs = graphs
        self._saver = saver
        self._pins = pins
        self._gates = gates

    async def history(self, thread: Thread, caller: Caller, *, limit: int, before: str | None) -> list[dict[str, Any]]:
        """Newest first: `{checkpoint_id, parent_id, step, source, nodes, next, created_at, run_id, pinned, name}`."""
        cursor = _config(thread, before) if before is not None else None
        async with self._graphs.of_thread(thread, caller) as graph:
            if before is not None:
                await _check(graph, thread, before)
            # One more than asked for: a checkpoint's nodes are what its parent had next.
            history = graph.aget_state_history(_config(thread), before=cursor, limit=limit + 1)
            snapshots = [snapshot async for snapshot in history]
            return await self._briefs(graph, thread, snapshots, limit=limit)

    async def along(
        self, thread: Thread, caller: Caller, line: Sequence[str], *, limit: int, before: str | None
    ) -> list[dict[str, Any]]:
        """The same of a line of checkpoints, oldest first. Raises Missing, also if they go while they are read."""
        if before is not None and before not in line:
            raise _missing(before)
        end = len(line) if before is None else line.index(before)
        ids = line[max(0, end - limit - 1) : end][::-1]
        async with self._graphs.of_thread(thread, caller) as graph:
            snapshots = [await graph.aget_state(_config(thread, checkpoint_id)) for checkpoint_id in ids]
            items = await self._briefs(graph, thread, snapshots, limit=limit)
            for checkpoint_id in ids[:1]:  # what ends a branch goes first
                await _check(graph, thread, checkpoint_id)
        return items

    async def _briefs(
        self, graph: Graph, thread: Thread, snapshots: Sequence[StateSnapshot], *, limit: int
    ) -> list[dict[str, Any]]:
        known = {_id(snapshot): snapshot for snapshot in snapshots}
        pins = await self._pinned(thread)
        items = []
        for snapshot in snapshots[:limit]:
            parent = _parent(snapshot)
            if parent is not None and parent not in known:
                known[parent] = await graph.aget_state(_config(thread, parent))
            items.append(_brief(snapshot, known.get(parent or ""), pins.get(_id(snapshot))))
        return items

    async def get(self, thread: Thread, caller: Caller, checkpoint_id: str) -> dict[str, Any]:
        """One checkpoint as in `history`, with its whole state as `values` and what it waits for as `interrupts`."""
        async with self._graphs.of_thread(thread, caller) as graph:
            snapshot = await self._snapshot(graph, thread, checkpoint_id)
            parent_id = _parent(snapshot)
            parent = await graph.aget_state(_config(thread, parent_id)) if parent_id else None
            await _check(graph, thread, checkpoint_id)  # else it went while it was read, and is not whole
        pins = await self._pinned(thread)
        return {
            **_brief(snapshot, parent, pins.get(checkpoint_id)),
            "values": jsonable(snapshot.values),
            "interrupts": [{"id": i.id, "value": jsonable(i.value)} for i in snapshot.interrupts],
        }

    async def latest(self, thread: Thread, caller: Caller) -> StateSnapshot:
        async with self._graphs.of_thread(thread, caller) as graph:
            return await graph.aget_state(_config(thread))

    async def pin(self, thread: Thread, caller: Caller, checkpoint_id: str, name: str | None) -> Pin:
        """Keep a checkpoint whatever retention says, under a name or none; again, to rename it. Raises Missing."""
        opening = self._graphs.of_thread(thread, caller, "threads.update")
        async with self._gates.of(thread.thread_id), opening as graph:
            await _check(graph, thread, checkpoint_id)
            pin = await self._pins.put(Pin(thread.thread_id, "", checkpoint_id, name, datetime.now(UTC)))
            try:
                await _check(graph, thread, checkpoint_id)  # retention looked for pins before this one was there
            except Missing:
                await self._pins.remove(thread.thread_id, "", checkpoint_id)
                raise
        return pin

    async def unpin(self, thread: Thread, caller: Caller, checkpoint_id: str) -> None:
        """Leave the checkpoint to retention again. Raises Missing."""
        async with self._graphs.of_thread(thread, caller, "threads.update") as graph:
            await _check(graph, thread, checkpoint_id)
        await self._pins.remove(thread.thread_id, "", checkpoint_id)

    def graph_id_of(self, thread: Thread) -> str:
        """The graph that runs on the thread: the one that ran on it, else the service's. Raises Missing."""
        return self._graphs.id_of(thread)

    async def delete(self, thread: Thread) -> None:
        await self._saver.adelete_thread(thread.thread_id)

    def open(self, thread: Thread, caller: Caller) -> AbstractAsyncContextManager[Graph]:
        """The thread's graph, to read many states with `values`."""
        return self._graphs.of_thread(thread, caller)

    async def values(self, graph: Graph, thread: Thread, checkpoint_id: str) -> Any:
        """The state at a checkpoint, through a graph that is open; None if the checkpoint is gone."""
        snapshot = await graph.aget_state(_config(thread, checkpoint_id))
        return snapshot.values if snapshot.created_at else None

    async def _pinned(self, thread: Thread) -> dict[str, Pin]:
        return {pin.checkpoint_id: pin for pin in await self._pins.list(thread.thread_id) if not pin.checkpoint_ns}

    async def _snapshot(self, graph: Graph, thread: Thread, checkpoint_id: str) -> StateSnapshot:
        await _check(graph, thread, checkpoint_id)
        snapshot: StateSnapshot = await graph.aget_state(_config(thread, checkpoint_id))
        return snapshot


async def _check(graph: Graph, thread: Thread, checkpoint_id: str) -> None:
    if await _saver(graph).aget_tuple(_config(thread, checkpoint_id)) is None:
        raise _missing(checkpoint_id)


def _saver(graph: Graph) -> BaseCheckpointSaver[Any]:
    """The saver as the graph sees it, which knows the types of its state."""
    assert isinstance(graph.checkpointer, BaseCheckpointSaver)
    return graph.checkpointer


def _config(thread: Thread, checkpoint_id: str | None = None) -> RunnableConfig:
    configurable = {"thread_id": thread.thread_id, "checkpoint_ns": ""}
    if checkpoint_id is not None:
        configurable["checkpoint_id"] = checkpoint_id
    return {"configurable": configurable}


def _missing(checkpoint_id: str) -> Missing:
    return Missing(f"This session has no checkpoint {checkpoint_id}.")


def _id(snapshot: StateSnapshot) -> str:
    checkpoint_id: str = snapshot.config["configurable"]["checkpoint_id"]
    return checkpoint_id


def _parent(snapshot: StateSnapshot) -> str | None:
    return snapshot.parent_config["configurable"]["checkpoint_id"] if snapshot.parent_config else None


def _brief(snapshot: StateSnapshot, parent: StateSnapshot | None, pin: Pin | None) -> dict[str, Any]:
    metadata: Mapping[str, Any] = snapshot.metadata or {}
    return {
        "checkpoint_id": _id(snapshot),
        "parent_id": _parent(snapshot),
        "step": metadata.get("step"),
        "source": metadata.get("source"),
        "nodes": [node for node in _ran(metadata, parent) if node != "__start__"],
        "next": list(snapshot.next),
        "created_at": snapshot.created_at,
        "run_id": metadata.get("run_id"),
        "pinned": pin is not None,
        "name": pin.name if pin else None,
    }


def _ran(metadata: Mapping[str, Any], parent: StateSnapshot | None) -> tuple[str, ...]:
    """The nodes that made a checkpoint: what was next after the step before, unless retention has taken that one."""
    # Only a step of the graph runs nodes; an input, a fork or an edited state does not.
    if parent is None or metadata.get("source") != "loop":
        return ()
    step = (parent.metadata or {}).get("step")
    return parent.next if step is not None and metadata.get("step") == step + 1 else ()
