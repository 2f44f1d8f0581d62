"""The agent's state: the conversation, and what was understood of its last message."""

from collections.abc import Sequence
from typing import Annotated

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolCall
from typing_extensions import TypedDict  # that of typing has no schema before Python 3.12

from graph.conversation import Conversation

MAX_ROUNDS = 8
"""How often one turn may go through the tools."""


class Understanding(TypedDict):
    """`kind` is one of `graph.intent.Kind`, `confidence` is 0 to 1, `language` an ISO 639-1 code."""

    kind: str
    confidence: float
    language: str
    needs_more: bool


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], Conversation()]
    intent: Understanding
    allowed_tools: list[str]
    """Tools that need not ask again in this session."""


class Update(State):
    """What a node changed."""


def this_turn(messages: Sequence[AnyMessage]) -> Sequence[AnyMessage]:
    """The last human message and everything after it."""
    for index in range(len(messages) - 1, -1, -1):
        if isinstance(messages[index], HumanMessage):
            return messages[index:]
    return messages


def calls_made(messages: Sequence[AnyMessage]) -> list[ToolCall]:
    """Every tool call asked for since the last human message."""
    return [call for message in this_turn(messages) if isinstance(message, AIMessage) for call in message.tool_calls]


def rounds(messages: Sequence[AnyMessage]) -> int:
    """How often this turn has gone through the tools."""
    return sum(isinstance(message, AIMessage) and bool(message.tool_calls) for message in this_turn(messages))


def open_calls(messages: Sequence[AnyMessage]) -> list[ToolCall]:
    """The calls of the last message, which nothing has answered yet."""
    last = messages[-1] if messages else None
    return last.tool_calls if isinstance(last, AIMessage) else []
