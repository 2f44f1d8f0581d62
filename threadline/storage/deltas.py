"""What delta channels are rebuilt from: a value stored at some ancestor, and the writes of the steps since.

A checkpoint says in its metadata which delta channels changed since their last snapshot. Those it does not hold
itself, so only the others' checkpoints need to be looked into.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langgraph.checkpoint.base import DeltaChannelHistory, PendingWrite
from langgraph.checkpoint.serde.base import SerializerProtocol

from threadline.storage.rows import Row, pending_writes

CHUNK = 500
"""Checkpoints whose writes are asked for at once."""

# Follows parents and not the order of ids, which only one process keeps. CROSS JOIN: one key lookup for each step.
ANCESTORS = """
    WITH RECURSIVE line(checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata) AS (
        SELECT checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata FROM checkpoints
        WHERE thread_id = ?1 AND checkpoint_ns = ?2 AND checkpoint_id = ?3
        UNION ALL
        SELECT c.checkpoint_id, c.parent_checkpoint_id, c.type, c.checkpoint, c.metadata
        FROM line CROSS JOIN checkpoints c ON c.checkpoint_id = line.parent_checkpoint_id
        WHERE c.thread_id = ?1 AND c.checkpoint_ns = ?2
    )
    SELECT checkpoint_id, type, checkpoint, metadata FROM line
"""


def unsaved(metadata: bytes | str | None) -> Mapping[str, Any]:
    """The delta channels that a checkpoint with this metadata needs its ancestors for."""
    counters = json.loads(metadata or "{}").get("counters_since_delta_snapshot")
    return counters if isinstance(counters, dict) else {}


def read(
    connection: sqlite3.Connection, row: Row, channels: Sequence[str], serde: SerializerProtocol
) -> dict[str, DeltaChannelHistory]:
    """Each channel's history at a checkpoint, as `BaseCheckpointSaver.get_delta_channel_history` defines it."""
    seeds: dict[str, Any] = {}
    lines: dict[str, list[str]] = {channel: [] for channel in channels}
    place = (row.thread_id, row.checkpoint_ns, row.checkpoint_id)
    for checkpoint_id, values in _ancestors(connection, place, serde):
        wanted = [channel for channel in lines if channel not in seeds]
        if not wanted:
            break
        for channel in wanted:
            lines[channel].append(checkpoint_id)
            if channel in values:
                seeds[channel] = values[channel]
    result: dict[str, DeltaChannelHistory] = {}
    for channel, line in lines.items():
        writes = _writes(connection, place[:2], channel, line[::-1], serde)
        result[channel] = {"writes": writes, "seed": seeds[channel]} if channel in seeds else {"writes": writes}
    return result


def needed(
    connection: sqlite3.Connection, thread_id: str, checkpoint_ns: str, checkpoint_id: str, serde: SerializerProtocol
) -> Iterator[str]:
    """The ancestors that a checkpoint's delta channels are rebuilt from, nearest first."""
    place = (thread_id, checkpoint_ns, checkpoint_id)
    (metadata,) = connection.execute(
        "SELECT metadata FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?", place
    ).fetchone()
    wanted = set(unsaved(metadata))
    for ancestor, values in _ancestors(connection, place, serde):
        if not wanted:
            return
        yield ancestor
        wanted -= set(values)


def _ancestors(
    connection: sqlite3.Connection, place: tuple[str, str, str], serde: SerializerProtocol
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The ids of a checkpoint's ancestors, nearest first, with the values stored there that may be a channel's."""
    walked = {place[2]}
    line = connection.execute(ANCESTORS, place)
    try:
        next(line, None)  # the checkpoint itself
        for checkpoint_id, type_, checkpoint, metadata in line:
            if checkpoint_id in walked:  # put again under a descendant, it would be its own ancestor
                return
            walked.add(checkpoint_id)
            waiting = unsaved(metadata)
            values = serde.loads_typed((type_, checkpoint)).get("channel_values") or {}
            yield checkpoint_id, {name: value for name, value in values.items() if name not in waiting}
    finally:
        line.close()


def _writes(
    connection: sqlite3.Connection, place: tuple[str, str], channel: str, line: Sequence[str], serde: SerializerProtocol
) -> list[PendingWrite]:
    """A channel's writes at these checkpoints, in their order."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for start in range(0, len(line), CHUNK):
        ids = line[start : start + CHUNK]
        query = f"""SELECT checkpoint_id, task_id, channel, type, value, task_path, idx FROM writes
                    WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id IN ({", ".join("?" * len(ids))})
                    AND channel = ?"""
        for checkpoint_id, *write in connection.execute(query, (*place, *ids, channel)):
            found.setdefault(checkpoint_id, []).append(tuple(write))
    return [write for one in line for write in pending_writes(found.get(one, ()), serde)]
