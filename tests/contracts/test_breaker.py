"""The breaker: a store that is away costs little, and a cancellation is never lost in it."""

from __future__ import annotations

import asyncio

import pytest

from tests.contracts.conftest import RedisServer
from threadline.storage.breaker import Breaker
from threadline.storage.redis_live import open_redis


async def test_a_caller_is_cancelled_whenever_that_comes(redis: RedisServer) -> None:
    """redis-py alone loses about one cancellation in six here."""
    async with open_redis(redis.url) as client:
        breaker = Breaker("test", timeout=5)
        lost = 0
        for turns in range(400):
            task = asyncio.create_task(asked_and_then_waiting(breaker, client))
            for _ in range(turns % 20):
                await asyncio.sleep(0)
            task.cancel()
            for _ in range(20):
                await asyncio.sleep(0)
            lost += not task.cancelled()
            task.cancel()

        assert lost == 0
        assert await breaker.call(client.ping) is True


async def asked_and_then_waiting(breaker: Breaker, client: object) -> None:
    await breaker.call(client.ping)  # type: ignore[attr-defined]
    await asyncio.Event().wait()


async def test_a_call_that_takes_too_long_is_given_up() -> None:
    breaker = Breaker("test", timeout=0.01)
    assert await breaker.call(lambda: asyncio.sleep(60)) is None
    assert breaker.closed is False


async def test_other_errors_are_the_callers() -> None:
    async def broken() -> None:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        await Breaker("test").call(broken)
