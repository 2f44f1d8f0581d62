"""Recordings: when two calls are the same, how an answer comes back, and what that costs others."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import get_llm_cache, set_llm_cache
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from pydantic import BaseModel

from threadline.domain.events import Event
from threadline.services.notes import Notes, as_event, noting
from threadline.services.payload import delta
from threadline.services.recording import Answer, Recording, model_key, read, tool_key


class Wanted(BaseModel):
    euros: int


def key(*messages: BaseMessage, node: str = "n", prompt: str | None = "p@1", **options: Any) -> str:
    return model_key(node, prompt, {"model": "m", **options}, messages)


def called(call_id: str, result_of: str | None = None) -> tuple[BaseMessage, ...]:
    """A conversation with two equal calls, the result of one of which is there."""
    calls = [{"name": "t", "args": {"a": 1}, "id": f"{call_id}{number}", "type": "tool_call"} for number in (1, 2)]
    return (
        HumanMessage("hi", id=call_id),
        AIMessage("", tool_calls=calls, id=f"{call_id}0"),
        ToolMessage("3", tool_call_id=result_of or f"{call_id}1", name="t"),
    )


def test_ids_do_not_make_a_call_another_one() -> None:
    assert key(*called("x")) == key(*called("y"))
    assert key(HumanMessage("hi", id="1")) == key(HumanMessage("hi"))
    assert key(AIMessage("hi", response_metadata={"recorded": True})) == key(AIMessage("hi"))
    assert key(AIMessageChunk("hi", chunk_position="last")) == key(AIMessage("hi"))
    blocks: list[Any] = [{"type": "text", "text": "hi", "id": "b1", "index": 0}]
    assert key(AIMessage([{**blocks[0], "id": "b2"}])) == key(AIMessage(blocks))
    assert key(HumanMessage("hi"), stream=True) == key(HumanMessage("hi"))


def test_all_else_does() -> None:
    hi = HumanMessage("hi")
    keys = [
        key(hi),
        key(HumanMessage("ho")),
        key(SystemMessage("hi")),
        key(AIMessage("hi")),
        key(HumanMessage("hi", name="Kim")),
        key(hi, hi),
        key(hi, node="other"),
        key(hi, prompt="p@2"),
        key(hi, prompt=None),
        key(hi, temperature=0.5),
        key(hi, model="other"),
        key(hi, tools=[{"name": "t"}]),
        key(hi, response_format=Wanted),
        key(hi, response_format=Recording),
        key(*called("x")),
        key(*called("x", result_of="x2")),
        tool_key("t", "1", {"a": 1}),
        tool_key("t", "2", {"a": 1}),
        tool_key("t", None, {"a": 1}),
        tool_key("t", "1", {"a": 2}),
        tool_key("u", "1", {"a": 1}),
    ]
    assert len(set(keys)) == len(keys)
    assert tool_key("t", "1", {"a": 1, "b": 2}) == tool_key("t", "1", {"b": 2, "a": 1})


@pytest.mark.parametrize(
    "odd", ["\ud83d", float("nan"), 2**70, {1: 2}, {3, 1, 2}, object(), Wanted(euros=1), print], ids=str
)
def test_what_json_has_no_word_for_has_a_key_all_the_same(odd: Any) -> None:
    assert key(HumanMessage("hi"), odd=odd) == key(HumanMessage("hi"), odd=odd)
    assert tool_key("t", None, [odd]) == tool_key("t", None, [odd])


CALL = {"name": "t", "args": {"a": 1}, "id": "c1", "type": "tool_call"}
MODEL = {"model_name": "m"}
SPENT: Any = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}


def part(args: str, *, name: str | None = None, id: str | None = None) -> Any:
    return {"name": name, "args": args, "id": id, "index": 0, "type": "tool_call_chunk"}


@pytest.mark.parametrize(
    "parts",
    [
        [AIMessage("Hello", id="1", usage_metadata=SPENT, response_metadata={"model_name": "m"})],
        [AIMessage("", id="1", tool_calls=[CALL])],
        [
            AIMessageChunk("Hel", id="1"),
            AIMessageChunk("lo", id="1"),
            AIMessageChunk(
                "", id="1", usage_metadata=SPENT, response_metadata={"model_name": "m"}, chunk_position="last"
            ),
        ],
        [
            AIMessageChunk(
                "", id="1", tool_call_chunks=[{**CALL, "args": '{"a"', "index": 0, "type": "tool_call_chunk"}]
            ),
            AIMessageChunk(
                "",
                id="1",
                tool_call_chunks=[{"name": None, "args": ": 1}", "id": None, "index": 0, "type": "tool_call_chunk"}],
                chunk_position="last",
            ),
        ],
    ],
    ids=["whole", "call", "deltas", "call in deltas"],
)
def test_an_answer_comes_back_as_it_was_with_a_mark(parts: list[AIMessage]) -> None:
    answer = Answer([delta(part) for part in parts])

    chunks = [chunk.message for chunk in answer.chunks()]
    merged = chunks[0]
    for more in chunks[1:]:
        merged = merged + more  # type: ignore[assignment]
    for message in (merged, answer.result().generations[0].message):
        assert isinstance(message, AIMessage)
        assert message.content == "".join(str(part.content) for part in parts)
        assert message.usage_metadata == parts[-1].usage_metadata
        assert message.response_metadata == {**parts[-1].response_metadata, "recorded": True}
        assert message.tool_calls == ([CALL] if not message.content else [])
        assert message.id != "1"
    assert len(chunks) == len(parts)


async def test_answers_come_in_their_order_and_those_before_the_checkpoint_last() -> None:
    def call(kind: str, **data: Any) -> tuple[str, Any]:
        return "calls", {"kind": kind, "key": "k", "node": "n", **data}

    def said(text: str, message_id: str) -> tuple[str, Any]:
        return "messages", {"message": {"type": "AIMessageChunk", "id": message_id, "content": text}, "metadata": None}

    lines = {
        "one": [
            call("model", answer={"type": "ai", "content": "before"}),
            ("checkpoints", {"checkpoint_id": "c"}),
            said("af", "m1"),
            said("ter", "m1"),
            call("model", message_id="m1"),
            call("model", message_id="lost"),
            call("tool", result={"n": 1}),
        ],
        "two": [call("model", answer={"type": "ai", "content": "another run"}), call("tool", error="no")],
    }

    async def events(run_id: str) -> AsyncIterator[Event]:
        for number, (type, data) in enumerate(lines[run_id]):
            yield Event(number, type, (), data, 0)  # type: ignore[arg-type]

    recording = await read(["one", "two"], events, after="c")
    said_now = [recording.model("k", "n") for _ in range(4)]
    assert [answer.result().generations[0].text for answer in said_now if answer] == [
        "after",
        "before",
        "another run",
        "another run",
    ]
    assert [recording.tool("k") for _ in range(2)] == [lines["one"][-1][1], lines["two"][-1][1]]
    assert recording.model("other", "n") is None
    assert (await read(["one"], events, models=False)).models == {}
    assert (await read(["one"], events, tools=False)).tools == {}


async def test_the_cache_is_there_for_reruns_alone_and_passes_others_on() -> None:
    own = InMemoryCache()
    set_llm_cache(own)
    try:
        model = GenericFakeChatModel(messages=iter([AIMessage("live"), AIMessage("other")]))
        notes = Notes()
        async with noting(notes):
            assert get_llm_cache() is own
            assert (await model.ainvoke("hi", {"callbacks": [notes]})).content == "live"
        (note,) = notes.take()
        event = as_event(note, ())
        assert event["recorded"] is False

        async def live(_: str) -> AsyncIterator[Event]:
            yield Event(1, "calls", (), event, 0)

        again, beside = Notes(await read(["r"], live)), Notes(Recording())
        own.clear()
        async with noting(again), noting(beside):
            assert get_llm_cache() is not own
            assert (await model.ainvoke("hi", {"callbacks": [again]})).content == "live"
            assert (await model.ainvoke("ho", {"callbacks": [again]})).content == "other"
            assert (await model.ainvoke("ho")).content == "other", "the cache there was before answers as it would"
        assert get_llm_cache() is own
    finally:
        set_llm_cache(None)
    assert again.recorded_calls == 1
    assert [note["recorded"] for note in again.take()] == [True, False]
    assert again.usage()["model_calls"] == 1


async def test_of_calls_made_at_once_each_gets_its_own_answer() -> None:
    typed = Recording(models={})
    asked = {text: key_of(text) for text in ("a", "b", "c")}
    for text, one in asked.items():
        typed.models[one] = deque([[{"type": "ai", "content": f"to {text}"}]])
    notes = Notes(typed)
    model = GenericFakeChatModel(messages=iter([]))
    async with noting(notes):
        said = await asyncio.gather(*(model.ainvoke(text, {"callbacks": [notes]}) for text in asked))
        threaded = await asyncio.to_thread(model.invoke, "b", {"callbacks": [notes]})
    assert [message.content for message in said] == ["to a", "to b", "to c"]
    assert threaded.content == "to b"


def key_of(text: str) -> str:
    """The key a call of the fake model is known by, outside a graph."""
    model = GenericFakeChatModel(messages=iter([]))
    return model_key("", None, model._get_invocation_params(), [HumanMessage(text)])
