"""What the recorder makes of the stream of real graphs, and the words the log and the history are written in."""

from __future__ import annotations

import asyncio
import dataclasses
import operator
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, TypedDict
from uuid import UUID

import orjson
import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, HumanMessage, ToolMessage
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import CachePolicy, Command, interrupt
from pydantic import BaseModel, SecretStr

from threadline.domain.errors import ModelFault
from threadline.domain.events import Event
from threadline.domain.records import Turn
from threadline.services.payload import delta, jsonable, text_of
from threadline.services.recorder import STREAM_MODES, Recorder
from threadline.services.turns import answer, joined, question

CALLING = AIMessage("", tool_calls=[{"id": "1", "name": "calculator", "args": {}}])
TOLD = ToolMessage("2", tool_call_id="1", name="calculator")


@dataclasses.dataclass
class Recorded:
    """A run's recorder, the events it logged, and what the graph raised."""

    recorder: Recorder
    events: list[Event]
    error: Exception | None = None

    def tasks(self, *ns: str) -> list[tuple[str, str]]:
        """`(name, what became of it)` for each task event; "started" for a start."""
        place = [event for event in self.events if event.type == "tasks" and len(event.ns) == len(ns)]
        return [(event.data["name"], _fate(event.data)) for event in place]

    def of(self, type: str) -> list[Any]:
        return [event.data for event in self.events if event.type == type]


def _fate(task: dict[str, Any]) -> str:
    if "result" not in task:
        return "started"
    return "waits" if task["interrupts"] else f"failed: {task['error']}" if task["error"] else "finished"


def recorded() -> Recorded:
    events: list[Event] = []

    def write(type: Any, data: Any, *, ns: tuple[str, ...]) -> Event:
        events.append(Event(len(events) + 1, type, ns, orjson.loads(orjson.dumps(data)), 0.0))
        return events[-1]

    return Recorded(Recorder(write, clock=iter(range(10_000)).__next__), events)


async def run(graph: Any, given: Any, *, thread: str = "1", into: Recorded | None = None) -> Recorded:
    """One run as the runner streams it."""
    run = into or recorded()
    parts = graph.astream(
        given,
        {"configurable": {"thread_id": thread}},
        stream_mode=STREAM_MODES,
        subgraphs=True,
        durability="sync",
        version="v2",
    )
    try:
        async for part in parts:
            run.recorder.record(part)
    except Exception as error:
        run.error = error
    return run


class Words(TypedDict, total=False):
    words: Annotated[list[str], operator.add]


async def fine(state: Words) -> Words:
    return {"words": ["fine"]}


async def ask(state: Words) -> Words:
    return {"words": [interrupt("which?")]}


def chain(*nodes: tuple[str, Any], state: type[Any] = Words, **options: Any) -> StateGraph[Any]:
    graph: StateGraph[Any] = StateGraph(state)
    for (name, node), before in zip(nodes, (START, *(name for name, _ in nodes)), strict=False):
        graph.add_node(name, node, **options)
        graph.add_edge(before, name)
    graph.add_edge(nodes[-1][0], END)
    return graph


def fan(*nodes: tuple[str, Any]) -> StateGraph[Any]:
    graph: StateGraph[Any] = StateGraph(Words)
    for name, node in nodes:
        graph.add_node(name, node)
        graph.add_edge(START, name)
    return graph


def kept(graph: StateGraph[Any], **options: Any) -> Any:
    return graph.compile(checkpointer=InMemorySaver(), **options)


# Tasks


