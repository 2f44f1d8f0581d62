"""Runs of the LangGraph Server API, by its own Python client and, where the wire counts, without it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
import pytest_asyncio
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from tests.service import ROOT, Client, Shared, shared

PROJECT = ROOT / "tests" / "projects" / "server" / "langgraph.json"
NOWHERE = "00000000-0000-4000-8000-000000000000"


pytestmark = pytest.mark.asyncio(loop_scope="module")


class Server(NamedTuple):
    """A service that serves the project, and two ways to ask it."""

    client: Client
    sdk: LangGraphClient

    async def thread(self) -> str:
        thread_id: str = (await self.sdk.threads.create())["thread_id"]
        return thread_id

    async def stream(self, thread_id: str | None, text: str | None, **options: Any) -> list[Any]:
        given = saying(text) if text is not None else None
        run = self.sdk.runs.stream(thread_id, options.pop("assistant_id", "agent"), input=given, **options)  # type: ignore[call-overload]
        return [part async for part in run]

    async def post(self, path: str, body: Any) -> Any:
        return await self.client.http.post(path, json=body)


def saying(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def project(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shared]:
    async with shared(tmp_path_factory.mktemp("shared"), config=PROJECT) as service:
        yield service


@pytest_asyncio.fixture(loop_scope="module")
async def server(project: Shared) -> AsyncIterator[Server]:
    async with project.caller() as client:
        yield Server(client, get_client(url=str(client.http.base_url), api_key=client.http.headers["x-api-key"]))


def events(parts: list[Any]) -> list[str]:
    return [part.event for part in parts]


def data(parts: list[Any], event: str) -> list[Any]:
    return [part.data for part in parts if part.event == event]


def text(state: Any) -> list[str]:
    return [message["content"] for message in state["messages"]]


TOKENS = "tok0 tok1 tok2 tok3 tok4 "


async def test_values_after_every_step(server: Server) -> None:
    parts = await server.stream(await server.thread(), "weather please", stream_mode="values")

    assert events(parts) == ["metadata", *["values"] * 4]
    assert parts[0].data["attempt"] == 1
    assert text(parts[-1].data) == ["weather please", "", "sunny in Paris", TOKENS]


async def test_updates_of_every_node(server: Server) -> None:
    parts = await server.stream(await server.thread(), "weather please", stream_mode="updates")

    assert [list(update) for update in data(parts, "updates")] == [["agent"], ["tools"], ["agent"], ["ask"]]
    assert data(parts, "updates")[-1] == {"ask": None}


async def test_messages_as_tuples(server: Server) -> None:
    parts = await server.stream(await server.thread(), "weather please", stream_mode="messages-tuple")

    said = [(message["type"], message["content"]) for message, _ in data(parts, "messages")]
    assert said[:2] == [("AIMessageChunk", ""), ("AIMessageChunk", "")]
    assert ("tool", "sunny in Paris") in said
    assert "".join(content for kind, content in said if kind == "AIMessageChunk") == TOKENS
    _, metadata = data(parts, "messages")[0]
    assert metadata["langgraph_node"] == "agent"
    assert metadata["run_id"] == parts[0].data["run_id"]
    assert {"graph_id", "assistant_id", "thread_id", "langgraph_step", "langgraph_checkpoint_ns"} <= metadata.keys()
    assert not [key for key in metadata if key.startswith(("langgraph_auth", "__"))]


async def test_messages_accumulated(server: Server) -> None:
    parts = await server.stream(await server.thread(), "weather please", stream_mode="messages")

    assert events(parts)[:3] == ["metadata", "messages/metadata", "messages/partial"]
    assert data(parts, "messages/complete")[0][0]["content"] == "sunny in Paris"
    partial = [message["content"] for [message] in data(parts, "messages/partial")]
    assert "tok0 tok1 " in partial
    assert partial[-1] == TOKENS
    calls = [message["tool_calls"] for [message] in data(parts, "messages/partial") if message["tool_calls"]]
    assert calls[-1][0]["args"] == {"city": "Paris"}


async def test_tasks_checkpoints_and_debug(server: Server) -> None:
    thread_id = await server.thread()
    parts = await server.stream(thread_id, "hi", stream_mode=["tasks", "checkpoints", "debug"])

    starts = [task for task in data(parts, "tasks") if "result" not in task]
    assert [task["name"] for task in starts] == ["agent", "ask"]
    assert text(starts[0]["input"]) == ["hi"]
    checkpoints = data(parts, "checkpoints")
    assert [checkpoint["metadata"]["step"] for checkpoint in checkpoints] == [-1, 0, 1, 2]
    assert [checkpoint["next"] for checkpoint in checkpoints] == [["__start__"], ["agent"], ["ask"], []]
    assert text(checkpoints[-1]["values"]) == ["hi", TOKENS]
    state = await server.sdk.threads.get_state(thread_id)
    assert checkpoints[-1]["config"]["configurable"]["checkpoint_id"] == state["checkpoint"]["checkpoint_id"]
    kinds = [frame["type"] for frame in data(parts, "debug")]
    assert kinds.count("checkpoint") == 4
    assert kinds.count("task") == kinds.count("task_result") == 2


async def test_custom_and_events(server: Server) -> None:
    parts = await server.stream(await server.thread(), "hi", stream_mode=["custom", "events"])

    assert data(parts, "custom") == [{"progress": "thinking"}]
    kinds = [event["event"] for event in data(parts, "events")]
    assert kinds[0] == "on_chain_start"
    assert kinds[-1] == "on_chain_end"
    assert "on_chat_model_stream" in kinds


async def test_subgraphs_are_shown_where_they_are_asked_for(server: Server) -> None:
    modes = ["values", "updates", "messages-tuple"]
    shown = await server.stream(
        await server.thread(), "hi", assistant_id="parent", stream_mode=modes, stream_subgraphs=True
    )
    hidden = await server.stream(await server.thread(), "hi", assistant_id="parent", stream_mode=modes)

    inner = {event.partition("|")[0] for event in events(shown) if "|child:" in event}
    assert inner == {"values", "updates", "messages"}
    assert not [event for event in events(hidden) if "|" in event]
    [[message, _]] = data(hidden, "messages")  # the child's answer, whole
    assert (message["type"], message["content"]) == ("ai", TOKENS)


async def test_frames_as_they_stand_on_the_wire(server: Server) -> None:
    thread_id = await server.thread()
    body = {"assistant_id": "agent", "input": saying("hi"), "stream_mode": ["updates"], "stream_resumable": True}
    response = await server.post(f"/threads/{thread_id}/runs/stream", body)

    run_id = json.loads(response.text.split("data: ")[1].split("\r\n")[0])["run_id"]
    path = f"/threads/{thread_id}/runs/{run_id}"
    assert response.headers["content-location"] == path
    assert response.headers["location"] == f"{path}/stream"
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"
    frames = [frame.split("\r\n") for frame in response.text.split("\r\n\r\n") if frame and not frame.startswith(":")]
    assert [[line.partition(":")[0] for line in frame] for frame in frames] == [["event", "data", "id"]] * 3
    ids = [frame[2] for frame in frames]
    assert len(set(ids)) == len(ids)

    for last, due in (("0", frames), ("-1", frames), (ids[0].removeprefix("id: "), frames[1:])):
        again = await server.client.http.get(f"{path}/stream", headers={"Last-Event-ID": last})
        assert [f.split("\r\n") for f in again.text.split("\r\n\r\n") if f] == due
    assert (await server.client.http.get(f"{path}/stream")).text == ""
    bad = await server.client.http.get(f"{path}/stream", headers={"Last-Event-ID": "x"})
    assert (bad.status_code, list(bad.json())) == (422, ["detail"])


async def test_without_ids_unless_resumable(server: Server) -> None:
    body = {"assistant_id": "agent", "input": saying("hi")}
    response = await server.post(f"/threads/{await server.thread()}/runs/stream", body)
    assert "id: " not in response.text.replace('"id":', "")


async def test_waiting_for_the_state(server: Server) -> None:
    thread_id = await server.thread()
    values = await server.sdk.runs.wait(thread_id, "agent", input=saying("hi"))
    assert text(values) == ["hi", TOKENS]

    asked: Any = await server.sdk.runs.wait(thread_id, "agent", input=saying("approve this"))
    assert asked["__interrupt__"][0]["value"] == {"question": "ok?", "for": "approve this"}

    body = {"assistant_id": "agent", "input": saying("boom")}
    response = await server.post(f"/threads/{thread_id}/runs/wait", body)
    assert response.status_code == 200
    assert response.json() == {"__error__": {"error": "ValueError", "message": "The node agent failed."}}
    assert "hunter2" not in response.text


async def test_a_failure_in_a_stream_and_on_the_thread(server: Server) -> None:
    thread_id = await server.thread()
    parts = await server.stream(thread_id, "boom", stream_mode=["values"])

    assert events(parts) == ["metadata", "values", "error"]
    assert parts[-1].data == {"error": "ValueError", "message": "The node agent failed."}
    thread = await server.sdk.threads.get(thread_id)
    assert thread["status"] == "error"
    assert thread["error"] == parts[-1].data  # type: ignore[typeddict-item]
    [run] = await server.sdk.runs.list(thread_id)
    assert run["status"] == "error"

    await server.sdk.runs.wait(thread_id, "agent", input=saying("hi"))
    assert (await server.sdk.threads.get(thread_id))["status"] == "idle"


async def test_an_interrupt_and_its_answer(server: Server) -> None:
    thread_id = await server.thread()
    parts = await server.stream(thread_id, "approve this", stream_mode=["values", "updates"])

    assert events(parts) == ["metadata", "values", "updates", "values", "updates", "values"]
    [asked] = data(parts, "updates")[-1]["__interrupt__"]
    assert asked["value"] == {"question": "ok?", "for": "approve this"}
    assert data(parts, "values")[-1]["__interrupt__"] == [asked]
    thread = await server.sdk.threads.get(thread_id)
    assert thread["status"] == "interrupted"
    [waits] = thread["interrupts"].values()
    assert waits == [{"id": asked["id"], "value": asked["value"]}]

    answered = await server.stream(thread_id, None, command={"resume": "yes"}, stream_mode="values")
    assert text(answered[-1].data)[-1] == "approved: yes"
    assert (await server.sdk.threads.get(thread_id))["status"] == "idle"
    [row] = (await server.client.json(f"/sessions/{thread_id}/history"))["items"]  # one turn
    assert (row["user_message"], row["assistant_message"]) == ("approve this", "approved: yes")
    assert len(row["extra_metadata"]["run_ids"]) == 2


async def test_goto_and_update(server: Server) -> None:
    command = {"update": saying("by command"), "goto": "ask"}
    parts = await server.stream(await server.thread(), None, command=command, stream_mode="updates")
    assert {name for update in data(parts, "updates") for name in update} == {"ask", "agent"}


async def test_breakpoints(server: Server) -> None:
    thread_id = await server.thread()
    values = await server.sdk.runs.wait(thread_id, "agent", input=saying("hi"), interrupt_before=["ask"])
    assert text(values) == ["hi", TOKENS]
    assert (await server.sdk.threads.get(thread_id))["status"] == "interrupted"
    assert (await server.sdk.threads.get_state(thread_id))["next"] == ["ask"]

    parts = await server.stream(thread_id, None, stream_mode="updates")
    assert data(parts, "updates") == [{"ask": None}]
    after = await server.stream(await server.thread(), "hi", interrupt_after="*", stream_mode="updates")
    assert data(after, "updates")[-1] == {"__interrupt__": []}


async def test_a_fork_from_a_checkpoint(server: Server) -> None:
    thread_id = await server.thread()
    await server.sdk.runs.wait(thread_id, "agent", input=saying("first"))
    history = await server.sdk.threads.get_history(thread_id)
    at = next(state for state in history if state["next"] == ["agent"])["checkpoint"]

    forked = await server.sdk.runs.wait(thread_id, "agent", input=None, checkpoint_id=at["checkpoint_id"])
    other = await server.sdk.runs.wait(thread_id, "agent", input=saying("second"), checkpoint=at)  # type: ignore[arg-type]

    assert text(forked) == ["first", TOKENS]
    assert text(other) == ["first", "second", TOKENS]
    assert len(await server.sdk.threads.get_history(thread_id, limit=100)) > len(history)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_every_durability_shows_and_keeps_the_same(server: Server, durability: Any) -> None:
    thread_id = await server.thread()
    parts = await server.stream(thread_id, "hi", stream_mode=["values", "checkpoints"], durability=durability)

    assert text(data(parts, "values")[-1]) == ["hi", TOKENS]
    assert text((await server.sdk.threads.get_state(thread_id))["values"]) == ["hi", TOKENS]
    history = await server.sdk.threads.get_history(thread_id, limit=100)
    assert len(history) == (1 if durability == "exit" else 4)


async def test_without_a_thread_nothing_stays(server: Server) -> None:
    parts = await server.stream(None, "hi", stream_mode=["values", "updates"])
    assert text(data(parts, "values")[-1]) == ["hi", TOKENS]
    assert text(await server.sdk.runs.wait(None, "agent", input=saying("hi"))) == ["hi", TOKENS]
    failed = await server.post("/runs/wait", {"assistant_id": "agent", "input": saying("boom")})
    assert failed.json()["__error__"]["error"] == "ValueError"
    assert failed.headers["location"].endswith("/join")

    assert await server.sdk.threads.search() == []
    assert (await server.client.json("/sessions"))["items"] == []
    gone = await server.client.http.get(f"/runs/{parts[0].data['run_id']}/stream")
    assert '"404: Run not found"' in gone.text

    run = await server.sdk.runs.create(None, "agent", input=saying("hi"), on_completion="keep")
    assert text(await server.sdk.runs.join(run["thread_id"], run["run_id"])) == ["hi", TOKENS]  # type: ignore[arg-type]
    assert len(await server.sdk.threads.search()) == 1


async def test_a_batch(server: Server) -> None:
    payloads: Any = [{"assistant_id": "agent", "input": saying(word), "on_completion": "keep"} for word in "ab"]
    runs: Any = await server.sdk.runs.create_batch(payloads)
    said = [text(await server.sdk.runs.join(run["thread_id"], run["run_id"])) for run in runs]
    assert said == [["a", TOKENS], ["b", TOKENS]]


async def test_in_the_background(server: Server) -> None:
    thread_id = await server.thread()
    run = await server.sdk.runs.create(thread_id, "agent", input=saying("hi"), metadata={"team": "a"})
    assert (run["status"], run["multitask_strategy"]) == ("pending", "enqueue")
    assert run["metadata"]["team"] == "a"  # type: ignore[index]

    assert text(await server.sdk.runs.join(thread_id, run["run_id"])) == ["hi", TOKENS]
    assert (await server.sdk.runs.get(thread_id, run["run_id"]))["status"] == "success"
    [listed] = await server.sdk.runs.list(thread_id, status="success", select=["run_id", "status"])
    assert listed == {"run_id": run["run_id"], "status": "success"}
    await server.sdk.runs.delete(thread_id, run["run_id"])
    assert await server.sdk.runs.list(thread_id) == []
    assert (await server.client.json(f"/sessions/{thread_id}/history"))["items"] == []


async def forever(server: Server, thread_id: str, **options: Any) -> str:
    """A run that has reached its node and stays there."""
    run_id = ""
    modes = ["custom"]
    body = {"assistant_id": "agent", "input": saying("forever"), "stream_mode": modes, **options}
    async with server.client.http.stream("POST", f"/threads/{thread_id}/runs/stream", json=body) as response:
        async for line in response.aiter_lines():
            if "run_id" in line:
                run_id = json.loads(line.partition(": ")[2])["run_id"]
            elif "thinking" in line:
                break
    return run_id


async def ended(server: Server, thread_id: str, run_id: str) -> str:
    await server.sdk.runs.join(thread_id, run_id)
    status: str = (await server.sdk.runs.get(thread_id, run_id))["status"]
    return status


async def test_enqueue_waits_its_turn(server: Server) -> None:
    thread_id = await server.thread()
    first = await forever(server, thread_id)
    second = await server.sdk.runs.create(thread_id, "agent", input=saying("hi"))
    assert (await server.sdk.threads.get(thread_id))["status"] == "busy"
    assert [run["status"] for run in await server.sdk.runs.list(thread_id)] == ["pending", "running"]

    await server.sdk.runs.cancel(thread_id, first, wait=True)
    values: Any = await server.sdk.runs.join(thread_id, second["run_id"])
    assert text(values) == ["forever", "hi", TOKENS]
    assert await ended(server, thread_id, first) == "interrupted"


async def test_reject_refuses(server: Server) -> None:
    thread_id = await server.thread()
    first = await forever(server, thread_id)
    body = {"assistant_id": "agent", "input": saying("hi"), "multitask_strategy": "reject"}
    refused = await server.post(f"/threads/{thread_id}/runs", body)
    assert refused.status_code == 409
    assert refused.json()["detail"].startswith("Thread is already running a task.")
    await server.sdk.runs.cancel(thread_id, first, wait=True)


async def test_interrupt_stops_what_runs_and_keeps_it(server: Server) -> None:
    thread_id = await server.thread()
    first = await forever(server, thread_id)
    values: Any = await server.sdk.runs.wait(thread_id, "agent", input=saying("hi"), multitask_strategy="interrupt")
    assert text(values) == ["forever", "hi", TOKENS]
    assert await ended(server, thread_id, first) == "interrupted"


async def test_rollback_undoes_what_runs(server: Server) -> None:
    thread_id = await server.thread()
    await server.sdk.runs.wait(thread_id, "agent", input=saying("before"))
    first = await forever(server, thread_id)
    values: Any = await server.sdk.runs.wait(thread_id, "agent", input=saying("hi"), multitask_strategy="rollback")
    assert text(values) == ["before", TOKENS, "hi", TOKENS]
    assert (await server.client.http.get(f"/threads/{thread_id}/runs/{first}")).status_code == 404
    rows = (await server.client.json(f"/sessions/{thread_id}/history"))["items"]
    assert [row["user_message"] for row in rows] == ["hi", "before"]
    document = await server.client.json(f"/sessions/{thread_id}")
    assert [m["content"] for m in document["messages"] if m["role"] == "user"] == ["before", "hi"]


async def test_cancel(server: Server) -> None:
    thread_id = await server.thread()
    run_id = await forever(server, thread_id)
    await server.sdk.runs.cancel(thread_id, run_id, wait=True, action="rollback")
    assert (await server.client.http.get(f"/threads/{thread_id}/runs/{run_id}")).status_code == 404
    assert (await server.sdk.threads.get_state(thread_id))["values"] == {}

    run_id = await forever(server, thread_id)
    await server.sdk.runs.cancel_many(thread_id=thread_id, run_ids=[run_id])
    assert await ended(server, thread_id, run_id) == "interrupted"
    again = await server.client.http.post(f"/threads/{thread_id}/runs/{run_id}/cancel")
    assert (again.status_code, again.json()) == (404, {"detail": "No runs found to cancel."})
    await forever(server, thread_id)
    await server.sdk.runs.cancel_many(status="all")


async def test_a_running_run_is_not_deleted(server: Server) -> None:
    thread_id = await server.thread()
    run_id = await forever(server, thread_id)
    assert (await server.client.http.delete(f"/threads/{thread_id}/runs/{run_id}")).status_code == 409
    await server.sdk.runs.cancel(thread_id, run_id, wait=True)


async def test_a_reader_that_leaves(server: Server) -> None:
    thread_id = await server.thread()
    left = await forever(server, thread_id, on_disconnect="cancel")
    assert await ended(server, thread_id, left) == "interrupted"
    stays = await forever(server, thread_id)
    assert (await server.sdk.runs.get(thread_id, stays))["status"] == "running"
    await server.sdk.runs.cancel(thread_id, stays, wait=True)


async def test_joining_a_run_that_goes_on(server: Server) -> None:
    thread_id = await server.thread()
    run_id = await forever(server, thread_id, stream_mode=["custom", "values"])

    async def joined() -> list[Any]:
        return [part async for part in server.sdk.runs.join_stream(thread_id, run_id, last_event_id="0")]

    reading = asyncio.create_task(joined())
    await server.sdk.runs.cancel(thread_id, run_id, wait=True)
    assert events(await reading) == ["metadata", "values", "custom"]


async def test_later(server: Server) -> None:
    thread_id = await server.thread()
    run = await server.sdk.runs.create(thread_id, "agent", input=saying("hi"), after_seconds=3600)
    assert (await server.sdk.runs.get(thread_id, run["run_id"]))["status"] == "pending"
    assert (await server.sdk.threads.get(thread_id))["status"] == "busy"
    await server.sdk.runs.cancel(thread_id, run["run_id"], wait=True)
    assert (await server.sdk.threads.get(thread_id))["status"] == "idle"

    soon = await server.sdk.runs.create(thread_id, "agent", input=saying("hi"), after_seconds=1)
    assert text(await server.sdk.runs.join(thread_id, soon["run_id"])) == ["hi", TOKENS]  # type: ignore[arg-type]


async def test_a_session_of_the_chat_is_a_thread_and_the_reverse(server: Server) -> None:
    frames = await server.client.chat("hi")
    session_id, run_id = frames[0].data["session_id"], frames[0].data["run_id"]

    [thread] = await server.sdk.threads.search(metadata={"graph_id": "agent"})
    assert thread["thread_id"] == session_id
    assert text(thread["values"]) == ["hi", TOKENS]
    [run] = await server.sdk.runs.list(session_id)
    assert run["run_id"] == run_id
    played = server.sdk.runs.join_stream(session_id, run_id, stream_mode=["values", "updates"], last_event_id="0")
    parts = [part async for part in played]
    assert text(data(parts, "values")[-1]) == ["hi", TOKENS]
    assert [list(update) for update in data(parts, "updates")] == [["agent"], ["ask"]]

    await server.sdk.runs.wait(session_id, "agent", input=saying("weather"))
    more = await server.client.chat("and now", session_id)
    assert more[-1].event == "done"
    assert len((await server.sdk.threads.get_state(session_id))["values"]["messages"]) == 8  # type: ignore[call-overload]
    rows = (await server.client.json(f"/sessions/{session_id}/history"))["items"]
    assert [row["user_message"] for row in rows] == ["and now", "weather", "hi"]
    read = await server.client.read("GET", f"/runs/{(await server.sdk.runs.list(session_id))[1]['run_id']}/events")
    assert read[0].event == "session"


async def test_a_thread_is_made_where_that_is_asked_for(server: Server) -> None:
    thread_id = str(uuid4())
    body = {"assistant_id": "agent", "input": saying("hi"), "if_not_exists": "create"}
    response = await server.post(f"/threads/{thread_id}/runs/wait", body)
    assert text(response.json()) == ["hi", TOKENS]
    assert (await server.sdk.threads.get(thread_id))["thread_id"] == thread_id


async def test_what_the_assistant_says_holds_for_its_runs(server: Server) -> None:
    assistant = await server.sdk.assistants.create("agent", config={"recursion_limit": 1}, metadata={"team": "b"})
    run = await server.sdk.runs.create(None, assistant["assistant_id"], input=saying("hi"), on_completion="keep")
    result = await server.client.http.get(f"/threads/{run['thread_id']}/runs/{run['run_id']}/join")
    assert result.json()["__error__"]["error"] == "GraphRecursionError"
    assert run["metadata"]["team"] == "b"  # type: ignore[index]


@pytest.mark.parametrize(
    ("path", "body", "status", "detail"),
    [
        (f"/threads/{NOWHERE}/runs", {"assistant_id": "agent"}, 404, "Thread or assistant not found."),
        (f"/threads/{NOWHERE}/runs/stream", {"assistant_id": "agent"}, 404, "Thread or assistant not found."),
        ("/runs", {"assistant_id": "nope"}, 422, "Invalid assistant: 'nope'. Must be either:"),
        ("/runs", {"assistant_id": NOWHERE}, 404, "Thread or assistant not found."),
        ("/runs", {}, 422, "assistant_id"),
        ("/runs", {"assistant_id": "agent", "stream_mode": "nope"}, 422, "stream_mode"),
        ("/runs", {"assistant_id": "agent", "multitask_strategy": "x"}, 422, "multitask_strategy"),
        ("/runs", {"assistant_id": "agent", "after_seconds": -1}, 422, "after_seconds"),
        ("/runs", {"assistant_id": "agent", "config": {"recursion_limit": 0}}, 422, "recursion_limit"),
        (
            "/runs",
            {"assistant_id": "agent", "config": {"configurable": {"a": 1}}, "context": {"b": 1}},
            400,
            "Cannot specify both configurable and context.",
        ),
        ("/runs/batch", [], 422, ""),
        ("/runs/cancel", {}, 422, "Give either status"),
        ("/runs/cancel", {"status": "all"}, 404, "No runs found to cancel."),
        ("/runs", "not json", 422, "Invalid JSON"),
    ],
)
async def test_what_is_refused(server: Server, path: str, body: Any, status: int, detail: str) -> None:
    content = body if body == "not json" else json.dumps(body)
    response = await server.client.http.post(path, content=content, headers={"content-type": "text/plain"})
    assert (response.status_code, list(response.json())) == (status, ["detail"])
    assert detail in response.json()["detail"]


async def test_runs_that_are_not_there(server: Server) -> None:
    thread_id = await server.thread()
    other = await server.thread()
    run = await server.sdk.runs.create(other, "agent", input=saying("hi"))
    await server.sdk.runs.join(other, run["run_id"])
    http = server.client.http
    for run_id in (NOWHERE, run["run_id"]):
        path = f"/threads/{thread_id}/runs/{run_id}"
        assert (await http.get(path)).status_code == 404
        assert (await http.delete(path)).status_code == 404
        assert (await http.post(f"{path}/cancel")).status_code == 404
        assert '"404: Run not found"' in (await http.get(f"{path}/stream")).text
        assert "__error__" in (await http.get(f"{path}/join")).json()
    assert (await http.get(f"/threads/{thread_id}/runs/x")).status_code == 422
    assert (await http.get(f"/threads/x/runs/{NOWHERE}")).status_code == 422
