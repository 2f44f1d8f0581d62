"""Re-runs: executed again from a checkpoint with changes. What stands in the recording costs nothing again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Start
from tests.service import Client, Frame, said
from tests.stubs.model_server import Call, End, ModelStub, Reply, ToolCall, answer, intent
from tests.stubs.web_services import WebServices, web_services
from threadline.services.auth import LOCAL

NOBODY = "00000000-0000-4000-8000-000000000000"
SUM = ToolCall("calculator", {"expression": "6*7"})
WEATHER = ToolCall("weather", {"place": "Seoul"})


def counted(call: Call) -> Reply:
    """A model that never says the same twice: it numbers its answers. It wants the sum where none is worked out yet."""
    number = len(COUNTS)
    COUNTS.append(call)
    if not call.wants_intent:
        return answer("answer ", f"number {number}")
    asked = call.last_message["content"]
    return intent("tool", WEATHER if "weather" in str(asked) else SUM) if "?" in str(asked) else intent()


COUNTS: list[Call] = []


@pytest.fixture
async def model() -> AsyncIterator[ModelStub]:
    COUNTS.clear()
    async with ModelStub(reply=counted, models=("stub", "other")) as stub:
        yield stub


@pytest.fixture
async def web() -> AsyncIterator[WebServices]:
    async with web_services() as stub:
        yield stub


@pytest.fixture
async def service(start: Start, model: ModelStub, web: WebServices) -> AsyncIterator[Client]:
    """The service with the counting model and web services, and without a cache of tool results."""
    urls = web.urls()
    async with start(openai_base_url=model.url, model="stub", tool_cache_size=0, **urls) as client:
        yield client


async def steps(client: Client, session_id: str) -> list[dict[str, Any]]:
    """The session's checkpoints with their states, oldest first."""
    listed = (await client.json(f"/sessions/{session_id}/checkpoints", limit=500))["items"][::-1]
    where = f"/sessions/{session_id}/checkpoints"
    return [await client.json(f"{where}/{item['checkpoint_id']}") for item in listed]


async def at(client: Client, session_id: str, node: str, *, turn: int = -1) -> str:
    """The checkpoint before a node, in the last turn or in that one."""
    before = [step for step in await steps(client, session_id) if step["next"] == [node]]
    return str(before[turn]["checkpoint_id"])


async def rerun(
    client: Client, session_id: str, checkpoint_id: str, *, into: str = "branch", **changes: Any
) -> list[Frame]:
    body = {"mode": "rerun", "checkpoint_id": checkpoint_id, "changes": changes, "into": into}
    return await client.read("POST", f"/sessions/{session_id}/replay", json=body)


def session_of(frames: list[Frame]) -> str:
    return str(frames[0].data["session_id"])


def content(frames: list[Frame]) -> str:
    assert frames[-1].event == "done", frames[-1]
    (message,) = [frame for frame in frames if frame.event == "message"]
    return str(message.data["content"])


def usage(frames: list[Frame]) -> tuple[int, int]:
    """How many model calls were made, and how many the recording answered."""
    told = frames[-1].data["usage"]
    return told["model_calls"], told["recorded_calls"]


def told(frames: list[Frame], event: str, **fields: Any) -> list[dict[str, Any]]:
    data = [frame.data for frame in frames if frame.event == event]
    return [each for each in data if all(each.get(name) == value for name, value in fields.items())]


# Models


async def test_unchanged_it_calls_nothing_and_streams_the_same(service: Client, model: ModelStub) -> None:
    first = await service.chat("6*7?")
    session_id, calls = session_of(first), len(model.calls)

    again = await rerun(service, session_id, await at(service, session_id, "__start__"))

    assert len(model.calls) == calls == 2
    assert content(again) == content(first) == "answer number 1"
    assert usage(again) == (0, 2)
    assert again[-1].data["usage"]["total_tokens"] == 0
    assert again[-1].data["cost"] == 0
    shown = [(frame.event, frame.data.get("text"), frame.data.get("node")) for frame in first]
    assert [(frame.event, frame.data.get("text"), frame.data.get("node")) for frame in again] == shown
    assert [node["node"] for node in told(again, "node", status="finished", recorded=True)] == [
        "analyze_intent",
        "execute_tools",
        "respond",
    ]
    assert all("recorded" not in frame.data for frame in first)
    (message,) = told(again, "message")
    assert message["response_metadata"]["recorded"] is True
    assert message["id"] != told(first, "message")[0]["id"]