async def test_each_step_is_logged_between_the_checkpoints_around_it() -> None:
    run_ = await run(kept(chain(("one", fine), ("two", fine))), {"words": []})

    assert run_.tasks() == [("one", "started"), ("one", "finished"), ("two", "started"), ("two", "finished")]
    starts = [task for task in run_.of("tasks") if "result" not in task]
    assert [(task["name"], task["step"]) for task in starts] == [("one", 1), ("two", 2)]
    checkpoints = run_.of("checkpoints")
    assert [(point["step"], point["next"]) for point in checkpoints][1:] == [(0, ["one"]), (1, ["two"]), (2, [])]
    assert [point["parent_id"] for point in checkpoints[1:]] == [point["checkpoint_id"] for point in checkpoints[:-1]]
    assert run_.recorder.checkpoint_id == checkpoints[-1]["checkpoint_id"]
    assert (run_.recorder.last_node, run_.recorder.failed_node) == ("two", None)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("key sk-1 is wrong (really)"), "ValueError"),
        (ValueError(), "ValueError"),
        (RuntimeError("(no words before it)"), "RuntimeError"),
        (ModelFault("model_overloaded", "The model m is overloaded."), "model_overloaded"),
    ],
)
async def test_a_node_that_raises_is_failed_and_nothing_of_the_error_is_logged(error: Exception, told: str) -> None:
    async def broken(state: Words) -> Words:
        raise error

    run_ = await run(kept(chain(("one", fine), ("broken", broken))), {"words": []})

    assert run_.error is error
    assert run_.tasks()[-1] == ("broken", f"failed: {told}")
    assert run_.recorder.failed_node == "broken"
    assert "sk-1" not in str(run_.events)


async def test_a_node_that_raises_in_a_subgraph_fails_there_and_above() -> None:
    async def broken(state: Words) -> Words:
        raise ValueError("sk-1")

    run_ = await run(kept(chain(("outer", chain(("inner", broken)).compile()))), {"words": []})

    assert run_.tasks("outer") == [("inner", "started"), ("inner", "failed: ValueError")]
    assert run_.tasks() == [("outer", "started"), ("outer", "failed: ValueError")]
    assert run_.recorder.failed_node == "outer"


async def test_what_is_still_open_when_a_sibling_fails_is_closed() -> None:
    never = asyncio.Event()

    async def slow(state: Words) -> Words:
        await never.wait()
        return {}

    async def broken(state: Words) -> Words:
        raise ValueError

    run_ = await run(kept(fan(("slow", slow), ("broken", broken))), {"words": []})
    run_.recorder.close_tasks("error")

    assert sorted(run_.tasks()[2:]) == [("broken", "failed: ValueError"), ("slow", "failed: error")]
    assert run_.recorder.failed_node == "broken"


async def test_inner_tasks_are_closed_before_outer_ones() -> None:
    both, never = asyncio.Event(), asyncio.Event()

    async def slow(state: Words) -> Words:
        await never.wait()
        return {}

    run_ = recorded()
    graph = kept(chain(("outer", chain(("inner", slow)).compile())))

    async def stream() -> None:
        config = {"configurable": {"thread_id": "1"}}
        async for part in graph.astream({}, config, stream_mode=STREAM_MODES, subgraphs=True, version="v2"):
            run_.recorder.record(part)
            if len(run_.of("tasks")) == 2:
                both.set()

    task = asyncio.create_task(stream())
    async with asyncio.timeout(10):
        await both.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    run_.recorder.close_tasks("cancelled")

    closed = [(e.data["name"], e.data["error"], len(e.ns)) for e in run_.events if "result" in e.data]
    assert closed == [("inner", "cancelled", 1), ("outer", "cancelled", 0)]


async def test_a_node_whose_result_is_cached_finishes_with_that_result() -> None:
    async def say(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("from the node")]}

    graph = kept(chain(("say", say), state=MessagesState, cache_policy=CachePolicy()), cache=InMemoryCache())
    asked = {"messages": [HumanMessage("hi", id="1")]}
    await run(graph, asked, thread="1")

    again = await run(graph, asked, thread="2")
    again.recorder.close_tasks("success")

    assert again.tasks() == [("say", "started"), ("say", "finished")]
    assert again.recorder.text == "from the node"


async def test_steps_and_tasks_of_a_subgraph_are_counted_apart() -> None:
    inner = chain(("a", fine), ("b", fine)).compile()
    run_ = await run(kept(chain(("one", fine), ("outer", inner))), {"words": []})

    steps = {(len(e.ns), e.data["name"]): e.data["step"] for e in run_.events if e.type == "tasks"}
    assert steps == {(0, "one"): 1, (0, "outer"): 2, (1, "a"): 1, (1, "b"): 2}
    assert (
        run_.recorder.checkpoint_id
        == [e.data for e in run_.events if e.type == "checkpoints" and not e.ns][-1]["checkpoint_id"]
    )
    assert run_.recorder.last_node == "outer"


# Interrupts


