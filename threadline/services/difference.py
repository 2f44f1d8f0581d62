"""What differs between two states: content counts, ids and times do not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
from langchain_core.messages import BaseMessage

from threadline.services.alignment import align
from threadline.services.payload import jsonable

TIMES = frozenset(("created_at", "updated_at", "started_at", "ended_at", "timestamp", "ms", "duration", "latency"))
"""Keys whose values are never compared."""
_ID = re.compile(r"(\w+-+)?[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}(_\w+)?", re.IGNORECASE)
_MESSAGES = frozenset(("human", "ai", "system", "tool", "function", "chat", "developer", "remove"))
_SAID = ("type", "name", "content", "tool_calls", "status")
_SPAN = 40
"""Rows of a list that may differ before they are told row by row and not as rows that came and went."""

Change = dict[str, Any]
"""`{path, before, after}`: a JSON pointer, and the values there; `before` or `after` is left out where nothing was."""


class Canon:
    """Makes states comparable. A message that many states hold is looked at once."""

    def __init__(self) -> None:
        self._messages: dict[int, tuple[BaseMessage, dict[str, Any]]] = {}

    def __call__(self, value: Any) -> Any:
        """`value` in JSON types, without ids and times. The order of what has none is made up."""
        if isinstance(value, BaseMessage):
            known = self._messages.get(id(value))
            if known is None:
                known = self._messages[id(value)] = (value, _masked(jsonable(value)))
            return known[1]
        if isinstance(value, set | frozenset):
            return sorted((self(item) for item in value), key=digest)
        if isinstance(value, list | tuple):
            return [self(item) for item in value]
        if isinstance(value, Mapping):
            return _masked({str(key): self(item) for key, item in value.items()})
        return _masked(jsonable(value))


def canonical(value: Any) -> Any:
    """JSON types without ids and times."""
    return Canon()(value)


def digest(value: Any) -> bytes:
    """What equal values have in common."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def changes(before: Any, after: Any) -> list[Change]:
    """From one canonical value to another, in the order of the second."""
    return list(_changes(before, after, ""))


def _changes(before: Any, after: Any, path: str) -> Iterator[Change]:
    if before is after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*after, *(key for key in before if key not in after)]:
            place = f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
            if key not in before:
                yield {"path": place, "after": after[key]}
            elif key not in after:
                yield {"path": place, "before": before[key]}
            else:
                yield from _changes(before[key], after[key], place)
    elif isinstance(before, list) and isinstance(after, list):
        yield from _rows(before, after, path)
    elif before != after or isinstance(before, bool) is not isinstance(after, bool):  # True is 1 to Python alone
        yield {"path": path, "before": before, "after": after}


def _rows(before: Sequence[Any], after: Sequence[Any], path: str) -> Iterator[Change]:
    """Rows that came and went; in their stead, those that only changed. A row's place is the one it has, or had."""
    gone: list[int] = []
    came: list[int] = []
    pairs = align([digest(row) for row in before], [digest(row) for row in after])
    for i, j in [*pairs, (-1, -1)]:
        if i is not None and j is not None:
            yield from _gap(before, after, path, gone=gone, came=came)
            gone, came = [], []
        elif i is not None:
            gone.append(i)
        elif j is not None:
            came.append(j)


def _gap(
    before: Sequence[Any], after: Sequence[Any], path: str, *, gone: list[int], came: list[int]
) -> Iterator[Change]:
    for i, j in zip(gone[:_SPAN], came[:_SPAN], strict=False):
        if _alike(before[i], after[j]):
            yield from _changes(before[i], after[j], f"{path}/{j}")
        else:
            yield {"path": f"{path}/{i}", "before": before[i]}
            yield {"path": f"{path}/{j}", "after": after[j]}
    both = min(len(gone), len(came), _SPAN)
    yield from ({"path": f"{path}/{i}", "before": before[i]} for i in gone[both:])
    yield from ({"path": f"{path}/{j}", "after": after[j]} for j in came[both:])


def _alike(before: Any, after: Any) -> bool:
    """Whether one row is the other, changed: never a message of another kind."""
    if isinstance(before, dict) and isinstance(after, dict):
        return before.get("type") == after.get("type")
    return type(before) is type(after)


def _masked(value: Any) -> Any:
    """JSON types without ids and times; a message by what it says."""
    if isinstance(value, list):
        return [_masked(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("type") in _MESSAGES and "content" in value and ("id" in value or "additional_kwargs" in value):
        return _said(value)
    return {key: _masked(item) for key, item in value.items() if key not in TIMES and not _is_id(key, item)}


def _said(message: Mapping[str, Any]) -> dict[str, Any]:
    said = {name: _masked(message[name]) for name in _SAID if message.get(name)}
    if "tool_calls" in said:
        said["tool_calls"] = [{"name": call.get("name"), "args": call.get("args")} for call in message["tool_calls"]]
    if said.get("status") == "success":
        del said["status"]
    return {"content": "", **said}


def _is_id(key: str, value: Any) -> bool:
    """Whether it is an id that was drawn by lot: a UUID, with or without something around it, where an id stands."""
    names_one = key == "id" or key.endswith(("_id", "_ids"))
    values = value if isinstance(value, list) else [value]
    return names_one and bool(values) and all(isinstance(one, str) and _ID.fullmatch(one) for one in values)