async def test_a_changed_prompt_calls_the_model_for_what_follows_it_alone(service: Client, model: ModelStub) -> None:
    session_id = session_of(await service.chat("6*7?"))
    start = await at(service, session_id, "analyze_intent", turn=0)

    again = await rerun(service, session_id, start, prompts={"respond": "short"})

    assert content(again) == "answer number 2"
    assert usage(again) == (1, 1)
    assert len(model.calls) == 3
    assert "in one sentence" in model.calls[2].body["messages"][0]["content"]
    recorded = {node["node"]: node.get("recorded") for node in told(again, "node", status="finished")}
    assert recorded == {"analyze_intent": True, "execute_tools": True, "respond": None}

    from_the_answer = await rerun(
        service, session_id, await at(service, session_id, "respond", turn=0), prompts={"respond": {"text": "Shout."}}
    )
    assert usage(from_the_answer) == (1, 0)
    assert model.calls[3].body["messages"][0]["content"] == "Shout."

    analysed = await rerun(service, session_id, start, prompts={"analyze_intent": {"text": "Be careful. $tools"}})
    assert usage(analysed) == (1, 1), "it came to the same, so that the answer stands"
    assert len(model.calls) == 5


@pytest.mark.parametrize(
    ("changes", "made"),
    [
        ({"temperature": 0.3}, (2, 0)),
        ({"model": "other"}, (2, 0)),
        ({"model": "stub"}, (0, 2)),
        ({"message": "What is 6*7, then?"}, (2, 0)),
        ({"message": "6*7?"}, (0, 2)),
        ({"models": "live"}, (2, 0)),
        ({"answers": {"analyze_intent": '{"kind":"chat","confidence":1,"language":"en"}'}}, (1, 1)),
        ({"answers": {"respond": "by hand"}}, (0, 2)),
        ({"answers": {"respond": "by hand"}, "models": "live"}, (1, 1)),
    ],
    ids=str,
)
async def test_what_changes_a_call_makes_it_anew(
    service: Client, model: ModelStub, changes: dict[str, Any], made: tuple[int, int]
) -> None:
    session_id = session_of(await service.chat("6*7?"))

    again = await rerun(service, session_id, await at(service, session_id, "analyze_intent"), **changes)

    assert usage(again) == made
    assert len(model.calls) == 2 + made[0]
    asked = [call.body for call in model.calls[2:]]
    assert all(body["model"] == changes.get("model", "stub") for body in asked)
    assert all(body.get("temperature") == changes.get("temperature") for body in asked)
    if "respond" in changes.get("answers", {}):
        assert content(again) == "by hand"


async def test_a_rerun_of_a_rerun_finds_its_answers_too(service: Client, model: ModelStub) -> None:
    session_id = session_of(await service.chat("6*7?"))
    start = await at(service, session_id, "analyze_intent")
    once = await rerun(service, session_id, start, temperature=0.5)
    calls = len(model.calls)

    twice = await rerun(service, session_id, start, temperature=0.5)

    assert content(twice) == content(once) != "answer number 1"
    assert usage(twice) == (0, 2)
    assert len(model.calls) == calls


async def test_the_recording_outlives_the_service(start: Start, model: ModelStub) -> None:
    async with start(openai_base_url=model.url, model="stub") as service:
        session_id = session_of(await service.chat("hello"))
        checkpoint_id = await at(service, session_id, "analyze_intent")
    async with start(openai_base_url=model.url, model="stub") as service:
        again = await rerun(service, session_id, checkpoint_id)

    assert usage(again) == (0, 2)
    assert len(model.calls) == 2


