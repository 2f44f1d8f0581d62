"""Where a thread goes on from: its newest checkpoint, or the one that somebody switched to since that was put.

LangGraph goes on from the newest id. A head says otherwise for as long as `since` is the newest there is: the next
checkpoint that is put is newer, and the head is of no more account. So nothing is copied and nothing ever moves: what
waits at the head still waits there, under the ids it had. A head of "" says that the namespace stands at nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from threadline.storage.rows import metadata_of

NEWEST = """
    SELECT coalesce(
        (SELECT h.checkpoint_id FROM heads h
         WHERE h.thread_id = ?1 AND h.checkpoint_ns = ?2 AND h.since >= last.checkpoint_id
         AND (h.checkpoint_id = '' OR EXISTS (
            SELECT 1 FROM checkpoints c
            WHERE c.thread_id = ?1 AND c.checkpoint_ns = ?2 AND c.checkpoint_id = h.checkpoint_id))),
        last.checkpoint_id)
    FROM (SELECT checkpoint_id FROM checkpoints WHERE thread_id = ?1 AND checkpoint_ns = ?2
          ORDER BY checkpoint_id DESC LIMIT 1) last
"""
"""The id of the checkpoint a namespace stands at; no row, or "", if it stands at none."""

_LAST = "SELECT max(checkpoint_id) FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = ?"
_LASTING = "SELECT DISTINCT checkpoint_ns FROM checkpoints WHERE thread_id = ? AND instr(checkpoint_ns, ':') = 0"
_PARENTS = """SELECT checkpoint_id, parent_checkpoint_id FROM checkpoints
              WHERE thread_id = ? AND checkpoint_ns = '' ORDER BY checkpoint_id"""
_UNDER = """SELECT checkpoint_id, metadata FROM checkpoints
            WHERE thread_id = ? AND checkpoint_ns = ? ORDER BY checkpoint_id DESC"""


def current(connection: sqlite3.Connection, thread_id: str, checkpoint_ns: str) -> str | None:
    """The id of the checkpoint a namespace stands at."""
    row = connection.execute(NEWEST, (thread_id, checkpoint_ns)).fetchone()
    return row[0] or None if row else None


def switched(connection: sqlite3.Connection, thread_id: str) -> str | None:
    """The checkpoint a thread stands at, if that is not its newest."""
    standing = current(connection, thread_id, "")
    return standing if connection.execute(_LAST, (thread_id, "")).fetchone() != (standing,) else None


def switch(connection: sqlite3.Connection, thread_id: str, checkpoint_id: str) -> bool:
    """Let a thread stand at the end of one of its branches; False if that is not there, or not an end.

    A subgraph that keeps its state from turn to turn stands where it stood on that branch.
    """
    parents = dict(connection.execute(_PARENTS, (thread_id,)).fetchall())
    if checkpoint_id not in parents or checkpoint_id in parents.values():
        return False
    connection.execute("DELETE FROM heads WHERE thread_id = ?", (thread_id,))
    ran = _ran_on(parents, checkpoint_id)
    for (checkpoint_ns,) in connection.execute(_LASTING, (thread_id,)).fetchall():
        head = checkpoint_id if not checkpoint_ns else _last_under(connection, (thread_id, checkpoint_ns), ran)
        (last,) = connection.execute(_LAST, (thread_id, checkpoint_ns)).fetchone()
        if head != last:
            connection.execute("INSERT INTO heads VALUES (?, ?, ?, ?)", (thread_id, checkpoint_ns, head or "", last))
    return True


def _ran_on(parents: Mapping[str, str | None], checkpoint_id: str) -> frozenset[str]:
    """The checkpoints whose own tasks ran on the line to this one. Of a fork they ran on the line it is a fork of."""
    first: dict[str, str] = {}
    for one, parent in parents.items():
        if parent is not None:
            first.setdefault(parent, one)
    ran, seen, here = {checkpoint_id}, set[str](), checkpoint_id
    while (parent := parents.get(here)) is not None and here not in seen:
        seen.add(here)
        if first[parent] == here:
            ran.add(parent)
        here = parent
    return frozenset(ran)


def _last_under(connection: sqlite3.Connection, place: Sequence[str], roots: frozenset[str]) -> str | None:
    for checkpoint_id, metadata in connection.execute(_UNDER, place):
        if (metadata_of(metadata).get("parents") or {}).get("") in roots:
            return str(checkpoint_id)
    return None
