"""Branches: a session goes on from any end of its tree, shows the one chosen, and forgets what is deleted."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk import get_client

from tests.conftest import Start
from tests.service import Client, Frame
from tests.spec.test_replay import NOBODY, replay, steps, three_turns
from tests.spec.test_sessions import talk
from tests.stubs.model_server import ModelStub, answer, intent

ASKING = """
from operator import add
from typing import Annotated, TypedDict

from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import interrupt


class Count(TypedDict):
    total: Annotated[int, add]


def count(state: Count):
    return {"total": 1}


counter = StateGraph(Count).add_node("count", count).set_entry_point("count").compile(checkpointer=True)


def ask(state: MessagesState):
    return {"messages": [AIMessage(f"you said {interrupt('which?')}")]}


def beside(state: MessagesState):
    return {"messages": [AIMessage(f"counted {counter.invoke({'total': 0})['total']}")]}


builder = StateGraph(MessagesState)
builder.add_node("ask", ask)
builder.add_node("beside", beside)
builder.add_edge(START, "ask")
builder.add_edge(START, "beside")
builder.add_edge("ask", END)
builder.add_edge("beside", END)
agent = builder.compile()
"""


async def tree(client: Client, session_id: str) -> list[dict[str, Any]]:
    """The branches, the eldest first."""
    return (await client.json(f"/sessions/{session_id}/branches", limit=500))["items"][::-1]


async def call(client: Client, method: str, path: str, status: int = 200, **body: Any) -> Any:
    response = await client.http.request(method, path, **({"json": body} if body else {}))
    assert response.status_code == status, response.text
    return response.json() if response.content else None


async def told(client: Client, session_id: str) -> dict[str, Any]:
    """All that can be read of each checkpoint."""
    ids = [step["checkpoint_id"] for step in await steps(client, session_id)]
    return {one: await client.json(f"/sessions/{session_id}/checkpoints/{one}") for one in ids}


async def words(client: Client, session_id: str, **of: Any) -> list[str]:
    """What the session document shows."""
    return [m["content"] for m in (await client.json(f"/sessions/{session_id}", **of))["messages"]]


async def forked(client: Client, model: ModelStub) -> tuple[str, list[list[Frame]], list[Frame]]:
    """A session of three turns, and a re-run of its first one."""
    session_id, turns = await three_turns(client, model)
    second = (await steps(client, session_id))[1]["checkpoint_id"]
    model.script(intent(), answer("another hello"))
    return session_id, turns, await replay(client, session_id, "rerun", second)


async def test_the_tree_is_told_as_branches(scripted: Client, model: ModelStub) -> None:
    session_id, turns, again = await forked(scripted, model)

    old, new = await tree(scripted, session_id)

    every = await steps(scripted, session_id)
    assert old == {
        "branch_id": every[0]["checkpoint_id"],
        "name": None,
        "parent_branch_id": None,
        "fork_checkpoint_id": None,
        "head_checkpoint_id": turns[2][-1].data["checkpoint_id"],
        "checkpoints": 13,
        "run_ids": [turn[0].data["run_id"] for turn in turns],
        "created_at": old["created_at"],
        "current": False,
        "main": False,
        "pinned": [],
    }
    assert old["created_at"][:16] == every[0]["created_at"][:16]
    assert (new["parent_branch_id"], new["fork_checkpoint_id"]) == (old["branch_id"], every[1]["checkpoint_id"])
    assert (new["branch_id"], new["head_checkpoint_id"]) == (every[13]["checkpoint_id"], every[-1]["checkpoint_id"])
    assert (new["run_ids"], new["current"]) == ([again[0].data["run_id"]], True)
    page = await scripted.json(f"/sessions/{session_id}/branches", limit=1)
    assert (page["items"], page["next"]) == ([new], new["branch_id"])
    assert (await scripted.json(f"/sessions/{session_id}/branches", before=page["next"]))["items"] == [old]


async def test_the_steps_of_one_branch(scripted: Client, model: ModelStub) -> None:
    session_id, _, _ = await forked(scripted, model)
    every = {step["checkpoint_id"]: step for step in await steps(scripted, session_id)}
    new = (await tree(scripted, session_id))[1]
    line = [*list(every.values())[:2], *list(every.values())[13:]]

    path = f"/sessions/{session_id}/checkpoints"
    assert (await scripted.json(path, branch=new["branch_id"]))["items"] == line[::-1]
    page = await scripted.json(path, branch=new["branch_id"], limit=2)
    assert page["items"] == line[::-1][:2]
    assert (await scripted.json(path, branch=new["branch_id"], before=page["next"]))["items"] == line[::-1][2:]
    await call(scripted, "GET", f"{path}?branch={NOBODY}", 404)
    await call(scripted, "GET", f"{path}?branch={new['branch_id']}&before={list(every)[5]}", 404)


async def test_a_branch_has_a_name_of_its_own(scripted: Client, model: ModelStub) -> None:
    session_id, _, _ = await forked(scripted, model)
    old, new = await tree(scripted, session_id)
    path = f"/sessions/{session_id}/branches"

    named = await call(scripted, "PUT", f"{path}/{new['branch_id']}", name=" 더 나은 답 ")
    assert named == {**new, "name": "더 나은 답"}
    await call(
        scripted, "PUT", f"{path}/{new['head_checkpoint_id']}", name="더 나은 답"
    )  # any checkpoint of it names it
    assert (await call(scripted, "PUT", f"{path}/{old['branch_id']}", 409, name="더 나은 답"))["kind"] == "conflict"
    await call(scripted, "PUT", f"{path}/{old['branch_id']}", 422, name="")
    await call(scripted, "PUT", f"{path}/{old['branch_id']}", 422, title="x")
    await call(scripted, "PUT", f"{path}/{old['branch_id']}", 422, name="all")
    await call(scripted, "PUT", f"{path}/{NOBODY}", 404, name="x")
    assert await call(scripted, "PUT", f"{path}/{old['branch_id']}", name="first") == {**old, "name": "first"}
    assert [branch["name"] for branch in await tree(scripted, session_id)] == ["first", "더 나은 답"]
    line = await scripted.json(f"/sessions/{session_id}/checkpoints", branch="더 나은 답")
    assert line["items"][0]["checkpoint_id"] == new["head_checkpoint_id"]
    assert (await call(scripted, "PUT", f"{path}/first", name=None))["name"] is None


async def test_a_session_goes_on_from_where_it_is_switched_to(scripted: Client, model: ModelStub) -> None:
    session_id, _, _ = await forked(scripted, model)
    before = await told(scripted, session_id)
    old, new = await tree(scripted, session_id)
    langgraph = get_client(url=str(scripted.http.base_url))

    switched = await call(scripted, "POST", f"/sessions/{session_id}/branches/{old['branch_id']}/switch")

    assert switched == {**old, "current": True}
    assert await told(scripted, session_id) == before  # nothing was copied and nothing moved
    state = await langgraph.threads.get_state(session_id)
    assert state["checkpoint"]["checkpoint_id"] == old["head_checkpoint_id"]
    assert len((await langgraph.threads.get(session_id))["values"]["messages"]) == 8
    [newest, *others] = await langgraph.threads.get_history(session_id, limit=100)
    assert newest["checkpoint"]["checkpoint_id"] == old["head_checkpoint_id"]
    assert [each["checkpoint"]["checkpoint_id"] for each in others] == [
        one for one in reversed(before) if one != old["head_checkpoint_id"]
    ]
    model.script(intent(), answer("you are welcome"))
    await scripted.chat("thanks again", session_id)

    asked = [message["content"] for message in model.calls[-1].body["messages"]]
    assert asked[-2:] == ["goodbye", "thanks again"]
    assert {one: now for one, now in (await told(scripted, session_id)).items() if one in before} == before
    grown, beside = await tree(scripted, session_id)
    assert (grown["branch_id"], grown["current"], grown["checkpoints"]) == (old["branch_id"], True, 17)
    assert beside == {**new, "current": False}


async def test_what_is_played_is_the_line_it_stands_on(scripted: Client, model: ModelStub) -> None:
    session_id, turns, again = await forked(scripted, model)
    old, new = await tree(scripted, session_id)
    path = f"/sessions/{session_id}"

    async def played() -> list[str]:
        return [f.data["run_id"] for f in await scripted.read("GET", f"{path}/replay") if f.event == "session"]

    first, *others = [turn[0].data["run_id"] for turn in turns]
    assert await played() == [first, again[0].data["run_id"]]
    await call(scripted, "POST", f"{path}/branches/{old['branch_id']}/switch")
    assert await played() == [first, *others]
    await call(scripted, "DELETE", f"{path}/branches/{new['branch_id']}", 204)
    assert await played() == [first, *others]
    await call(scripted, "GET", f"{path}/replay?from={new['head_checkpoint_id']}", 404)


async def test_it_stands_there_after_a_restart(start: Start) -> None:
    async with start() as service:
        session_id = await talk(service, "hello", "my name is Minji")
        await replay(service, session_id, "rerun", (await steps(service, session_id))[1]["checkpoint_id"])
        old, _ = await tree(service, session_id)
        await call(service, "POST", f"/sessions/{session_id}/branches/{old['branch_id']}/switch")
    async with start() as service:
        assert (await tree(service, session_id))[0] == {**old, "current": True}
        frames = await service.chat("what's my name?", session_id)
        assert "Minji" in frames[-2].data["content"]


async def test_what_is_promoted_is_what_the_session_shows(scripted: Client, model: ModelStub) -> None:
    session_id, _, _ = await forked(scripted, model)
    old, new = await tree(scripted, session_id)
    everything = ["hi", "hello there", "what is 6*7?", "it is 42", "thanks", "goodbye", "another hello"]
    assert await words(scripted, session_id) == everything
    path = f"/sessions/{session_id}"

    await call(scripted, "POST", f"{path}/branches/{old['branch_id']}/promote")
    assert await words(scripted, session_id) == everything[:-1]
    assert len((await scripted.json(f"{path}/history"))["items"]) == 3
    model.script(intent(), answer("bye"))
    await scripted.chat("one more", session_id)
    assert await words(scripted, session_id) == [*everything[:-1], "one more", "bye"]

    promoted = await call(scripted, "POST", f"{path}/branches/{new['branch_id']}/promote")
    assert (promoted["current"], promoted["main"]) == (True, True)
    assert [branch["main"] for branch in await tree(scripted, session_id)] == [False, True]
    assert await words(scripted, session_id) == ["hi", "another hello"]
    assert await words(scripted, session_id, branch=old["branch_id"]) == [*everything[:-1], "one more", "bye"]
    assert await words(scripted, session_id, branch="all") == [*everything, "one more", "bye"]
    rows = (await scripted.json(f"{path}/history"))["items"]
    assert [(row["user_message"], row["assistant_message"]) for row in rows] == [("hi", "another hello"), ("hi", None)]
    assert len((await scripted.json(f"{path}/history", branch="all", limit=3))["items"]) == 3


async def test_a_deleted_branch_is_gone_and_nothing_else(scripted: Client, model: ModelStub, tmp_path: Path) -> None:
    session_id, _, again = await forked(scripted, model)
    before = await told(scripted, session_id)
    old, new = await tree(scripted, session_id)
    path = f"/sessions/{session_id}/branches"
    await call(scripted, "POST", f"{path}/{old['branch_id']}/switch")
    run_id = again[0].data["run_id"]

    await call(scripted, "DELETE", f"{path}/{new['branch_id']}", 204)

    left = await told(scripted, session_id)
    assert left == {one: before[one] for one in list(before)[:13]}
    assert await tree(scripted, session_id) == [{**old, "current": True}]
    await call(scripted, "GET", f"/runs/{run_id}/events", 404)
    await call(scripted, "GET", f"/sessions/{session_id}/checkpoints/{new['head_checkpoint_id']}", 404)
    await call(scripted, "DELETE", f"{path}/{new['branch_id']}", 404)
    assert "another hello" not in await words(scripted, session_id)
    assert len((await scripted.json(f"/sessions/{session_id}/history"))["items"]) == 3
    for name in ("checkpoints.db", "history.db"):
        with closing(sqlite3.connect(tmp_path / "data" / name)) as connection:
            dump = "\n".join(connection.iterdump()).lower()
        assert "another hello" not in dump
        assert b"another hello".hex() not in dump
    model.script(intent(), answer("welcome"))
    await scripted.chat("thanks again", session_id)


async def test_the_eldest_line_may_go_and_the_rest_of_it_stays(scripted: Client, model: ModelStub) -> None:
    """What the other branch began with was never the deleted one's alone."""
    session_id, turns, _ = await forked(scripted, model)
    before = await told(scripted, session_id)
    old, new = await tree(scripted, session_id)
    path = f"/sessions/{session_id}/branches"
    await call(scripted, "PUT", f"{path}/{new['branch_id']}", name="better")
    await call(scripted, "PUT", f"{path}/{old['branch_id']}", name="first try")

    await call(scripted, "DELETE", f"{path}/{old['branch_id']}", 204)

    left = [one for one in before if one in list(before)[:2] or one in list(before)[13:]]
    assert await told(scripted, session_id) == {one: before[one] for one in left}
    [only] = await tree(scripted, session_id)
    assert (only["branch_id"], only["name"], only["checkpoints"]) == (left[0], "better", len(left))
    # The first turn's run made what both begin with; those of the other turns are gone.
    await scripted.read("GET", f"/runs/{turns[0][0].data['run_id']}/events")
    await call(scripted, "GET", f"/runs/{turns[1][0].data['run_id']}/events", 404)
    assert "goodbye" not in await words(scripted, session_id)


