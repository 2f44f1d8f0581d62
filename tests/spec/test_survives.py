"""What survives: restarts, a wiped Redis, and kill -9 in the middle of a turn."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.conftest import Start
from tests.service import Client, process, said
from tests.stubs.model_server import ModelStub, ToolCall, answer, intent


def with_model(model: ModelStub) -> dict[str, str]:
    return {"OPENAI_BASE_URL": model.url, "THREADLINE_MODEL": "stub"}


async def test_it_remembers_after_all_of_redis_is_deleted(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with process(data) as (service, client):
        session_id = (await client.chat("What is (15+27)*3?"))[0].data["session_id"]
        service.send(signal.SIGTERM)
        assert await service.ended(seconds=10) == 0
    shutil.rmtree(data / "redis")

    async with process(data) as (_, client):
        assert (await client.json("/sessions"))["items"][0]["live"] is False
        frames = await client.chat("times 2?", session_id)

    assert "252" in frames[-2].data["content"]


async def test_a_turn_cut_off_by_kill_goes_on_after_the_restart(tmp_path: Path, model: ModelStub) -> None:
    data = tmp_path / "data"
    model.script(
        intent("tool", ToolCall("calculator", {"expression": "6*7"})),
        answer("it is ", asyncio.Event(), "never"),
    )
    async with process(data, **with_model(model)) as (service, client):
        async with client.stream("POST", "/chat", json=said("what is 6*7?")) as frames:
            session = (await anext(frames)).data
            seen = [frame async for frame in up_to(frames, "token")]
            service.send(signal.SIGKILL)
            await service.ended(seconds=5)

    model.script(answer("it is ", "42"))
    async with process(data, **with_model(model)) as (_, client):
        path = f"/runs/{session['run_id']}/events"
        rest = await client.read("GET", path, headers={"Last-Event-ID": str(seen[-1].id)})
        document = await client.json(f"/sessions/{session['session_id']}")
        again = await client.chat("thanks", session["session_id"])

    assert [frame.event for frame in rest] == ["session", "node", "token", "token", "node", "message", "done"]
    assert all(frame.id > seen[-1].id for frame in rest)
    assert rest[-1].data["status"] == "success"
    assert rest[-1].data["usage"]["total_tokens"] is None  # what the killed process used, nobody knows
    assert len(model.calls) == 5  # analysis, cut off, answered, and two for the second message
    assert [m["content"] for m in document["messages"]] == ["what is 6*7?", "it is 42"]
    assert document["messages"][1]["metadata"]["tools"] == ["calculator"]
    assert again[-1].data["status"] == "success"


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
async def test_a_kill_between_a_steps_writes_and_its_checkpoint(start: Start, tmp_path: Path, steps: int) -> None:
    """The writes of a step are kept before its checkpoint. Here the files are set back to such a moment."""
    data = tmp_path / "data"
    async with start() as service:
        session = (await service.chat("what is 6*7?"))[0].data
    set_back(data, steps=steps)

    async with start() as service:
        frames = await service.read("GET", f"/runs/{session['run_id']}/events")
        [row] = (await service.json(f"/sessions/{session['session_id']}/history"))["items"]
        document = await service.json(f"/sessions/{session['session_id']}")
        again = await service.chat("times 2?", session["session_id"])

    assert frames[-1].data["status"] == "success"
    assert "42" in frames[-2].data["content"]
    assert "42" in row["assistant_message"]
    assert row["tools_used"] == ["calculator"]
    assert [message["role"] for message in document["messages"]] == ["user", "assistant"]
    assert "84" in again[-2].data["content"]


async def test_waiting_messages_are_answered_after_a_kill(tmp_path: Path, model: ModelStub) -> None:
    data = tmp_path / "data"
    model.script(intent(), answer("one", asyncio.Event()))
    async with process(data, **with_model(model)) as (service, client):
        async with client.stream("POST", "/chat", json=said("first")) as frames:
            session_id = (await anext(frames)).data["session_id"]
            async with client.http.stream("POST", "/chat", json=said("second", session_id)) as waiting:
                second = waiting.headers["location"]
                await model.received(2)
                service.send(signal.SIGKILL)
                await service.ended(seconds=5)

    model.script(answer("one"), intent(), answer("two"))
    async with process(data, **with_model(model)) as (_, client):
        await client.read("GET", second)
        document = await client.json(f"/sessions/{session_id}")

    assert [m["content"] for m in document["messages"]] == ["first", "one", "second", "two"]


async def test_no_acknowledged_turn_is_lost_whenever_it_is_killed(tmp_path: Path) -> None:
    """Turns are sent until a kill at a random moment; after each restart all that said `done` are there, once."""
    data, chance = tmp_path / "data", random.Random(4711)
    acknowledged: list[str] = []
    session_id: str | None = None
    for _ in range(4):
        async with process(data) as (service, client):
            if session_id is not None:
                await everything_answered(client, session_id)
                await all_there(client, session_id, acknowledged)
            killing = asyncio.create_task(kill_after(service, chance.uniform(0.1, 0.6)))
            try:
                while True:
                    message = f"what is {len(acknowledged)} + {chance.randrange(1000)}?"
                    frames = await client.chat(message, session_id)
                    if not frames or frames[-1].event != "done":
                        break
                    session_id = frames[0].data["session_id"]
                    acknowledged.append(message)
            except httpx.HTTPError:
                pass
            await killing

    async with process(data) as (_, client):
        assert session_id is not None
        await everything_answered(client, session_id)
        await all_there(client, session_id, acknowledged)
    assert len(acknowledged) > 4


def set_back(data: Path, *, steps: int) -> None:
    """Take the newest checkpoints away, but not the writes the one before them has; the run has not ended then."""
    shutil.rmtree(data / "redis")
    with closing(sqlite3.connect(data / "checkpoints.db")) as checkpoints, checkpoints:
        newest = "SELECT checkpoint_id FROM checkpoints ORDER BY checkpoint_id DESC LIMIT ?"
        for table in ("writes", "checkpoints"):
            checkpoints.execute(f"DELETE FROM {table} WHERE checkpoint_id IN ({newest})", (steps,))
        (waiting,) = checkpoints.execute(
            f"SELECT count(*) FROM writes WHERE checkpoint_id = ({newest})", (1,)
        ).fetchone()
        assert waiting > 0
    with closing(sqlite3.connect(data / "history.db")) as records, records:
        records.execute("UPDATE runs SET status = 'running', ended_at = NULL")
        records.execute("DELETE FROM chat_history")
        records.execute("DELETE FROM run_logs")


async def up_to(frames, event):
    async for frame in frames:
        yield frame
        if frame.event == event:
            return


async def kill_after(service, seconds: float) -> None:
    await asyncio.sleep(seconds)  # the random moment itself, not a wait for something
    service.send(signal.SIGKILL)
    await service.ended(seconds=5)


async def everything_answered(client: Client, session_id: str) -> None:
    """Wait until what the kill cut off has been finished."""
    async with asyncio.timeout(20):
        while (await client.json("/sessions"))["items"][0]["status"] == "busy":
            await asyncio.sleep(0.01)


async def all_there(client: Client, session_id: str, acknowledged: list[str]) -> None:
    rows = (await client.json(f"/sessions/{session_id}/history", limit=500))["items"]
    asked = [row["user_message"] for row in reversed(rows)]
    document = await client.json(f"/sessions/{session_id}")
    assert [m for m in asked if m in acknowledged] == acknowledged
    assert len(asked) == len(set(asked))
    assert all(row["extra_metadata"]["status"] == "success" for row in rows)
    assert [m["content"] for m in document["messages"] if m["role"] == "user"] == asked
    checkpoints = (await client.json(f"/sessions/{session_id}/checkpoints", limit=1))["items"]
    head = await client.json(f"/sessions/{session_id}/checkpoints/{checkpoints[0]['checkpoint_id']}")
    assert [m["content"] for m in head["values"]["messages"] if m["type"] == "human"] == asked
