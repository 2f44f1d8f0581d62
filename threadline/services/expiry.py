"""Threads whose time is up: deleted, or cut down to their newest state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog

from threadline.domain import ports
from threadline.domain.errors import Conflict, Missing, ThreadlineError
from threadline.domain.records import Thread, ThreadQuery
from threadline.services.states import States

log = structlog.get_logger(__name__)

PAGE = 100
RETRY_SECONDS = 60.0
"""How long a thread waits that is busy, or cannot go because something is away; and how late a clock that was set back
can make a sweep."""

PAUSE_SECONDS = 0.5
"""Between two sweeps, however short the lives of threads are."""


class Deletes(Protocol):
    """What can delete a thread whole."""

    async def remove(self, thread: Thread) -> None: ...


class Expiry:
    """Sleeps until the next thread is due. `expiring` wakes it when a thread is given a time to live."""

    def __init__(self, *, threads: ports.Threads, runs: Deletes, states: States, expiring: asyncio.Event) -> None:
        self._threads = threads
        self._runs = runs
        self._states = states
        self._expiring = expiring

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Sweep until left."""
        task = asyncio.create_task(self._work())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def sweep(self, now: datetime) -> datetime | None:
        """Deal with what is due at `now`; when the next thread is due, or None if no other will be."""
        offset = 0
        while True:
            query = ThreadQuery(expiring=True, sort_by="expires_at", descending=False, limit=PAGE, offset=offset)
            page, _ = await self._threads.search(query)
            for thread in page:
                if thread.expires_at is None or thread.expires_at > now:
                    return thread.expires_at
                if not await self._end(thread, now):
                    offset += 1
            if not page:
                return None

    async def _end(self, thread: Thread, now: datetime) -> bool:
        """Whether the thread is dealt with; one that is busy has to wait."""
        if thread.status == "busy":
            return False
        ttl = thread.ttl or {}
        try:
            if ttl.get("strategy") == "keep_latest":
                await self._states.prune(thread)
                again = now + timedelta(minutes=ttl["ttl"])
                await self._threads.change(thread.thread_id, {"expires_at": again})
            else:
                await self._runs.remove(thread)
        except Missing:
            pass
        except Conflict:
            return False
        except ThreadlineError as error:
            log.warning("thread_not_expired", thread_id=thread.thread_id, kind=error.kind)
            return False
        log.info("thread_expired", thread_id=thread.thread_id, strategy=ttl.get("strategy"))
        return True

    async def _work(self) -> None:
        while True:
            self._expiring.clear()
            wait = RETRY_SECONDS
            try:
                now = datetime.now(UTC)
                due = await self.sweep(now)
                if due is not None:
                    wait = min(wait, max((due - datetime.now(UTC)).total_seconds(), PAUSE_SECONDS))
            except Exception:
                log.exception("sweep_failed")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._expiring.wait(), wait)
