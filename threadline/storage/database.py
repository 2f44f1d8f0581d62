"""The history database: one SQLite file, one writing connection, several reading ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson
import structlog
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from threadline.domain.errors import Unavailable
from threadline.storage.commits import Commits
from threadline.storage.filtering import define

T = TypeVar("T")
log = structlog.get_logger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
READERS = 2
"""Threads that read for all runs."""

_JSON: dict[str, Any] = {
    "json_serializer": lambda value: orjson.dumps(value).decode(),
    "json_deserializer": orjson.loads,
}


@dataclass(frozen=True, slots=True)
class Database:
    """Two engines on one file. SQLite lets one connection write at a time, so `writer` has one and callers queue for
    it in process, where waiting is fair, and not in the file's lock, where it is not.

    What every run does goes through `write` and `read`: one way to a thread and back, where the engines take several
    for each statement. `apart` is for who reads long, in a thread of its own."""

    writer: AsyncEngine
    reader: AsyncEngine
    commits: Commits
    engine: Engine
    threads: Executor
    apart: Engine

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Do work in a transaction that it may share with others; see `Commits`."""
        return await self.commits.write(work)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` reads, in a thread."""

        def reading() -> T:
            with self.engine.connect() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self.threads, reading)

    async def ping(self) -> None:
        async with self.reader.connect() as connection:
            await connection.execute(text("SELECT 1"))


@asynccontextmanager
async def open_database(path: Path, *, migrate: bool = True) -> AsyncIterator[Database]:
    """Open the database at `path`, created and migrated where needed, unless `migrate` is off.

    Raises Unavailable where the file is no database, comes from another version or cannot be written.
    """
    await asyncio.to_thread(_migrate if migrate else _check, path)
    writer = _engine(path, connections=1)
    reader = _engine(path, connections=4)
    engine, apart = _sync_engine(path), _sync_engine(path)
    with (
        ThreadPoolExecutor(1, thread_name_prefix="history-commit") as thread,
        ThreadPoolExecutor(READERS, thread_name_prefix="history-read") as threads,
    ):
        commits = Commits(engine, writer=writer, thread=thread)
        try:
            yield Database(writer, reader, commits, engine, threads, apart)
        finally:
            await commits.aclose()
            await reader.dispose()
            await writer.dispose()
            engine.dispose()
            apart.dispose()


def _engine(path: Path, *, connections: int) -> AsyncEngine:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}", pool_size=connections, max_overflow=0, pool_timeout=60, **_JSON
    )
    event.listen(engine.sync_engine, "connect", _tune)
    return engine


def _sync_engine(path: Path) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}", pool_size=READERS + 1, max_overflow=0, connect_args={"check_same_thread": False}, **_JSON
    )
    event.listen(engine, "connect", _tune)
    return engine


def _tune(connection: Any, _: object) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")
    define(connection)


def _migrate(path: Path) -> None:
    """Bring the file to the newest revision. Alembic is loaded only when there is something to do."""
    engine = create_engine(f"sqlite:///{path}")
    event.listen(engine, "connect", _tune)
    try:
        with engine.begin() as connection:
            revision = _revision(connection)
            known = revisions()
            if revision == known[-1]:
                return
            if revision is not None and revision not in known:
                raise Unavailable(
                    f"The history file {path.name} was written by a newer version of Threadline. Start that version."
                )
            _upgrade(connection)
            log.info("history_migrated", before=revision, now=known[-1])
    except DatabaseError as error:
        raise Unavailable(f"The history file {path.name} cannot be opened: {error.orig}.") from error
    finally:
        engine.dispose()


def _check(path: Path) -> None:
    """Raises Unavailable unless the file is there in the newest revision."""
    engine = create_engine(f"sqlite:///{path}")
    try:
        with engine.connect() as connection:
            if not path.exists() or _revision(connection) != revisions()[-1]:
                raise Unavailable(f"The history file {path.name} is of another version. Start the service once.")
    except DatabaseError as error:
        raise Unavailable(f"The history file {path.name} cannot be opened: {error.orig}.") from error
    finally:
        engine.dispose()


def revisions() -> list[str]:
    """Every revision this version knows, oldest first."""
    return sorted(file.name.partition("_")[0] for file in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def _revision(connection: Connection) -> str | None:
    exists = connection.execute(text("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'")).first()
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() if exists else None


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