async def test_an_interrupt_in_a_subgraph_is_told_once_and_its_tasks_wait() -> None:
    graph = kept(chain(("one", fine), ("outer", chain(("inner", ask)).compile())))
    asked = await run(graph, {"words": []})

    (told,) = asked.of("interrupt")
    assert told["value"] == "which?"
    assert asked.recorder.interrupts == [told]
    assert asked.tasks()[-1] == ("outer", "waits")
    assert asked.tasks("outer")[-1] == ("inner", "waits")

    resumed = await run(graph, Command(resume={told["id"]: "this"}))

    assert resumed.recorder.interrupts == []
    assert resumed.tasks() == [("outer", "started"), ("outer", "finished")]


async def test_the_checkpoint_a_run_was_restored_from_is_not_logged_again() -> None:
    graph = kept(chain(("ask", ask)))
    asked = await run(graph, {"words": []})
    resumed = recorded()
    snapshot = await graph.aget_state({"configurable": {"thread_id": "1"}})
    resumed.recorder.restore(snapshot.values, snapshot.config["configurable"]["checkpoint_id"])

    await run(graph, Command(resume={asked.recorder.interrupts[0]["id"]: "x"}), into=resumed)

    before = {point["checkpoint_id"] for point in asked.of("checkpoints")}
    assert len(resumed.of("checkpoints")) == 1
    assert not before & {point["checkpoint_id"] for point in resumed.of("checkpoints")}


async def test_each_of_two_interrupts_waits_for_its_own_answer_and_what_was_done_stays_done() -> None:
    graph = kept(fan(("ask1", ask), ("ask2", ask), ("done", fine)))
    asked = await run(graph, {"words": []})
    assert len(asked.recorder.interrupts) == 2

    resumed = await run(graph, Command(resume={asked.recorder.interrupts[0]["id"]: "x"}))
    resumed.recorder.close_tasks("interrupted")

    assert resumed.recorder.interrupts == asked.recorder.interrupts[1:]
    assert not [fate for _, fate in resumed.tasks() if fate.startswith("failed")]
    assert ("done", "finished") in resumed.tasks()


# Messages


async def answers(text: str) -> AsyncIterator[AIMessage]:
    yield AIMessage(text)


def speaking(*texts: str) -> Any:
    model = GenericFakeChatModel(messages=iter([AIMessage(text) for text in texts]))

    async def speak(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    return speak


async def test_tokens_add_up_to_the_message() -> None:
    run_ = await run(kept(chain(("speak", speaking("one two")), state=MessagesState)), {"messages": [("user", "hi")]})

    assert "".join(m["message"]["content"] for m in run_.of("messages")) == "one two"
    assert run_.recorder.text == "one two"
    assert run_.recorder.message is not None
    assert run_.recorder.message["id"] == run_.of("messages")[0]["message"]["id"]
    run_.recorder.close_message()
    assert run_.of("message") == [run_.recorder.message]


@pytest.mark.parametrize("deep", [False, True])
async def test_what_was_streamed_before_a_node_broke_is_the_text(deep: bool) -> None:
    class Breaking(GenericFakeChatModel):
        async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            for chunk in self._stream(*args, **kwargs):
                yield chunk
            raise ModelFault("model_stream_broken", "It broke off.")

    async def speak(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await Breaking(messages=iter([AIMessage("half an")])).ainvoke("hi")]}

    graph = chain(("speak", speak), state=MessagesState)
    run_ = await run(
        kept(chain(("outer", graph.compile()), state=MessagesState) if deep else graph), {"messages": [("user", "hi")]}
    )

    assert isinstance(run_.error, ModelFault)
    assert run_.recorder.message is None
    assert run_.recorder.text == "half an"


async def test_a_second_message_begins_its_own_text() -> None:
    graph = kept(chain(("one", speaking("first")), ("two", speaking("second")), state=MessagesState))

    assert (await run(graph, {"messages": [("user", "hi")]})).recorder.text == "second"


@pytest.mark.parametrize(
    "said",
    [
        AIMessage("hello"),
        [AIMessage("hello")],
        {"role": "assistant", "content": "hello"},
        [{"role": "assistant", "content": "hello"}],
        ("ai", "hello"),
        [("ai", "hello")],
    ],
)
async def test_an_answer_is_known_in_every_form_langgraph_takes(said: Any) -> None:
    async def speak(state: MessagesState) -> dict[str, Any]:
        return {"messages": said}

    run_ = await run(kept(chain(("speak", speak), state=MessagesState)), {"messages": [("user", "hi")]})

    assert run_.recorder.text == "hello"
    assert run_.recorder.message is not None
    assert run_.recorder.message["type"] == "ai"


