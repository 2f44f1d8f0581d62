"""Interrupts: a graph that asks, a caller that answers, one turn all the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.service import Client

GRAPH = """
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import interrupt


def ask(state: MessagesState):
    return {"messages": [AIMessage(f"you said {interrupt({'question': 'which?'})}")]}


builder = StateGraph(MessagesState)
builder.add_node("ask", ask)
builder.add_edge(START, "ask")
builder.add_edge("ask", END)


async def agent(config):
    return builder
"""


@pytest.fixture
async def asking(start: Start, tmp_path: Path) -> AsyncIterator[Client]:
    """The service with somebody's project whose one node asks before it answers."""
    (tmp_path / "asking.py").write_text(GRAPH)
    (tmp_path / "langgraph.json").write_text('{"graphs": {"asker": "./asking.py:agent"}}')
    async with start(config=tmp_path / "langgraph.json") as client:
        yield client


async def test_the_graph_asks_and_the_caller_answers(asking: Client) -> None:
    asked = await asking.chat("hi")
    assert [frame.event for frame in asked] == ["session", "node", "interrupt", "done"]
    assert asked[-1].data["status"] == "interrupted"
    assert asked[2].data["value"] == {"question": "which?"}
    session_id = asked[0].data["session_id"]
    assert (await asking.json("/sessions"))["items"][0]["status"] == "interrupted"

    answer = {"interrupt_id": asked[2].data["id"], "value": "this"}
    answered = await asking.read("POST", "/chat", json={"session_id": session_id, "resume": answer})

    assert [frame.event for frame in answered] == ["session", "node", "token", "node", "message", "done"]
    assert answered[-2].data["content"] == "you said this"
    assert answered[-1].data["status"] == "success"
    assert (await asking.json("/sessions"))["items"][0]["status"] == "idle"
    [row] = (await asking.json(f"/sessions/{session_id}/history"))["items"]
    assert row["user_message"] == "hi"
    assert row["assistant_message"] == "you said this"
    assert row["extra_metadata"]["run_ids"] == [asked[0].data["run_id"], answered[0].data["run_id"]]
    document = await asking.json(f"/sessions/{session_id}")
    assert [m["content"] for m in document["messages"]] == ["hi", "you said this"]

    played = await asking.read("POST", f"/sessions/{session_id}/replay", json={"mode": "recorded"})
    assert [f.event for f in played] == [f.event for f in [*asked, *answered]] + ["replay_done"]


async def test_a_waiting_turn_survives_a_restart(start: Start, tmp_path: Path) -> None:
    (tmp_path / "asking.py").write_text(GRAPH)
    (tmp_path / "langgraph.json").write_text('{"graphs": {"asker": "./asking.py:agent"}}')
    async with start(config=tmp_path / "langgraph.json") as service:
        asked = await service.chat("hi")

    async with start(config=tmp_path / "langgraph.json") as service:
        resume = {"interrupt_id": asked[2].data["id"], "value": {"deep": [1, 2]}}
        body = {"session_id": asked[0].data["session_id"], "resume": resume, "stream": False}
        answered = (await service.http.post("/chat", json=body)).json()

    assert answered["message"]["content"] == "you said {'deep': [1, 2]}"


async def test_without_a_stream_what_it_asks_is_in_the_answer(asking: Client) -> None:
    answer = (await asking.http.post("/chat", json={"message": "hi", "stream": False})).json()

    assert answer["status"] == "interrupted"
    assert answer["message"] is None
    assert answer["interrupts"][0]["value"] == {"question": "which?"}


async def test_answers_nobody_waits_for(asking: Client) -> None:
    session_id = (await asking.chat("hi"))[0].data["session_id"]

    resume = {"interrupt_id": "something-else", "value": "x"}
    response = await asking.http.post("/chat", json={"session_id": session_id, "resume": resume})

    assert response.status_code == 409
    assert response.json()["kind"] == "conflict"