async def test_the_recording_is_in_no_stream(service: Client) -> None:
    first = await service.chat("6*7?")
    run_id, session_id = first[0].data["run_id"], session_of(first)
    assert service.context is not None
    run = await service.context.runs.check(run_id, LOCAL, "read")
    noted = [event async for event in service.context.runs.follow(run) if event.type == "calls"]
    kinds = [(event.data["kind"], event.data["node"], event.data["recorded"]) for event in noted]
    assert kinds == [
        ("model", "analyze_intent", False),
        ("tool", "execute_tools", False),
        ("model", "respond", False),
    ]
    assert noted[0].data["prompt"] == "analyze_intent@1"
    assert {"message_id", "answer"} & noted[2].data.keys() == {"message_id"}, "its deltas stand in the log already"

    ids = {event.id for event in noted}
    modes = ["values", "updates", "messages-tuple", "custom", "debug", "tasks", "checkpoints"]
    joined = await service.http.get(
        f"/threads/{session_id}/runs/{run_id}/stream", params={"stream_mode": modes}, headers={"Last-Event-ID": "0"}
    )
    assert joined.status_code == 200
    assert "event: calls" not in joined.text
    assert noted[0].data["key"] not in joined.text
    assert not ids & {frame.id for frame in first}


# What a run may choose


async def test_a_run_chooses_by_its_config_what_a_rerun_changes(service: Client, model: ModelStub) -> None:
    described = await service.json("/assistants/agent/schemas")
    chosen = described["context_schema"]["properties"]
    assert chosen.keys() == {"model", "temperature", "prompts"}
    assert described["config_schema"] == described["context_schema"]
    assert "intent" in described["state_schema"]["properties"]

    config = {"configurable": {"model": "other", "temperature": 0.25, "prompts": {"respond": "short"}}}
    asked = {"messages": [{"role": "user", "content": "hello"}]}
    created = await service.http.post("/threads", json={})
    where = f"/threads/{created.json()['thread_id']}"
    body = {"assistant_id": "agent", "input": asked, "config": config}
    assert (await service.http.post(f"{where}/runs/wait", json=body)).status_code == 200

    assert [call.body["model"] for call in model.calls] == ["other", "other"]
    assert [call.body["temperature"] for call in model.calls] == [0.25, 0.25]
    assert "in one sentence" in model.calls[1].body["messages"][0]["content"]
    metadata = (await service.json(f"{where}/state"))["metadata"]
    assert (metadata["model"], metadata["temperature"]) == ("other", 0.25)
    assert (metadata["prompt_analyze_intent"], metadata["prompt_respond"]) == ("1", "short")

    thread_id = created.json()["thread_id"]
    again = await rerun(service, thread_id, await at(service, thread_id, "respond"))
    assert usage(again) == (0, 1), "what the run chose, the re-run keeps"
    back = await rerun(service, thread_id, await at(service, thread_id, "respond"), prompts={"respond": "1"})
    assert usage(back) == (1, 0)
    assert (model.calls[-1].body["model"], model.calls[-1].body["temperature"]) == ("other", 0.25)
    assert (await service.json(f"{where}/state"))["metadata"]["prompt_respond"] == "1"


async def test_a_choice_that_makes_no_sense_is_told(service: Client, model: ModelStub) -> None:
    thread_id = (await service.http.post("/threads", json={})).json()["thread_id"]
    asked = {"messages": [{"role": "user", "content": "hello"}]}
    for configurable, word in (({"temperature": 9}, "temperature"), ({"prompts": {"respond": "9"}}, "no version 9")):
        body = {"assistant_id": "agent", "input": asked, "config": {"configurable": configurable}}
        response = await service.http.post(f"/threads/{thread_id}/runs/wait", json=body)
        assert word in response.text
    assert model.calls == []


# Tools


