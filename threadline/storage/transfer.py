"""The `Exchange` port: threads that leave the two databases whole, and those that arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import structlog
from sqlalchemy import Connection, delete, insert, select

from threadline.domain.events import Event
from threadline.domain.records import Pin, Run, Thread, Turn
from threadline.domain.stored import Stored, StoredBranch, Taken
from threadline.storage.database import Database
from threadline.storage.records import pack, unpack
from threadline.storage.tables import branches, chat_history, imports, pins, run_logs, runs, threads

T = TypeVar("T")
log = structlog.get_logger(__name__)


class Checkpoints(Protocol):
    """What is asked of the saver."""

    def taken(self, thread_id: str) -> AbstractContextManager[Any]: ...

    async def keep_stored(self, thread_id: str, stored: Sequence[Stored]) -> None: ...

    async def adelete_thread(self, thread_id: str) -> None: ...


class SqlExchange:
    """A thread that arrives is named in `imports` until it is whole. Its row comes last, and nothing is read of a
    thread that has none."""

    def __init__(self, database: Database, checkpoints: Checkpoints) -> None:
        self._database = database
        self._checkpoints = checkpoints

    async def sweep(self) -> None:
        """Take away what an earlier process began and did not finish."""
        query = select(imports.c.thread_id)
        found = await self._database.read(lambda connection: connection.execute(query).scalars().all())
        for thread_id in found:
            log.warning("import_broken_off", thread_id=thread_id)
            await self.abandon(thread_id)

    async def take(self, thread_id: str, use: Callable[[Taken], T]) -> T | None:
        return await asyncio.to_thread(self._take, thread_id, use)

    def _take(self, thread_id: str, use: Callable[[Taken], T]) -> T | None:
        with self._database.apart.connect() as connection:
            connection.exec_driver_sql("BEGIN")  # a checkpoint is there before the row of its turn is: rows come first
            thread = connection.execute(select(threads).where(threads.c.thread_id == thread_id)).mappings().first()
            if thread is None:
                return None
            with self._checkpoints.taken(thread_id) as stored:
                return use(_taken(connection, Thread(**thread), lambda: stored))

    async def begin(self, thread_id: str) -> None:
        values = {"thread_id": thread_id, "began_at": datetime.now(UTC)}
        await self._database.write(lambda connection: connection.execute(insert(imports).values(**values)))

    async def keep_runs(self, kept: Sequence[tuple[Run, Sequence[Event]]]) -> None:
        rows = [asdict(run) for run, _ in kept]
        logs = [
            {"run_id": run.run_id, "thread_id": run.thread_id, "ended_at": run.ended_at, "events": pack(events)}
            for run, events in kept
            if events  # a log may have gone where the run comes from
        ]

        def keep(connection: Connection) -> None:
            connection.execute(insert(runs), rows)
            if logs:
                connection.execute(insert(run_logs), logs)

        if rows:
            await self._database.write(keep)

    async def keep_stored(self, thread_id: str, stored: Sequence[Stored]) -> None:
        await self._checkpoints.keep_stored(thread_id, stored)

    async def finish(
        self, thread: Thread, *, turns: Sequence[Turn], pins: Sequence[Pin], branches: Sequence[StoredBranch]
    ) -> None:
        await self._database.write(lambda connection: _finish(connection, thread, turns, pins, branches))

    async def abandon(self, thread_id: str) -> None:
        await self._checkpoints.adelete_thread(thread_id)

        def forget(connection: Connection) -> None:
            for each in (run_logs, runs, imports):
                connection.execute(delete(each).where(each.c.thread_id == thread_id))

        await self._database.write(forget)


def _taken(connection: Connection, thread: Thread, stored: Callable[[], Any]) -> Taken:
    of_thread = {"thread_id": thread.thread_id}
    turns = select(chat_history).where(chat_history.c.session_id == thread.thread_id).order_by(chat_history.c.id)
    begun = select(runs).filter_by(**of_thread).order_by(runs.c.created_at, runs.c.run_id)
    pinned = select(pins).filter_by(**of_thread).order_by(pins.c.created_at, pins.c.checkpoint_id)

    def log_of(run_id: str) -> list[Event]:
        packed = connection.execute(select(run_logs.c.events).where(run_logs.c.run_id == run_id)).scalar()
        return unpack(packed) if packed is not None else []

    return Taken(
        thread,
        runs=[Run(**row) for row in connection.execute(begun).mappings()],
        turns=[Turn(**row) for row in connection.execute(turns).mappings()],
        pins=[Pin(**row) for row in connection.execute(pinned).mappings()],
        branches=_branches(connection, thread.thread_id),
        log=log_of,
        stored=stored,
    )


def _branches(connection: Connection, thread_id: str) -> list[StoredBranch]:
    query = select(*(each for each in branches.c if each is not branches.c.thread_id))
    query = query.where(branches.c.thread_id == thread_id).order_by(branches.c.created_at, branches.c.checkpoint_id)
    return [StoredBranch(**row) for row in connection.execute(query).mappings()]


def _finish(
    connection: Connection,
    thread: Thread,
    turns: Sequence[Turn],
    pinned: Sequence[Pin],
    named: Sequence[StoredBranch],
) -> None:
    connection.execute(insert(threads).values(**asdict(thread)))
    rows = [{name: value for name, value in asdict(turn).items() if name != "id"} for turn in turns]
    if rows:
        connection.execute(insert(chat_history), rows)
    if pinned:
        connection.execute(insert(pins), [asdict(pin) for pin in pinned])
    if named:
        connection.execute(insert(branches), [{"thread_id": thread.thread_id, **asdict(one)} for one in named])
    connection.execute(delete(imports).where(imports.c.thread_id == thread.thread_id))
