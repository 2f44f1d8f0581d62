"""Which Redis: the embedded one, one that is given, or none at all."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.contracts.conftest import RedisServer
from tests.service import Client, redis_of, said, settings
from tests.stubs.model_server import ModelStub, answer, intent
from threadline.app import wiring
from threadline.app.server import run
from threadline.domain.errors import Unavailable


@pytest.fixture
def given(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of somebody else's, with JSON and Search."""
    (tmp_path / "given").mkdir()
    server = RedisServer(tmp_path / "given")
    server.start()
    yield server
    server.kill()


async def test_a_given_redis_is_used_and_left_running(start: Start, given: RedisServer, tmp_path: Path) -> None:
    async with start(redis_url=given.url, rate_limit="100/minute") as service:
        session_id = (await service.chat("What is 6*7?"))[0].data["session_id"]
        assert (await service.json("/info"))["live"] == "redis"

    names = [key.decode() for key in given.client().scan_iter()]
    assert any(session_id in name for name in names)
    assert [name for name in names if given.client().ttl(name) < 0] == []
    assert not (tmp_path / "data" / "redis").exists()


async def test_a_given_redis_that_goes_away_and_comes_back(start: Start, given: RedisServer) -> None:
    async with start(redis_url=given.url) as service:
        session_id = (await service.chat("What is 6*7?"))[0].data["session_id"]
        given.kill()
        assert "84" in (await service.chat("times 2?", session_id))[-2].data["content"]
        assert (await service.http.get("/ready")).status_code == 503

        given.start()
        async with asyncio.timeout(20):
            while (await service.http.get("/ready")).status_code != 200:
                await asyncio.sleep(0.05)
        assert "168" in (await service.chat("times 2?", session_id))[-2].data["content"]
        assert len((await service.json(f"/sessions/{session_id}"))["messages"]) == 6


async def test_redis_killed_in_the_middle_of_a_turn(scripted: Client, model: ModelStub, tmp_path: Path) -> None:
    gate = asyncio.Event()
    model.script(intent(), answer("a ", gate, "b"))
    async with redis_of(tmp_path / "data") as redis:
        pid = (await redis.info("server"))["process_id"]
    async with scripted.stream("POST", "/chat", json=said("hi")) as frames:
        async for frame in frames:
            if frame.event == "token":
                break
        os.kill(pid, signal.SIGKILL)
        gate.set()
        rest = [frame async for frame in frames]

    assert rest[-1].data["status"] == "success"
    assert rest[-2].data["content"] == "a b"


async def test_a_redis_that_cannot_be_reached_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as refused:
        await run(settings(tmp_path / "data", redis_url="redis://user:hidden-word@127.0.0.1:9/0"))

    assert "127.0.0.1:9" in refused.value.message
    assert "hidden-word" not in refused.value.message


async def test_without_any_redis_a_twin_in_the_process_serves(
    start: Start, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wiring, "available", lambda: False)
    async with start(rate_limit="100/minute") as service:
        session_id = (await service.chat("What is 6*7?"))[0].data["session_id"]
        assert (await service.json("/info"))["live"] == "process"
        assert (await service.json("/ready"))["ready"] is True
        assert (await service.json("/sessions"))["items"][0]["live"] is True
    assert capfd.readouterr().out.count("No embedded Redis") <= 1

    async with start() as service:
        assert (await service.json("/sessions"))["items"][0]["live"] is False
        assert "84" in (await service.chat("times 2?", session_id))[-2].data["content"]
        assert len((await service.json(f"/sessions/{session_id}"))["messages"]) == 4


async def test_a_lease_ends_and_nothing_is_lost(start: Start) -> None:
    async with start(session_ttl=1) as service:
        session_id = (await service.chat("What is 6*7?"))[0].data["session_id"]
        async with asyncio.timeout(10):
            while (await service.json("/sessions"))["items"][0]["live"]:
                await asyncio.sleep(0.05)

        assert "84" in (await service.chat("times 2?", session_id))[-2].data["content"]
        assert len((await service.json(f"/sessions/{session_id}"))["messages"]) == 4
