"""What goes and what stays: deleting, copying and pruning threads, each within the writer's transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence

from threadline.domain.errors import Conflict
from threadline.storage import deltas, pruning
from threadline.storage.serde import StrictSerializer
from threadline.storage.sqlite_file import COLUMNS

TABLES = ("writes", "heads", "checkpoints")
OF_RUNS = """thread_id, checkpoint_ns, checkpoint_id FROM checkpoints
             WHERE json_extract(CAST(metadata AS TEXT), '$.run_id') IN (SELECT value FROM json_each(?))"""


def namespaces(connection: sqlite3.Connection, thread_id: str) -> list[str]:
    rows = connection.execute("SELECT DISTINCT checkpoint_ns FROM checkpoints WHERE thread_id = ?", (thread_id,))
    return [checkpoint_ns for (checkpoint_ns,) in rows]


def places_of_runs(connection: sqlite3.Connection, run_ids: Sequence[str]) -> list[tuple[str, str]]:
    rows = connection.execute(f"SELECT DISTINCT {OF_RUNS}", (json.dumps(list(run_ids)),))
    return list(dict.fromkeys((thread_id, checkpoint_ns) for thread_id, checkpoint_ns, _ in rows))


def delete(connection: sqlite3.Connection, thread_id: str) -> None:
    for table in TABLES:
        connection.execute(f"DELETE FROM {table} WHERE thread_id = ?", (thread_id,))


def delete_runs(connection: sqlite3.Connection, run_ids: Sequence[str], serde: StrictSerializer) -> None:
    """Conflict if a checkpoint that stays is rebuilt from one that would go."""
    places = connection.execute(f"SELECT {OF_RUNS}", (json.dumps(list(run_ids)),)).fetchall()
    gone = set(places)
    children = "SELECT checkpoint_id, metadata, type, checkpoint FROM checkpoints"
    for thread_id, checkpoint_ns, checkpoint_id in places:
        query = f"{children} WHERE thread_id = ? AND checkpoint_ns = ? AND parent_checkpoint_id = ?"
        for child, metadata, type_, stored in connection.execute(query, (thread_id, checkpoint_ns, checkpoint_id)):
            if (thread_id, checkpoint_ns, child) not in gone and deltas.unbuilt(metadata, type_, stored, serde):
                raise Conflict("A checkpoint that stays needs one of these runs'; they cannot be deleted.")
    _delete(connection, places)


def copy(connection: sqlite3.Connection, source: str, target: str) -> None:
    """Conflict if the target has a history already."""
    if namespaces(connection, target):
        raise Conflict("The thread to copy to has a history already.")
    for table in TABLES:
        columns = ", ".join(column for column in COLUMNS[table] if column != "thread_id")
        # Of a target that has no checkpoints, writes to some that are gone may be left.
        connection.execute(
            f"INSERT OR REPLACE INTO {table} (thread_id, {columns}) "
            f"SELECT ?, {columns} FROM {table} WHERE thread_id = ?",
            (target, source),
        )


LINE = """checkpoint_ns = '' AND checkpoint_id IN (SELECT value FROM json_each(:ids))"""
BELOW = """(checkpoint_ns, checkpoint_id) IN (
    SELECT checkpoint_ns, checkpoint_id FROM checkpoints WHERE thread_id = :source AND checkpoint_ns != ''
    AND json_extract(CAST(metadata AS TEXT), '$.parents.""') IN (SELECT value FROM json_each(:ids)))"""


def copy_line(connection: sqlite3.Connection, source: str, target: str, checkpoint_ids: Collection[str]) -> None:
    """Copy these checkpoints and those of subgraphs below them. Conflict if the target has a history already."""
    if namespaces(connection, target):
        raise Conflict("The thread to copy to has a history already.")
    given = {"source": source, "target": target, "ids": json.dumps(list(checkpoint_ids))}
    for table in ("writes", "checkpoints"):
        columns = ", ".join(column for column in COLUMNS[table] if column != "thread_id")
        connection.execute(
            f"INSERT OR REPLACE INTO {table} (thread_id, {columns}) "
            f"SELECT :target, {columns} FROM {table} WHERE thread_id = :source AND ({LINE} OR {BELOW})",
            given,
        )


def keep_newest(connection: sqlite3.Connection, thread_id: str, *, pins: Collection[pruning.Spot]) -> None:
    """Keep each namespace's newest checkpoint, what its delta channels are rebuilt from, and what is pinned."""
    pruning.remove(connection, thread_id, pruning.newest_only(connection, thread_id, pins=pins).victims)


def _delete(connection: sqlite3.Connection, places: Iterable[tuple[str, str, str]]) -> None:
    places = list(places)
    for table in TABLES:
        statement = f"DELETE FROM {table} WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?"
        connection.executemany(statement, places)
