"""Ids that are none, a history that is none, a file that is locked and a disk that is full: told, and survived."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
import pytest_asyncio

from tests.conftest import Start
from tests.service import Client, Frame, Shared, shared
from threadline.domain.errors import Conflict, Invalid

ODD = ["1", "x", "' OR 1=1 --", '"', "a.b", "a[0]", "..", "%00", "스레드", "x" * 500, "None", "\ufffd"]


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agent(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shared]:
    async with shared(tmp_path_factory.mktemp("agent")) as service:
        yield service


@pytest_asyncio.fixture(loop_scope="module")
async def service(agent: Shared) -> AsyncIterator[Client]:
    async with agent.caller() as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def session_id(service: Client) -> str:
    return await begun(service)


@pytest_asyncio.fixture(loop_scope="module")
async def own(start: Start) -> AsyncIterator[Client]:
    """A service that may be harmed."""
    async with start() as client:
        yield client


async def begun(service: Client) -> str:
    session_id: str = (await service.chat("What is 2+3?"))[0].data["session_id"]
    return session_id


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd[:20])
async def test_a_session_id_that_is_no_uuid(service: Client, odd: str) -> None:
    where, body = f"/sessions/{quote(odd, safe='')}", {"mode": "recorded"}
    answers = [
        await service.http.get(f"{where}/checkpoints"),
        await service.http.get(f"{where}/checkpoints/{uuid4()}"),
        await service.http.post(f"{where}/replay", json=body),
        await service.http.post("/chat", json={"message": "hi", "session_id": odd}),
        await service.http.delete(where),
    ]
    if odd != "..":  # a client takes that for a folder above
        assert [answer.status_code for answer in answers] == [422] * 5
    assert all(answer.json()["kind"] in ("invalid", "missing") for answer in answers)
    assert (await service.json("/sessions"))["items"] == []


@pytest.mark.parametrize("odd", [*ODD, str(uuid4())], ids=lambda odd: odd[:20])
async def test_a_checkpoint_id_that_nobody_knows(service: Client, session_id: str, odd: str) -> None:
    where = f"/sessions/{session_id}"
    before = await service.json(f"{where}/checkpoints")
    answers = [
        await service.http.get(f"{where}/checkpoints", params={"before": odd}),
        await service.http.post(f"{where}/replay", json={"mode": "recorded", "checkpoint_id": odd}),
        await service.http.post(f"{where}/replay", json={"mode": "rerun", "checkpoint_id": odd}),
    ]
    if odd != "..":
        answers.append(await service.http.get(f"{where}/checkpoints/{quote(odd, safe='')}"))
    assert [(answer.status_code, answer.json()["kind"]) for answer in answers] == [(404, "missing")] * len(answers)
    assert await service.json(f"{where}/checkpoints") == before


async def test_half_a_character_is_no_id(service: Client, session_id: str) -> None:
    for mode in ("recorded", "rerun"):
        answer = await service.http.post(
            f"/sessions/{session_id}/replay",
            content=f'{{"mode": "{mode}", "checkpoint_id": "\\ud800"}}',
            headers={"content-type": "application/json"},
        )
        assert answer.status_code in (404, 422), answer.text
        assert answer.json()["kind"] in ("invalid", "missing")


@pytest.mark.parametrize("key", [*ODD, "a'b", "step') OR 1=1 --", "", "a\n", "\x00"], ids=lambda odd: odd[:20])
async def test_states_with_odd_metadata_are_looked_for_and_not_found(
    service: Client, session_id: str, key: str
) -> None:
    found = await service.http.post(f"/threads/{session_id}/history", json={"metadata": {key: "x"}})
    assert (found.status_code, found.json()) == (200, [])


def text(file: Path) -> None:
    file.write_bytes(b"Dear diary, " * 1000)


def newer(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version=7")


@pytest.mark.parametrize(("made", "kind"), [(text, Invalid), (newer, Conflict)])
async def test_a_history_that_is_none_stops_the_start(
    start: Start, tmp_path: Path, made: Callable[[Path], None], kind: type[Exception]
) -> None:
    async with start():
        pass
    file = tmp_path / "data" / "checkpoints.db"
    file.unlink()
    made(file)
    before = file.read_bytes()
    with pytest.raises(kind, match="history"):
        async with start():
            pass
    assert file.read_bytes() == before


def failure(frames: list[Frame]) -> dict[str, Any]:
    error: dict[str, Any] = frames[-1].data["error"] if frames[-1].event == "done" else frames[-1].data
    return error


async def still_well(service: Client, session_id: str, messages: int) -> None:
    """Earlier turns are there, the session is not busy, and the next message is answered."""
    [newest, *_] = (await service.json(f"/sessions/{session_id}/checkpoints"))["items"]
    values = (await service.json(f"/sessions/{session_id}/checkpoints/{newest['checkpoint_id']}"))["values"]
    assert len(values["messages"]) == messages


async def test_a_locked_history_fails_the_run_and_no_more(own: Client, tmp_path: Path) -> None:
    session_id = await begun(own)
    with closing(sqlite3.connect(tmp_path / "data" / "checkpoints.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        failed = await own.chat("What is 3+4?", session_id)
        assert (failed[-1].event, failed[-1].data["kind"]) == ("error", "unavailable")
        assert "locked" in failed[-1].data["message"]
        await still_well(own, session_id, messages=4)
        other.execute("ROLLBACK")
    answered = await own.chat("What is 3+4?", session_id)
    assert "7" in answered[-2].data["content"]


async def test_a_full_disk_fails_the_run_and_no_more(own: Client) -> None:
    session_id = await begun(own)
    assert own.context is not None
    writer = own.context.checkpoints._saver._history._writer  # type: ignore[attr-defined]

    async def allow(pages: int) -> None:
        await writer.change(lambda connection: connection.execute(f"PRAGMA max_page_count={pages}").fetchall())

    await allow(1)  # no more than there are
    failed = await own.chat("x" * 10_000, session_id)
    assert (failed[-1].event, failed[-1].data["kind"]) == ("error", "unavailable")
    assert "full" in failed[-1].data["message"]
    await still_well(own, session_id, messages=4)
    await allow(1_000_000)
    answered = await own.chat("What is 3+4?", session_id)
    assert "7" in answered[-2].data["content"]
