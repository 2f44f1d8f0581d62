"""What delta channels are rebuilt from: a value stored at some ancestor, and the writes of the steps since.

A checkpoint says in its metadata which delta channels changed since their last snapshot. Those it does not hold
itself, so only the others' checkpoints need to be looked into.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langgraph.checkpoint.base import DeltaChannelHistory, PendingWrite

from threadline.storage.delta_cache import OBJECTS, DeltaCache, Known, extended, may_be_kept
from threadline.storage.rows import Row, metadata_of, pending_writes
from threadline.storage.serde import StrictSerializer

CHUNK = 500
"""Checkpoints whose writes are asked for at once."""

# Follows parents and not the order of ids, which only one process keeps. CROSS JOIN: one key lookup for each step.
ANCESTORS = """
    WITH RECURSIVE line(checkpoint_id, parent_checkpoint_id, metadata) AS (
        SELECT checkpoint_id, parent_checkpoint_id, metadata FROM checkpoints
        WHERE thread_id = ?1 AND checkpoint_ns = ?2 AND checkpoint_id = ?3
        UNION ALL
        SELECT c.checkpoint_id, c.parent_checkpoint_id, c.metadata
        FROM line CROSS JOIN checkpoints c ON c.checkpoint_id = line.parent_checkpoint_id
        WHERE c.thread_id = ?1 AND c.checkpoint_ns = ?2
    )
    SELECT checkpoint_id, metadata FROM line
"""
STORED = "SELECT type, checkpoint FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?"


def unsaved(metadata: bytes | str | None) -> Mapping[str, Any]:
    """The delta channels of which a checkpoint with this metadata holds no value."""
    return counters(metadata_of(metadata))


def counters(metadata: Any) -> Mapping[str, Any]:
    """The same from metadata already read: for each channel its `[updates, supersteps]` since a snapshot."""
    found = metadata.get("counters_since_delta_snapshot") if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def unbuilt(metadata: bytes | str | None, type_: str, stored: bytes, serde: StrictSerializer) -> set[str]:
    """The delta channels that a checkpoint needs its ancestors for: of the unsaved ones, those ever written to."""
    names = unsaved(metadata)
    return set(serde.loads_typed((type_, stored))["channel_versions"]).intersection(names) if names else set()


def read(
    connection: sqlite3.Connection, row: Row, channels: Sequence[str], serde: StrictSerializer, cache: DeltaCache
) -> dict[str, DeltaChannelHistory]:
    """Each channel's history at a checkpoint, as `BaseCheckpointSaver.get_delta_channel_history` defines it."""
    place = (row.thread_id, row.checkpoint_ns)
    since, known = cache.begin(place)
    if known is not None and (known.allowed != serde.allowed or not set(channels) <= set(known.channels)):
        known = None
    seeds: dict[str, Any] = {}
    own = set(channels).difference(unsaved(row.metadata))
    if own:  # pruning may have stored the values here after the caller had read the checkpoint
        stored_here = serde.loads_typed((row.type, row.checkpoint)).get("channel_values") or {}
        seeds = {channel: stored_here[channel] for channel in own if channel in stored_here}
        channels = [channel for channel in channels if channel not in seeds]
    here: dict[str, DeltaChannelHistory] = {channel: {"writes": [], "seed": seed} for channel, seed in seeds.items()}
    if not channels:
        return here
    lines: dict[str, list[str]] = {channel: [] for channel in channels}
    size, reached = 0, known is not None and known.checkpoint_id == row.checkpoint_id
    if not reached:
        wanted = set(channels)
        for checkpoint_id, values, stored in _ancestors(connection, (*place, row.checkpoint_id), wanted, serde):
            for channel in wanted:
                lines[channel].append(checkpoint_id)
            if values:
                seeds.update(values)
                size += stored
                wanted -= set(values)
            if not wanted:
                break
            if known is not None and checkpoint_id == known.checkpoint_id:
                reached = True
                break
    new: dict[str, DeltaChannelHistory] = {}
    for channel, line in lines.items():
        writes, stored = _writes(connection, place, channel, line[::-1], serde)
        size += stored
        new[channel] = {"writes": writes, "seed": seeds[channel]} if channel in seeds else {"writes": writes}
    before = known.channels if known is not None and reached else {}
    result = {
        channel: extended(before[channel], history["writes"])
        if channel in before and "seed" not in history
        else history
        for channel, history in new.items()
    }
    if not here and all(map(may_be_kept, new.values())):
        kept = {channel: extended(history, []) for channel, history in result.items()}
        size = size * OBJECTS + (known.size if known is not None and reached else 0)
        cache.keep(place, Known(row.checkpoint_id, kept, size, serde.allowed), since=since)
    return result | here


def _ancestors(
    connection: sqlite3.Connection, place: tuple[str, str, str], wanted: set[str], serde: StrictSerializer
) -> Iterator[tuple[str, Mapping[str, Any], int]]:
    """A checkpoint's ancestors, nearest first: id, what is stored there of the wanted channels, its size in bytes.

    Who iterates takes out of `wanted` what it has found.
    """
    walked = {place[2]}
    line = connection.execute(ANCESTORS, place)
    try:
        next(line, None)  # the checkpoint itself
        for checkpoint_id, metadata in line:
            if checkpoint_id in walked:  # put again under a descendant, it would be its own ancestor
                return
            walked.add(checkpoint_id)
            here = wanted.difference(unsaved(metadata))
            if not here:
                yield checkpoint_id, {}, 0
                continue
            type_, stored = connection.execute(STORED, (*place[:2], checkpoint_id)).fetchone()
            values = serde.loads_typed((type_, stored)).get("channel_values") or {}
            yield checkpoint_id, {name: values[name] for name in here if name in values}, len(stored)
    finally:
        line.close()


def _writes(
    connection: sqlite3.Connection, place: tuple[str, str], channel: str, line: Sequence[str], serde: StrictSerializer
) -> tuple[list[PendingWrite], int]:
    """A channel's writes at these checkpoints, in their order, and how many bytes they are."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    size = 0
    for start in range(0, len(line), CHUNK):
        ids = line[start : start + CHUNK]
        query = f"""SELECT checkpoint_id, task_id, channel, type, value, task_path, idx FROM writes
                    WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id IN ({", ".join("?" * len(ids))})
                    AND channel = ?"""
        for checkpoint_id, *write in connection.execute(query, (*place, *ids, channel)):
            found.setdefault(checkpoint_id, []).append(tuple(write))
            size += len(write[3])
    return [write for one in line for write in pending_writes(found.get(one, ()), serde)], size
