"""Writes the value of a delta channel into a stored checkpoint, which then needs no ancestor for it.

Nothing else of the checkpoint is decoded: what only its graph may build stays the bytes it was.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ormsgpack
from langchain_core.messages import BaseMessage
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from threadline.domain.errors import Unavailable

_OPTION = ormsgpack.OPT_NON_STR_KEYS
_PLACE = "thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?"
_SAVE = f"UPDATE checkpoints SET checkpoint = ?, metadata = ? WHERE {_PLACE} AND checkpoint = ?"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A checkpoint as it is stored and as it is to be, the values of `channels` included."""

    checkpoint_ns: str
    checkpoint_id: str
    channels: frozenset[str]
    before: bytes
    checkpoint: bytes
    metadata: bytes


def take(
    connection: sqlite3.Connection,
    place: tuple[str, str, str],
    values: Mapping[str, Any],
    serde: SerializerProtocol,
) -> Snapshot | None:
    """A snapshot of those values that can be told for sure: lists of messages. None if there are none of them."""
    values = {name: value for name, value in values.items() if _of_messages(value)}
    row = connection.execute(f"SELECT type, checkpoint, metadata FROM checkpoints WHERE {_PLACE}", place).fetchone()
    if not values or row is None or row[0] != "msgpack":
        return None
    _, before, metadata = row
    try:
        checkpoint = _unpack(before)
    except ValueError as error:
        raise Unavailable("A checkpoint is damaged.") from error
    if ormsgpack.packb(checkpoint, option=_OPTION) != before:  # it was not packed as we would
        return None
    for name, value in values.items():
        _, packed = serde.dumps_typed(_DeltaSnapshot(value))
        checkpoint["channel_values"][name] = _unpack(packed)
    said = json.loads(metadata or "{}")
    counters = said.get("counters_since_delta_snapshot") or {}
    said["counters_since_delta_snapshot"] = {name: each for name, each in counters.items() if name not in values}
    if not said["counters_since_delta_snapshot"]:
        del said["counters_since_delta_snapshot"]
    return Snapshot(
        checkpoint_ns=place[1],
        checkpoint_id=place[2],
        channels=frozenset(values),
        before=before,
        checkpoint=ormsgpack.packb(checkpoint, option=_OPTION),
        metadata=json.dumps(said, ensure_ascii=False).encode("utf-8", "ignore"),
    )


def save(connection: sqlite3.Connection, thread_id: str, snapshot: Snapshot) -> bool:
    """Whether the checkpoint was still the same, and now has the values."""
    values = (snapshot.checkpoint, snapshot.metadata)
    place = (thread_id, snapshot.checkpoint_ns, snapshot.checkpoint_id)
    return connection.execute(_SAVE, (*values, *place, snapshot.before)).rowcount == 1


def channels_of(checkpoint: bytes) -> tuple[frozenset[str], frozenset[str]]:
    """Of a packed checkpoint: the channels whose values it stores, and those that have ever been written."""
    try:
        opened = ormsgpack.unpackb(checkpoint, ext_hook=lambda code, data: None, option=_OPTION)
    except ValueError as error:
        raise Unavailable("A checkpoint is damaged.") from error
    return frozenset(opened.get("channel_values") or ()), frozenset(opened.get("channel_versions") or ())


def _unpack(packed: bytes) -> Any:
    return ormsgpack.unpackb(packed, ext_hook=ormsgpack.Ext, option=_OPTION)


def _of_messages(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, BaseMessage) for item in value)
