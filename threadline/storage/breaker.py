"""A circuit breaker for a store the service can do without, such as Redis.

Calls never raise what the store raised: they give None, and for a while after a failure they do not even try. So a
store that is away costs one timeout per pause and not one per call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog
from redis.exceptions import RedisError

T = TypeVar("T")
log = structlog.get_logger(__name__)


class Breaker:
    """`timeout` bounds one call and `pause` is the time between attempts on a failing store, both in seconds.

    At most `slots` calls run at once, so that a burst of sessions waits here and does not exhaust a connection pool.
    """

    def __init__(
        self,
        name: str,
        *,
        timeout: float = 0.5,
        pause: float = 3.0,
        slots: int = 32,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._timeout = timeout
        self._pause = pause
        self._slots = asyncio.Semaphore(slots)
        self._clock = clock
        self._retry_at: float | None = None

    @property
    def closed(self) -> bool:
        """Whether the last answer was a good one."""
        return self._retry_at is None

    async def call(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """What `work` gives, or None if the store is away."""
        async with self._slots:
            if not self._admits():
                return None
            # In a task of its own: redis-py loses a cancellation that comes at the wrong moment, and with it the stop
            # of a run. Here the caller is cancelled at once and the command ends by itself, its connection unharmed.
            task = asyncio.ensure_future(work())
            deadline = asyncio.get_running_loop().call_later(self._timeout, task.cancel)
            task.add_done_callback(lambda task: _settled(task, deadline))
            await asyncio.wait({task})
            try:
                result = task.result()
            except (RedisError, OSError, TimeoutError, asyncio.CancelledError) as exc:
                self._failed(exc)
                return None
            self._succeeded()
            return result

    def _admits(self) -> bool:
        """True unless open. Once a pause is over, the first to ask goes and tries; the others wait for its answer."""
        if self._retry_at is None:
            return True
        now = self._clock()
        if now < self._retry_at:
            return False
        self._retry_at = now + self._pause
        return True

    def _failed(self, exc: BaseException) -> None:
        if self.closed:
            log.warning("store.away", store=self._name, error=type(exc).__name__)
        self._retry_at = self._clock() + self._pause

    def _succeeded(self) -> None:
        if not self.closed:
            log.info("store.back", store=self._name)
        self._retry_at = None


def _settled(task: asyncio.Future[Any], deadline: asyncio.TimerHandle) -> None:
    """The call has ended. Its error, if nobody waits for it any more, is not worth a warning."""
    deadline.cancel()
    if not task.cancelled():
        task.exception()
