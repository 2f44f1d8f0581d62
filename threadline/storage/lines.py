"""The `Lines` port on a history: how a thread's checkpoints hang together, and what changes that."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import ormsgpack
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.constants import START

from threadline.domain.errors import Unavailable
from threadline.domain.records import Place
from threadline.storage import heads, retention
from threadline.storage.pruner import HistoryPruner
from threadline.storage.pruning import made_at
from threadline.storage.readers import Readers
from threadline.storage.rows import metadata_of
from threadline.storage.writer import Writer

ATTEMPTS = 3
"""How often a cut is tried: somebody may hold the history database for longer than it waits."""
CHUNK = 500
"""Checkpoints looked into at once."""

_PLACES = """SELECT checkpoint_id, parent_checkpoint_id, metadata FROM checkpoints
             WHERE thread_id = ? AND checkpoint_ns = '' ORDER BY checkpoint_id"""
_SENT = "__pregel_tasks"

Forget = Callable[[Collection[tuple[str, str]]], Awaitable[None]]


class SavedLines:
    """`forget` drops what is live of a thread and namespace."""

    def __init__(
        self, readers: Readers, writer: Writer, pruner: HistoryPruner, serde: SerializerProtocol, *, forget: Forget
    ) -> None:
        self._readers = readers
        self._writer = writer
        self._pruner = pruner
        self._serde = serde
        self._forget = forget

    async def places(self, thread_id: str) -> list[Place]:
        def read(connection: sqlite3.Connection) -> list[Place]:
            return [_place(*row) for row in connection.execute(_PLACES, (thread_id,))]

        return await self._readers.ask(read, long=True)

    async def head(self, thread_id: str) -> str | None:
        return await self._readers.ask(lambda connection: heads.current(connection, thread_id, ""))

    async def switched(self, thread_id: str) -> str | None:
        return await self._readers.ask(lambda connection: heads.switched(connection, thread_id))

    async def ran(self, thread_id: str, checkpoint_ids: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for start in range(0, len(checkpoint_ids), CHUNK):
            ids = checkpoint_ids[start : start + CHUNK]
            found |= await self._readers.ask(partial(_ran, thread_id=thread_id, ids=ids, serde=self._serde), long=True)
        return found

    async def switch(self, thread_id: str, checkpoint_id: str) -> bool:
        return await self._writer.change(lambda connection: heads.switch(connection, thread_id, checkpoint_id))

    async def copy_line(self, source: str, target: str, checkpoint_ids: Collection[str]) -> None:
        ids = list(checkpoint_ids)
        await self._writer.change(lambda connection: retention.copy_line(connection, source, target, ids))

    async def cut(self, thread_id: str, checkpoint_ids: Collection[str]) -> bool:
        for _ in range(ATTEMPTS):
            namespaces = await self._pruner.cut(thread_id, checkpoint_ids)
            if namespaces is not None:
                await self._forget([(thread_id, checkpoint_ns) for checkpoint_ns in namespaces])
                return True
        return False


def _place(checkpoint_id: str, parent_id: str | None, metadata: bytes | str | None) -> Place:
    known = metadata_of(metadata)
    said: Mapping[str, Any] = known if isinstance(known, dict) else {}
    return Place(
        checkpoint_id, parent_id, said.get("run_id"), said.get("source"), said.get("step"), made_at(checkpoint_id)
    )


def _ran(
    connection: sqlite3.Connection, thread_id: str, ids: Sequence[str], serde: SerializerProtocol
) -> dict[str, tuple[str, ...]]:
    marks = ", ".join("?" * len(ids))
    query = f"""
        SELECT c.checkpoint_id, c.type, c.checkpoint, p.type, p.checkpoint FROM checkpoints c
        JOIN checkpoints p ON p.thread_id = c.thread_id AND p.checkpoint_ns = c.checkpoint_ns
                           AND p.checkpoint_id = c.parent_checkpoint_id
        WHERE c.thread_id = ? AND c.checkpoint_ns = '' AND c.checkpoint_id IN ({marks})
        AND json_extract(CAST(c.metadata AS TEXT), '$.source') = 'loop'
        AND json_extract(CAST(c.metadata AS TEXT), '$.step') = json_extract(CAST(p.metadata AS TEXT), '$.step') + 1
    """  # of a step whose parent retention has taken, nobody knows
    found = {}
    for checkpoint_id, type_, stored, parent_type, parent in connection.execute(query, (thread_id, *ids)):
        after, before = _opened(type_, stored, serde), _opened(parent_type, parent, serde)
        seen, known = after.get("versions_seen") or {}, before.get("versions_seen") or {}
        names = {name for name in seen if seen[name] != known.get(name, {}) and _is_node(name)}
        found[checkpoint_id] = tuple(sorted([*names, *_sent(before, (parent_type, parent), serde, known=names)]))
    return found


def _is_node(name: str) -> bool:
    """Whether it is no word of LangGraph's own, as for an interrupt; `__start__` takes in the input."""
    return name == START or not name.startswith("__")


def _sent(
    before: Mapping[str, Any], stored: tuple[str, bytes], serde: SerializerProtocol, *, known: Collection[str]
) -> list[str]:
    """The nodes that the step was sent to, one by one; `known` are those that ran for another reason."""
    if not (before.get("channel_values") or {}).get(_SENT):
        return []
    sends = serde.loads_typed(stored)["channel_values"][_SENT]
    return [send.node for send in sends if hasattr(send, "node") and send.node not in known]


def _opened(type_: str, stored: bytes, serde: SerializerProtocol) -> Mapping[str, Any]:
    """A stored checkpoint without the objects in it."""
    if type_ != "msgpack":
        opened: Mapping[str, Any] = serde.loads_typed((type_, stored))
        return opened
    try:
        found = ormsgpack.unpackb(stored, ext_hook=lambda code, data: None, option=ormsgpack.OPT_NON_STR_KEYS)
    except ValueError as error:
        raise Unavailable("A checkpoint is damaged.") from error
    return found if isinstance(found, dict) else {}
