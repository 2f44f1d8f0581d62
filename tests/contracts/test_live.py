"""The live ports, over a real Redis and over the in-process twin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.contracts.conftest import RedisServer
from threadline.domain.errors import Unavailable
from threadline.domain.events import Event
from threadline.domain.ports import LiveSessions
from threadline.storage.breaker import Breaker
from threadline.storage.memory_live import MemoryLiveSessions
from threadline.storage.redis_live import RedisLiveLog, RedisLiveSessions, open_redis

TTL = 3600


def document(session_id: str = "s1", *messages: str) -> dict[str, Any]:
    return {
        "session_id": session_id,
        "created_at": "2026-01-01T00:00:00+00:00",
        "messages": [message(text) for text in messages],
        "context": {"current_tool": None, "last_action": None},
    }


def message(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text, "timestamp": "2026-01-01T00:00:00+00:00", "metadata": {"turn_id": "t"}}


@pytest.fixture(params=["redis", "memory"])
async def sessions(request: pytest.FixtureRequest) -> AsyncIterator[LiveSessions]:
    if request.param == "memory":
        yield MemoryLiveSessions(ttl=TTL)
        return
    server: RedisServer = request.getfixturevalue("redis")
    async with open_redis(server.url) as client:
        yield RedisLiveSessions(client, ttl=TTL, breaker=Breaker("test"))


async def test_nothing_is_live_at_first(sessions: LiveSessions) -> None:
    assert await sessions.read("s1") is None
    assert await sessions.live(["s1"]) == set()
    assert await sessions.live([]) == set()
    assert await sessions.append("s1", message("x")) is False
    await sessions.note("s1", {"current_tool": "x"})
    await sessions.delete("s1")
    assert await sessions.read("s1") is None


async def test_a_document_comes_back_as_it_was(sessions: LiveSessions) -> None:
    whole = document("s1", "서울 날씨", 'quotes " and \\ and \u2028', "a" * 10_000)

    await sessions.open(whole)

    assert await sessions.read("s1") == whole
    assert await sessions.live(["s0", "s1", "s2"]) == {"s1"}


async def test_opening_twice_keeps_what_is_there(sessions: LiveSessions) -> None:
    await sessions.open(document("s1", "first"))
    await sessions.open(document("s1", "second"))

    assert await sessions.read("s1") == document("s1", "first")


async def test_messages_are_appended_in_order(sessions: LiveSessions) -> None:
    await sessions.open(document("s1"))
    for number in range(20):
        assert await sessions.append("s1", message(str(number))) is True

    assert await sessions.read("s1") == document("s1", *map(str, range(20)))


async def test_concurrent_appends_are_all_kept(sessions: LiveSessions) -> None:
    await sessions.open(document("s1"))

    await asyncio.gather(*(sessions.append("s1", message(str(number))) for number in range(50)))

    kept = await sessions.read("s1")
    assert kept is not None
    assert sorted(int(m["content"]) for m in kept["messages"]) == list(range(50))


async def test_context_is_set_field_by_field(sessions: LiveSessions) -> None:
    await sessions.open(document("s1"))
    await sessions.note("s1", {"current_tool": "weather"})
    await sessions.note("s1", {"last_action": "tool:weather"})

    kept = await sessions.read("s1")
    assert kept is not None
    assert kept["context"] == {"current_tool": "weather", "last_action": "tool:weather"}


async def test_what_is_read_cannot_be_changed_from_outside(sessions: LiveSessions) -> None:
    whole = document("s1")
    await sessions.open(whole)
    whole["messages"].append(message("x"))
    read = await sessions.read("s1")
    assert read is not None
    read["messages"].append(message("y"))

    assert await sessions.read("s1") == document("s1")


async def test_delete(sessions: LiveSessions) -> None:
    await sessions.open(document("s1"))
    await sessions.open(document("s2"))
    await sessions.delete("s1")

    assert await sessions.live(["s1", "s2"]) == {"s2"}


async def test_every_use_renews_the_lease_in_redis(redis: RedisServer) -> None:
    async with open_redis(redis.url) as client:
        sessions = RedisLiveSessions(client, ttl=TTL, breaker=Breaker("test"))
        await sessions.open(document("s1"))
        [key] = redis.client().keys()
        uses = (
            lambda: sessions.read("s1"),
            lambda: sessions.append("s1", message("x")),
            lambda: sessions.note("s1", {"current_tool": None}),
            lambda: sessions.open(document("s1")),
        )
        for use in uses:
            redis.client().expire(key, 5)
            await use()
            assert redis.client().ttl(key) > TTL - 5
        redis.client().expire(key, 5)
        await sessions.live(["s1"])
        assert redis.client().ttl(key) <= 5


async def test_the_twin_forgets_when_the_lease_is_over() -> None:
    now = 0.0
    sessions = MemoryLiveSessions(ttl=10, now=lambda: now)
    await sessions.open(document("s1"))
    await sessions.open(document("s2"))
    now = 9
    assert await sessions.append("s1", message("x")) is True
    now = 11
    assert await sessions.live(["s1", "s2"]) == {"s1"}
    assert await sessions.read("s2") is None
    now = 30
    assert await sessions.read("s1") is None


async def test_a_redis_that_is_away_is_told_in_our_words(own_redis: RedisServer) -> None:
    async with open_redis(own_redis.url) as client:
        sessions = RedisLiveSessions(client, ttl=TTL, breaker=Breaker("test", pause=0))
        await sessions.open(document("s1"))
        own_redis.kill()

        for ask in (
            lambda: sessions.read("s1"),
            lambda: sessions.open(document("s1")),
            lambda: sessions.append("s1", message("x")),
            lambda: sessions.note("s1", {"current_tool": None}),
            lambda: sessions.live(["s1"]),
            lambda: sessions.delete("s1"),
        ):
            with pytest.raises(Unavailable):
                await ask()

        own_redis.start()
        assert await sessions.read("s1") is None


async def test_a_log_comes_back_in_order_and_once(redis: RedisServer) -> None:
    events = [Event(number, "custom", ("a:1",), {"n": number, "text": "안녕"}, 1.5) for number in range(1, 7)]
    async with open_redis(redis.url) as client:
        log = RedisLiveLog(client, ttl=TTL, breaker=Breaker("test"))
        assert await log.read("r1") == []
        await log.extend({"r1": events[:3], "r2": events[:1]})
        await log.extend({"r1": events[2:]})  # a batch sent again after a lost answer

        assert await log.read("r1") == events
        assert await log.read("r2") == events[:1]
        await log.delete(["r1"])
        await log.delete([])
        assert await log.read("r1") == []
        assert await log.read("r2") == events[:1]
