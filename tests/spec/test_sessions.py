"""Sessions: the live copy, the history behind it, and the checkpoints of every step."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from uuid import uuid4

import pytest

from tests.conftest import Start, together
from tests.service import Client, redis_of, said
from tests.stubs.model_server import ModelStub, answer, intent

NOBODY = "00000000-0000-4000-8000-000000000000"


async def talk(service: Client, *messages: str) -> str:
    """A session with these messages; its id."""
    session_id = None
    for message in messages:
        session_id = (await service.chat(message, session_id))[0].data["session_id"]
    assert session_id is not None
    return session_id


async def test_the_session_document(service: Client) -> None:
    session_id = await talk(service, "What is 6*7?")

    document = await service.json(f"/sessions/{session_id}")

    assert list(document) == ["session_id", "created_at", "messages", "context"]
    user, assistant = document["messages"]
    assert (user["role"], user["content"]) == ("user", "What is 6*7?")
    assert assistant["role"] == "assistant"
    assert "42" in assistant["content"]
    assert all(set(message) == {"role", "content", "timestamp", "metadata"} for message in document["messages"])
    assert document["context"] == {"current_tool": None, "last_action": "respond"}


@together
async def test_sessions_are_listed_the_last_used_first(caller: Client) -> None:
    first, second, third = [await talk(caller, f"hello {n}") for n in range(3)]
    await caller.chat("hello again", first)

    listed = await caller.json("/sessions")
    assert [item["session_id"] for item in listed["items"]] == [first, third, second]
    assert listed["next"] is None
    assert listed["items"][0] == {
        **listed["items"][0],
        "title": "hello 0",
        "turns": 2,
        "live": True,
        "status": "idle",
    }

    page = await caller.json("/sessions", limit=2)
    assert [item["session_id"] for item in page["items"]] == [first, third]
    rest = await caller.json("/sessions", limit=2, before=page["next"])
    assert [item["session_id"] for item in rest["items"]] == [second]
    assert rest["next"] is None


async def test_an_expired_session_comes_back_from_the_history(service: Client, tmp_path: Path) -> None:
    session_id = await talk(service, "my name is Minji", "What is 6*7?")
    before = await service.json(f"/sessions/{session_id}")
    async with redis_of(tmp_path / "data") as redis:
        await redis.flushall()

    assert (await service.json("/sessions"))["items"][0]["live"] is False
    rebuilt = await service.json(f"/sessions/{session_id}")
    assert rebuilt["messages"] == before["messages"]
    assert (await service.json("/sessions"))["items"][0]["live"] is True
    answer = await service.chat("what's my name?", session_id)
    assert "Minji" in answer[-2].data["content"]


async def test_an_expired_session_goes_on_unnoticed(service: Client, tmp_path: Path) -> None:
    session_id = await talk(service, "What is 6*7?")
    async with redis_of(tmp_path / "data") as redis:
        await redis.flushall()

    await service.chat("times 2?", session_id)

    document = await service.json(f"/sessions/{session_id}")
    assert [m["role"] for m in document["messages"]] == ["user", "assistant"] * 2
    assert "84" in document["messages"][-1]["content"]


async def test_every_key_in_redis_expires(service: Client, tmp_path: Path) -> None:
    await talk(service, "What is 6*7?", "hello")

    async with redis_of(tmp_path / "data") as redis:
        keys = [key async for key in redis.scan_iter()]
        lasting = [key for key in keys if await redis.ttl(key) < 0]

    assert keys
    assert lasting == []


async def test_one_row_of_chat_history_a_turn(service: Client, tmp_path: Path) -> None:
    session_id = await talk(service, "What is 6*7?", "hello")

    history = await service.json(f"/sessions/{session_id}/history")

    assert [row["user_message"] for row in history["items"]] == ["hello", "What is 6*7?"]
    row = history["items"][1]
    assert row["session_id"] == session_id
    assert row["tools_used"] == ["calculator"]
    assert row["model_used"] == "threadline-offline"
    assert row["tokens_used"] > 0
    assert row["cost"] == 0
    assert row["extra_metadata"]["status"] == "success"
    page = await service.json(f"/sessions/{session_id}/history", limit=1)
    rest = await service.json(f"/sessions/{session_id}/history", limit=1, before=page["next"])
    assert [*page["items"], *rest["items"]] == history["items"]

    with sqlite3.connect(tmp_path / "data" / "history.db") as database:
        columns = [(name, kind) for _, name, kind, *_ in database.execute("PRAGMA table_info(chat_history)")]
    assert columns == [
        ("id", "INTEGER"),
        ("session_id", "VARCHAR(100)"),
        ("user_message", "TEXT"),
        ("assistant_message", "TEXT"),
        ("tools_used", "JSON"),
        ("model_used", "VARCHAR(100)"),
        ("tokens_used", "INTEGER"),
        ("cost", "FLOAT"),
        ("created_at", "DATETIME"),
        ("extra_metadata", "JSON"),
    ]


async def test_a_failed_turn_is_a_row_too_and_its_unknown_cost_is_null(scripted: Client, model: ModelStub) -> None:
    model.script(intent(), answer("some ", "text"))
    session_id = (await scripted.chat("hi"))[0].data["session_id"]
    [row] = (await scripted.json(f"/sessions/{session_id}/history"))["items"]
    assert row["cost"] is None
    assert row["assistant_message"] == "some text"

    await model.__aexit__(None, None, None)
    frames = await scripted.chat("are you there?", session_id)

    assert frames[-1].event == "error"
    assert frames[-1].data["kind"] == "model_unreachable"
    assert frames[-1].data["retryable"] is True
    failed, _ = (await scripted.json(f"/sessions/{session_id}/history"))["items"]
    assert failed["user_message"] == "are you there?"
    assert failed["assistant_message"] is None
    assert failed["extra_metadata"]["error"]["kind"] == "model_unreachable"


async def test_checkpoints_newest_first_and_one_whole(service: Client) -> None:
    session_id = await talk(service, "What is 6*7?")

    listed = await service.json(f"/sessions/{session_id}/checkpoints")

    assert [item["next"] for item in listed["items"]] == [
        [],
        ["respond"],
        ["execute_tools"],
        ["analyze_intent"],
        ["__start__"],
    ]
    assert [item["nodes"] for item in listed["items"]] == [
        ["respond"],
        ["execute_tools"],
        ["analyze_intent"],
        [],
        [],
    ]
    for item, parent in zip(listed["items"], [*listed["items"][1:], None], strict=True):
        assert item["parent_id"] == (parent and parent["checkpoint_id"])
    head = await service.json(f"/sessions/{session_id}/checkpoints/{listed['items'][0]['checkpoint_id']}")
    assert [message["type"] for message in head["values"]["messages"]] == ["human", "ai", "tool", "ai"]
    assert {key: head[key] for key in listed["items"][0]} == listed["items"][0]

    paged, before = [], {}
    while before is not None:
        page = await service.json(f"/sessions/{session_id}/checkpoints", limit=2, **before)
        paged += page["items"]
        before = {"before": page["next"]} if page["next"] else None
    assert paged == listed["items"]


async def test_delete_removes_every_trace(service: Client, tmp_path: Path) -> None:
    kept = await talk(service, "hello")
    session_id = await talk(service, "remember the word xylophonist", "What is 6*7?")

    assert (await service.http.delete(f"/sessions/{session_id}")).status_code == 204

    assert (await service.http.get(f"/sessions/{session_id}")).status_code == 404
    assert [item["session_id"] for item in (await service.json("/sessions"))["items"]] == [kept]
    async with redis_of(tmp_path / "data") as redis:
        assert [key async for key in redis.scan_iter(f"*{session_id}*")] == []
    for file in (tmp_path / "data").glob("*.db*"):
        content = file.read_bytes()
        assert session_id.encode() not in content, file.name
        assert b"xylophonist" not in content, file.name
    assert (await service.json(f"/sessions/{kept}"))["messages"]


async def test_delete_stops_what_runs_on_the_session(scripted: Client, model: ModelStub) -> None:
    model.script(intent(), answer("half ", asyncio.Event()))
    async with scripted.stream("POST", "/chat", json=said("hi")) as frames:
        session_id = (await anext(frames)).data["session_id"]
        await model.received(2)
        assert (await scripted.http.delete(f"/sessions/{session_id}")).status_code == 204
        last = [frame async for frame in frames][-1]

    assert last.data["status"] == "cancelled"
    assert (await scripted.http.get(f"/sessions/{session_id}")).status_code == 404


@pytest.mark.parametrize(("session_id", "status"), [("me", 422), (NOBODY, 404), ("a" * 5000, 422)])
@pytest.mark.parametrize("path", ["", "/history", "/checkpoints", f"/checkpoints/{NOBODY}"])
@together
async def test_every_request_checks_its_session(caller: Client, session_id: str, status: int, path: str) -> None:
    response = await caller.http.get(f"/sessions/{session_id}{path}")

    assert response.status_code == status
    assert isinstance(response.json()["detail"], str)


@pytest.mark.parametrize(
    ("path", "params", "status"),
    [
        ("/sessions", {"limit": 0}, 422),
        ("/sessions", {"limit": 501}, 422),
        ("/sessions", {"limit": "many"}, 422),
        ("/sessions", {"before": "me"}, 422),
        ("/sessions", {"before": NOBODY}, 404),
        ("/sessions/{id}/history", {"before": "x"}, 422),
        ("/sessions/{id}/history", {"before": "9" * 40}, 422),
        ("/sessions/{id}/checkpoints", {"before": "'; DROP TABLE checkpoints"}, 404),
        ("/sessions/{id}/checkpoints/nothing", {}, 404),
        ("/sessions/{id}/checkpoints/%00", {}, 404),
    ],
)
@together
async def test_lists_refuse_what_they_cannot_page(caller: Client, path: str, params: dict, status: int) -> None:
    session_id = await talk(caller, "hello")

    response = await caller.http.get(path.format(id=session_id), params=params)

    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"


@together
async def test_somebody_elses_checkpoint_is_missing(caller: Client) -> None:
    mine, other = await talk(caller, "hello"), await talk(caller, "hello")
    theirs = (await caller.json(f"/sessions/{other}/checkpoints"))["items"][0]["checkpoint_id"]

    assert (await caller.http.get(f"/sessions/{mine}/checkpoints/{theirs}")).status_code == 404
    assert (await caller.http.get(f"/sessions/{uuid4()}/checkpoints/{theirs}")).status_code == 404


async def test_restarted_the_service_remembers(start: Start) -> None:
    async with start() as service:
        session_id = await talk(service, "What is 6*7?")

    async with start() as service:
        frames = await service.chat("times 2?", session_id)

    assert "84" in frames[-2].data["content"]
