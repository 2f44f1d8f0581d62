"""Group commit: one thread writes for all sessions, as many of their jobs to a transaction as are waiting."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
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
ENOUGH = 256
"""Jobs that are handed over without waiting for more."""
ROWS = 2048
"""Rows one statement inserts at most. SQLite takes 32766 values."""
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
KINDS = {kind: number for number, kind in enumerate(INSERTS)}
WIDTH = 1 + max(map(len, COLUMNS.values()))
"""Values of a row as it is brought: the number of its kind, its columns, and None for the columns it lacks."""
FILLED = {kind: (None,) * (WIDTH - 1 - len(COLUMNS[table])) for kind, (table, _, _) in INSERTS.items()}


@dataclass(slots=True, eq=False)
class Job:
    """Rows to insert, one after the other, or a change that has a transaction of its own, and who waits for it."""

    done: asyncio.Future[Any]
    values: Sequence[Any] = ()
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
        for statement in _bringing():
            self._connection.execute(statement)
        self._thread.start()

    async def aclose(self) -> None:
        """Write what is waiting, then close the file."""
        if self._connection is None:
            return
        self._closed = True
        self._hand_over(0)
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
        number, filled = KINDS[kind], FILLED[kind]
        values = [value for row in rows for value in (number, *row, *filled)]
        size = sum([len(value) for value in values if isinstance(value, bytes)])
        await self._submit(Job(self._loop.create_future(), values, size, after))

    async def change(self, work: Callable[[sqlite3.Connection], T], *, scrubs: bool = False) -> T:
        """Do work in a transaction of its own. `scrubs`: nothing it deletes may stay in the write-ahead log."""
        result: T = await self._submit(Job(self._loop.create_future(), change=work, scrubs=scrubs))
        return result

    async def _submit(self, job: Job) -> Any:
        if self._closed or self._connection is None:
            raise Unavailable("The history is closed.")
        self._held += job.size
        self._brought.append(job)
        if len(self._brought) == 1:
            self._loop.call_soon(self._hand_over, 0)
        return await job.done

    def _hand_over(self, seen: int) -> None:
        """Give the writer what was brought, as soon as a round of the loop has brought nothing more.

        The fewer times loop and writer wake each other the better: each time one of them waits for the interpreter's
        lock. What many sessions bring within a few rounds costs one wake-up, one statement and one answer.
        """
        if seen < len(self._brought) < ENOUGH and not self._closed:
            self._loop.call_soon(self._hand_over, len(self._brought))
            return
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
            if jobs[0].change is None:
                self._insert(connection, [value for job in jobs for value in job.values])
            else:
                connection.execute("BEGIN IMMEDIATE")
                jobs[0].result = jobs[0].change(connection)
                connection.execute("COMMIT")
        except Exception as error:  # any fault belongs to whoever waits for the job, not to this thread
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return error
        self.commits += 1
        if any(job.scrubs for job in jobs):
            self._scrub()
        return None

    def _insert(self, connection: sqlite3.Connection, values: list[Any]) -> None:
        """Insert rows in a transaction, which a single statement is by itself."""
        most = ROWS * WIDTH
        if len(values) <= most:
            connection.execute(*_statement(values))
            return
        connection.execute("BEGIN IMMEDIATE")
        for start in range(0, len(values), most):
            connection.execute(*_statement(values[start : start + most]))
        connection.execute("COMMIT")

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


def _bringing() -> Iterator[str]:
    """A view of this connection alone, into which rows of all kinds are inserted, and where each then goes.

    So one statement inserts a whole transaction. After each statement the writer's thread has to get the interpreter's
    lock back from a busy event loop; with a few statements in a row that took longer than all of SQLite's own work.
    """
    names = [f"value{number}" for number in range(1, WIDTH)]
    yield "PRAGMA temp_store=MEMORY"
    yield f"CREATE TEMP VIEW brought AS SELECT 0 AS kind, {', '.join(f'NULL AS {name}' for name in names)}"
    for kind, (table, verb, conflict) in INSERTS.items():
        columns = COLUMNS[table]
        values = ", ".join(f"NEW.{name}" for name in names[: len(columns)])
        yield f"""CREATE TEMP TRIGGER "bring {kind}" INSTEAD OF INSERT ON brought WHEN NEW.kind = {KINDS[kind]}
                  BEGIN {verb} {table} ({", ".join(columns)}) VALUES ({values}) {conflict}; END"""


def _statement(values: list[Any]) -> tuple[str, list[Any]]:
    """The statement that inserts these rows, and its values. There are so few statements that all stay prepared."""
    rows = len(values) // WIDTH
    size = 1 << max(rows - 1, 0).bit_length()
    return _sql(size), values + [None] * (WIDTH * (size - rows))


@cache
def _sql(size: int) -> str:
    row = f"({', '.join('?' * WIDTH)})"
    return f"INSERT INTO brought SELECT * FROM (VALUES {', '.join([row] * size)}) WHERE column1 IS NOT NULL"