async def test_the_tools_of_earlier_turns_are_not_this_run_s() -> None:
    inner = chain(("speak", speaking("new")), state=MessagesState).compile()
    history = [("user", "1"), CALLING, TOLD, AIMessage("old"), ("user", "2")]

    run_ = await run(kept(chain(("outer", inner), state=MessagesState)), {"messages": history})

    assert run_.recorder.tools == []
    assert run_.recorder.text == "new"


async def test_tools_are_noted_in_order_and_a_call_is_no_answer() -> None:
    async def call(state: MessagesState) -> dict[str, Any]:
        return {"messages": [CALLING]}

    async def tools(state: MessagesState) -> dict[str, Any]:
        return {"messages": [TOLD, ToolMessage("x", tool_call_id="2")]}

    run_ = await run(
        kept(chain(("call", call), ("tools", tools), state=MessagesState)), {"messages": [("user", "1+1")]}
    )

    assert run_.recorder.tools == ["calculator", "tool"]
    assert (run_.recorder.message, run_.recorder.text) == (None, "")


async def test_a_restored_recorder_knows_what_this_turn_did_before_the_crash() -> None:
    async def tools(state: MessagesState) -> dict[str, Any]:
        return {"messages": [TOLD]}

    graph = kept(chain(("tools", tools), ("speak", speaking("hello")), state=MessagesState))
    before = ToolMessage("x", tool_call_id="0", name="weather")
    first = await run(graph, {"messages": [("user", "1"), before, ("ai", "old"), ("user", "2")]})
    second = recorded()
    snapshot = await graph.aget_state({"configurable": {"thread_id": "1"}})
    second.recorder.restore(snapshot.values, snapshot.config["configurable"]["checkpoint_id"])

    assert second.events == []
    assert second.recorder.tools == ["calculator"]
    assert second.recorder.message == first.recorder.message
    assert second.recorder.checkpoint_id == first.recorder.checkpoint_id


@pytest.mark.parametrize("values", [{}, {"messages": []}, {"messages": None}, {"words": ["a"]}, None, "text"])
async def test_any_state_can_be_restored(values: Any) -> None:
    run_ = recorded()
    run_.recorder.restore(values, "c1")

    assert (run_.recorder.checkpoint_id, run_.recorder.message, run_.recorder.tools) == ("c1", None, [])


# JSON types


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Word(StrEnum):
    YES = "yes"


@dataclasses.dataclass
class Point:
    x: float
    at: date


class Model(BaseModel):
    key: SecretStr
    colour: Colour


class Odd:
    def __str__(self) -> str:
        return "odd"


@pytest.mark.parametrize(
    ("value", "json"),
    [
        (None, None),
        (True, True),
        (1, 1),
        (2**63, 2**63),
        (2**64, "18446744073709551616"),
        (-(2**63) - 1, "-9223372036854775809"),
        (0.5, 0.5),
        (float("nan"), None),
        (float("-inf"), None),
        ("서울", "서울"),
        ("half \ud83d", "half �"),
        ("\ud83d\ude00", "😀"),
        (b"\xec\x84\x9c\xff", "서�"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Word.YES, "yes"),
        (datetime(2026, 11, 22, 18, tzinfo=UTC), "2026-11-22T18:00:00+00:00"),
        (time(18, 30), "18:30:00"),
        (Decimal("1.10"), "1.10"),
        (UUID(int=0), "00000000-0000-0000-0000-000000000000"),
        ((1, [2, {"three": {4}}]), [1, [2, {"three": [4]}]]),
        ({1: "a", Colour.RED: "b", "\ud800": "c"}, {"1": "a", "Colour.RED": "b", "�": "c"}),
        (Point(float("inf"), date(2026, 1, 2)), {"x": None, "at": "2026-01-02"}),
        (Model(key=SecretStr("sk-1"), colour=Colour.RED), {"key": "**********", "colour": "red"}),
        (Odd(), "odd"),
        (Point, str(Point)),
    ],
)
def test_whatever_a_graph_holds_becomes_json(value: Any, json: Any) -> None:
    assert jsonable(value) == json
    assert orjson.loads(orjson.dumps(jsonable(value))) == json


