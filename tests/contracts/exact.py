"""What a saver tells, as plain values that are equal only if their types are too, and where two of them differ."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import BaseMessage

_VERSION = re.compile(r"(\d{32})\.\d+\.\d+(e-\d+)?")
"""A channel's version, of which only the count before the dot is the same for two savers."""
_MASKED = ("ts", "created_at", "__pregel_")
"""How the names of times and of running objects begin."""


def exact(value: Any) -> Any:
    """Lists, dicts and pairs of type name and value. Times and the random part of versions are left out."""
    if isinstance(value, Mapping):
        return {key: exact(item) for key, item in value.items() if not str(key).startswith(_MASKED)}
    if hasattr(value, "_asdict"):
        return {"": type(value).__name__, **exact(value._asdict())}
    if dataclasses.is_dataclass(value):
        fields = {field.name: exact(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"": type(value).__name__, **fields}
    if hasattr(value, "__slots__") and type(value).__module__.startswith("langgraph."):
        return {"": type(value).__name__, **{name: exact(getattr(value, name)) for name in value.__slots__}}
    if isinstance(value, list | tuple):
        return [exact(item) for item in value]
    if isinstance(value, BaseMessage):
        return {"": type(value).__name__, **value.model_dump()}
    if isinstance(value, str):
        match = _VERSION.fullmatch(value)
        return int(match[1]) if match else value
    if isinstance(value, BaseException):
        return repr(value)
    return (type(value).__name__, value)


def difference(ours: Any, reference: Any, path: str = "") -> str | None:
    """The first place where they differ, and both values there."""
    if isinstance(ours, dict) and isinstance(reference, dict) and ours.keys() == reference.keys():
        return _first(difference(ours[key], reference[key], f"{path}.{key}") for key in ours)
    if isinstance(ours, list) and isinstance(reference, list) and len(ours) == len(reference):
        pairs = zip(ours, reference, strict=True)
        return _first(difference(*pair, f"{path}[{n}]") for n, pair in enumerate(pairs))
    return None if ours == reference else f"{path}\n    ours:      {ours!r}\n    reference: {reference!r}"


def _first(found: Any) -> str | None:
    return next((each for each in found if each is not None), None)
