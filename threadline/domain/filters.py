"""Filters on JSON objects: what a search of the store asks for, and what a project's auth handlers answer with.

A filter names fields and what they must be: `{"kind": "note", "score": {"$gte": 3}}`. All of it must hold. A field is
compared with a plain value, with an object field by field, with a list item by item, or by operators.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

Filter = Mapping[str, Any]

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
OPERATORS = frozenset({"$eq", "$ne", "$contains", *_ORDER})


DEPTH = 50


def check(filter: Filter) -> None:
    """Raises ValueError for an operator that is none, and for what is nested too deep."""
    if _deeper(filter, DEPTH):
        raise ValueError("The filter is nested too deep")
    _check(filter)


def _deeper(value: Any, depth: int) -> bool:
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return depth < 0 or any(_deeper(one, depth - 1) for one in inner)


def _check(filter: Filter) -> None:
    for name, wanted in filter.items():
        if name in ("$and", "$or"):
            if not isinstance(wanted, list) or not all(isinstance(part, Mapping) for part in wanted):
                raise ValueError(f"{name} needs a list of filters")
            for part in wanted:
                _check(part)
        elif isinstance(wanted, Mapping):
            used = [key for key in wanted if str(key).startswith("$")]
            for key in used:
                if key not in OPERATORS:
                    raise ValueError(f"Unsupported operator: {key}")
            if not used:
                _check(wanted)


def matches(filter: Filter, value: Mapping[str, Any]) -> bool:
    """Whether an object is what a checked filter asks for. A field that is not there counts as null."""
    for name, wanted in filter.items():
        if name == "$and":
            if not all(matches(part, value) for part in wanted):
                return False
        elif name == "$or":
            if not any(matches(part, value) for part in wanted):
                return False
        elif not _fits(value.get(name), wanted):
            return False
    return True


def _fits(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        if any(str(key).startswith("$") for key in wanted):
            return all(_holds(value, key, operand) for key, operand in wanted.items())
        return isinstance(value, Mapping) and matches(wanted, value)
    if isinstance(wanted, list | tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(wanted)
            and all(_fits(one, other) for one, other in zip(value, wanted, strict=True))
        )
    return bool(value == wanted)


def _holds(value: Any, name: str, operand: Any) -> bool:
    if name == "$eq":
        return bool(value == operand)
    if name == "$ne":
        return bool(value != operand)
    if name == "$contains":
        wanted = operand if isinstance(operand, list | tuple) else [operand]
        return isinstance(value, list | tuple) and all(one in value for one in wanted)
    comparable = all(isinstance(side, int | float) for side in (value, operand)) or all(
        isinstance(side, str) for side in (value, operand)
    )
    return comparable and _ORDER[name](value, operand)