def test_messages_become_json_however_deep_they_lie() -> None:
    told = ToolMessage("2", tool_call_id="1", artifact={"value": float("nan"), "raw": b"x", "in": [HumanMessage("hi")]})

    whole = jsonable({"state": [told]})["state"][0]

    assert (whole["type"], whole["content"], whole["tool_call_id"]) == ("tool", "2", "1")
    assert whole["artifact"]["value"] is None
    assert whole["artifact"]["raw"] == "x"
    assert (whole["artifact"]["in"][0]["type"], whole["artifact"]["in"][0]["content"]) == ("human", "hi")
    orjson.dumps(whole)


def test_a_delta_leaves_out_what_is_empty() -> None:
    assert delta(AIMessageChunk("a", id="1")) == {"type": "AIMessageChunk", "id": "1", "content": "a"}
    assert delta(CALLING)["tool_calls"][0]["name"] == "calculator"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (AIMessage("a"), "a"),
        (AIMessage([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": "x"}, "b"]), "ab"),
        ({"content": [{"type": "text", "text": None}]}, ""),
        ({"content": None}, ""),
        ({}, ""),
    ],
)
def test_the_text_of_a_message(message: AnyMessage | dict[str, Any], text: str) -> None:
    assert text_of(message) == text


# Turns


def turn(**values: Any) -> Turn:
    extra = {"turn_id": "t", "run_ids": ["r1"], "status": "interrupted", "ended_at": "1", "checkpoint_id": "c1"}
    defaults: dict[str, Any] = {
        "session_id": "s",
        "user_message": "what?",
        "assistant_message": None,
        "tools_used": ["weather"],
        "model_used": "m",
        "tokens_used": 10,
        "cost": 0.25,
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "extra_metadata": extra,
    }
    return Turn(**{**defaults, **values})


LATER: dict[str, Any] = {
    "user_message": None,
    "assistant_message": "this",
    "tools_used": ["calculator", "weather"],
    "tokens_used": 5,
    "cost": 0.5,
    "created_at": datetime(2026, 1, 2, tzinfo=UTC),
    "extra_metadata": {"turn_id": "t", "run_ids": ["r2"], "status": "success", "ended_at": "2", "checkpoint_id": "c2"},
}


def test_a_turn_of_two_runs_is_one_row() -> None:
    whole = joined(turn(), turn(**LATER))

    assert (whole.user_message, whole.assistant_message) == ("what?", "this")
    assert whole.tools_used == ["weather", "calculator"]
    assert (whole.tokens_used, whole.cost) == (15, 0.75)
    assert whole.created_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert whole.extra_metadata == {**LATER["extra_metadata"], "run_ids": ["r1", "r2"]}
    assert joined(None, turn()) == turn()


@pytest.mark.parametrize(("before", "now"), [(None, 5), (10, None), (None, None)])
def test_an_unknown_number_makes_the_sum_unknown(before: int | None, now: int | None) -> None:
    whole = joined(turn(tokens_used=before, cost=before), turn(**{**LATER, "tokens_used": now, "cost": now}))

    assert (whole.tokens_used, whole.cost) == (None, None)


def test_what_was_said_before_a_resume_stays_where_nothing_more_is_said() -> None:
    whole = joined(turn(assistant_message="before"), turn(**{**LATER, "assistant_message": None, "model_used": None}))

    assert (whole.assistant_message, whole.model_used) == ("before", "m")


def test_a_turn_that_succeeds_after_all_has_no_error() -> None:
    failed = turn()
    failed.extra_metadata.update(status="error", error={"kind": "model_overloaded"})

    assert "error" not in joined(failed, turn(**LATER)).extra_metadata
    assert joined(turn(**LATER), failed).extra_metadata["error"] == {"kind": "model_overloaded"}


def test_the_same_run_joined_twice_is_named_once() -> None:
    assert joined(turn(), turn()).extra_metadata["run_ids"] == ["r1"]


def test_a_rerun_asks_nothing_anew_and_a_silent_turn_says_nothing() -> None:
    again = turn()
    again.extra_metadata["rerun_of"] = "c0"

    assert question(again) is None
    assert question(turn(user_message=None)) is None
    assert answer(turn()) is None
    said = answer(turn(**LATER))
    assert said is not None
    assert (said["content"], said["metadata"]["run_id"]) == ("this", "r2")
