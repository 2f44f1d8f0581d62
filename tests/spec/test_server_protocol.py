"""A thread as one stream: Protocol v2's commands and events, and the thread stream of the older clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from api.wire import langgraph, protocol
from tests.spec.test_server_runs import TOKENS, Server, forever, project, saying, server, text
from threadline.domain.events import Event

__all__ = ["project", "server"]

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALL = ["values", "updates", "messages", "tools", "custom", "lifecycle", "input", "tasks", "checkpoints"]


async def commanded(server: Server, thread_id: str, method: str, **params: Any) -> Any:
    response = await server.post(f"/threads/{thread_id}/commands", {"id": 7, "method": method, "params": params})
    assert response.status_code == 200
    assert response.json()["id"] == 7
    return response.json()


async def started(server: Server, thread_id: str, asked: str, **params: Any) -> str:
    answer = await commanded(server, thread_id, "run.start", assistant_id="agent", input=saying(asked), **params)
    assert answer["type"] == "success", answer
    run_id: str = answer["result"]["run_id"]
    return run_id


async def until(
    server: Server, thread_id: str, last: Callable[[Any], bool], channels: list[str] | None = None, **body: Any
) -> list[Any]:
    """The events of a subscription up to the one that is `last`."""
    seen = []
    asked = {"channels": channels or ALL, **body}
    async with server.client.http.stream("POST", f"/threads/{thread_id}/stream/events", json=asked) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        async for event in envelopes(response):
            seen.append(event)
            if last(event):
                break
    return seen


async def envelopes(response: httpx.Response) -> AsyncIterator[Any]:
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line == "" and fields:
            event = json.loads(fields["data"])
            assert fields["event"] == event["method"]
            assert int(fields["id"]) == event["seq"]
            yield event
            fields = {}
        elif line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value


def lifecycle(kind: str) -> Callable[[Any], bool]:
    return lambda event: event["method"] == "lifecycle" and data(event)["event"] == kind and not place(event)


def data(event: Any) -> Any:
    return event["params"]["data"]


def place(event: Any) -> list[str]:
    namespace: list[str] = event["params"]["namespace"]
    return namespace


def of(events: list[Any], method: str) -> list[Any]:
    return [data(event) for event in events if event["method"] == method]


async def test_a_turn_on_every_channel(server: Server) -> None:
    thread_id = str(uuid4())  # made by the command
    await started(server, thread_id, "weather please")
    events = await until(server, thread_id, lifecycle("completed"))

    assert [event["seq"] for event in events] == sorted({event["seq"] for event in events})
    assert of(events, "lifecycle")[0] == {"event": "running", "graph_name": "agent"}
    assert text(of(events, "values")[-1]) == ["weather please", "", "sunny in Paris", TOKENS]
    assert [update["node"] for update in of(events, "updates")] == ["agent", "tools", "agent", "ask"]
    assert of(events, "custom") == [{"payload": {"progress": "thinking"}}] * 2
    assert [tool["event"] for tool in of(events, "tools")] == ["tool-started", "tool-finished"]
    assert of(events, "tools")[0]["tool_name"] == "get_weather"
    assert [checkpoint["step"] for checkpoint in of(events, "checkpoints")] == [-1, 0, 1, 2, 3, 4]
    assert len(of(events, "tasks")) == 8


async def test_messages_as_content_blocks(server: Server) -> None:
    thread_id = await server.thread()
    await started(server, thread_id, "weather please")
    said = of(await until(server, thread_id, lifecycle("completed")), "messages")

    kinds = [event["event"] for event in said]
    call, answer = kinds[: kinds.index("message-finish") + 1], kinds[kinds.index("message-finish") + 1 :]
    blocks = ["content-block-start", *["content-block-delta"] * 2, "content-block-finish"]
    assert call == ["message-start", *blocks, "message-finish"]
    assert answer == [
        "message-start",
        "content-block-start",
        *["content-block-delta"] * 5,
        "content-block-finish",
        "message-finish",
    ]
    assert said[4]["content"] == {
        "type": "tool_call",
        "id": "call_1",
        "name": "get_weather",
        "args": {"city": "Paris"},
    }
    assert said[-2]["content"] == {"type": "text", "text": TOKENS}
    deltas = [event["delta"]["text"] for event in said if event.get("delta", {}).get("type") == "text-delta"]
    assert "".join(deltas) == TOKENS


async def test_an_interrupt_and_its_answer(server: Server) -> None:
    thread_id = await server.thread()
    await started(server, thread_id, "approve it")
    events = await until(server, thread_id, lifecycle("interrupted"), ["lifecycle", "input"])
    assert [event["method"] for event in events] == ["lifecycle", "input.requested", "lifecycle"]
    asked = data(events[1])
    assert asked["value"] == asked["payload"] == {"question": "ok?", "for": "approve it"}

    wrong = await commanded(server, thread_id, "input.respond", namespace=[], interrupt_id="x", response=1)
    assert wrong["error"] == "no_such_interrupt"
    done = await commanded(
        server, thread_id, "input.respond", namespace=[], interrupt_id=asked["interrupt_id"], response="yes"
    )
    assert done["result"] == {}
    since = events[-1]["seq"]
    rest = await until(server, thread_id, lifecycle("completed"), ["lifecycle", "values"], since=since)
    assert min(event["seq"] for event in rest) > since
    assert text(of(rest, "values")[-1])[-1] == "approved: yes"


async def test_numbers_go_on_and_a_late_reader_sees_it_all(server: Server) -> None:
    thread_id = await server.thread()
    for word in ("one", "two"):
        run_id = await started(server, thread_id, word)
        await server.sdk.runs.join(thread_id, run_id)

    count = 0

    def second_end(event: Any) -> bool:
        nonlocal count
        count += lifecycle("completed")(event)
        return count == 2

    whole = await until(server, thread_id, second_end)
    middle = whole[len(whole) // 2]["seq"]
    count = 1 if any(lifecycle("completed")(event) for event in whole if event["seq"] <= middle) else 0
    rest = await until(server, thread_id, second_end, since=middle)

    assert [event["seq"] for event in whole] == sorted({event["seq"] for event in whole})
    assert rest == [event for event in whole if event["seq"] > middle]


async def test_subgraphs_and_filters(server: Server) -> None:
    thread_id = await server.thread()
    answer = await commanded(server, thread_id, "run.start", assistant_id="parent", input=saying("hi"))
    assert answer["type"] == "success"
    events = await until(server, thread_id, lifecycle("completed"))
    inner = [event for event in events if place(event)]
    [child] = {place(event)[0] for event in inner}
    assert child.startswith("child:")
    told = [(data(event)["event"], data(event)["graph_name"]) for event in inner if event["method"] == "lifecycle"]
    assert told == [("started", "child"), ("completed", "child")]

    def inner_end(event: Any) -> bool:
        return event["method"] == "lifecycle" and data(event)["event"] == "completed"

    only = await until(server, thread_id, inner_end, namespaces=[[child]])
    assert {tuple(place(event)) for event in only} == {(child,)}
    shallow = await until(server, thread_id, lifecycle("completed"), depth=0)
    assert not [event for event in shallow if place(event)]


async def test_a_failure_tells_nothing_internal(server: Server) -> None:
    thread_id = await server.thread()
    await started(server, thread_id, "boom")
    events = await until(server, thread_id, lifecycle("failed"))
    assert data(events[-1])["error"] == "The node agent failed."
    assert "hunter2" not in json.dumps(events)


async def test_a_turn_of_the_chat_is_followed_too(server: Server) -> None:
    frames = await server.client.chat("hi")
    events = await until(server, frames[0].data["session_id"], lifecycle("completed"))
    assert text(of(events, "values")[-1]) == ["hi", TOKENS]
    assert [update["node"] for update in of(events, "updates")] == ["agent", "ask"]


async def test_a_thread_that_is_not_there_yet(server: Server) -> None:
    thread_id = str(uuid4())
    body = {"channels": ["lifecycle"]}
    async with server.client.http.stream("POST", f"/threads/{thread_id}/stream/events", json=body) as response:
        await started(server, thread_id, "hi")
        async for event in envelopes(response):
            if lifecycle("completed")(event):
                break


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"x": 1}, 400, "Protocol commands must include an integer id and string method."),
        ("nonsense", 400, "Protocol commands must include"),
        ({"id": 1, "method": "bogus.method"}, 200, "Unknown protocol command: bogus.method"),
        ({"id": 1, "method": "run.start", "params": {}}, 200, "run.start requires an assistant_id."),
        ({"id": 1, "method": "run.start", "params": {"assistant_id": "nope"}}, 200, "Invalid assistant: 'nope'"),
        ({"id": 1, "method": "run.start", "params": {"assistant_id": "agent", "config": 7}}, 200, "config"),
        ({"id": 1, "method": "input.respond", "params": {}}, 200, "input.respond requires an interrupt_id."),
        ({"id": 1, "method": "input.respond", "params": {"interrupt_id": "x"}}, 200, "not wait for x"),
    ],
)
async def test_commands_that_are_refused(server: Server, body: Any, status: int, told: str) -> None:
    response = await server.post(f"/threads/{await server.thread()}/commands", body)
    assert response.status_code == status
    assert response.json()["type"] == "error"
    assert told in response.json()["message"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "channels is required and must be a non-empty array"),
        ({"channels": []}, "channels is required and must be a non-empty array"),
        ({"channels": ["zzz"]}, "channels contains unsupported entries: zzz."),
        ({"channels": ["values"], "since": -1}, "since"),
        ({"channels": ["values"], "depth": "x"}, "depth"),
    ],
)
async def test_subscriptions_that_are_refused(server: Server, body: Any, told: str) -> None:
    response = await server.post(f"/threads/{await server.thread()}/stream/events", body)
    assert response.status_code == 400
    assert told in response.json()["detail"]
    assert (await server.post("/threads/x/stream/events", {"channels": ["values"]})).status_code == 422


async def test_the_thread_stream_of_the_older_clients(server: Server) -> None:
    thread_id = await server.thread()
    await server.sdk.runs.wait(thread_id, "agent", input=saying("before"))
    run_ids = []

    async def two_runs(last_event_id: str | None, runs: int) -> list[Any]:
        parts: list[Any] = []
        async for part in await server.sdk.threads.join_stream(thread_id, last_event_id=last_event_id):
            parts.append(part)
            runs -= part.event == "metadata" and part.data.get("status") == "run_done"
            if runs == 0:
                break
        return parts

    replayed = await two_runs("0", 1)
    assert [part.event for part in replayed] == ["metadata", *["values"] * 2, "metadata"]

    path = f"/threads/{thread_id}/stream"
    async with server.client.http.stream("GET", path) as response:  # from now on
        for _ in range(2):
            run = await server.sdk.runs.create(thread_id, "agent", input=saying("hi"), stream_mode="updates")
            run_ids.append(run["run_id"])
        seen, ids = [], []
        async for line in response.aiter_lines():
            seen += [line] if line.startswith("event: ") else []
            ids += [line] if line.startswith("id: ") else []
            if "run_done" in line and run_ids[-1] in line:
                break
    assert seen == ["event: metadata", "event: updates", "event: updates", "event: metadata"] * 2
    assert len(ids) == len(set(ids))
    again = await two_runs(ids[3].removeprefix("id: "), 1)
    assert [part.event for part in again] == ["metadata", "updates", "updates", "metadata"]
    bad = await server.client.http.get(path, headers={"Last-Event-ID": "x"})
    assert bad.status_code == 422


async def test_a_run_that_goes_on_is_followed_from_now(server: Server) -> None:
    thread_id = await server.thread()
    run_id = await forever(server, thread_id)
    async with server.client.http.stream("GET", f"/threads/{thread_id}/stream") as response:
        await server.sdk.runs.cancel(thread_id, run_id, wait=True)
        first = [line async for line in until_blank(response)]
    assert "run_done" in "".join(first)


async def until_blank(response: httpx.Response) -> AsyncIterator[str]:
    async for line in response.aiter_lines():
        if not line:
            return
        yield line


@pytest.mark.parametrize("kind", ["protocol", "langgraph"])
async def test_many_readers_of_a_run_see_the_same_and_each_line_is_encoded_once(
    kind: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder: Any = {"protocol": protocol.Encoder, "langgraph": langgraph.Encoder}[kind]
    frames, encoded, open_readers = encoder.frames, list[int](), asyncio.Semaphore(0)

    async def noted(self: Any, event: Event) -> Any:
        encoded.append(event.id)
        return await frames(self, event)

    monkeypatch.setattr(encoder, "frames", noted)
    thread = await server.thread()
    path = f"/threads/{thread}/stream"

    async def read() -> bytes:
        ask = {"method": "POST", "url": f"{path}/events", "json": {"channels": ALL}}
        asked: dict[str, Any] = ask if kind == "protocol" else {"method": "GET", "url": path}
        end = b'"completed"' if kind == "protocol" else b'"run_done"'
        seen = b""
        async with server.client.http.stream(**asked) as response:
            open_readers.release()
            async for chunk in response.aiter_raw():
                seen += chunk
                if end in seen and seen.endswith(b"\r\n\r\n"):
                    break
        return seen

    async with asyncio.timeout(30):
        readers = [asyncio.create_task(read()) for _ in range(20)]
        for _ in readers:
            await open_readers.acquire()
        call = {"assistant_id": "bench", "input": saying("300"), "stream_mode": ["messages-tuple", "values"]}
        ended = await server.post(f"/threads/{thread}/runs/wait", call)
        seen = await asyncio.gather(*readers)

    assert ended.json()["messages"][-1]["content"].endswith("tok299 ")
    assert len(set(seen)) == 1
    assert b"tok299" in seen[0]
    assert len(encoded) == len(set(encoded)) > 300
