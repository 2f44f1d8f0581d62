"""A project whose state holds types of its own gets them back: after a restart, in a subgraph, from any checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Start
from threadline.domain.errors import Invalid

PROJECT = {
    "shop.py": """
from dataclasses import dataclass

@dataclass
class Refund:
    euros: int
""",
    "assistant.py": """
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, NamedTuple

from langchain_core.messages import AIMessage, AnyMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt
from pydantic import BaseModel
from typing_extensions import TypedDict

from shop import Refund


class Meal(Enum):
    DINNER = "dinner"


class Booking(BaseModel):
    seats: int
    meal: Meal = Meal.DINNER


@dataclass
class Bill:
    bookings: list[Booking]


class Guest(NamedTuple):
    name: str


class Hidden(BaseModel):
    x: int


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    booking: Booking
    bill: Bill
    anything: Any


class Inner(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    guest: Guest


def invite(state: Inner):
    return {"guest": Guest("Ada")}


def greet(state: Inner):
    answer = interrupt({"guest": type(state["guest"]).__name__})
    return {"messages": [AIMessage(f"{answer}, {type(state['guest']).__name__}")]}


inner = StateGraph(Inner).add_node("invite", invite).add_node("greet", greet)
inner = inner.add_edge(START, "invite").add_edge("invite", "greet").add_edge("greet", END).compile()


def book(state: State):
    booking, bill = state.get("booking"), state.get("bill")
    held = [type(each).__name__ for each in (booking, bill, *(state.get("anything") or ()))]
    return {
        "messages": [AIMessage(" ".join(held))],
        "booking": Booking(seats=2),
        "bill": Bill([Booking(seats=2)]),
        "anything": [Refund(5), Hidden(x=1)],
    }


graph = StateGraph(State).add_node("book", book).add_edge(START, "book")
graph = graph.add_node("inner", inner).add_edge("book", "inner").add_edge("inner", END)
""",
    "langgraph.json": '{"graphs": {"agent": "./assistant.py:graph"}}',
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    for name, content in PROJECT.items():
        (folder / name).write_text(content)
    return folder / "langgraph.json"


async def state(service: Any, session_id: str) -> dict[str, Any]:
    """The values of the newest checkpoint."""
    [newest, *_] = (await service.json(f"/sessions/{session_id}/checkpoints"))["items"]
    values: dict[str, Any] = (await service.json(f"/sessions/{session_id}/checkpoints/{newest['checkpoint_id']}"))[
        "values"
    ]
    return values


async def turn(service: Any, message: str, session_id: str | None = None) -> tuple[str, str, str]:
    """The session, what the node `book` found in the state, and what the subgraph did after the answer."""
    asked = await service.chat(message, session_id)
    session_id = asked[0].data["session_id"]
    [question] = [frame.data for frame in asked if frame.event == "interrupt"]
    assert question["value"] == {"guest": "Guest"}
    resume = {"interrupt_id": question["id"], "value": "Welcome"}
    await service.read("POST", "/chat", json={"session_id": session_id, "resume": resume})
    found, greeted = [said["content"] for said in (await state(service, session_id))["messages"][-2:]]
    return session_id, found, greeted


@pytest.mark.parametrize("allowed", [(), ("shop:Refund", "assistant:Hidden")], ids=["no setting", "a setting"])
async def test_own_types_come_back_after_a_restart(start: Start, project: Path, allowed: tuple[str, ...]) -> None:
    async with start(config=project, allowed_types=allowed) as service:
        session_id, found, greeted = await turn(service, "one")
        assert (found, greeted) == ("NoneType NoneType", "Welcome, Guest")
    others = "Refund Hidden" if allowed else "dict dict"
    async with start(config=project, allowed_types=allowed) as service:
        assert (await turn(service, "two", session_id))[1] == f"Booking Bill {others}"
        last = await state(service, session_id)
        assert last["booking"] == {"seats": 2, "meal": "dinner"}
        assert last["bill"] == {"bookings": [{"seats": 2, "meal": "dinner"}]}
        assert last["anything"] == [{"euros": 5}, {"x": 1}]
        listed = (await service.json(f"/sessions/{session_id}/checkpoints"))["items"]
        second = next(item for item in listed if item["next"] == ["book"])
        body = {"mode": "rerun", "checkpoint_id": second["checkpoint_id"]}
        await service.read("POST", f"/sessions/{session_id}/replay", json=body)
        assert (await state(service, session_id))["messages"][-1]["content"] == f"Booking Bill {others}"


@pytest.mark.parametrize("name", ["shop:Refnud", "shop", "shop.Refund", "nowhere:Refund", "assistant:State.x", ":"])
async def test_a_setting_that_names_no_type_stops_the_start(start: Start, project: Path, name: str) -> None:
    with pytest.raises(Invalid, match=f"THREADLINE_ALLOWED_TYPES: {name}"):
        async with start(config=project, allowed_types=("shop:Refund", name)):
            pass
    assert not (project.parent.parent / "data" / "checkpoints.db").exists()


EXPORTS = {
    "functional": """
from dataclasses import dataclass
from langchain_core.messages import AIMessage
from langgraph.func import entrypoint

@dataclass
class Count:
    turns: int

@entrypoint()
def agent(messages: dict, *, previous: Count | None = None) -> entrypoint.final[dict, Count]:
    kind = type(previous).__name__
    turns = previous.turns + 1 if previous else 1
    return entrypoint.final(value={"messages": [AIMessage(f"{kind} {turns}")]}, save=Count(turns))
""",
    "pydantic state": """
from typing import Annotated
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.graph import StateGraph
from langgraph.graph.message import add_messages
from pydantic import BaseModel

class Count(BaseModel):
    turns: int

class State(BaseModel):
    messages: Annotated[list[AnyMessage], add_messages]
    count: Count | None = None

def step(state: State):
    turns = state.count.turns + 1 if state.count else 1
    return {"messages": [AIMessage(f"{type(state.count).__name__} {turns}")], "count": Count(turns=turns)}

async def agent():
    return StateGraph(State).add_node(step).set_entry_point("step")
""",
    "its own subgraph": """
from dataclasses import dataclass
from langchain_core.messages import AIMessage
from langgraph.graph import MessagesState, StateGraph

@dataclass
class Count:
    turns: int

class State(MessagesState):
    count: Count | None

def step(state: State):
    looked = agent.name  # a node that knows the graph it is in
    count = state.get("count")
    turns = count.turns + 1 if count else 1
    return {"messages": [AIMessage(f"{type(count).__name__} {turns}")], "count": Count(turns)}

agent = StateGraph(State).add_node(step).set_entry_point("step").compile()
""",
}


@pytest.mark.parametrize("kind", EXPORTS)
async def test_in_every_form_of_graph(start: Start, tmp_path: Path, kind: str) -> None:
    (tmp_path / "counting.py").write_text(EXPORTS[kind])
    (tmp_path / "langgraph.json").write_text(json.dumps({"graphs": {"counter-1.0": "./counting.py:agent"}}))
    session_id, told = None, []
    for _ in range(2):
        async with start(config=tmp_path / "langgraph.json") as service:
            frames = await service.chat("hi", session_id)
            session_id = frames[0].data["session_id"]
            told.append((await state(service, session_id))["messages"][-1]["content"])
    assert told == ["NoneType 1", "Count 2"]