async def test_tools_answer_from_the_recording_unless_they_shall_not(service: Client, web: WebServices) -> None:
    session_id = session_of(await service.chat("weather?"))
    start, asked = await at(service, session_id, "analyze_intent"), len(web.calls)
    assert asked > 0

    again = await rerun(service, session_id, start, temperature=1)
    assert len(web.calls) == asked
    (finished,) = told(again, "tool", status="finished")
    assert finished["recorded"] is True
    assert usage(again) == (2, 0)

    live = await rerun(service, session_id, start, tools="live")
    assert len(web.calls) == 2 * asked
    (finished,) = told(live, "tool", status="finished")
    assert "recorded" not in finished
    assert usage(live) == (0, 2), "the weather is the same, so that the answer stands"


async def test_a_tool_call_that_is_new_is_made(service: Client, web: WebServices) -> None:
    session_id = session_of(await service.chat("6*7?"))
    planned = {"kind": "tool", "confidence": 1, "language": "en"}
    calls = [{"name": "calculator", "args": {"expression": "6*7"}}, {"name": "weather", "args": {"place": "Seoul"}}]

    again = await rerun(
        service,
        session_id,
        await at(service, session_id, "analyze_intent"),
        answers={"analyze_intent": json.dumps({**planned, "tool_calls": calls})},
    )

    finished = {tool["name"]: tool.get("recorded") for tool in told(again, "tool", status="finished")}
    assert finished == {"calculator": True, "weather": None}
    assert len(web.calls) > 0
    assert [node.get("recorded") for node in told(again, "node", status="finished", node="execute_tools")] == [None]


async def test_a_failed_tool_call_fails_again_without_being_made(service: Client, web: WebServices) -> None:
    web.faults["weather"] = "500"
    session_id = session_of(await service.chat("weather?"))
    asked = len(web.calls)

    again = await rerun(service, session_id, await at(service, session_id, "analyze_intent"))

    assert len(web.calls) == asked
    (failed,) = told(again, "tool", status="failed")
    assert failed["recorded"] is True


# Messages and states


async def test_a_message_is_asked_anew_from_before_it(service: Client, model: ModelStub) -> None:
    session_id = session_of(await service.chat("hello"))
    await service.chat("and then", session_id)
    before = await steps(service, session_id)

    for node in ("respond", "analyze_intent", "__start__"):
        again = await rerun(service, session_id, await at(service, session_id, node, turn=1), message=f"But at {node}")
        whole = await service.json(f"/sessions/{session_id}/checkpoints/{again[-1].data['checkpoint_id']}")
        said_by = [message["content"] for message in whole["values"]["messages"]]
        assert said_by[0] == "hello"
        assert said_by[2] == f"But at {node}"
        assert len(said_by) == 4

    first = await rerun(service, session_id, before[0]["checkpoint_id"], message="Good day")
    whole = await service.json(f"/sessions/{session_id}/checkpoints/{first[-1].data['checkpoint_id']}")
    assert [message["content"] for message in whole["values"]["messages"]] == ["Good day", content(first)]
    assert (await steps(service, session_id))[: len(before)] == before
    document = await service.json(f"/sessions/{session_id}")
    assert [message["content"] for message in document["messages"]][-2:] == ["Good day", content(first)]
    row = (await service.json(f"/sessions/{session_id}/history"))["items"][0]
    assert row["user_message"] == "Good day"
    assert row["extra_metadata"]["rerun_of"] == before[0]["checkpoint_id"]
    assert row["extra_metadata"]["changes"] == {"message": "Good day"}
    assert content(await service.chat("and now", session_id)).startswith("answer")
    asked = [message["content"] for message in model.calls[-1].body["messages"]]
    assert asked[1:] == ["Good day", content(first), "and now"], "the session goes on from its newest branch"


