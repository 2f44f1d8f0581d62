"""Retention: now and then takes of all checkpoints and of the logs of runs what the limits do not leave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from threadline.domain import ports
from threadline.domain.errors import ThreadlineError
from threadline.domain.records import Limits, Pruned
from threadline.services.graphs import OpenGraph
from threadline.services.metrics import Metrics

log = structlog.get_logger(__name__)

PAGE = 100
"""Threads that are asked for at once."""
FAULTS = 3
"""After so many in a row a sweep gives up until the next one."""
AGAIN = timedelta(hours=1)
"""A thread that nothing could be taken of is looked at again once it grew, or after this time: a pin may have gone."""
SHARE = 24
"""Or after this part of the age allowed, where that is sooner."""


def rebuilder(graphs: Mapping[str, OpenGraph], default: str) -> Callable[[str, str, str | None], Any]:
    """What gives the values at a checkpoint, asked by thread id, checkpoint id and graph id; none if its graph has
    gone."""

    async def values(thread_id: str, checkpoint_id: str, graph_id: str | None) -> Mapping[str, Any]:
        open_graph = graphs.get(graph_id or default)
        if open_graph is None:
            return {}
        place = {"thread_id": thread_id, "checkpoint_ns": "", "checkpoint_id": checkpoint_id}
        async with open_graph({}) as graph:
            found = (await graph.aget_state({"configurable": place})).values
        return found if isinstance(found, dict) else {}

    return values


class Retention:
    """Sweeps at the start and then every `every` seconds. `clock` gives the time of day."""

    def __init__(
        self,
        pruner: ports.Pruner,
        limits: Limits,
        *,
        metrics: Metrics,
        every: float,
        logs: ports.OldLogs | None = None,
        max_log_age: timedelta | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._pruner = pruner
        self._limits = limits
        self._metrics = metrics
        self._every = every
        self._logs = logs
        self._max_log_age = max_log_age
        self._clock = clock
        self._settled: dict[str, tuple[int, datetime]] = {}
        self._stopping = asyncio.Event()

    @asynccontextmanager
    async def sweeping(self) -> AsyncIterator[None]:
        """Sweep until left; without a limit there is nothing to do."""
        if not self._limits and self._max_log_age is None:
            yield
            return
        sweeper = asyncio.create_task(self._sweep_on())
        try:
            yield
        finally:
            self._stopping.set()
            await sweeper

    async def sweep_logs(self) -> int:
        """Take the logs of runs that ended long ago. How many went."""
        if self._logs is None or self._max_log_age is None:
            return 0
        started = time.perf_counter()
        gone = await self._logs.prune(self._clock() - self._max_log_age)
        if gone.runs:
            self._metrics.logs_pruned(gone.runs, size=gone.size)
            ms = round((time.perf_counter() - started) * 1000)
            log.info("logs_pruned", runs=gone.runs, bytes=gone.size, ms=ms)
        return gone.runs

    async def sweep(self) -> int:
        """Look at every thread once. How many checkpoints went."""
        started, now = time.perf_counter(), self._clock()
        if not self._limits:
            return 0
        settled, pruned = dict[str, tuple[int, datetime]](), list[Pruned]()
        faults = 0
        async for thread_id, count in self._crowded(now):
            if self._is_settled(thread_id, count, now):
                settled[thread_id] = self._settled[thread_id]
                continue
            try:
                done = await self._pruner.prune(thread_id, self._limits, now=now)
            except Exception as error:  # of this thread alone, or so it seems until the next ones fail too
                self._tell(error, thread_id)
                faults += 1
                if faults == FAULTS:
                    break
                continue
            faults = 0
            if done is not None and done.checkpoints:
                pruned.append(done)
                self._metrics.pruned(done.checkpoints, size=done.size)
            elif done is not None:
                settled[thread_id] = (count, now)
        self._settled = settled
        checkpoints = sum(done.checkpoints for done in pruned)
        if checkpoints:
            await self._pruner.settle()
            size, ms = sum(done.size for done in pruned), round((time.perf_counter() - started) * 1000)
            log.info("checkpoints_pruned", threads=len(pruned), checkpoints=checkpoints, bytes=size, ms=ms)
        return checkpoints

    async def _crowded(self, now: datetime) -> AsyncIterator[tuple[str, int]]:
        """Every thread of which something might go, until the service stops."""
        page, after = [("", 0)] * PAGE, ""
        while len(page) == PAGE:
            page = await self._pruner.crowded(self._limits, now=now, after=after, count=PAGE)
            for thread_id, count in page:
                if self._stopping.is_set():
                    return
                yield thread_id, count
                after = thread_id

    def _tell(self, error: Exception, thread_id: str | None = None) -> None:
        if isinstance(error, ThreadlineError):
            log.warning("retention_failed", thread_id=thread_id, reason=error.message)
        else:  # a graph that cannot read its own thread
            log.error("retention_failed", thread_id=thread_id, exc_info=error)

    async def _sweep_on(self) -> None:
        while not self._stopping.is_set():
            for sweep in (self.sweep, self.sweep_logs):
                try:
                    await sweep()
                except Exception as error:
                    self._tell(error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._every)

    def _is_settled(self, thread_id: str, count: int, now: datetime) -> bool:
        """Whether looking again would find what it found last time: nothing."""
        known, looked = self._settled.get(thread_id, (0, now))
        age = self._limits.max_age
        return known == count and now - looked < (AGAIN if age is None else min(AGAIN, age / SHARE))
