"""How a thread's checkpoints hang together, asked of their rows. However long the thread, only its runs are held."""

from __future__ import annotations

import sqlite3

from threadline.domain.records import Course
from threadline.storage.heads import NEWEST

OF = "thread_id = ? AND checkpoint_ns = ?"
RUN_ID = "json_extract(CAST(metadata AS TEXT), '$.run_id')"
ALL = f"SELECT count(*) FROM checkpoints WHERE {OF}"
LINE = """
    WITH RECURSIVE line(checkpoint_id, parent_id, rest) AS (
        SELECT checkpoint_id, parent_checkpoint_id, ?4 FROM checkpoints
        WHERE thread_id = ?1 AND checkpoint_ns = ?2 AND checkpoint_id = ?3
        UNION ALL
        SELECT c.checkpoint_id, c.parent_checkpoint_id, rest - 1 FROM line JOIN checkpoints c
        ON c.thread_id = ?1 AND c.checkpoint_ns = ?2 AND c.checkpoint_id = line.parent_id WHERE rest > 1
    )
"""
"""From a head to the first checkpoint. `rest` ends a line that comes back to itself."""
ALONG = f"""{LINE}
    SELECT checkpoint_id, (SELECT {RUN_ID} FROM checkpoints c
                           WHERE c.thread_id = ?1 AND c.checkpoint_ns = ?2 AND c.checkpoint_id = line.checkpoint_id)
    FROM line"""
BESIDE = f"""{LINE}
    SELECT checkpoint_id, {RUN_ID} FROM checkpoints WHERE thread_id = ?1 AND checkpoint_ns = ?2
    AND checkpoint_id NOT IN (SELECT checkpoint_id FROM line)"""
HEADS = f"""
    SELECT checkpoint_id FROM checkpoints WHERE {OF} AND checkpoint_id NOT IN (
        SELECT parent_checkpoint_id FROM checkpoints WHERE {OF} AND parent_checkpoint_id IS NOT NULL
    ) ORDER BY checkpoint_id DESC"""


def course(connection: sqlite3.Connection, thread_id: str, through: str | None) -> Course | None:
    """The line to where the thread stands, or to the newest that descends from `through`; None without that."""
    of = (thread_id, "")
    (count,) = connection.execute(ALL, of).fetchone()
    ends = connection.execute(NEWEST, of) if through is None else connection.execute(HEADS, (*of, *of))
    for (head,) in ends.fetchall():
        found = _along(connection, (*of, head, count), through)
        if found is not None:
            return found
    return Course((), 0, {}) if through is None else None


def _along(connection: sqlite3.Connection, line: tuple[str, str, str, int], through: str | None) -> Course | None:
    runs: list[str] = []
    length, after = 0, None
    for checkpoint_id, run_id in connection.execute(ALONG, line):
        if run_id and (not runs or runs[-1] != run_id):
            runs.append(run_id)
        length += 1
        if checkpoint_id == through:
            after = len(runs)
    if through is not None and after is None:
        return None
    beside: dict[str, set[str]] = {}
    if length < line[-1]:
        for checkpoint_id, run_id in connection.execute(BESIDE, line):
            if run_id:
                beside.setdefault(run_id, set()).add(checkpoint_id)
    start = len(runs) - (len(runs) if after is None else after)
    return Course(tuple(runs[::-1]), start, {run_id: frozenset(ids) for run_id, ids in beside.items()})
