"""Compare: two sessions, branches or runs step by step, the first difference named."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

from langgraph_sdk import get_client

from tests.conftest import Start
from tests.service import Client, Frame
from tests.spec.test_branches import call, forked, told, tree
from tests.spec.test_replay import NOBODY, replay, steps
from tests.spec.test_sessions import talk
from tests.stubs.model_server import End, ModelStub, ToolCall, answer, intent

PLAIN = """
import operator
import uuid
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Send


class Order(TypedDict, total=False):
    order_id: str
    created_at: str
    lines: list[str]
    total: int
    packed: Annotated[list[str], operator.add]


def price(state: Order) -> Order:
    return {"order_id": str(uuid.uuid4()), "created_at": "now", "total": 10 * len(state["lines"])}


def pack(line: str) -> Order:
    return {"packed": [line.upper()]}


orders = StateGraph(Order)
orders.add_node("price", price)
orders.add_node("pack", pack)
orders.add_edge(START, "price")
orders.add_conditional_edges("price", lambda state: [Send("pack", line) for line in state["lines"]], ["pack"])
orders.add_edge("pack", END)
orders = orders.compile()

number = StateGraph(int)
number.add_node("double", lambda n: 2 * n)
number.add_edge(START, "double")
number.add_edge("double", END)
number = number.compile()
"""


async def compared(client: Client, session_id: str, other: str | None = None, **of: Any) -> dict[str, Any]:
    named = {**of, **({"with": other} if other else {})}
    found: dict[str, Any] = await client.json(f"/sessions/{session_id}/compare", **named)
    return found


def table(found: dict[str, Any]) -> list[tuple[list[str], str, list[str]]]:
    return [(step["nodes"], step["status"], step["differs"]) for step in found["steps"]]


async def test_two_branches_of_a_session(scripted: Client, model: ModelStub) -> None:
    session_id, turns, again = await forked(scripted, model)
    old, new = await tree(scripted, session_id)
    before, calls = await told(scripted, session_id), len(model.calls)

    found = await compared(scripted, session_id, branch=old["branch_id"], with_branch=new["branch_id"], limit=4)

    assert found["shared"] == {"steps": 2, "checkpoint_id": new["fork_checkpoint_id"]}
    assert table(found)[:2] == [(["analyze_intent"], "same", []), (["respond"], "changed", ["answer", "state"])]
    assert {status for _, status, _ in table(found)[2:]} == {"only_a"}
    assert found["next"] == 4
    first = found["first_difference"]
    assert (first["index"], first["nodes"], first["what"]) == (1, ["respond"], "answer")
    assert (first["before"], first["after"]) == ("hello there", "another hello")
    assert (first["a"], first["b"]) == (turns[0][-1].data["checkpoint_id"], again[-1].data["checkpoint_id"])
    respond = found["steps"][1]
    assert respond["state"] == [
        {"path": "/messages/1/content", "before": "hello there", "after": "another hello"},
    ]
    assert [respond[side]["answer"] for side in "ab"] == ["hello there", "another hello"]
    assert 0 < respond["a"]["tokens"] < turns[0][-1].data["usage"]["total_tokens"]
    assert respond["a"]["ms"] >= 0
    assert found["a"]["tokens"] == sum(turn[-1].data["usage"]["total_tokens"] for turn in turns)
    assert (found["same"], found["complete"], found["a"]["pruned"]) == (False, True, False)
    assert (await told(scripted, session_id), len(model.calls)) == (before, calls)


async def test_a_tool_more_does_not_shift_the_rest(scripted: Client, model: ModelStub) -> None:
    """An added step stands alone; what follows is compared with what it would have been."""
    model.script(*(intent(), answer("hello")), *(intent(), answer("bye")))
    a = await two_turns(scripted)
    model.script(intent("tool", ToolCall("calculator", {"expression": "6*7"})), answer("hello"))
    model.script(intent(), answer("bye"))
    b = await two_turns(scripted)

    found = await compared(scripted, a, b)

    turn = [["input"], ["analyze_intent"], ["respond"]]
    more = [*turn[:2], ["execute_tools"], turn[2]]
    assert [nodes for nodes, _, _ in table(found)] == [*more, *turn]
    by_node = {tuple(nodes): (status, differs) for nodes, status, differs in reversed(table(found))}
    assert by_node["execute_tools",] == ("only_b", [])
    tools = next(step for step in found["steps"] if step["nodes"] == ["execute_tools"])
    assert tools["b"]["tool_calls"] == [
        {
            "name": "calculator",
            "args": {"expression": "6*7"},
            "result": {"expression": "6 * 7", "result": "42", "unit": None},
        }
    ]
    assert tools["state"][0]["after"]["type"] == "tool"
    assert found["first_difference"]["what"] == "intent"
    assert [step["status"] for step in found["steps"]].count("only_a") == 0
    assert table(found)[-1] == (["respond"], "same", [])


async def two_turns(client: Client) -> str:
    return await talk(client, "hi", "thanks")


async def test_the_same_twice(service: Client) -> None:
    """Other ids, other times, the same conversation; and a session with itself."""
    a, b = [await talk(service, "What is 6*7?", "hello") for _ in range(2)]

    found = await compared(service, a, b)

    assert (found["same"], found["first_difference"], found["shared"]) == (True, None, None)
    assert {step["status"] for step in found["steps"]} == {"same"}
    assert all(step["state"] == [] for step in found["steps"])
    itself = await compared(service, a)
    assert (itself["same"], itself["steps"]) == (True, [])
    assert itself["shared"]["steps"] == len(await steps(service, a))


async def test_another_question_is_the_first_difference(service: Client) -> None:
    a, b = await talk(service, "hello", "What is 6*7?"), await talk(service, "hello", "What is 6*8?")

    first = (await compared(service, a, b))["first_difference"]

    assert (first["nodes"], first["what"], first["path"]) == (["input"], "state", "/messages/2/content")
    assert (first["before"], first["after"]) == ("What is 6*7?", "What is 6*8?")


async def test_two_runs(scripted: Client, model: ModelStub) -> None:
    _, turns, again = await forked(scripted, model)
    a, b = turns[0][0].data["run_id"], again[0].data["run_id"]

    found = await scripted.json(f"/runs/{a}/compare", **{"with": b})

    assert (found["a"]["run_id"], found["b"]["run_id"]) == (a, b)
    assert found["first_difference"]["status"] == "only_a"  # the re-run begins behind the question
    changed = [step for step in found["steps"] if step["status"] == "changed"]
    assert [(step["nodes"], step["differs"][0]) for step in changed] == [(["respond"], "answer")]
    itself = await scripted.json(f"/runs/{a}/compare", **{"with": a})
    assert (itself["same"], {step["status"] for step in itself["steps"]}) == (True, {"same"})


async def test_a_run_that_failed_and_one_that_did_not(scripted: Client, model: ModelStub) -> None:
    model.script(intent(), answer("half ", "whole"))
    good = (await scripted.chat("hi"))[0].data["run_id"]
    model.script(intent(), answer("half ", End.RESET))
    bad = (await scripted.chat("hi"))[0].data["run_id"]

    found = await scripted.json(f"/runs/{good}/compare", **{"with": bad})

    first = found["first_difference"]
    assert (first["nodes"], first["what"]) == (["respond"], "error")
    assert (first["before"], first["after"]) == ([], [{"node": "respond", "error": "model_stream_broken"}])
    assert first["b"] is None


async def test_somebody_elses_graph(start: Start, tmp_path: Path) -> None:
    """No messages and no intent; ids and times differ and do not count; each of the steps sent side by side does."""
    (tmp_path / "plain.py").write_text(PLAIN)
    graphs = {"orders": "./plain.py:orders", "number": "./plain.py:number"}
    (tmp_path / "langgraph.json").write_text(json.dumps({"graphs": graphs}))
    async with start(config=tmp_path / "langgraph.json") as service:
        langgraph = get_client(url=str(service.http.base_url))

        async def run(graph: str, given: Any) -> str:
            thread_id = (await langgraph.threads.create())["thread_id"]
            await langgraph.runs.wait(thread_id, graph, input=given)
            return thread_id

        a, b = [await run("orders", {"lines": ["tea", "milk"]}) for _ in range(2)]
        assert (await compared(service, a, b))["same"] is True
        c = await run("orders", {"lines": ["tea", "milk", "salt"]})
        found = await compared(service, a, c)
        assert found["first_difference"] == {
            **found["first_difference"],
            "nodes": ["input"],
            "what": "state",
            "path": "/lines/2",
            "after": "salt",
        }
        assert [step["nodes"] for step in found["steps"] if step["status"] == "only_b"] == [["pack"] * 3]
        price = next(step for step in found["steps"] if step["nodes"] == ["price"])
        assert price["state"] == [{"path": "/total", "before": 20, "after": 30}]

        one, two = await run("number", 1), await run("number", 2)
        found = await compared(service, one, two)
        assert found["steps"][-1]["state"] == [{"path": "", "before": 2, "after": 4}]


async def test_what_a_log_does_not_say_the_checkpoints_do(scripted: Client, model: ModelStub, tmp_path: Path) -> None:
    session_id, _, _ = await forked(scripted, model)
    old, new = await tree(scripted, session_id)
    langgraph = get_client(url=str(scripted.http.base_url))
    copied = (await langgraph.threads.copy(session_id))["thread_id"]  # its runs, and so their logs, are not copied

    found = await compared(scripted, copied, branch=old["branch_id"], with_branch=new["branch_id"])

    first = found["first_difference"]
    assert (first["nodes"], first["what"]) == (["respond"], "state")
    assert (first["before"], first["after"]) == ("hello there", "another hello")
    assert found["steps"][1]["a"]["answer"] is None
    assert (await compared(scripted, session_id, branch=old["branch_id"], other=copied, with_branch=old["branch_id"]))[
        "same"
    ]


async def test_an_edit_is_a_step(scripted: Client, model: ModelStub) -> None:
    session_id, _, _ = await forked(scripted, model)
    langgraph = get_client(url=str(scripted.http.base_url))
    second = (await steps(scripted, session_id))[1]["checkpoint_id"]
    [asked] = (await langgraph.threads.get_state(session_id, checkpoint_id=second))["values"]["messages"]
    edited = await langgraph.threads.update_state(
        session_id, {"messages": [{**asked, "content": "안녕"}]}, checkpoint_id=second, as_node="__start__"
    )
    old, _, new = await tree(scripted, session_id)
    assert new["head_checkpoint_id"] == edited["checkpoint"]["checkpoint_id"]

    found = await compared(scripted, session_id, branch=old["branch_id"], with_branch=new["branch_id"])

    assert (
        found["first_difference"]["b"] == new["head_checkpoint_id"] or found["first_difference"]["status"] == "only_a"
    )
    edit = next(step for step in found["steps"] if step["status"] == "only_b")
    assert edit["state"] == [{"path": "/messages/0/content", "before": "hi", "after": "안녕"}]


async def test_bad_questions(scripted: Client, model: ModelStub, start: Start) -> None:
    session_id, turns, _ = await forked(scripted, model)
    run_id, path = turns[0][0].data["run_id"], f"/sessions/{session_id}/compare"
    for query, status in (
        (f"with={NOBODY}", 404),
        (f"branch={NOBODY}", 404),
        (f"with_branch={uuid4()}", 404),
        ("with=no-uuid", 422),
        ("after=-1", 422),
        ("limit=0", 422),
        ("after=1000000", 200),
    ):
        await call(scripted, "GET", f"{path}?{query}", status)
    for run, status in ((f"/runs/{run_id}/compare", 422), (f"/runs/{run_id}/compare?with={NOBODY}", 404)):
        await call(scripted, "GET", run, status)
    await call(scripted, "GET", f"/runs/no-uuid/compare?with={run_id}", 422)
    langgraph = get_client(url=str(scripted.http.base_url))
    empty = (await langgraph.threads.create())["thread_id"]
    found = await compared(scripted, empty, session_id)
    assert (found["a"]["branch_id"], found["a"]["steps"], found["same"]) == (None, 0, False)
    assert (await compared(scripted, empty))["same"] is True


async def test_what_goes_on_is_not_compared(scripted: Client, model: ModelStub) -> None:
    session_id, _, _ = await forked(scripted, model)
    gate = asyncio.Event()
    model.script(intent(), answer("slow", gate))
    frames: list[Frame] = []
    async with scripted.stream("POST", "/chat", json={"message": "go", "session_id": session_id}) as stream:
        frames.append(await anext(stream))
        run_id = frames[0].data["run_id"]
        await call(scripted, "GET", f"/runs/{run_id}/compare?with={run_id}", 409)
        while (await stream.__anext__()).event != "intent":
            pass
        refused = await call(
            scripted,
            "GET",
            f"/sessions/{session_id}/compare?with_branch={(await tree(scripted, session_id))[0]['branch_id']}",
            409,
        )
        assert run_id in refused["detail"]
        gate.set()
        assert [frame async for frame in stream][-1].event == "done"


async def test_others_sessions_are_missing(start: Start) -> None:
    async with start(api_keys=["one-key-that-is-long", "another-key-that-is-long"]) as service:
        mine = (await service.chat("hello"))[0].data
        stranger = {"x-api-key": "another-key-that-is-long"}
        theirs = (await service.http.post("/chat", json={"message": "hello", "stream": False}, headers=stranger)).json()
        for path in (
            f"/sessions/{mine['session_id']}/compare?with={theirs['session_id']}",
            f"/runs/{mine['run_id']}/compare?with={theirs['run_id']}",
        ):
            assert (await service.http.get(path)).status_code == 404
            assert (await service.http.get(path, headers=stranger)).status_code == 404


async def test_pages_and_a_rerun_of_a_rerun(scripted: Client, model: ModelStub) -> None:
    session_id, _, again = await forked(scripted, model)
    third = next(step for step in await steps(scripted, session_id) if step["run_id"] == again[0].data["run_id"])
    model.script(answer("a third hello"))
    respond = (await tree(scripted, session_id))[1]
    line = (await scripted.json(f"/sessions/{session_id}/checkpoints", branch=respond["branch_id"]))["items"]
    await replay(scripted, session_id, "rerun", line[1]["checkpoint_id"])
    assert line[1]["next"] == ["respond"]
    assert third["source"] == "fork"
    old, second, newest = await tree(scripted, session_id)

    whole = await compared(scripted, session_id, branch=old["branch_id"], with_branch=newest["branch_id"])
    pages, after = [], 0
    while after is not None:
        page = await compared(
            scripted, session_id, branch=old["branch_id"], with_branch=newest["branch_id"], limit=3, after=after
        )
        pages += page["steps"]
        after = page["next"]
    assert pages == whole["steps"]
    assert second["branch_id"] == newest["parent_branch_id"]
    assert whole["first_difference"]["after"] == "a third hello"