async def test_what_must_not_be_deleted(scripted: Client, model: ModelStub) -> None:
    session_id, _, _ = await forked(scripted, model)
    old, new = await tree(scripted, session_id)
    path = f"/sessions/{session_id}/branches"
    before = await told(scripted, session_id)

    refused = await call(scripted, "DELETE", f"{path}/{new['branch_id']}", 409)
    assert "Switch to another" in refused["detail"]
    await call(scripted, "POST", f"{path}/{old['branch_id']}/promote")
    await call(scripted, "POST", f"{path}/{new['branch_id']}/switch")
    assert "main line" in (await call(scripted, "DELETE", f"{path}/{old['branch_id']}", 409))["detail"]
    await call(scripted, "POST", f"{path}/{old['branch_id']}/switch")
    pinned = f"/sessions/{session_id}/checkpoints/{new['head_checkpoint_id']}/pin"
    await call(scripted, "PUT", pinned, name="keep me")
    assert (await tree(scripted, session_id))[1]["pinned"] == [
        {"checkpoint_id": new["head_checkpoint_id"], "name": "keep me"}
    ]
    assert "pinned" in (await call(scripted, "DELETE", f"{path}/{new['branch_id']}", 409))["detail"]
    whole = {one: {**all, "pinned": False, "name": None} for one, all in (await told(scripted, session_id)).items()}
    assert whole == before
    await call(scripted, "DELETE", f"{path}/{new['branch_id']}?force=true", 204)


