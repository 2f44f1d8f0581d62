"""For operators: alive, ready, what this is, what it counts, and how it starts and stops."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.service import Client, process, redis_of, running, said, settings
from threadline.app.server import run
from threadline.domain.errors import Conflict, Denied, Invalid, ThreadlineError, Unavailable


async def test_alive_and_ready(service: Client) -> None:
    well = {"ok": True, "services": {}}
    assert await service.json("/ok") == await service.json("/ok", check_db="1") == await service.json("/") == well
    assert await service.json("/ready") == {"ready": True, "checks": {"redis": "ok", "history": "ok"}}


async def test_not_ready_without_redis_but_chat_goes_on(service: Client, tmp_path: Path) -> None:
    async with redis_of(tmp_path / "data") as redis:
        pid = (await redis.info("server"))["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        response = await service.http.get("/ready")
        frames = await service.chat("What is 6*7?")

        assert response.status_code == 503
        assert response.json() == {"ready": False, "checks": {"redis": "away", "history": "ok"}}
        assert frames[-1].data["status"] == "success"
        document = await service.json(f"/sessions/{frames[0].data['session_id']}")
        assert len(document["messages"]) == 2
        assert b"threadline_live_tier_up 0.0" in (await service.http.get("/metrics")).content
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_an_embedded_redis_that_is_killed_comes_back(service: Client, tmp_path: Path) -> None:
    session_id = (await service.chat("What is 6*7?"))[0].data["session_id"]
    async with redis_of(tmp_path / "data") as redis:
        os.kill((await redis.info("server"))["process_id"], signal.SIGKILL)

    async with asyncio.timeout(20):
        while (await service.http.get("/ready")).status_code != 200:
            await asyncio.sleep(0.05)
    frames = await service.chat("And 6*8?", session_id=session_id)

    assert frames[-1].data["status"] == "success"
    (listed,) = (await service.json("/sessions"))["items"]
    assert (listed["live"], listed["turns"]) == (True, 2)


async def test_info(service: Client) -> None:
    info = await service.json("/info")

    assert info["graphs"] == ["agent"]
    assert info["model"]["provider"] == "offline"
    assert info["live"] == "embedded"


async def test_metrics_count_runs(service: Client) -> None:
    await service.chat("hello")

    text = (await service.http.get("/metrics")).text

    assert 'threadline_runs_total{status="success"} 1.0' in text
    assert "threadline_first_event_seconds_count 1.0" in text
    assert "threadline_open_streams 0.0" in text


async def test_the_api_describes_itself(service: Client) -> None:
    assert "/sessions/{session_id}/replay" in (await service.json("/openapi.json"))["paths"]
    docs = (await service.http.get("/docs")).text
    assert "https://" not in docs
    for asset in re.findall(r'(?:src|href)="([^"]+)"', docs):
        assert (await service.http.get(asset)).status_code == 200


async def test_the_page_lets_nothing_in_from_elsewhere(service: Client) -> None:
    page = await service.http.get("/", headers={"accept": "text/html"})

    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert (await service.http.get("/static/nothing.js")).status_code == 404
    assert (await service.http.get("/static/%2e%2e/chat.py")).status_code == 404


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("PUT", "/chat", 405)])
async def test_every_error_is_a_problem(service: Client, method: str, path: str, status: int) -> None:
    response = await service.http.request(method, path)

    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert set(response.json()) == {"type", "title", "status", "detail", "kind"}


async def test_a_taken_port_is_a_clear_error(service: Client, tmp_path: Path) -> None:
    port = service.http.base_url.port

    with pytest.raises(Conflict, match=f"127.0.0.1:{port}"):
        await run(settings(tmp_path / "other", port=port))


async def test_a_second_service_on_the_data_directory(service: Client, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="in use"):
        await run(settings(tmp_path / "data"))


async def test_no_stranger_without_keys(tmp_path: Path) -> None:
    with pytest.raises(Denied, match="--insecure"):
        await run(settings(tmp_path / "data", host="0.0.0.0"))

    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"redis_url": "redis://127.0.0.1:9"}, Unavailable),
        ({"rate_limit": "often"}, Invalid),
        ({"rate_limit": "0/minute"}, Invalid),
        ({"search_providers": "altavista"}, Invalid),
    ],
)
async def test_settings_that_cannot_work(tmp_path: Path, values: dict, error: type[ThreadlineError]) -> None:
    with pytest.raises(error):
        async with running(tmp_path / "data", **values) as client:
            await client.chat("hello")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        ("{", "not valid JSON"),
        ("{}", "names no graphs"),
        ('{"graphs": {"agent": "./graph.py"}}', "write it as"),
        ('{"graphs": {"agent": "./nothing.py:graph"}}', "no file"),
        ('{"graphs": {"agent": "./broken.py:graph"}}', "importing .*broken.py failed: SyntaxError"),
        ('{"graphs": {"agent": "./empty.py:graph"}}', "has no graph"),
        ('{"graphs": {"agent": "./empty.py:number"}}', "neither a graph"),
    ],
)
async def test_a_broken_project_says_what_and_where(tmp_path: Path, content: str | None, reason: str) -> None:
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "empty.py").write_text("number = 5")
    if content is not None:
        (tmp_path / "langgraph.json").write_text(content)

    with pytest.raises(Invalid, match=reason):
        await run(settings(tmp_path / "data", config=tmp_path / "langgraph.json"))


async def test_a_history_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "history.db").write_bytes(b"this is no database, but it is long enough to look at")

    with pytest.raises(Unavailable, match=r"history\.db"):
        await run(settings(tmp_path / "data"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_stops_cleanly_within_five_seconds_also_mid_stream(tmp_path: Path, number: signal.Signals) -> None:
    async with process(tmp_path / "data", THREADLINE_OFFLINE_DELAY="1") as (service, client):
        async with client.http.stream("POST", "/chat", json=said("hello, what can you do?")) as response:
            lines = response.aiter_lines()
            while await anext(lines) != "event: token":
                pass
            stopping = time.monotonic()
            service.send(number)
            code = await service.ended(seconds=5)
        assert time.monotonic() - stopping < 5

    assert code in (0, 130)
    assert not (tmp_path / "data" / "redis.sock").exists()


async def test_the_data_directory_is_private(service: Client, tmp_path: Path) -> None:
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


async def test_keys_are_never_logged(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    key = "sk-or-very-secret-4711"
    async with start(api_keys=key, openai_api_key=key, openai_base_url="http://127.0.0.1:9/v1", log_level="debug") as s:
        frames = await s.chat("hello")

    said_ = capfd.readouterr()
    assert frames[-1].event == "error"
    assert key not in said_.out + said_.err + str(frames)
