"""Chat: say something, watch the agent work, read the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.conftest import Start, together
from tests.service import Client, Frame, frames_of, said
from tests.stubs.model_server import ModelStub, ToolCall, answer, intent


def names(frames: list[Frame]) -> list[str]:
    """The events in order, tokens in a row counted once."""
    told = [f"{f.event}:{f.data['node']}:{f.data['status']}" if f.event == "node" else f.event for f in frames]
    return [name for i, name in enumerate(told) if i == 0 or name != told[i - 1] or name not in ("token", "tool")]


async def until_event(frames: AsyncIterator[Frame], event: str) -> Frame:
    """Read on to the first frame of this event."""
    async for frame in frames:
        if frame.event == event:
            return frame
    raise AssertionError(f"the stream ended without {event}")


@pytest.mark.parametrize("question", ["What is (15+27)*3?", "(15+27)*3 계산해줘"])
async def test_a_question_that_takes_a_tool(service: Client, question: str) -> None:
    frames = await service.chat(question)

    assert names(frames) == [
        "session",
        "node:analyze_intent:started",
        "intent",
        "node:analyze_intent:finished",
        "node:execute_tools:started",
        "tool",
        "node:execute_tools:finished",
        "node:respond:started",
        "token",
        "node:respond:finished",
        "message",
        "done",
    ]
    tools = [frame.data for frame in frames if frame.event == "tool"]
    assert [tool["status"] for tool in tools] == ["started", "finished"]
    assert tools[1]["result"]["result"] == "126"
    streamed = "".join(frame.data["text"] for frame in frames if frame.event == "token")
    message = next(frame.data for frame in frames if frame.event == "message")
    assert message["content"] == streamed
    assert "126" in streamed
    done = frames[-1].data
    assert done["status"] == "success"
    assert done["checkpoint_id"]
    assert done["usage"]["total_tokens"] > 0


async def test_ids_are_unique_and_increase(service: Client) -> None:
    ids = [frame.id for frame in await service.chat("hello")]

    assert ids == sorted(set(ids))


async def test_several_tools_in_one_message_run_side_by_side(scripted: Client, model: ModelStub) -> None:
    calls = (ToolCall("calculator", {"expression": "1+1"}), ToolCall("calculator", {"expression": "2+2"}))
    model.script(intent("tool", *calls), answer("2", " and ", "4"))

    frames = await scripted.chat("1+1 and 2+2")

    tools = [frame.data for frame in frames if frame.event == "tool"]
    assert [tool["status"] for tool in tools] == ["started", "started", "finished", "finished"]
    assert {tool["result"]["result"] for tool in tools[2:]} == {"2", "4"}


async def test_a_follow_up_knows_what_was_said(service: Client) -> None:
    first = await service.chat("what is 20 + 22?")
    session_id = first[0].data["session_id"]

    second = await service.chat("times 2?", session_id)

    assert second[0].data["session_id"] == session_id
    assert "84" in next(frame.data["content"] for frame in second if frame.event == "message")


async def test_without_a_stream_the_answer_is_one_json_object(service: Client) -> None:
    response = await service.http.post("/chat", json=said("What is 6*7?", stream=False))

    body = response.json()
    assert response.status_code == 200
    assert body["status"] == "success"
    assert "42" in body["message"]["content"]
    assert response.headers["content-location"] == f"/runs/{body['run_id']}"
    assert (await service.json(f"/sessions/{body['session_id']}"))["messages"][0]["content"] == "What is 6*7?"


async def test_a_finished_run_can_be_read_again_from_any_event(service: Client) -> None:
    frames = await service.chat("What is 6*7?")
    path = f"/runs/{frames[0].data['run_id']}/events"

    assert await service.read("GET", path) == frames
    middle = frames[len(frames) // 2].id
    assert await service.read("GET", path, headers={"Last-Event-ID": str(middle)}) == [
        frame for frame in frames if frame.id > middle
    ]
    assert await service.read("GET", path, headers={"Last-Event-ID": str(frames[-1].id)}) == []


async def test_two_viewers_of_one_run_see_the_same_bytes(scripted: Client, model: ModelStub) -> None:
    gate = asyncio.Event()
    model.script(intent(), answer("a ", "b ", gate, "c"))
    async with scripted.http.stream("POST", "/chat", json=said("hi")) as first:
        location = first.headers["location"]
        async with scripted.http.stream("GET", location) as second:
            gate.set()
            one, two = await asyncio.gather(first.aread(), second.aread())

    assert one == two
    assert b"event: done" in one


async def test_a_reader_that_leaves_does_not_stop_the_turn(scripted: Client, model: ModelStub) -> None:
    gate = asyncio.Event()
    model.script(intent(), answer("a ", gate, "b"))
    async with scripted.stream("POST", "/chat", json=said("hi")) as frames:
        first = await anext(frames)
        await until_event(frames, "token")
    gate.set()

    whole = await scripted.read("GET", f"/runs/{first.data['run_id']}/events")

    assert whole[-1].event == "done"
    assert whole[-2].data["content"] == "a b"


async def test_cancel_stops_the_run_and_the_model_call(scripted: Client, model: ModelStub) -> None:
    model.script(intent(), answer("half ", asyncio.Event(), "never"))
    async with scripted.stream("POST", "/chat", json=said("hi")) as frames:
        session = (await anext(frames)).data
        await until_event(frames, "token")

        response = await scripted.http.post(f"/runs/{session['run_id']}/cancel")
        rest = [frame async for frame in frames]

    assert response.status_code == 202
    assert [(f.event, f.data.get("status")) for f in rest] == [("node", "failed"), ("done", "cancelled")]
    async with asyncio.timeout(10):
        await model.calls[-1].done.wait()
    assert model.calls[-1].disconnected
    row = (await scripted.json(f"/sessions/{session['session_id']}/history"))["items"][0]
    assert row["assistant_message"] == "half "
    assert row["extra_metadata"]["status"] == "cancelled"
    again = await scripted.http.post(f"/runs/{session['run_id']}/cancel")
    assert again.status_code == 409


async def test_a_second_message_waits_its_turn(scripted: Client, model: ModelStub) -> None:
    gate = asyncio.Event()
    model.script(intent(), answer("one", gate), intent(), answer("two"))
    async with scripted.stream("POST", "/chat", json=said("first")) as frames:
        session_id = (await anext(frames)).data["session_id"]
        await until_event(frames, "token")
        second = asyncio.create_task(scripted.chat("second", session_id))
        async with asyncio.timeout(10):
            while (await scripted.json("/sessions"))["items"][0]["status"] != "busy":
                pass
        gate.set()
        [frame async for frame in frames]

    assert (await second)[-2].data["content"] == "two"
    document = await scripted.json(f"/sessions/{session_id}")
    assert [m["content"] for m in document["messages"]] == ["first", "one", "second", "two"]


async def test_a_second_message_is_refused_where_that_is_set(start: Start, model: ModelStub) -> None:
    gate = asyncio.Event()
    model.script(intent(), answer("one", gate))
    async with (
        start(openai_base_url=model.url, model="stub", busy_session="reject") as service,
        service.stream("POST", "/chat", json=said("first")) as frames,
    ):
        session_id = (await anext(frames)).data["session_id"]
        refused = await service.http.post("/chat", json=said("second", session_id))
        gate.set()
        rest = [frame async for frame in frames]

    assert refused.status_code == 409
    assert refused.json()["kind"] == "conflict"
    assert rest[-1].event == "done"


async def test_a_waiting_message_can_be_cancelled(scripted: Client, model: ModelStub) -> None:
    gate = asyncio.Event()
    model.script(intent(), answer("one", gate))
    async with scripted.stream("POST", "/chat", json=said("first")) as frames:
        session_id = (await anext(frames)).data["session_id"]
        async with scripted.http.stream("POST", "/chat", json=said("second", session_id)) as waiting:
            run = waiting.headers["content-location"]
            assert (await scripted.http.post(f"{run}/cancel")).status_code == 202
            ended = [frame async for frame in frames_of(waiting.aiter_lines())]
        gate.set()
        first = [frame async for frame in frames]

    assert [(f.event, f.data["status"]) for f in ended] == [("done", "cancelled")]
    assert first[-1].data["status"] == "success"
    assert len(model.calls) == 2


async def test_an_idle_stream_is_kept_open_by_comments(start: Start, model: ModelStub) -> None:
    gate = asyncio.Event()
    model.script(intent(), answer("a", gate))
    async with (
        start(openai_base_url=model.url, model="stub", heartbeat=0.05) as service,
        service.http.stream("POST", "/chat", json=said("hi")) as response,
    ):
        lines = response.aiter_lines()
        async with asyncio.timeout(10):
            while await anext(lines) != ": ping":
                pass
        gate.set()


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"not json", 422, "not valid JSON"),
        (b"[]", 422, "JSON object"),
        (b'"text"', 422, "JSON object"),
        (b"{}", 422, "either message or resume"),
        (b'{"message": "hi", "resume": {"interrupt_id": "x", "value": 1}}', 422, "either message or resume"),
        (b'{"message": ""}', 422, "empty"),
        (b'{"message": "  "}', 422, "empty"),
        (b'{"message": "a\\u0000b"}', 422, "null byte"),
        (b'{"message": "\\ud800"}', 422, "Unicode"),
        (b'{"message": 5}', 422, "message"),
        (b'{"message": "hi", "stream": "perhaps"}', 422, "stream"),
        (b'{"message": "hi", "massage": "hi"}', 422, "massage"),
        (b'{"message": "hi", "session_id": "me"}', 422, "UUID"),
        (b'{"message": "hi", "session_id": "00000000-0000-4000-8000-000000000000"}', 404, "no session"),
        (b'{"resume": {"interrupt_id": "x", "value": 1}}', 422, "session_id"),
        (b'{"message": "' + b"x" * 16_001 + b'"}', 422, "16000"),
        (b'{"message": "' + b"x" * 1_000_000 + b'"}', 413, "larger"),
        (b'{"message": "\xff\xfe"}', 400, "pars"),
        (b'{"message":' + b"[" * 100_000, 400, "pars"),
    ],
)
@together
async def test_what_cannot_be_said_is_refused_in_words(caller: Client, body: bytes, status: int, detail: str) -> None:
    response = await caller.http.post("/chat", content=body, headers={"content-type": "application/json"})

    problem = response.json()
    assert response.status_code == status, problem
    assert response.headers["content-type"] == "application/problem+json"
    assert detail in problem["detail"]
    assert (await caller.json("/sessions"))["items"] == []


@together
async def test_a_body_that_hides_its_length_is_measured(caller: Client) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b'{"message": "'
        for _ in range(20):
            yield b"x" * 100_000

    response = await caller.http.post("/chat", content=parts(), headers={"content-type": "application/json"})

    assert response.status_code == 413


@pytest.mark.parametrize("id", ["abc", "1e3", "-2", "²", "9" * 40])
@together
async def test_a_last_event_id_that_is_none(caller: Client, id: str) -> None:
    run_id = (await caller.chat("hello"))[0].data["run_id"]

    response = await caller.http.get(f"/runs/{run_id}/events", headers={"Last-Event-ID": id.encode()})

    assert response.status_code == 422


@pytest.mark.parametrize(("run_id", "status"), [("x", 422), ("00000000-0000-4000-8000-000000000000", 404)])
@together
async def test_runs_that_are_none(caller: Client, run_id: str, status: int) -> None:
    assert (await caller.http.get(f"/runs/{run_id}/events")).status_code == status
    assert (await caller.http.post(f"/runs/{run_id}/cancel")).status_code == status
