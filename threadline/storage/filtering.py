"""The filters of `threadline.domain.filters` in SQL: a function that SQLite calls for every row it looks at."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Text, cast, func

from threadline.domain import filters

FILTER_MATCHES = "filter_matches"


def filter_matches(value: str | bytes, filter: str) -> bool:
    """Whether a JSON object is what a filter, as JSON, asks for."""
    return filters.matches(_parsed(filter), orjson.loads(value))


def define(connection: Any) -> None:
    """Let a connection of any driver use the function."""
    connection.create_function(FILTER_MATCHES, 2, filter_matches, deterministic=True)


def is_allowed(document: ColumnElement[Any], filter: filters.Filter) -> ColumnElement[bool]:
    """Whether a column's JSON object is what a checked filter asks for."""
    condition: ColumnElement[bool] = func.filter_matches(cast(document, Text), json.dumps(filter)).is_(True)
    return condition


@lru_cache(maxsize=64)
def _parsed(filter: str) -> filters.Filter:
    parsed: filters.Filter = json.loads(filter)
    return parsed