async def test_a_state_is_edited_before_it_goes_on(service: Client, model: ModelStub) -> None:
    session_id = session_of(await service.chat("6*7?"))
    before = await steps(service, session_id)
    tool_message = before[-2]["values"]["messages"][-1]
    edited = {**tool_message, "content": '{"result": "43"}'}

    again = await rerun(
        service,
        session_id,
        await at(service, session_id, "respond"),
        state={"values": {"messages": [edited]}, "as_node": "execute_tools"},
    )

    assert usage(again) == (1, 0)
    assert model.calls[-1].body["messages"][-1]["content"] == '{"result": "43"}'
    after = await steps(service, session_id)
    assert after[: len(before)] == before
    assert [step["source"] for step in after[len(before) :]] == ["update", "loop"]
    assert after[-1]["values"]["messages"][2]["content"] == '{"result": "43"}'

    head = before[-1]["checkpoint_id"]
    at_the_end = await rerun(
        service,
        session_id,
        head,
        state={"values": {"messages": [{"type": "human", "content": "And 1+1?"}]}, "as_node": "__start__"},
    )
    assert usage(at_the_end)[0] == 2
    assert (await steps(service, session_id))[: len(after)] == after


# A session of its own


async def test_a_session_of_its_own_has_the_past_and_nothing_else(service: Client, model: ModelStub) -> None:
    session_id = session_of(await service.chat("hello"))
    await service.chat("second", session_id)
    await service.chat("third", session_id)
    before = await steps(service, session_id)
    calls = len(model.calls)

    again = await rerun(service, session_id, await at(service, session_id, "respond", turn=1), into="session")

    new = session_of(again)
    assert new != session_id
    assert len(model.calls) == calls
    assert usage(again) == (0, 1)
    assert await steps(service, session_id) == before
    document = await service.json(f"/sessions/{new}")
    asked = [message["content"] for message in document["messages"]]
    assert asked == ["hello", "answer number 1", "second", "answer number 3"]
    copied = await steps(service, new)
    assert len(copied) < len(before)
    assert [message["content"] for message in copied[-1]["values"]["messages"]] == asked
    assert (await service.json(f"/sessions/{session_id}"))["messages"][-1]["content"] == "answer number 5"

    onward = await service.chat("fourth", new)
    assert content(onward) == "answer number 7"
    another = await rerun(service, new, await at(service, new, "respond"), into="session")
    assert usage(another) == (0, 1)
    anew = await rerun(service, session_id, before[0]["checkpoint_id"], into="session", message="Good day")
    document = await service.json(f"/sessions/{session_of(anew)}")
    assert [message["content"] for message in document["messages"]] == ["Good day", content(anew)]
    middle = await rerun(
        service, session_id, await at(service, session_id, "respond", turn=1), into="session", message="Well?"
    )
    document = await service.json(f"/sessions/{session_of(middle)}")
    assert [m["content"] for m in document["messages"]] == ["hello", "answer number 1", "Well?", content(middle)]
    assert await steps(service, session_id) == before


# Runs


async def test_a_run_is_run_again_from_where_it_began(service: Client, model: ModelStub) -> None:
    first = await service.chat("6*7?")
    await service.chat("and then", session_of(first))
    calls = len(model.calls)
    where = f"/runs/{first[0].data['run_id']}/replay"

    again = await service.read("POST", where, json={"mode": "rerun"})

    assert content(again) == content(first)
    assert usage(again) == (0, 2)
    own = await service.read("POST", where, json={"mode": "rerun", "into": "session", "changes": {"temperature": 1}})
    assert session_of(own) != session_of(first)
    assert usage(own) == (2, 0)
    assert len(model.calls) == calls + 2
    twice = await service.read("POST", f"/runs/{again[0].data['run_id']}/replay", json={"mode": "rerun"})
    assert content(twice) == content(first)
    assert usage(twice) == (0, 2)


async def test_a_run_that_goes_on_is_not_run_again(start: Start) -> None:
    gate = asyncio.Event()
    async with ModelStub() as model:
        model.script(intent(), answer("one", gate, "two"))
        async with start(openai_base_url=model.url, model="stub") as service:
            async with service.stream("POST", "/chat", json=said("hello")) as frames:
                seen = [await anext(frames)]
                await model.received(2)
                refused = await service.http.post(
                    f"/runs/{seen[0].data['run_id']}/replay", json={"mode": "rerun", "changes": {}}
                )
                start_of_it = await at(service, session_of(seen), "analyze_intent")
                body = {"mode": "rerun", "checkpoint_id": start_of_it, "into": "session"}
                copied = await service.http.post(f"/sessions/{session_of(seen)}/replay", json=body)
                gate.set()
                seen += [frame async for frame in frames]
            listed = (await service.json("/sessions"))["items"]

    assert refused.status_code == 409
    assert copied.status_code == 409
    assert len(listed) == 1
    assert content(seen) == "onetwo"


