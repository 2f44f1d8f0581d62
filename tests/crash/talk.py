"""The conversation of the crash tests: a graph whose every step leaves a mark, and what must come of a turn.

A turn is `plan`, three `look` side by side, a subgraph of `draft` and `polish`, and `say`. A mark names the turn, the
step and the life it was done in, so who ran a step and whether it ran twice can be read from the state.
"""

from __future__ import annotations

import operator
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from graph.conversation import Conversation

LOOKS = ("look0", "look1", "look2")
STEPS = ("plan", *LOOKS, "say")
INNER = ("draft", "polish")

Work = Callable[[str, int, str], Awaitable[str]]
"""Does the work of a step, given its thread, turn and name; returns its mark."""


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], Conversation(snapshot_frequency=7)]
    turn: int
    steps: Annotated[list[str], operator.add]
    inner: list[str]


class Inner(TypedDict, total=False):
    """The subgraph's own state; what it adds to `inner` reaches the conversation when it is done."""

    turn: int
    inner: Annotated[list[str], operator.add]


@dataclass(frozen=True, slots=True)
class Mark:
    turn: int
    step: str
    life: int

    @classmethod
    def read(cls, text: str) -> Mark:
        turn, step, life = text.split()
        return cls(int(turn), step, int(life))

    def __str__(self) -> str:
        return f"{self.turn} {self.step} {self.life}"


def question(thread: str, turn: int) -> dict[str, Any]:
    return {"messages": [HumanMessage(f"question {turn} of {thread}", id=f"q{turn}")]}


def reply(thread: str, turn: int) -> str:
    return f"answer {turn} to {thread}"


def turns(values: Mapping[str, Any]) -> int:
    """How many turns were begun."""
    return sum(message.type == "human" for message in values.get("messages", []))


def marks_in(channels: Iterable[tuple[str, Any]]) -> list[str]:
    return [mark for name, value in channels if name in ("steps", "inner") for mark in value or ()]


def place(thread: str) -> Any:
    return {"configurable": {"thread_id": thread}}


async def nothing(thread: str, turn: int, step: str) -> str:
    """The work of a graph that is only looked at."""
    raise AssertionError("nobody is to run this graph")


def conversation(saver: BaseCheckpointSaver[Any], work: Work = nothing) -> Any:
    async def plan(state: State, config: RunnableConfig) -> dict[str, Any]:
        turn = turns(state) - 1
        return {"turn": turn, "steps": [await work(_thread(config), turn, "plan")]}

    def look_everywhere(state: State) -> list[Send]:
        return [Send("look", {"turn": state["turn"], "where": where}) for where in LOOKS]

    async def look(errand: dict[str, Any], config: RunnableConfig) -> dict[str, Any]:
        return {"steps": [await work(_thread(config), errand["turn"], errand["where"])]}

    async def draft(state: Inner, config: RunnableConfig) -> dict[str, Any]:
        return {"inner": [await work(_thread(config), state["turn"], "draft")]}

    async def polish(state: Inner, config: RunnableConfig) -> dict[str, Any]:
        return {"inner": [await work(_thread(config), state["turn"], "polish")]}

    async def say(state: State, config: RunnableConfig) -> dict[str, Any]:
        thread, turn = _thread(config), state["turn"]
        mark = await work(thread, turn, "say")
        return {"steps": [mark], "messages": [AIMessage(reply(thread, turn), id=f"a{turn}")]}

    inner = StateGraph(Inner)
    inner.add_node("draft", draft)
    inner.add_node("polish", polish)
    inner.add_edge(START, "draft")
    inner.add_edge("draft", "polish")
    inner.add_edge("polish", END)

    outer = StateGraph(State)
    outer.add_node("plan", plan)
    outer.add_node("look", look)
    outer.add_node("answer", inner.compile())
    outer.add_node("say", say)
    outer.add_edge(START, "plan")
    outer.add_conditional_edges("plan", look_everywhere, ["look"])
    outer.add_edge("look", "answer")
    outer.add_edge("answer", "say")
    outer.add_edge("say", END)
    return outer.compile(checkpointer=saver)


def _thread(config: RunnableConfig) -> str:
    return str(config["configurable"]["thread_id"])
