"""What part of a conversation a model is shown, and in which form."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolCall, ToolMessage

from graph.state import calls_made, open_calls, this_turn
from graph.window import NOT_MADE, TOOL_TEXT_CHARS, compressed, window


def call(id: str, **args: object) -> ToolCall:
    return ToolCall(name="calculator", args=args, id=id, type="tool_call")


def turn(number: int, *, tools: int = 0, answered: bool = True) -> list[AnyMessage]:
    """A question, `tools` rounds through one tool each, and an answer."""
    messages: list[AnyMessage] = [HumanMessage(f"question {number}")]
    for step in range(tools):
        id = f"call {number}.{step}"
        messages += [AIMessage("", tool_calls=[call(id)]), ToolMessage(f"result of {id}", tool_call_id=id)]
    return [*messages, AIMessage(f"answer {number}")] if answered else messages


def shape(messages: list[AnyMessage]) -> str:
    """One letter a message: Human, Call, Tool result, Answer."""
    letters = {"human": "H", "tool": "T"}
    return "".join(letters.get(m.type, "C" if isinstance(m, AIMessage) and m.tool_calls else "A") for m in messages)


@pytest.mark.parametrize(
    ("size", "shown"), [(2, "HCT"), (4, "HCT"), (5, "HAHCT"), (10, "HAHCT"), (11, "HCTCTAHAHCT"), (40, "HCTCTAHAHCT")]
)
def test_the_window_begins_with_a_question_and_parts_no_call_from_its_result(size: int, shown: str) -> None:
    messages = [*turn(1, tools=2), *turn(2), *turn(3, tools=1, answered=False)]

    kept = window(messages, size=size)

    assert shape(kept) == shown
    assert kept == messages[-len(kept) :]


def test_the_whole_last_turn_is_shown_even_where_it_is_longer_than_the_window() -> None:
    messages = [*turn(1), *turn(2, tools=8, answered=False)]

    assert window(messages, size=2) == messages[2:]


def test_a_short_conversation_is_shown_whole_and_is_not_changed() -> None:
    messages = turn(1, tools=1)

    assert window(messages, size=40) == messages
    assert window([], size=40) == []


@pytest.mark.parametrize("limit", [window, lambda messages, size: compressed(messages)])
def test_a_call_that_was_never_carried_out_is_said_to_be_so(limit: object) -> None:
    half = [call("a"), call("b")]
    messages = [HumanMessage("hi"), AIMessage("", tool_calls=half), ToolMessage("1", tool_call_id="b")]

    shown = limit(messages, size=40)  # type: ignore[operator]

    assert [(m.type, getattr(m, "tool_call_id", None)) for m in shown[2:]] == [("tool", "a"), ("tool", "b")]
    assert (shown[2].content, shown[2].status) == (NOT_MADE, "error")


def test_an_answer_without_words_is_left_out() -> None:
    messages = [HumanMessage("hi"), AIMessage(""), HumanMessage("hello?")]

    assert window(messages, size=40) == [messages[0], messages[2]]


def test_compressed_is_the_last_turn_with_its_results_shortened() -> None:
    long = "x" * (TOOL_TEXT_CHARS + 1)
    last = [
        HumanMessage("y" * (TOOL_TEXT_CHARS + 1)),
        AIMessage("", tool_calls=[call("a"), call("b")]),
        ToolMessage(long, tool_call_id="a", name="search", status="success", artifact={"whole": True}),
        ToolMessage("short", tool_call_id="b"),
    ]

    shown = compressed([*turn(1, tools=3), *last])

    assert shown[0] == last[0]
    assert shown[2].content == "x" * TOOL_TEXT_CHARS + " … (shortened)"
    assert isinstance(shown[2], ToolMessage)
    assert (shown[2].tool_call_id, shown[2].artifact) == ("a", {"whole": True})
    assert shown[3] == last[3]
    assert last[2].content == long


def test_a_turn_is_the_last_question_and_what_follows() -> None:
    messages = [*turn(1, tools=1), *turn(2, tools=2, answered=False)]

    assert this_turn(messages) == messages[4:]
    assert [made["id"] for made in calls_made(messages)] == ["call 2.0", "call 2.1"]
    assert this_turn([AIMessage("welcome")]) == [AIMessage("welcome")]


def test_open_calls_are_those_of_the_last_message() -> None:
    asked = turn(1, tools=1, answered=False)

    assert open_calls(asked) == []
    assert open_calls(asked[:2]) == [call("call 1.0")]
    assert open_calls([*asked[:2], HumanMessage("never mind")]) == []
    assert open_calls([]) == []
