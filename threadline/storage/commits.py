"""Group commit for the history database: what many runs write at one moment is one transaction.

A transaction is one wait for the disk, and one way to a thread and back, however many share it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Job:
    work: Callable[[Connection], Any]
    done: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


class Commits:
    """Work that fails takes no other with it: the transaction is undone and its work is done again piece by piece.

    `writer` is the engine whose one connection is the turn to write: nobody else writes while it is taken.
    """

    def __init__(self, engine: Engine, *, writer: AsyncEngine, thread: Executor) -> None:
        self._engine = engine
        self._writer = writer
        self._thread = thread
        self._brought: list[_Job] = []
        self._task: asyncio.Task[None] | None = None

    async def write(self, work: Callable[[Connection], T]) -> T:
        """What `work` gives, once it is on disk. `work` runs in a thread, and again if a neighbour of it fails."""
        job = _Job(work, asyncio.get_running_loop().create_future())
        self._brought.append(job)
        if self._task is None:  # it starts in the loop's next round, with all that this one brings
            self._task = asyncio.create_task(self._drain())
        result: T = await job.done
        return result

    async def aclose(self) -> None:
        """Write what is waiting."""
        if self._task is not None:
            await self._task

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._brought:
                async with self._writer.connect():
                    brought, self._brought = self._brought, []
                    jobs = [job for job in brought if not job.done.done()]  # who was cancelled wants nothing written
                    await loop.run_in_executor(self._thread, self._commit, jobs)
                for job in jobs:
                    if job.done.done():
                        continue
                    if job.error is not None:
                        job.done.set_exception(job.error)
                    else:
                        job.done.set_result(job.result)
        except Exception as error:  # the turn to write could not be had; nobody may wait for ever
            for job in self._brought:
                if not job.done.done():
                    job.done.set_exception(error)
            self._brought = []
        finally:
            self._task = None

    def _commit(self, jobs: Sequence[_Job]) -> None:
        try:
            with self._engine.begin() as connection:
                for job in jobs:
                    job.result = job.work(connection)
        except Exception as error:  # any fault belongs to whoever waits for the work, not to this thread
            if len(jobs) == 1:
                jobs[0].error = error
                return
            for job in jobs:
                self._commit([job])