async def test_a_failed_run_asks_again_where_it_failed_alone(start: Start) -> None:
    async with ModelStub() as model:
        model.script(intent("tool", SUM), answer("half ", End.RESET), answer("whole"))
        async with start(openai_base_url=model.url, model="stub", model_retries=0) as service:
            failed = await service.chat("6*7?")
            assert failed[-1].event == "error"
            again = await service.read("POST", f"/runs/{failed[0].data['run_id']}/replay", json={"mode": "rerun"})

    assert content(again) == "whole"
    assert usage(again) == (1, 1)


async def test_a_cancelled_run_asks_again_what_it_never_heard(start: Start) -> None:
    gate = asyncio.Event()
    async with ModelStub() as model:
        model.script(intent(), answer("one", gate), answer("whole"))
        async with start(openai_base_url=model.url, model="stub") as service:
            async with service.stream("POST", "/chat", json=said("hello")) as frames:
                seen = [await anext(frames)]
                await model.received(2)
                await service.http.post(f"/runs/{seen[0].data['run_id']}/cancel")
                seen += [frame async for frame in frames]
            assert seen[-1].data["status"] == "cancelled"
            again = await service.read("POST", f"/runs/{seen[0].data['run_id']}/replay", json={"mode": "rerun"})

    assert content(again) == "whole"
    assert usage(again) == (1, 1)


# Bad input


UNFIT: list[tuple[Any, str]] = [
    ({"model": "gpt-unheard-of"}, "There is no model gpt-unheard-of. There are: stub, other"),
    ({"model": ""}, "changes.model"),
    ({"temperature": 3}, "changes.temperature"),
    ({"temperature": "hot"}, "changes.temperature"),
    ({"prompts": {"respond": "9"}}, "prompts.respond: respond has no version 9; there are 1, short"),
    ({"prompts": {"greet": "1"}}, "prompts.greet"),
    ({"prompts": {"respond": {"text": "$nobody"}}}, "respond has no variable $nobody; it has $intent, $tools"),
    ({"prompts": {"respond": {"text": "for $5"}}}, "write $$"),
    ({"prompts": {"respond": {"file": "/etc/passwd"}}}, "changes.prompts.respond"),
    ({"message": " "}, "message: it is empty"),
    ({"message": "hi", "state": {"values": {}}}, "either message or state"),
    ({"state": {"values": {"mood": 1}}}, "state.mood: the state holds no such value; it holds messages, intent"),
    ({"state": {"values": {"intent": 5}}}, "state.intent"),
    ({"state": {"values": {"messages": 5}}}, "state.messages"),
    ({"state": {"values": {}, "as_node": "nowhere"}}, "state.as_node: the graph has no node nowhere"),
    ({"state": {"values": {}, "as_node": "__copy__"}}, "state.as_node"),
    ({"state": [1]}, "changes.state"),
    ({"tools": "dead"}, "changes.tools"),
    ({"models": None}, "changes.models"),
    ({"answers": {"nowhere": "hi"}}, "answers: the graph has no node nowhere; it has analyze_intent"),
    ({"answers": {"respond": []}}, "changes.answers.respond"),
    ({"answers": {"respond": {"words": "x"}}}, "changes.answers.respond"),
    ({"mood": "good"}, "changes.mood"),
    ("none", "changes"),
]


