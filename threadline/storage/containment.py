"""What a JSON column contains, as PostgreSQL's `@>` has it; in SQLite, with every key and value a bound parameter."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, false, func, literal, select, true
from sqlalchemy.sql.selectable import TableValuedAlias

from threadline.domain.errors import Invalid

MAX_DEPTH = 8
MAX_PARTS = 100
"""What one filter may hold; each part is a subquery, and SQLite has limits of its own on those."""


def contains(document: ColumnElement[Any], wanted: Mapping[str, Any]) -> ColumnElement[bool]:
    """Whether `document` holds every key of `wanted` with its value. Raises Invalid if `wanted` is overgrown."""
    _check(wanted)
    names = count(1)

    def members(of: ColumnElement[Any], wanted: Mapping[str, Any]) -> ColumnElement[bool]:
        return and_(true(), *(has(of, value, key=key) for key, value in wanted.items()))

    def has(of: ColumnElement[Any], value: Any, *, key: str | None = None) -> ColumnElement[bool]:
        each = func.json_each(of).table_valued("key", "value", "type", "atom", name=f"part{next(names)}")
        named = [each.c.key == key] if key is not None else []
        return exists(select(literal(1)).select_from(each).where(*named, equals(each, value)))

    def equals(each: TableValuedAlias, value: Any) -> ColumnElement[bool]:
        match value:
            case dict():
                return and_(each.c.type == "object", members(each.c.value, value))
            case list():
                return and_(each.c.type == "array", *(has(each.c.value, element) for element in value))
            case None:
                return each.c.type == "null"
            case bool():
                return each.c.type == ("true" if value else "false")
            case str():
                return and_(each.c.type == "text", each.c.atom == value)
            case int() | float():
                number = value if -(2**63) <= value < 2**63 else float(value)
                return and_(each.c.type.in_(("integer", "real")), each.c.atom == number)
        return false()

    return members(document, wanted)


def _check(wanted: Mapping[str, Any]) -> None:
    parts, level = 0, list(wanted.values())
    for _ in range(MAX_DEPTH):
        parts += len(level)
        below = [part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list)]
        level = [value for values in below for value in values]
        if not level:
            break
    if level or parts > MAX_PARTS:
        raise Invalid(f"A filter may hold at most {MAX_PARTS} parts on {MAX_DEPTH} levels.")
