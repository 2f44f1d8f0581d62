"""Turns what graphs hold (messages, models, interrupts) into JSON types for the log and the wire."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from math import isfinite
from typing import Any
from uuid import UUID

from langchain_core.messages import BaseMessage, BaseMessageChunk
from pydantic import BaseModel

_FIELDS = (
    "name",
    "additional_kwargs",
    "response_metadata",
    "tool_calls",
    "invalid_tool_calls",
    "tool_call_chunks",
    "usage_metadata",
    "chunk_position",
    "tool_call_id",
    "artifact",
    "status",
)


def jsonable(value: Any) -> Any:
    """`value` in JSON types. What JSON, or orjson, has no word for becomes its text; NaN and infinity become null."""
    if isinstance(value, Enum):
        return jsonable(value.value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else str(value)
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, BaseMessage):
        return jsonable(value.model_dump())
    if isinstance(value, BaseModel):
        return jsonable(value.model_dump())
    if isinstance(value, Mapping):
        return {_text(str(key)): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, UUID | Decimal):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "__fields__") and callable(getattr(value, "dict", None)):  # a model of Pydantic 1
        return jsonable(value.dict())
    return _text(str(value))


def _text(text: str) -> str:
    """`text` as Unicode: some model servers send the halves of a character one by one, which no encoder takes."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def delta(message: BaseMessage) -> dict[str, Any]:
    """A message or message delta for the log: `{type, id, content}` and those other fields that are not empty."""
    content = message.content
    text = _text(content) if isinstance(content, str) else jsonable(content)  # once a token: the usual case first
    brief: dict[str, Any] = {"type": message.type, "id": message.id, "content": text}
    given = message.__dict__ if not message.model_extra else {**message.__dict__, **message.model_extra}
    for name in _FIELDS:
        value = given.get(name)
        if value:
            brief[name] = jsonable(value)
    return brief


def text_of(message: BaseMessage | Mapping[str, Any]) -> str:
    """The text of a message's content, whether it is a string or a list of content blocks."""
    content = message.content if isinstance(message, BaseMessage) else message.get("content")
    if isinstance(content, str):
        return content
    blocks = content or []
    return "".join(block if isinstance(block, str) else str(block.get("text") or "") for block in blocks)


def is_delta(message: BaseMessage) -> bool:
    return isinstance(message, BaseMessageChunk)