async def test_nothing_changes_while_a_run_goes_on(scripted: Client, model: ModelStub) -> None:
    session_id, _, _ = await forked(scripted, model)
    old, _ = await tree(scripted, session_id)
    path = f"/sessions/{session_id}/branches"
    gate = asyncio.Event()
    model.script(intent(), answer("slow ", gate, "answer"))
    async with scripted.stream("POST", "/chat", json={"message": "go", "session_id": session_id}) as frames:
        await anext(frames)
        await call(scripted, "POST", f"{path}/{old['branch_id']}/switch", 409)
        await call(scripted, "DELETE", f"{path}/{old['branch_id']}", 409)
        await call(scripted, "PUT", f"{path}/{old['branch_id']}", name="a name may be given at any time")
        gate.set()
        assert [frame async for frame in frames][-1].event == "done"


async def test_branches_of_others_are_missing(start: Start) -> None:
    async with start(api_keys=["one-key-that-is-long", "another-key-that-is-long"]) as service:
        session_id = (await service.chat("hello"))[0].data["session_id"]
        [branch] = await tree(service, session_id)
        stranger = {"x-api-key": "another-key-that-is-long"}
        for method, path in (
            ("GET", ""),
            ("PUT", f"/{branch['branch_id']}"),
            ("POST", f"/{branch['branch_id']}/switch"),
            ("POST", f"/{branch['branch_id']}/promote"),
            ("DELETE", f"/{branch['branch_id']}"),
        ):
            whole = f"/sessions/{session_id}/branches{path}"
            body = {"json": {"name": "x"}} if method == "PUT" else {}
            assert (await service.http.request(method, whole, headers=stranger, **body)).status_code == 404
        other = (await service.chat("hello"))[0].data["session_id"]
        await call(service, "POST", f"/sessions/{other}/branches/{branch['branch_id']}/switch", 404)
        await call(service, "GET", "/sessions/no-uuid/branches", 422)
        await call(service, "GET", f"/sessions/{session_id}/branches?before={NOBODY}", 404)


