"""The part of a conversation that a model is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from langchain_core.messages import AnyMessage, ToolMessage, trim_messages

from graph.state import this_turn

TOOL_TEXT_CHARS = 4_000
"""How much of one tool result a model is shown when the conversation is too long for it."""


def window(messages: Sequence[AnyMessage], *, size: int) -> list[AnyMessage]:
    """The newest messages, at most `size` and at least the whole last turn, starting with a human message.

    A tool's result is never parted from the call it answers.
    """
    kept = trim_messages(
        list(messages), max_tokens=size, token_counter=len, strategy="last", start_on="human", allow_partial=False
    )
    return cast(list[AnyMessage], kept) or list(this_turn(messages))


def compressed(messages: Sequence[AnyMessage]) -> list[AnyMessage]:
    """Only the last turn, its tool results shortened: for a model that found the window too long."""
    return [_shortened(message) for message in this_turn(messages)]


def _shortened(message: AnyMessage) -> AnyMessage:
    if not isinstance(message, ToolMessage) or len(str(message.content)) <= TOOL_TEXT_CHARS:
        return message
    return message.model_copy(update={"content": str(message.content)[:TOOL_TEXT_CHARS] + " … (shortened)"})
