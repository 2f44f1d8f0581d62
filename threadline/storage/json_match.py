"""Asks a JSON column for the keys and values it must hold, as the searches of the LangGraph Server API do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from sqlalchemy import ColumnElement, String, and_, column, func, select, true

NUMBERS = ("integer", "real")


def holds(document: Any, wanted: Mapping[str, Any]) -> list[ColumnElement[bool]]:
    """True for a JSON object that has every wanted key with its value: objects inside may have more keys than wanted,
    lists and plain values must be equal. Keys are compared as values, so any text is a key."""
    return [_has(document, key, value, depth=0) for key, value in wanted.items()]


def _has(document: Any, key: str, value: Any, *, depth: int) -> ColumnElement[bool]:
    entry = func.json_each(document).table_valued(
        column("key", String), column("value"), column("type", String), name=f"entry_{depth}"
    )
    return select(1).select_from(entry).where(entry.c.key == key, _is(entry, value, depth=depth)).exists()


def _is(entry: Any, value: Any, *, depth: int) -> ColumnElement[bool]:
    kind, found = entry.c.type, entry.c.value
    if value is None:
        return kind == "null"  # type: ignore[no-any-return]
    if isinstance(value, bool):
        return kind == ("true" if value else "false")  # type: ignore[no-any-return]
    if isinstance(value, int | float):
        return and_(kind.in_(NUMBERS), found == float(value) if abs(value) >= 2**63 else found == value)
    if isinstance(value, str):
        return and_(kind == "text", found == value)
    if isinstance(value, Mapping):
        inside = [_has(found, key, item, depth=depth + 1) for key, item in value.items()]
        return and_(kind == "object", true(), *inside)
    return and_(kind == "array", found == orjson.dumps(value).decode())
