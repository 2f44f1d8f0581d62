"""The gate: keys, whose sessions they see, how often they may ask, and from which pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from pydantic import ValidationError

from tests.conftest import Start
from tests.service import Client, running, said, settings

STUDIO = "https://smith.langchain.com"
ALICE, BOB = "alice-3f9c2b7d1e", "bob-77aa01c2d4"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """As it comes, without keys; nothing is kept there by these tests."""
    async with running(tmp_path_factory.mktemp("open") / "data") as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def closed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """With two keys, the first of which the client shows; nothing is kept there by these tests."""
    async with running(tmp_path_factory.mktemp("closed") / "data", api_keys=f"{ALICE}, {BOB}") as client:
        yield client


def with_key(client: Client, key: str | None) -> httpx.AsyncClient:
    headers = {"x-api-key": key} if key else {}
    return httpx.AsyncClient(base_url=client.http.base_url, headers=headers, timeout=30)


@pytest.mark.parametrize("path", ["/ok", "/ready", "/", "/static/assets/index.js"])
async def test_open_without_a_key(start: Start, path: str) -> None:
    async with start(api_keys=f"{ALICE},{BOB}") as service, with_key(service, None) as stranger:
        assert (await stranger.get(path)).status_code == 200


@pytest.mark.parametrize("path", ["/sessions", "/info", "/metrics", "/docs", "/openapi.json", "/nowhere"])
async def test_closed_without_a_key(closed: Client, path: str) -> None:
    async with with_key(closed, None) as stranger:
        refused = await stranger.get(path)

    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.json()["kind"] == "denied"
    assert ALICE not in refused.text


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": ALICE},
        {"authorization": f"Bearer {ALICE}"},
        {"authorization": f"bearer {ALICE}"},
    ],
)
async def test_both_ways_to_show_a_key(closed: Client, headers: dict[str, str]) -> None:
    async with with_key(closed, None) as caller:
        assert (await caller.get("/sessions", headers=headers)).status_code == 200


@pytest.mark.parametrize("key", ["", "wrong", ALICE[:-1], f"{ALICE},{BOB}", "ümlaut"])
async def test_a_wrong_key(closed: Client, key: str) -> None:
    async with with_key(closed, None) as caller:
        assert (await caller.get("/sessions", headers={"x-api-key": key.encode()})).status_code == 401


async def test_sessions_belong_to_the_key_that_made_them(start: Start) -> None:
    async with start(api_keys=f"{ALICE},{BOB}") as service, with_key(service, BOB) as bob:
        frames = await service.chat("hello")
        session_id, run_id = frames[0].data["session_id"], frames[0].data["run_id"]
        checkpoint_id = frames[-1].data["checkpoint_id"]
        replayed = {"mode": "rerun", "checkpoint_id": checkpoint_id}
        attempts = [
            bob.get(f"/sessions/{session_id}"),
            bob.get(f"/sessions/{session_id}/history"),
            bob.get(f"/sessions/{session_id}/checkpoints"),
            bob.get(f"/sessions/{session_id}/checkpoints/{checkpoint_id}"),
            bob.post(f"/sessions/{session_id}/replay", json=replayed),
            bob.post(f"/sessions/{session_id}/replay", json={**replayed, "mode": "recorded"}),
            bob.post("/chat", json=said("hi", session_id)),
            bob.post("/chat", json={"session_id": session_id, "resume": {"interrupt_id": "x", "value": 1}}),
            bob.get(f"/runs/{run_id}/events"),
            bob.post(f"/runs/{run_id}/cancel"),
            bob.get("/sessions", params={"before": session_id}),
            bob.delete(f"/sessions/{session_id}"),
        ]
        answers = [await attempt for attempt in attempts]

        assert [answer.status_code for answer in answers] == [404] * len(answers)
        assert (await bob.get("/sessions")).json()["items"] == []
        assert len((await service.json("/sessions"))["items"]) == 1


async def test_metrics_may_be_open_by_a_setting_of_their_own(start: Start) -> None:
    async with start(api_keys=ALICE, metrics_public=True) as service, with_key(service, None) as stranger:
        assert (await stranger.get("/metrics")).status_code == 200
        assert (await stranger.get("/info")).status_code == 401


async def test_ready_tells_a_stranger_the_status_alone(closed: Client) -> None:
    async with with_key(closed, None) as stranger:
        assert (await stranger.get("/ready")).json() == {"ready": True}
        assert (await closed.json("/ready")) == {"ready": True, "checks": {"redis": "ok", "history": "ok"}}


async def test_a_rate_limit_is_exact_under_concurrency(start: Start) -> None:
    async with start(rate_limit="20/minute") as service:
        answers = await asyncio.gather(*(service.http.get("/sessions") for _ in range(60)))
        unlimited = await service.http.get("/ok")

    taken = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert (len(taken), len(refused)) == (20, 40)
    assert all(answer.headers["ratelimit-policy"] == '"default";q=20;w=60' for answer in answers)
    assert all(answer.headers["ratelimit"].startswith('"default";r=') for answer in answers)
    assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in refused)
    assert refused[0].json()["kind"] == "limited"
    assert unlimited.status_code == 200


async def test_a_rate_limit_counts_each_caller_alone(start: Start) -> None:
    async with start(api_keys=f"{ALICE},{BOB}", rate_limit="1/hour") as service, with_key(service, BOB) as bob:
        assert (await service.http.get("/sessions")).status_code == 200
        assert (await service.http.get("/sessions")).status_code == 429
        assert (await bob.get("/sessions")).status_code == 200


async def test_pages_of_named_origins_alone(start: Start) -> None:
    async with start(cors_origins="https://app.example", api_keys=ALICE) as service, with_key(service, None) as page:
        asked = {"origin": "https://app.example", "access-control-request-method": "POST"}
        allowed = await page.options("/chat", headers={**asked, "access-control-request-headers": "x-api-key"})
        other = await page.options("/chat", headers={**asked, "origin": "https://evil.example"})
        refused = await page.get("/sessions", headers={"origin": "https://app.example"})

    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-origin" not in other.headers
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://app.example"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8123", "127.0.0.1.evil.example", "", "8.8.8.8"])
async def test_a_page_that_rebinds_its_name_is_turned_away(service: Client, host: str) -> None:
    refused = await service.http.get("/sessions", headers={"host": host})

    assert refused.status_code == 421
    assert refused.json()["kind"] == "denied"


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1", "[::1]:8123", "127.0.0.9"])
async def test_this_machine_by_any_of_its_names(service: Client, host: str) -> None:
    assert (await service.http.get("/sessions", headers={"host": host})).status_code == 200


async def test_with_keys_any_name_will_do(closed: Client) -> None:
    assert (await closed.http.get("/sessions", headers={"host": "agents.example"})).status_code == 200


async def test_keys_that_are_none_do_not_open_the_service(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="names no key"):
        settings(tmp_path, api_keys=" , ")


async def test_no_other_page_than_studio_unless_set(service: Client) -> None:
    response = await service.http.get("/ok", headers={"origin": "https://app.example"})

    assert "access-control-allow-origin" not in response.headers


async def test_no_page_at_all(start: Start) -> None:
    async with start(cors_origins="none") as service:
        response = await service.http.get("/ok", headers={"origin": STUDIO})

    assert "access-control-allow-origin" not in response.headers


async def test_studio_reaches_into_the_private_network(service: Client) -> None:
    asked = {
        "origin": STUDIO,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type, x-api-key, x-auth-scheme",
        "access-control-request-private-network": "true",
    }
    allowed = await service.http.options("/threads/search", headers=asked)
    found = await service.http.post(
        "/assistants/search",
        content=b'{"limit": 10, "offset": 0, "metadata": {"created_by": "system"}}',
        headers={"origin": STUDIO, "content-type": "text/plain;charset=UTF-8"},
    )

    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-private-network"] == "true"
    assert found.json()[0]["metadata"] == {"created_by": "system"}
    assert found.headers["access-control-allow-origin"] == STUDIO
    exposed = found.headers["access-control-expose-headers"].lower()
    for header in ("content-location", "location", "x-pagination-total", "x-pagination-next"):
        assert header in exposed.split(", ")
