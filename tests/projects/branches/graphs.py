"""A graph whose state is held in every way there is: a conversation and notes step by step, a sum, and a subgraph that
keeps its own from turn to turn. A message with a question mark makes it ask, beside work that is then done.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt


def talk(messages: list[AnyMessage], more: Sequence[Any]) -> list[AnyMessage]:
    for new in more:
        messages = add_messages(messages, new)  # type: ignore[assignment]
    return messages


def extend(notes: list[str], more: Sequence[list[str]]) -> list[str]:
    return [*notes, *chain.from_iterable(more)]


class Kept(TypedDict, total=False):
    heard: Annotated[list[str], operator.add]


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], DeltaChannel(talk, snapshot_frequency=5)]
    notes: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=3)]
    total: Annotated[int, operator.add]


def keep(state: Kept) -> Kept:
    return {"heard": [f"kept {len(state['heard'])}"]}


keeper = StateGraph(Kept).add_node("keep", keep).add_edge(START, "keep").add_edge("keep", END)
kept = keeper.compile(checkpointer=True)


def think(state: State) -> State:
    return {"notes": [f"thought {len(state['messages'])}"], "total": 1}


def ask(state: State) -> State:
    said = str([message for message in state["messages"] if message.type == "human"][-1].content)
    answer = interrupt({"about": said}) if "?" in said else "nothing"
    return {"messages": [AIMessage(f"{answer} to {said}", id=f"answer-{len(state['messages'])}")]}


def beside(state: State) -> State:
    heard = kept.invoke({"heard": [f"at {len(state['messages'])}"]})["heard"]
    return {"notes": [f"heard {len(heard)}"], "total": 10}


builder = StateGraph(State)
builder.add_node("think", think)
builder.add_node("ask", ask)
builder.add_node("beside", beside)
builder.add_edge(START, "think")
builder.add_edge("think", "ask")
builder.add_edge("think", "beside")
builder.add_edge(["ask", "beside"], END)
agent = builder.compile()
