"""A thread's checkpoints: listed, looked into, pinned, and followed along their branch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.types import StateSnapshot

from threadline.domain import ports
from threadline.domain.errors import Conflict, Missing
from threadline.domain.records import Pin, Thread
from threadline.services.gates import Gates
from threadline.services.graphs import Graph, OpenGraph, graph_of
from threadline.services.payload import jsonable, text_of


@dataclass(frozen=True, slots=True)
class Place:
    """Where a checkpoint stands in its thread."""

    checkpoint_id: str
    parent_id: str | None
    run_id: str | None


@dataclass(frozen=True, slots=True)
class Branch:
    """A line of checkpoints, oldest first, and the ids of those that the thread has beside it."""

    line: list[Place]
    beside: frozenset[str]


class Checkpoints:
    """Reads checkpoints through the thread's graph, which alone knows what comes next, and the saver."""

    def __init__(
        self,
        *,
        graphs: Mapping[str, OpenGraph],
        graph_id: str,
        saver: BaseCheckpointSaver[Any],
        pins: ports.Pins,
        gates: Gates,
    ) -> None:
        self._graphs = graphs
        self._graph_id = graph_id
        self._saver = saver
        self._pins = pins
        self._gates = gates

    async def history(self, thread: Thread, *, limit: int, before: str | None) -> list[dict[str, Any]]:
        """Newest first: `{checkpoint_id, parent_id, step, source, nodes, next, created_at, run_id, pinned, name}`."""
        cursor = _config(thread, before) if before is not None else None
        async with self._open(thread) as graph:
            if before is not None:
                await _check(graph, thread, before)
            # One more than asked for: a checkpoint's nodes are what its parent had next.
            history = graph.aget_state_history(_config(thread), before=cursor, limit=limit + 1)
            snapshots = [snapshot async for snapshot in history]
            known = {_id(snapshot): snapshot for snapshot in snapshots}
            pins = await self._pinned(thread)
            items = []
            for snapshot in snapshots[:limit]:
                parent = _parent(snapshot)
                if parent is not None and parent not in known:
                    known[parent] = await graph.aget_state(_config(thread, parent))
                items.append(_brief(snapshot, known.get(parent or ""), pins.get(_id(snapshot))))
        return items

    async def get(self, thread: Thread, checkpoint_id: str) -> dict[str, Any]:
        """One checkpoint as in `history`, with its whole state as `values` and what it waits for as `interrupts`."""
        async with self._open(thread) as graph:
            snapshot = await self._snapshot(graph, thread, checkpoint_id)
            parent_id = _parent(snapshot)
            parent = await graph.aget_state(_config(thread, parent_id)) if parent_id else None
        pins = await self._pinned(thread)
        return {
            **_brief(snapshot, parent, pins.get(checkpoint_id)),
            "values": jsonable(snapshot.values),
            "interrupts": [{"id": i.id, "value": jsonable(i.value)} for i in snapshot.interrupts],
        }

    async def latest(self, thread: Thread) -> StateSnapshot:
        async with self._open(thread) as graph:
            return await graph.aget_state(_config(thread))

    async def question(self, thread: Thread, checkpoint_id: str) -> str | None:
        """The user message a re-run from this checkpoint answers. Raises Missing, or Conflict if nothing is next."""
        async with self._open(thread) as graph:
            snapshot = await self._snapshot(graph, thread, checkpoint_id)
        if not snapshot.next:
            raise Conflict("Nothing is next after this checkpoint, so there is nothing to execute again.")
        messages = snapshot.values.get("messages") or [] if isinstance(snapshot.values, dict) else []
        human = [message for message in messages if getattr(message, "type", None) == "human"]
        return text_of(human[-1]) if human else None

    async def pin(self, thread: Thread, checkpoint_id: str, name: str | None) -> Pin:
        """Keep a checkpoint whatever retention says, under a name or none; again, to rename it. Raises Missing."""
        async with self._gates.of(thread.thread_id), self._open(thread) as graph:
            await _check(graph, thread, checkpoint_id)
            pin = await self._pins.put(Pin(thread.thread_id, "", checkpoint_id, name, datetime.now(UTC)))
            try:
                await _check(graph, thread, checkpoint_id)  # retention looked for pins before this one was there
            except Missing:
                await self._pins.remove(thread.thread_id, "", checkpoint_id)
                raise
        return pin

    async def unpin(self, thread: Thread, checkpoint_id: str) -> None:
        """Leave the checkpoint to retention again. Raises Missing."""
        async with self._open(thread) as graph:
            await _check(graph, thread, checkpoint_id)
        await self._pins.remove(thread.thread_id, "", checkpoint_id)

    async def branch(self, thread: Thread, checkpoint_id: str | None) -> Branch:
        """The line of checkpoints, oldest first, from the thread's first one through `checkpoint_id` to the newest
        that descends from it; through the newest of all where None. Raises Missing."""
        places: dict[str, Place] = {}
        async with self._open(thread) as graph:
            async for saved in _saver(graph).alist(_config(thread)):
                parent = saved.parent_config["configurable"]["checkpoint_id"] if saved.parent_config else None
                run_id = saved.metadata.get("run_id")
                place = Place(saved.config["configurable"]["checkpoint_id"], parent, run_id)
                places[place.checkpoint_id] = place
        if checkpoint_id is not None and checkpoint_id not in places:
            raise _missing(checkpoint_id)
        for head in places.values():  # newest first
            line = [head]
            while line[-1].parent_id in places:
                line.append(places[line[-1].parent_id])
            if checkpoint_id is None or any(place.checkpoint_id == checkpoint_id for place in line):
                return Branch(line[::-1], frozenset(places.keys() - {place.checkpoint_id for place in line}))
        return Branch([], frozenset())

    async def delete(self, thread: Thread) -> None:
        await self._saver.adelete_thread(thread.thread_id)

    def _open(self, thread: Thread) -> AbstractAsyncContextManager[Graph]:
        return graph_of(thread, self._graphs, default=self._graph_id)({})

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