@pytest.fixture
async def asking(start: Start, tmp_path: Path) -> AsyncIterator[Client]:
    """A service whose graph asks and counts side by side; the count lives in a subgraph that keeps its state."""
    (tmp_path / "asking.py").write_text(ASKING)
    (tmp_path / "langgraph.json").write_text('{"graphs": {"asker": "./asking.py:agent"}}')
    async with start(config=tmp_path / "langgraph.json") as client:
        yield client


async def said(client: Client, session_id: str, message: str) -> tuple[str, dict[str, Any]]:
    """Say something; the id of what then waits, and the question."""
    frames = await client.chat(message, session_id)
    return frames[-1].data["checkpoint_id"], next(frame.data for frame in frames if frame.event == "interrupt")


async def answered(client: Client, session_id: str, question: dict[str, Any], value: str) -> list[str]:
    """Answer; the conversation then."""
    resume = {"interrupt_id": question["id"], "value": value}
    frames = await client.read("POST", "/chat", json={"session_id": session_id, "resume": resume})
    assert frames[-1].data["status"] == "success", frames[-1]
    state = await get_client(url=str(client.http.base_url)).threads.get_state(session_id)
    return [message["content"] for message in state["values"]["messages"]]


async def test_a_branch_that_waits_still_waits(asking: Client) -> None:
    """Under the same question, with the work beside it done, and with the state its subgraph had there."""
    langgraph = get_client(url=str(asking.http.base_url))
    session_id = (await asking.chat("one"))[0].data["session_id"]
    [first] = (await langgraph.threads.get_state(session_id))["interrupts"]
    assert await answered(asking, session_id, first, "a") == ["one", "you said a", "counted 1"]
    head, question = await said(asking, session_id, "two")
    before = await langgraph.threads.get_state(session_id, subgraphs=True)
    origin = next(step for step in await steps(asking, session_id) if "ask" in step["next"])
    again = await replay(asking, session_id, "rerun", origin["checkpoint_id"])
    other = next(frame.data for frame in again if frame.event == "interrupt")
    old, new = await tree(asking, session_id)
    assert (old["head_checkpoint_id"], old["current"], new["current"]) == (head, False, True)

    await call(asking, "POST", f"/sessions/{session_id}/branches/{old['branch_id']}/switch")

    assert await langgraph.threads.get_state(session_id, subgraphs=True) == before
    thread = await langgraph.threads.get(session_id)
    waiting = [interrupt["id"] for task in thread["interrupts"].values() for interrupt in task]
    assert (thread["status"], waiting) == ("interrupted", [question["id"]])
    refused = {"session_id": session_id, "resume": {"interrupt_id": other["id"], "value": "x"}}
    assert (await asking.http.post("/chat", json=refused)).status_code == 409
    line = await answered(asking, session_id, question, "b")
    assert line == ["one", "you said a", "counted 1", "two", "you said b", "counted 2"]
    rows = (await asking.json(f"/sessions/{session_id}/history", branch=old["branch_id"]))["items"]
    assert [row["assistant_message"] for row in rows] == ["you said b", "you said a"]
    _, third = await said(asking, session_id, "three")
    assert (await answered(asking, session_id, third, "c"))[-1] == "counted 3"

    await call(asking, "POST", f"/sessions/{session_id}/branches/{new['branch_id']}/switch")
    assert await answered(asking, session_id, other, "d") == ["one", "you said d", "counted 1"]
    _, fourth = await said(asking, session_id, "four")
    assert (await answered(asking, session_id, fourth, "e"))[-1] == "counted 2"


