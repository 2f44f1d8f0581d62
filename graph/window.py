"""The part of a conversation that a model is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage, trim_messages

from graph.state import this_turn

NOT_MADE = "This call was not carried out."
TOOL_TEXT_CHARS = 4_000
"""How much of one tool result a model is shown when the conversation is too long for it."""


def window(messages: Sequence[AnyMessage], *, size: int) -> list[AnyMessage]:
    """The newest messages, at most `size` and at least the whole last turn, starting with a human message.

    A tool's result is never parted from the call it answers.
    """
    whole = list(_acceptable(_end(messages, size=size)))
    if len(whole) < size:
        whole = list(_acceptable(messages))
    kept = trim_messages(
        whole, max_tokens=size, token_counter=len, strategy="last", start_on="human", allow_partial=False
    )
    return cast(list[AnyMessage], kept) or list(this_turn(whole))


def _end(messages: Sequence[AnyMessage], *, size: int) -> Sequence[AnyMessage]:
    """Whole turns from the end, twice as many messages as wanted: a long conversation is not gone through each time."""
    start = min(len(messages) - 2 * size, len(messages) - len(this_turn(messages)))
    while start > 0 and not isinstance(messages[start], HumanMessage):
        start -= 1
    return messages[max(start, 0) :]


def compressed(messages: Sequence[AnyMessage]) -> list[AnyMessage]:
    """Only the last turn, its tool results shortened: for a model that found the window too long."""
    return [_shortened(message) for message in _acceptable(this_turn(messages))]


def _acceptable(messages: Sequence[AnyMessage]) -> Iterator[AnyMessage]:
    """The messages as servers accept them: no call without a result, no answer without words.

    A turn that was cancelled, or cut off by a crash, leaves such messages behind for all turns to come.
    """
    answered = {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}
    for message in messages:
        if isinstance(message, AIMessage):
            if not message.tool_calls and not message.text:
                continue
            yield message
            for call in message.tool_calls:
                if call["id"] not in answered:
                    yield ToolMessage(NOT_MADE, tool_call_id=call["id"], name=call["name"], status="error")
        else:
            yield message


def _shortened(message: AnyMessage) -> AnyMessage:
    if not isinstance(message, ToolMessage) or len(str(message.content)) <= TOOL_TEXT_CHARS:
        return message
    return message.model_copy(update={"content": str(message.content)[:TOOL_TEXT_CHARS] + " … (shortened)"})
