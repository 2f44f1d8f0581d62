"""Asking a person before a tool does what cannot be taken back: the request, and what an answer comes to.

The shapes are those of LangChain's human-in-the-loop middleware, so that every page made for it can answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.messages import ToolCall
from pydantic import BaseModel, ConfigDict, Field, ValidationError

DECISIONS = ("approve", "edit", "reject")
REJECTED = "The user did not allow this call."


class EditedAction(BaseModel):
    name: str
    args: dict[str, Any]


class Decision(BaseModel):
    """What a person says of one call. `always`: the tool need not ask again in this session."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["approve", "edit", "reject"]
    edited_action: EditedAction | None = None
    message: str | None = Field(None, max_length=4000)
    always: bool = False


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    decisions: list[Decision]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the calls: those to make, why others are not made (by call id), and what need not ask again."""

    calls: list[ToolCall]
    refused: dict[str, str]
    always: frozenset[str] = frozenset()


def request(calls: Sequence[ToolCall], *, trouble: str | None = None) -> dict[str, Any]:
    """The interrupt's value. `trouble` says what was wrong with the last answer."""
    asked: dict[str, Any] = {
        "action_requests": [
            {"name": call["name"], "args": call["args"], "description": describe(call)} for call in calls
        ],
        "review_configs": [
            {"action_name": name, "allowed_decisions": list(DECISIONS)}
            for name in dict.fromkeys(call["name"] for call in calls)
        ],
    }
    return asked if trouble is None else {**asked, "error": trouble}


def describe(call: ToolCall) -> str:
    arguments = ", ".join(f"{name}={_short(value)}" for name, value in call["args"].items())
    return f"Tool {call['name']} is about to be called: {arguments}" if arguments else f"Tool {call['name']}"


def decided(calls: Sequence[ToolCall], answer: Any) -> Verdict:
    """What an answer says of the calls that were asked about. Raises ValueError with words for who answered."""
    try:
        decisions = _Answer.model_validate(answer).decisions
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        shape = '{"decisions": [{"type": "approve"}]}'
        raise ValueError(f"{where or 'answer'}: {first['msg']}. An answer looks like {shape}") from None
    if len(decisions) != len(calls):
        raise ValueError(f"{len(calls)} decisions are needed, one for each call and in their order")
    made: list[ToolCall] = []
    refused: dict[str, str] = {}
    for call, decision in zip(calls, decisions, strict=True):
        match decision.type:
            case "approve":
                made.append(call)
            case "reject":
                refused[str(call["id"])] = decision.message or REJECTED
            case "edit":
                made.append(_edited(call, decision.edited_action))
    always = frozenset(
        call["name"]
        for call, decision in zip(calls, decisions, strict=True)
        if decision.always and decision.type == "approve"
    )
    return Verdict(made, refused, always)


def _edited(call: ToolCall, action: EditedAction | None) -> ToolCall:
    if action is None:
        raise ValueError("an edit needs edited_action with name and args")
    if action.name != call["name"]:
        raise ValueError(f"an edit may change the arguments of {call['name']}, not the tool")
    return {**call, "args": action.args}


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}… ({len(text)} characters)"
