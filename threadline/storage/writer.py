"""Group commit: one thread writes for all sessions, as many of their jobs to a transaction as are waiting."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from threadline.domain.errors import Invalid, Unavailable
from threadline.storage.sqlite_file import BUSY_TIMEOUT, COLUMNS, concerns_all, open_for_writing, typed

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]

ROOM = 64 * 2**20
"""Bytes of rows that may wait to be written; whoever brings more waits until there is room."""
JOBS = 1024
"""Once a transaction has so many jobs it takes no more."""
HANDFUL = 16
"""Jobs that are handed over without waiting for the rest of the loop's round, so that loop and writer overlap."""
ROWS = (64, 16, 4, 1)
"""How many rows one statement inserts: a statement for many rows takes the interpreter's lock once for all of them."""
SCRUB_WAIT = 0.2
"""Seconds the emptying of the write-ahead log waits for readers, before it is put off."""
SCRUB_PAUSE = 1.0
"""Seconds until it is tried again."""

INSERTS = {
    "checkpoint": ("checkpoints", "INSERT OR REPLACE INTO", ""),
    "write": (
        "writes",
        "INSERT INTO",
        # The first value of a task counts, the last error, interrupt or answer does: these have an index below zero.
        """ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, task_id, idx) DO UPDATE
           SET task_path = excluded.task_path, channel = excluded.channel, type = excluded.type, value = excluded.value
           WHERE excluded.idx < 0""",
    ),
}
"""Each kind's table, and what stands before and after the rows."""


@dataclass(slots=True, eq=False)
class Job:
    """Rows to insert, or a change that has a transaction of its own, and who waits for it."""

    done: asyncio.Future[Any]
    kind: str = ""
    rows: Sequence[tuple[Any, ...]] = ()
    size: int = 0
    after: Callable[[], None] | None = None
    change: Work | None = None
    scrubs: bool = False
    result: Any = None
    error: BaseException | None = None


