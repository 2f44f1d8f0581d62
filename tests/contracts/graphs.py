"""Graphs of every shape whose checkpoints differ: reducers, messages, delta channels, questions, children, fan-out."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import chain
from typing import Annotated, Any, TypedDict
from uuid import UUID

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Send, interrupt

from graph.conversation import Conversation

DELTAS = ("talk", "notes")
"""The names of all delta channels here."""


class Fault(Exception):
    """What a node raises when the world says so."""


@dataclass
class World:
    """What nodes meet: faults, something that strikes in the middle of a run, and a list of those that ran."""

    failing: set[str] = field(default_factory=set)
    strike: Callable[[], None] | None = None
    ran: list[str] = field(default_factory=list)

    async def enter(self, node: str) -> None:
        self.ran.append(node)
        strike, self.strike = self.strike, None
        if strike is not None:
            strike()
        if node in self.failing:
            raise Fault(node)


def extend(notes: list[str], more: Sequence[list[str]]) -> list[str]:
    return [*notes, *chain.from_iterable(more)]


Notes = Annotated[list[str], DeltaChannel(extend, snapshot_frequency=3)]


def later(before: Any, after: Any) -> Any:
    """The last one counts, also of several that wait: a plain channel would refuse them."""
    return after


Text = Annotated[str, later]
Trail = Annotated[list[str], operator.add]


def asked(text: str, times: int) -> list[Any]:
    """The answers to as many questions, if the text has a mark for each of them."""
    return [interrupt(f"{text} {n}") for n in range(times)] if text.endswith("?" * times) else []


class Plain(TypedDict, total=False):
    text: Text
    trail: Trail
    value: Annotated[Any, later]


def plain(world: World) -> StateGraph[Any]:
    async def think(state: Plain) -> Any:
        await world.enter("think")
        return {
            "trail": ["think", *asked(state.get("text", ""), 1)],
            "value": {1: Decimal(len(state.get("trail", [])))},
        }

    async def speak(state: Plain) -> Any:
        await world.enter("speak")
        return {"trail": [f"speak on {state.get('text', '')}"]}

    return line(Plain, think=think, speak=speak)


class Chat(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]


def chat(world: World) -> StateGraph[Any]:
    async def answer(state: Chat) -> Any:
        await world.enter("answer")
        messages = state.get("messages", [])
        heard = messages[-1].text if messages else ""
        return {"messages": [AIMessage(f"heard {heard}", id=f"ai-{len(messages)}")]}

    async def forget(state: Chat) -> Any:
        await world.enter("forget")
        messages = state.get("messages", [])
        return {"messages": [RemoveMessage(messages[0].id or "")]} if len(messages) > 6 else {}

    return line(Chat, answer=answer, forget=forget)


class Talk(TypedDict, total=False):
    talk: Annotated[list[AnyMessage], Conversation(snapshot_frequency=4)]
    notes: Notes
    trail: Trail


def talk(world: World) -> StateGraph[Any]:
    """As the built-in graph keeps its conversation, messages without an id among them."""

    async def answer(state: Talk) -> Any:
        await world.enter("answer")
        text = state["talk"][-1].text if state.get("talk") else ""
        return {"talk": [AIMessage(f"heard {text}"), AIMessage("more")], "trail": asked(text, 1)}

    async def note(state: Talk) -> Any:
        await world.enter("note")
        notes = len(state.get("notes", []))
        first = state.get("talk", [])[:1] if notes % 4 == 3 else []
        return {"notes": [f"note {notes}"], "talk": [RemoveMessage(message.id or "") for message in first]}

    return line(Talk, answer=answer, note=note)


class Asking(TypedDict, total=False):
    text: Text
    trail: Trail
    notes: Notes


def asking(world: World) -> StateGraph[Any]:
    """Two nodes that may ask at once, one of them twice, beside one that never does."""

    async def twice(state: Asking) -> Any:
        await world.enter("twice")
        return {"trail": ["twice", *asked(state.get("text", ""), 2)]}

    async def once(state: Asking) -> Any:
        await world.enter("once")
        return {"trail": ["once", *asked(state.get("text", ""), 1)], "notes": [f"once {state.get('text', '')}"]}

    async def never(state: Asking) -> Any:
        await world.enter("never")
        return {"trail": ["never"], "notes": [f"never {state.get('text', '')}"]}

    async def join(state: Asking) -> Any:
        await world.enter("join")
        return {"trail": [f"join {len(state.get('trail', []))}"]}

    graph = StateGraph(Asking)
    for node in (twice, once, never):
        graph.add_node(node.__name__, node)
        graph.add_edge(START, node.__name__)
        graph.add_edge(node.__name__, "join")
    graph.add_node("join", join)
    graph.add_edge("join", END)
    return graph


def joining(world: World) -> StateGraph[Any]:
    """Two branches, one longer than the other, and a node that waits for both."""

    def step(name: str) -> Any:
        async def run(state: Asking) -> Any:
            await world.enter(name)
            answers = asked(state.get("text", ""), 1) if name == "short" else []
            return {"trail": [name, *answers], "notes": [f"{name} {state.get('text', '')}"]}

        return run

    graph = StateGraph(Asking)
    for name in ("short", "long", "longer", "join"):
        graph.add_node(name, step(name))
    graph.add_edge(START, "short")
    graph.add_edge(START, "long")
    graph.add_edge("long", "longer")
    graph.add_edge(["short", "longer"], "join")
    graph.add_edge("join", END)
    return graph


class Inner(TypedDict, total=False):
    text: Text
    inner: Trail
    notes: Notes
    answer: str


class Outer(TypedDict, total=False):
    text: Text
    answer: str
    trail: Trail


def nested(world: World) -> StateGraph[Any]:
    """A child that begins anew at each turn, and one that remembers its last turn."""

    async def hear(state: Inner) -> Any:
        await world.enter("hear")
        return {
            "inner": ["hear"],
            "notes": [f"heard {state.get('text', '')}"],
            "talk": [HumanMessage(state.get("text", ""))],
        }

    async def reply(state: Inner) -> Any:
        await world.enter("reply")
        return {"inner": asked(state.get("text", ""), 1), "answer": f"reply {len(state.get('notes', []))}"}

    async def remember(state: Inner) -> Any:
        await world.enter("remember")
        notes = [f"remember {state.get('text', '')}", *asked(state.get("text", ""), 2)]
        return {"notes": notes}

    async def close(state: Outer) -> Any:
        await world.enter("close")
        return {"trail": [state.get("answer", "")]}

    child = line(Inner, hear=hear, reply=reply).compile()
    keeper = line(Inner, remember=remember).compile(checkpointer=True)
    return line(Outer, child=child, keeper=keeper, close=close)


class Fan(TypedDict, total=False):
    text: Text
    trail: Trail
    notes: Notes


def fan(world: World) -> StateGraph[Any]:
    """As many workers at once as the length of the text gives, the second of which may ask."""

    async def split(state: Fan) -> Any:
        await world.enter("split")
        return {"trail": ["split"]}

    def spread(state: Fan) -> list[Send]:
        return [
            Send("work", {"text": state.get("text", ""), "number": n})
            for n in range(2 + len(state.get("text", "")) % 3)
        ]

    async def work(task: Any) -> Any:
        await world.enter(f"work {task['number']}")
        answers = asked(task.get("text", ""), 1) if task["number"] == 1 else []
        return {"trail": [f"work {task['number']}", *answers], "notes": [f"{task['text']} {task['number']}"]}

    async def join(state: Fan) -> Any:
        await world.enter("join")
        return {"trail": [f"join {len(state.get('trail', []))}"], "notes": ["join"]}

    graph = StateGraph(Fan)
    for node in (split, work, join):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "split")
    graph.add_conditional_edges("split", spread, ["work"])
    graph.add_edge("work", "join")
    graph.add_edge("join", END)
    return graph


def line(state: Any, **nodes: Any) -> StateGraph[Any]:
    graph = StateGraph(state)
    for name, node in nodes.items():
        graph.add_node(name, node)
    for before, after in zip([START, *nodes], [*nodes, END], strict=True):
        graph.add_edge(before, after)
    return graph


@dataclass(frozen=True)
class Kind:
    """A graph, what a turn brings to it, where it may stop, and which parts of it may fail."""

    build: Callable[[World], StateGraph[Any]]
    said: Callable[[str], dict[str, Any]]
    nodes: tuple[str, ...]
    parts: tuple[str, ...]
    durable: bool = False
    """Whether it only runs with durability "sync". With another one LangGraph hands a join's set over to be stored
    while it changes it. Savers that store whole checkpoints get the later set; InMemorySaver stores by version."""

    def compile(self, saver: BaseCheckpointSaver[Any], world: World) -> Any:
        return self.build(world).compile(checkpointer=saver)


def text_only(text: str) -> dict[str, Any]:
    return {"text": text}


KINDS: dict[str, Kind] = {
    "plain": Kind(
        plain, lambda text: {"text": text, "value": UUID(int=len(text))}, ("think", "speak"), ("think", "speak")
    ),
    "chat": Kind(
        chat,
        lambda text: {"messages": [HumanMessage(text, id=f"human-{text}")]},
        ("answer", "forget"),
        ("answer", "forget"),
    ),
    "talk": Kind(
        talk, lambda text: {"talk": [HumanMessage(text)], "notes": [text]}, ("answer", "note"), ("answer", "note")
    ),
    "asking": Kind(
        asking,
        text_only,
        ("twice", "once", "never", "join"),
        ("never", "join", "twice", "once"),
    ),
    "joining": Kind(
        joining,
        text_only,
        ("short", "long", "longer", "join"),
        ("longer", "short", "join", "long"),
        durable=True,
    ),
    "nested": Kind(nested, text_only, ("child", "keeper", "close"), ("reply", "remember", "close", "hear")),
    "fan": Kind(fan, text_only, ("split", "work", "join"), ("work 0", "work 1", "join", "split")),
}
