"""Whole threads as they are stored: read out of the file of checkpoints, and made into rows of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from threadline.domain.stored import Stored, StoredCheckpoint, StoredHead, StoredWrite
from threadline.storage.sqlite_file import open_for_reading, typed

KEYS = "SELECT checkpoint_ns, checkpoint_id, parent_checkpoint_id FROM checkpoints WHERE thread_id = ? ORDER BY 1, 2"
PLACE = "thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?"
CHECKPOINT = f"SELECT type, checkpoint, metadata FROM checkpoints WHERE {PLACE}"
WRITES = f"SELECT task_id, task_path, idx, channel, type, value FROM writes WHERE {PLACE} ORDER BY task_id, idx"

HEADS = "SELECT checkpoint_ns, checkpoint_id, since FROM heads WHERE thread_id = ? ORDER BY checkpoint_ns"
STAND = "INSERT OR REPLACE INTO heads (thread_id, checkpoint_ns, checkpoint_id, since) VALUES (?, ?, ?, ?)"

Key = tuple[str, str, str | None]
"""A namespace, a checkpoint in it, and that one's parent."""


@contextmanager
def taken(path: Path, thread_id: str) -> Iterator[Iterator[Stored]]:
    """All of a thread, as it is when the context begins. Raises Unavailable."""
    try:
        with closing(open_for_reading(path)) as connection:
            connection.execute("BEGIN")
            keys = connection.execute(KEYS, (thread_id,)).fetchall()  # from here on it sees this moment alone
            yield _stored(connection, thread_id, keys)
    except sqlite3.Error as error:
        raise typed(error) from error


def _stored(connection: sqlite3.Connection, thread_id: str, keys: Sequence[Key]) -> Iterator[Stored]:
    for checkpoint_ns, checkpoint_id, parent_id in _parents_first(keys):
        place = (thread_id, checkpoint_ns, checkpoint_id)
        type_, data, metadata = connection.execute(CHECKPOINT, place).fetchone()
        yield StoredCheckpoint(checkpoint_ns, checkpoint_id, parent_id, type_ or "", data or b"", _bytes(metadata))
        for task_id, task_path, idx, channel, kind, value in connection.execute(WRITES, place):
            yield StoredWrite(checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, kind or "", value or b"")
    ids = {(ns, id) for ns, id, _ in keys}
    for checkpoint_ns, checkpoint_id, since in connection.execute(HEADS, (thread_id,)):
        if (checkpoint_ns, since) in ids and (not checkpoint_id or (checkpoint_ns, checkpoint_id) in ids):
            yield StoredHead(checkpoint_ns, checkpoint_id, since)


def stand(connection: sqlite3.Connection, thread_id: str, heads: Sequence[StoredHead]) -> None:
    """Write where namespaces stand."""
    rows = [(thread_id, head.checkpoint_ns, head.checkpoint_id, head.since) for head in heads]
    connection.executemany(STAND, rows)


def rows(
    thread_id: str, stored: Iterable[StoredCheckpoint | StoredWrite]
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """The rows of both tables."""
    checkpoints, writes = list[tuple[Any, ...]](), list[tuple[Any, ...]]()
    for each in stored:
        place = (thread_id, each.checkpoint_ns, each.checkpoint_id)
        if isinstance(each, StoredCheckpoint):
            checkpoints.append((*place, each.parent_id, each.type, each.data, each.metadata))
        else:
            of_task = (each.task_id, each.task_path, each.idx)
            writes.append((*place, *of_task, each.channel, each.type, each.data))
    return checkpoints, writes


def _parents_first(keys: Sequence[Key]) -> Iterator[Key]:
    """The keys, none before its parent. Ids tell of no order that every process keeps, so parents are followed.

    A parent that is gone is none, and so is one that a checkpoint is itself an ancestor of.
    """
    parents = {(ns, id): parent for ns, id, parent in keys}
    done = set[tuple[str, str]]()
    for ns, id, _ in keys:
        line = list[str]()
        walked = set[str]()
        at: str | None = id
        while at is not None and (ns, at) in parents and (ns, at) not in done and at not in walked:
            line.append(at)
            walked.add(at)
            at = parents[ns, at]
        for each in reversed(line):
            parent = parents[ns, each]
            done.add((ns, each))
            yield ns, each, parent if parent is not None and parent != each and (ns, parent) in done else None


def _bytes(stored: bytes | str | None) -> bytes:
    return stored.encode() if isinstance(stored, str) else stored or b"{}"
