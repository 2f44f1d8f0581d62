"""The file of the history: opened with the schema of LangGraph's own SQLite saver, and what its errors mean."""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path

from threadline.domain.errors import Conflict, Invalid, ThreadlineError, Unavailable

BUSY_TIMEOUT = 5.0
"""Seconds a transaction waits for another process's."""
SMALLEST = 512
"""Bytes of the smallest page. SQLite takes a smaller file for an empty one and writes over it."""
LOG_PAGES = 4096
"""Pages of 4 KB in the write-ahead log, after which a transaction moves them into the file, which takes longer than
the transaction. Four times SQLite's own, so that pages written again and again are moved less often."""

SCHEMA = (
    """CREATE TABLE IF NOT EXISTS checkpoints (
        thread_id TEXT NOT NULL,
        checkpoint_ns TEXT NOT NULL DEFAULT '',
        checkpoint_id TEXT NOT NULL,
        parent_checkpoint_id TEXT,
        type TEXT,
        checkpoint BLOB,
        metadata BLOB,
        PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id)
    )""",
    """CREATE TABLE IF NOT EXISTS writes (
        thread_id TEXT NOT NULL,
        checkpoint_ns TEXT NOT NULL DEFAULT '',
        checkpoint_id TEXT NOT NULL,
        task_id TEXT NOT NULL,
        task_path TEXT NOT NULL DEFAULT '',
        idx INTEGER NOT NULL,
        channel TEXT NOT NULL,
        type TEXT,
        value BLOB,
        PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
    )""",
    """CREATE TABLE IF NOT EXISTS heads (
        thread_id TEXT NOT NULL,
        checkpoint_ns TEXT NOT NULL,
        checkpoint_id TEXT NOT NULL,
        since TEXT NOT NULL,
        PRIMARY KEY (thread_id, checkpoint_ns)
    ) WITHOUT ROWID""",
)
"""The first two as langgraph-checkpoint-sqlite 3 creates them, so that each opens the other's files. It does not know
`heads`; see there."""
COLUMNS = {
    "checkpoints": (
        *("thread_id", "checkpoint_ns", "checkpoint_id", "parent_checkpoint_id"),
        *("type", "checkpoint", "metadata"),
    ),
    "writes": (
        *("thread_id", "checkpoint_ns", "checkpoint_id", "task_id", "task_path", "idx"),
        *("channel", "type", "value"),
    ),
    "heads": ("thread_id", "checkpoint_ns", "checkpoint_id", "since"),
}
"""In the order in which rows hold them."""
_NO_PATH = re.compile(r"^file:|\?\w+=|[\x00\ud800-\udfff]")
OF_VALUES = (sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError, sqlite3.IntegrityError)


def path_of(url: str) -> Path:
    """The path in `sqlite:///path`. Invalid for anything else: what SQLite takes for a name of its own, or a query."""
    path = url.removeprefix("sqlite:///") if isinstance(url, str) else url
    if path == url or _NO_PATH.search(path) or str(Path(path)) in (".", ":memory:"):
        raise Invalid("The history must be given as sqlite:///path.")
    return Path(path)


def open_for_writing(path: Path, *, patience: float = BUSY_TIMEOUT) -> sqlite3.Connection:
    """The connection of the writer; the file is created or brought up to date. Blocks.

    Raises Invalid if the file is no history, Conflict if a newer version wrote it, Unavailable if it cannot be
    opened or written; nothing is written then.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise Unavailable("The history file cannot be opened: it is no file.")
        # Not read here: closing a file takes away the locks that other connections of this process have on it.
        if path.exists() and 0 < path.stat().st_size < SMALLEST:
            raise Invalid("The history file is no SQLite file.")
        if path.exists() and not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise Unavailable("The history file may not be written.")
    except OSError as error:
        raise Unavailable("The history file cannot be opened.") from error
    try:
        connection = _connect(path, patience)
    except sqlite3.Error as error:
        raise typed(error) from error
    try:
        missing = check_schema(connection)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("PRAGMA journal_size_limit=67108864")
        connection.execute(f"PRAGMA wal_autocheckpoint={LOG_PAGES}")
        connection.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA:
            connection.execute(statement)
        if missing:
            connection.execute("ALTER TABLE writes ADD COLUMN task_path TEXT NOT NULL DEFAULT ''")
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        connection.close()
        raise typed(error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_reading(path: Path) -> sqlite3.Connection:
    connection = _connect(path)
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'heads'").fetchone():
        # A file that nobody has opened for writing since there are heads: it has none.
        connection.execute(SCHEMA[-1].replace("TABLE IF NOT EXISTS", "TEMP TABLE"))
    connection.execute("PRAGMA query_only=ON")
    return connection


def typed(error: sqlite3.Error) -> ThreadlineError:
    """What a fault of SQLite means to whoever asked."""
    if isinstance(error, OF_VALUES):
        return Invalid("A checkpoint holds a value that cannot be stored.")
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Unavailable("The history is locked by another process.")
        case sqlite3.SQLITE_FULL:
            return Unavailable("The disk of the history is full.")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return Unavailable("The history file may not be written.")
        case sqlite3.SQLITE_CANTOPEN:
            return Unavailable("The history file cannot be opened.")
        case sqlite3.SQLITE_IOERR:
            return Unavailable("The disk of the history cannot be read or written.")
        case sqlite3.SQLITE_NOTADB:
            return Invalid("The history file is no SQLite file.")
        case sqlite3.SQLITE_CORRUPT:
            return Unavailable("The history file is damaged.")
        case sqlite3.SQLITE_TOOBIG:
            return Invalid("A checkpoint is larger than the history can store.")
        case _:
            return Unavailable("The history cannot be used.")


def concerns_all(error: BaseException) -> bool:
    """Whether no other transaction would fare better at this moment."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CORRUPT,
    )


def _connect(path: Path, patience: float = BUSY_TIMEOUT) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)


def check_schema(connection: sqlite3.Connection) -> bool:
    """Whether the table of writes is from before `task_path`.

    Raises Conflict if there is a column nobody here knows, Invalid if one is missing.
    """
    missing = False
    if connection.execute("PRAGMA user_version").fetchone() != (0,):
        raise Conflict("The history file was written by a newer version.")
    for table, columns in COLUMNS.items():
        found = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        lacking = set(columns) - found if found else set()
        if lacking - {"task_path"}:
            raise Invalid("The history file is no history of checkpoints.")
        if found - set(columns):
            raise Conflict("The history file was written by a newer version.")
        missing = missing or bool(lacking)
    return missing