async def test_a_deleted_answer_leaves_the_question(asking: Client) -> None:
    """Two answers to one question: the turn that asked is both branches'; only the answer goes."""
    langgraph = get_client(url=str(asking.http.base_url))
    session_id = (await asking.chat("one"))[0].data["session_id"]
    state = await langgraph.threads.get_state(session_id)
    place, [question] = state["checkpoint"], state["interrupts"]
    await answered(asking, session_id, question, "yes")
    again = await replay(asking, session_id, "rerun", place["checkpoint_id"])
    question = next(frame.data for frame in again if frame.event == "interrupt")
    await answered(asking, session_id, question, "no")
    yes, no = await tree(asking, session_id)
    assert (yes["current"], no["current"]) == (False, True)

    await call(asking, "DELETE", f"/sessions/{session_id}/branches/{yes['branch_id']}", 204)

    [only] = await tree(asking, session_id)
    assert only["head_checkpoint_id"] == no["head_checkpoint_id"]
    values = (await langgraph.threads.get_state(session_id))["values"]
    assert [message["content"] for message in values["messages"]] == ["one", "you said no", "counted 1"]
    assert await words(asking, session_id) == ["one", "you said no"]
    rows = (await asking.json(f"/sessions/{session_id}/history"))["items"]
    assert [(row["assistant_message"], row["extra_metadata"]["status"]) for row in rows] == [
        ("you said no", "success"),
        (None, "interrupted"),
    ]


