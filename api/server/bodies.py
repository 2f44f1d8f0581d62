"""What bodies of the LangGraph Server API are made of."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BaseModel

MAX_DEPTH = 100


class CheckpointBody(BaseModel):
    """A checkpoint by reference. The thread it names is passed over: the one of the path counts."""

    checkpoint_id: str | None = None
    checkpoint_ns: str | None = None
    checkpoint_map: dict[str, str] | None = None


def _storable(value: Any) -> Any:
    level, depth = [value], 0
    while level := [member for part in level for member in _members(part)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"must not be nested more than {MAX_DEPTH} levels deep")
    try:
        orjson.dumps(value)
    except TypeError:
        raise ValueError("must hold whole characters, and integers of at most 64 bits") from None
    return value


def _members(part: Any) -> Any:
    return part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()


Json = Annotated[Any, AfterValidator(_storable)]
"""JSON that can be kept."""
Document = Annotated[dict[str, Any], AfterValidator(_storable)]
"""A JSON object that can be kept."""