async def test_a_change_that_cannot_be_leaves_all_as_it_was(service: Client) -> None:
    session_id = session_of(await service.chat("6*7?"))
    before = await steps(service, session_id)

    for changes, word in UNFIT:
        for into in ("branch", "session"):
            place = before[1]["checkpoint_id"]
            body = {"mode": "rerun", "checkpoint_id": place, "changes": changes, "into": into}
            response = await service.http.post(f"/sessions/{session_id}/replay", json=body)
            assert response.status_code == 422, (changes, response.text)
            assert word in response.json()["detail"]

    assert await steps(service, session_id) == before
    assert [item["session_id"] for item in (await service.json("/sessions"))["items"]] == [session_id]
    assert len((await service.json(f"/sessions/{session_id}/history"))["items"]) == 1


async def test_places_that_cannot_be(service: Client) -> None:
    first, other = await service.chat("hello"), await service.chat("hello")
    session_id, where = session_of(first), f"/sessions/{session_of(first)}/replay"
    end, elsewhere = first[-1].data["checkpoint_id"], other[-1].data["checkpoint_id"]
    body: dict[str, Any] = {"mode": "rerun"}

    for into in ("branch", "session"):
        for checkpoint_id, status in ((end, 409), (elsewhere, 404), (NOBODY, 404)):
            asked = {**body, "checkpoint_id": checkpoint_id, "into": into}
            assert (await service.http.post(where, json=asked)).status_code == status
    assert (await service.http.post(where, json={**body, "checkpoint_id": end, "into": "nowhere"})).status_code == 422
    assert (await service.http.post(f"/runs/{NOBODY}/replay", json=body)).status_code == 404
    recorded = {"mode": "recorded", "changes": {"models": "live"}}
    assert (await service.http.post(where, json=recorded)).status_code == 422
    assert len((await service.json("/sessions"))["items"]) == 2
    assert len(await steps(service, session_id)) == 4


# Graphs of one's own

OWN = """
from typing import Annotated, TypedDict

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import interrupt

MADE = []


class Context(TypedDict, total=False):
    mood: str
    temperature: float


@tool
def look_up(word: str) -> str:
    "Looks a word up."
    MADE.append(word)
    return f"{word} {len(MADE)}"


def model(config):
    given = config["configurable"].get("temperature")
    return ChatOpenAI(model="own", base_url="URL", api_key="k", temperature=given, stream_usage=True)


async def plan(state: MessagesState, config):
    reply = await model(config).bind_tools([look_up]).ainvoke([("system", "Plan."), *state["messages"]])
    return {"messages": [reply]}


def answer(state: MessagesState, config):
    return {"messages": [model(config).invoke([("system", "Answer."), *state["messages"]])]}


def ask(state: MessagesState):
    return {"messages": [AIMessage(f"heard {interrupt('well?')}")]}


inner = StateGraph(MessagesState)
inner.add_node("tools", ToolNode([look_up]))
inner.add_edge(START, "tools")
builder = StateGraph(MessagesState, context_schema=Context)
builder.add_node("plan", plan)
builder.add_node("work", inner.compile())
builder.add_node("answer", answer)
builder.add_node("ask", ask)
builder.add_edge(START, "plan")
builder.add_edge("plan", "work")
builder.add_edge("work", "answer")
builder.add_edge("answer", "ask")
builder.add_edge("ask", END)
agent = builder.compile()
plain = StateGraph(MessagesState).add_node("plan", plan).add_edge(START, "plan").compile()
"""


@pytest.fixture
async def own(start: Start, model: ModelStub, tmp_path: Path) -> AsyncIterator[Client]:
    """A project with its own model class and tools, which asks at the end."""

    def reply(call: Call) -> Reply:
        COUNTS.append(call)
        planning = call.body["messages"][0]["content"] == "Plan."
        return answer(ToolCall("look_up", {"word": "owl"})) if planning else answer(f"answer {len(COUNTS)}")

    model.reply = reply
    (tmp_path / "own.py").write_text(OWN.replace("URL", model.url))
    (tmp_path / "langgraph.json").write_text('{"graphs": {"own": "./own.py:agent"}}')
    async with start(config=tmp_path / "langgraph.json") as client:
        yield client


