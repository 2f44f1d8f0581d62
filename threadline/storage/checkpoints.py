"""Where checkpoints go: opens the history and, if there is a Redis, the live tier before it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis

from threadline.storage.allowlist import Listed, names_of
from threadline.storage.breaker import Breaker
from threadline.storage.history import open_history
from threadline.storage.tiered import TieredSaver


@asynccontextmanager
async def open_saver(
    *,
    history: str,
    live: str | Redis | None,
    ttl: int = 3600,
    allow: Iterable[Listed] = (),
    records: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[TieredSaver]:
    """Open the saver of all runs; close in reverse.

    `history` is `sqlite:///path` and the only place where anything is kept for good. `live` is a Redis with JSON by
    URL or client, or None; it need not be there, neither now nor later. `ttl` is in seconds, renewed by every read
    and write of a thread. `allow` are the types of your own that checkpoints are read back as: a type or its name as
    "module:Type", the types of its fields with it. `records` is the history database, where what is pinned stands.
    Raises Invalid for what makes no sense, before anything is written.
    """
    allowed = names_of(allow)
    async with AsyncExitStack() as stack:
        tier = None
        if live is not None:
            from threadline.storage.live_checkpoints import open_live  # imports redisvl and numpy: half a second

            tier = await stack.enter_async_context(open_live(live, ttl=ttl, allowed=allowed))
        kept = await stack.enter_async_context(open_history(history, allowed=allowed, records=records))
        saver = TieredSaver(kept, tier, breaker=Breaker("live checkpoints", clock=clock))
        stack.push_async_callback(saver.aclose)
        await saver.check_live()
        yield saver
