"""A SQLite file for the SQL tool: opened to read, each step of a statement allowed by name, and stopped in time."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import orjson

from tools.contract import ToolFailure

Answer = TypeVar("Answer")

LONGEST_VALUE = 1_000_000
"""Bytes of one value, also on the way to a result."""
STEPS = 2000
"""Of SQLite's machine between two looks at the clock."""
ALLOWED = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
REACHING_OUT = frozenset({"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "sqlite_log"})
BOUNDLESS = frozenset({"zeroblob", "randomblob", "printf", "format"})
"""One call of these can take longer than all limits, and nothing stops it."""
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: LONGEST_VALUE,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 20_000,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 200,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}


class SqliteDatabase:
    """The file at `path`. A statement may take `seconds`."""

    dialect = "sqlite"

    def __init__(self, path: Path, *, seconds: float) -> None:
        self._path = path
        self._seconds = seconds

    async def tables(self) -> Mapping[str, Mapping[str, str]]:
        return await self._work(self._tables)

    async def select(self, query: str, *, rows: int, size: int) -> tuple[Sequence[str], Sequence[Sequence[Any]], bool]:
        return await self._work(lambda connection: _select(connection, query, rows=rows, size=size))

    async def _work(self, work: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """Do it in a thread; whoever stops waiting stops the statement too."""
        stop = threading.Event()

        def done() -> Answer:
            try:
                with closing(self._open(stop)) as connection:
                    return work(connection)
            except sqlite3.Error as error:
                raise ToolFailure(_words(error, seconds=self._seconds)) from None

        try:
            return await asyncio.to_thread(done)
        except asyncio.CancelledError:
            stop.set()
            raise

    def _open(self, stop: threading.Event) -> sqlite3.Connection:
        """A connection that can read the file and do nothing else, for one statement."""
        connection = sqlite3.connect(f"file:{quote(str(self._path))}?mode=ro", uri=True, timeout=1)
        for limit, value in _LIMITS.items():
            connection.setlimit(limit, value)
        connection.execute("PRAGMA query_only=ON")
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.set_authorizer(_authorize)
        deadline = time.monotonic() + self._seconds
        connection.set_progress_handler(lambda: stop.is_set() or time.monotonic() > deadline, STEPS)
        return connection

    def _tables(self, connection: sqlite3.Connection) -> dict[str, dict[str, str]]:
        connection.set_authorizer(None)  # table_info is a pragma
        names = connection.execute(
            "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"
            " ORDER BY name LIMIT 500"
        ).fetchall()
        return {name: _columns(connection, name) for (name,) in names}


def _select(
    connection: sqlite3.Connection, query: str, *, rows: int, size: int
) -> tuple[Sequence[str], Sequence[Sequence[Any]], bool]:
    cursor = connection.execute(query)
    columns = [column[0] for column in cursor.description or ()]
    found: list[list[Any]] = []
    for row in cursor:
        plain = [_plain(value) for value in row]
        size -= len(orjson.dumps(plain))
        if size < 0 and not found:
            raise ToolFailure("the first row is too large; select fewer or shorter columns")
        if size < 0 or len(found) == rows:
            return columns, found, True
        found.append(plain)
    return columns, found, False


def _columns(connection: sqlite3.Connection, table: str) -> dict[str, str]:
    try:
        return dict(connection.execute("SELECT name, type FROM pragma_table_info(?)", (table,)))
    except sqlite3.Error:  # a view of what is not there, or not allowed
        return {}


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action in ALLOWED:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() not in REACHING_OUT | BOUNDLESS:
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    if isinstance(value, int) and not -(2**53) < value < 2**53:
        return str(value)
    if isinstance(value, float) and value - value != 0:  # endless, or no number
        return str(value)
    return value


def _words(error: sqlite3.Error, *, seconds: float) -> str:
    text = str(error)
    if "interrupted" in text:
        return f"the query took longer than {seconds:g} seconds and was stopped"
    if "not authorized" in text or "prohibited" in text:
        return "the database allows reading only"
    if "unable to open" in text:
        return "the database cannot be opened"
    if "malformed" in text or "not a database" in text:
        return "the database is damaged"
    return f"the database refused the query: {text[:300]}"