async def test_a_graph_of_ones_own_is_answered_from_the_recording(own: Client, model: ModelStub) -> None:
    first = await own.chat("hello")
    session_id = session_of(first)
    assert first[-1].data["status"] == "interrupted"
    assert len(model.calls) == 2
    before = await steps(own, session_id)
    made = before[-1]["values"]["messages"][2]["content"]
    assert made == "owl 1"

    again = await own.read("POST", f"/runs/{first[0].data['run_id']}/replay", json={"mode": "rerun"})

    assert again[-1].data["status"] == "interrupted"
    assert usage(again) == (0, 2)
    assert len(model.calls) == 2
    after = await steps(own, session_id)
    assert after[: len(before)] == before
    assert [m["content"] for m in after[-1]["values"]["messages"]] == ["hello", "", "owl 1", "answer 2"]
    asked = told(again, "interrupt")[0]
    body = {"session_id": session_id, "resume": {"interrupt_id": asked["id"], "value": "yes"}}
    assert content(await own.read("POST", "/chat", json=body)) == "heard yes"

    start = await at(own, session_id, "plan", turn=0)
    hotter = await rerun(own, session_id, start, temperature=1)
    assert usage(hotter) == (2, 0)
    assert model.calls[-1].body["temperature"] == 1
    live = await rerun(own, session_id, start, tools="live")
    assert usage(live) == (1, 1), "the tool said something else"
    last = (await steps(own, session_id))[-1]
    assert [m["content"] for m in last["values"]["messages"]][2] == "owl 2"
    by_hand = await rerun(
        own,
        session_id,
        start,
        answers={"plan": {"tool_calls": [{"name": "look_up", "args": {"word": "elk"}}]}, "answer": "by hand"},
    )
    assert usage(by_hand) == (0, 2)
    last = (await steps(own, session_id))[-1]
    assert [m["content"] for m in last["values"]["messages"]][2:] == ["elk 3", "by hand"]
    assert (await steps(own, session_id))[: len(before)] == before


async def test_what_a_graph_lets_nobody_choose_is_refused(own: Client) -> None:
    session_id = session_of(await own.chat("hello"))
    start = await at(own, session_id, "plan")

    for changes in ({"model": "x"}, {"prompts": {"plan": "2"}}):
        body = {"mode": "rerun", "checkpoint_id": start, "changes": changes}
        response = await own.http.post(f"/sessions/{session_id}/replay", json=body)
        assert response.status_code == 422
        assert "lets nobody choose it" in response.json()["detail"]


# The old line


async def test_no_rerun_touches_the_old_line(service: Client) -> None:
    session_id = session_of(await service.chat("6*7?"))
    await service.chat("hello", session_id)
    await service.chat("weather?", session_id)
    known: dict[str, Any] = {}
    changes: list[dict[str, Any]] = [
        {},
        {"message": "another?"},
        {"temperature": 1},
        {"state": {"values": {"messages": [{"type": "human", "content": "More?"}]}, "as_node": "__start__"}},
        {"answers": {"respond": "by hand"}},
    ]
    for turn in range(12):
        there = await steps(service, session_id)
        for step in there:
            assert known.setdefault(step["checkpoint_id"], step) == step
        # From everywhere: the head, old heads, the very first one, what re-runs made, and the end of another branch
        # that the session stands on.
        start = there[(turn * 7) % len(there)] if turn % 3 else there[-1 - turn % 2]
        if turn % 4 == 3:
            branches = (await service.json(f"/sessions/{session_id}/branches"))["items"]
            branch = branches[turn % len(branches)]
            where = f"/sessions/{session_id}/branches/{branch['branch_id']}/switch"
            assert (await service.http.post(where)).status_code == 200
            start = known[branch["head_checkpoint_id"]]
        body = {"mode": "rerun", "checkpoint_id": start["checkpoint_id"], "changes": changes[turn % len(changes)]}
        response = await service.http.post(f"/sessions/{session_id}/replay", json=body)
        assert response.status_code in (200, 409), response.text
    there = await steps(service, session_id)
    assert len(known) > 20
    assert [step for step in there if step["checkpoint_id"] in known] == list(known.values())
