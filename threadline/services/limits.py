"""How often a caller may ask: a moving window, exact under concurrency, shared through Redis."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import structlog
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError

from threadline.domain.errors import Invalid
from threadline.domain.records import Caller

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a caller's window: `limit` requests in `window` seconds, `remaining` now, the next freed in
    `reset` seconds. `allowed` says whether this one was among them."""

    allowed: bool
    limit: int
    window: int
    remaining: int
    reset: int

    def headers(self) -> dict[str, str]:
        """`RateLimit` and `RateLimit-Policy` as in the IETF draft (httpapi-ratelimit-headers)."""
        return {
            "RateLimit": f'"default";r={self.remaining};t={self.reset}',
            "RateLimit-Policy": f'"default";q={self.limit};w={self.window}',
        }


class RateLimit:
    """One rule for every caller. While the shared storage is away, this process counts for itself."""

    def __init__(self, rule: str, storage: Storage) -> None:
        self._rule = parse_rule(rule)
        self._shared = MovingWindowRateLimiter(storage)
        self._own = MovingWindowRateLimiter(MemoryStorage())

    async def take(self, caller: Caller) -> Allowance:
        """Count one request, if the caller has one left."""
        try:
            return await self._take(self._shared, caller)
        except StorageError:
            log.warning("rate_limit_storage_away")
            return await self._take(self._own, caller)

    async def _take(self, limiter: MovingWindowRateLimiter, caller: Caller) -> Allowance:
        allowed = await limiter.hit(self._rule, caller.id)
        stats = await limiter.get_window_stats(self._rule, caller.id)
        reset = max(1, math.ceil(stats.reset_time - time.time()))
        return Allowance(allowed, self._rule.amount, self._rule.get_expiry(), stats.remaining, reset)


def parse_rule(rule: str) -> RateLimitItem:
    """A rule such as `120/minute`. Raises Invalid."""
    try:
        parsed = parse(rule)
        if parsed.amount < 1:
            raise ValueError("nobody could ask at all")
        return parsed
    except ValueError as error:
        raise Invalid(f"THREADLINE_RATE_LIMIT is not understood: {rule!r}. Write for example 120/minute.") from error