async def test_reading_a_branch_that_goes_meanwhile(scripted: Client, model: ModelStub) -> None:
    """Whoever reads it is told, and nobody is shown half of it."""
    session_id, _, _ = await forked(scripted, model)
    old, new = await tree(scripted, session_id)
    whole = await told(scripted, session_id)
    await call(scripted, "POST", f"/sessions/{session_id}/branches/{old['branch_id']}/switch")
    gone = list(whole)[13:]

    async def read(checkpoint_id: str) -> None:
        path = f"/sessions/{session_id}/checkpoints/{checkpoint_id}"
        while (response := await scripted.http.get(path)).status_code == 200:
            assert response.json() == whole[checkpoint_id]
        assert (response.status_code, response.json()["kind"]) == (404, "missing")

    async def compare() -> None:
        path = f"/sessions/{session_id}/compare"
        asked = {"branch": old["branch_id"], "with_branch": new["branch_id"]}
        while (response := await scripted.http.get(path, params=asked)).status_code == 200:
            assert response.json()["b"]["head_checkpoint_id"] == new["head_checkpoint_id"]
        assert (response.status_code, response.json()["kind"]) == (404, "missing")

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for one in gone:
            group.create_task(read(one))
        group.create_task(compare())
        await call(scripted, "DELETE", f"/sessions/{session_id}/branches/{new['branch_id']}", 204)


async def test_a_replay_follows_the_branch_the_session_stands_on(scripted: Client, model: ModelStub) -> None:
    session_id, turns, again = await forked(scripted, model)
    old = turns[-1][-1].data["checkpoint_id"]

    def runs(frames: list[Frame]) -> list[str]:
        return [frame.data["run_id"] for frame in frames if frame.event == "session"]

    assert runs(await replay(scripted, session_id, "recorded"))[-1] == again[0].data["run_id"]
    [other] = [one["branch_id"] for one in await tree(scripted, session_id) if one["head_checkpoint_id"] == old]
    await call(scripted, "POST", f"/sessions/{session_id}/branches/{other}/switch")
    assert runs(await replay(scripted, session_id, "recorded")) == [turn[0].data["run_id"] for turn in turns]