class Writer:
    """Owns the connection that writes. Every call returns when its transaction is on disk, or raises a typed error.

    A job that fails takes no other with it: the transaction is undone and its jobs are done again one by one.
    """

    def __init__(self, path: Path, *, room: int = ROOM, patience: float = BUSY_TIMEOUT) -> None:
        """`room` is in bytes; `patience` is how many seconds a transaction waits for another process's."""
        self._path = path
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._brought: list[Job] = []
        self._queue: SimpleQueue[list[Job] | None] = SimpleQueue()
        self._room = room
        self._held = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._thread = threading.Thread(target=self._run, name="history-writer", daemon=True)
        self._connection: sqlite3.Connection | None = None
        self._unscrubbed = False
        self._closed = False
        self.commits = 0

    async def open(self) -> None:
        """Open the file and begin to write. Raises what `open_for_writing` raises."""
        self._connection = await asyncio.to_thread(open_for_writing, self._path, patience=self._patience)
        self._thread.start()

    async def aclose(self) -> None:
        """Write what is waiting, then close the file."""
        if self._connection is None:
            return
        self._closed = True
        self._hand_over()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._connection.close()
        self._connection = None

    async def insert(
        self, kind: str, rows: Sequence[tuple[Any, ...]], *, after: Callable[[], None] | None = None
    ) -> None:
        """Insert rows of a kind in `INSERTS`. Waits for room if others have too much waiting.

        `after` is called once they are on disk or never will be, also if the caller was cancelled meanwhile.
        """
        while self._held >= self._room:
            turn = self._loop.create_future()
            self._waiting.append(turn)
            await turn
        size = sum(len(value) for row in rows for value in row if isinstance(value, bytes))
        await self._submit(Job(self._loop.create_future(), kind, rows, size, after))

    async def change(self, work: Callable[[sqlite3.Connection], T], *, scrubs: bool = False) -> T:
        """Do work in a transaction of its own. `scrubs`: nothing it deletes may stay in the write-ahead log."""
        result: T = await self._submit(Job(self._loop.create_future(), change=work, scrubs=scrubs))
        return result

    async def _submit(self, job: Job) -> Any:
        if self._closed or self._connection is None:
            raise Unavailable("The history is closed.")
        self._held += job.size
        self._brought.append(job)
        if len(self._brought) == 1:  # what this round of the loop brings is handed over together
            self._loop.call_soon(self._hand_over)
        elif len(self._brought) == HANDFUL:
            self._hand_over()
        return await job.done

    def _hand_over(self) -> None:
        jobs, self._brought = self._brought, []
        if jobs:
            self._queue.put(jobs)

    def _settle(self, jobs: Sequence[Job]) -> None:
        """Tell everybody who waits, in the loop."""
        for job in jobs:
            self._held -= job.size
            if job.after is not None:
                job.after()
            if job.done.done():
                continue  # cancelled; it is written nevertheless
            if job.error is None:
                job.done.set_result(job.result)
            else:
                job.done.set_exception(job.error)
        if self._held < self._room:
            waiting, self._waiting = self._waiting, []
            for turn in waiting:  # each looks again whether there is room
                if not turn.done():
                    turn.set_result(None)

    # From here on everything runs in the writer's thread.

    def _run(self) -> None:
        closing = False
        while not closing:
            jobs, closing = self._take()
            for part in _parts(jobs):
                self._write(part)
                with suppress(RuntimeError):  # the loop was closed, nobody waits any more
                    self._loop.call_soon_threadsafe(self._settle, part)
            if self._unscrubbed:
                self._scrub()

    def _take(self) -> tuple[list[Job], bool]:
        """Whatever is waiting, and whether that was all there will ever be."""
        jobs: list[Job] = []
        try:
            brought = self._queue.get(timeout=SCRUB_PAUSE if self._unscrubbed else None)
        except Empty:
            return jobs, False
        while brought is not None:
            jobs.extend(brought)
            if len(jobs) >= JOBS:
                return jobs, False
            try:
                brought = self._queue.get_nowait()
            except Empty:
                return jobs, False
        return jobs, True

    def _write(self, jobs: Sequence[Job]) -> None:
        error = self._attempt(jobs)
        if error is None:
            return
        if len(jobs) == 1 or concerns_all(error):
            for job in jobs:
                job.error = _typed(error)
            return
        for job in jobs:
            self._write([job])

    def _attempt(self, jobs: Sequence[Job]) -> BaseException | None:
        """One transaction; what went wrong, if it did not come about."""
        assert self._connection is not None
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            for sql, values in _statements(jobs):
                connection.execute(sql, values)
            for job in jobs:
                if job.change is not None:
                    job.result = job.change(connection)
            connection.execute("COMMIT")
        except Exception as error:  # any fault belongs to whoever waits for the job, not to this thread
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return error
        self.commits += 1
        if any(job.scrubs for job in jobs):
            self._scrub()
        return None

    def _scrub(self) -> None:
        """Empty the write-ahead log, which holds the pages as they were before a deletion; later, if one reads them."""
        assert self._connection is not None
        try:
            self._connection.execute(f"PRAGMA busy_timeout={int(SCRUB_WAIT * 1000)}")
            ((busy, _, _),) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._unscrubbed = bool(busy)
        except sqlite3.Error:
            self._unscrubbed = True
        finally:
            self._connection.execute(f"PRAGMA busy_timeout={int(self._patience * 1000)}")


def _typed(error: BaseException) -> BaseException:
    if isinstance(error, sqlite3.Error):
        told = typed(error)
    elif isinstance(error, UnicodeError | OverflowError):
        told = Invalid("A checkpoint holds a value that cannot be stored.")
    else:
        return error
    told.__cause__ = error
    return told


def _parts(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Jobs that share a transaction: inserts do, a change stands alone."""
    part: list[Job] = []
    for job in jobs:
        if job.change is not None:
            if part:
                yield part
            yield [job]
            part = []
        else:
            part.append(job)
    if part:
        yield part


def _statements(jobs: Sequence[Job]) -> Iterator[tuple[str, Sequence[Any]]]:
    """The fewest statements that leave what the jobs' own would leave, done one after the other.

    Checkpoints and writes lie in different tables, so only the order within each table matters.
    """
    for kind in INSERTS:
        yield from _inserts(kind, [row for job in jobs if job.kind == kind for row in job.rows])


def _inserts(kind: str, rows: Sequence[tuple[Any, ...]]) -> Iterator[tuple[str, Sequence[Any]]]:
    start = 0
    for size in ROWS:
        while len(rows) - start >= size:
            yield _sql(kind, size), [value for row in rows[start : start + size] for value in row]
            start += size


def _sql(kind: str, size: int) -> str:
    sql = _sqls.get((kind, size))
    if sql is None:
        table, verb, conflict = INSERTS[kind]
        rows = ", ".join([f"({', '.join('?' * len(COLUMNS[table]))})"] * size)
        sql = _sqls[kind, size] = f"{verb} {table} ({', '.join(COLUMNS[table])}) VALUES {rows} {conflict}"
    return sql


_sqls: dict[tuple[str, int], str] = {}
