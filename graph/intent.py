"""What the analysis of a message must look like: a Pydantic model, and the schema the model server is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["tool", "chat", "greeting", "help", "unknown"]


class PlannedCall(BaseModel):
    """One tool call the message asks for."""

    model_config = ConfigDict(extra="ignore")

    name: str
    args: dict[str, Any] = Field(default_factory=dict)


class Intent(BaseModel):
    """What a message asks for. `needs_more`: further calls depend on the results of these."""

    model_config = ConfigDict(extra="ignore")

    kind: Kind
    confidence: float = Field(ge=0, le=1)
    language: str = Field(min_length=2, max_length=8)
    tool_calls: list[PlannedCall] = Field(default_factory=list, max_length=16)
    needs_more: bool = False


def response_format(specs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The `response_format` of an OpenAI-compatible request: an `Intent` whose calls name only these tools."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": spec["name"]}, "args": spec["parameters"]},
            "required": ["name", "args"],
            "additionalProperties": False,
        }
        for spec in specs
    ]
    schema = {
        "type": "object",
        "properties": {
            "kind": {"enum": ["tool", "chat", "greeting", "help", "unknown"]},
            "confidence": {"type": "number", "minimum": 0, "maximum": 1},
            "language": {"type": "string"},
            "tool_calls": {"type": "array", "items": {"anyOf": calls}},
            "needs_more": {"type": "boolean"},
        },
        "required": ["kind", "confidence", "language", "tool_calls", "needs_more"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "intent", "schema": schema}}
