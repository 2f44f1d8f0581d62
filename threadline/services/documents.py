"""Looks into JSON documents: what one contains, and what stands at a path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_STEP = re.compile(r"\[(-?\d{1,9})\]|([^.\[\]]+)")


def contains(document: Any, wanted: Any) -> bool:
    """Whether `document` holds every key of `wanted` with its value and every element of its lists, at any place."""
    match wanted:
        case dict():
            return isinstance(document, Mapping) and all(
                key in document and contains(document[key], value) for key, value in wanted.items()
            )
        case list():
            return isinstance(document, list) and all(any(contains(each, one) for each in document) for one in wanted)
        case bool() | None:
            return document is wanted
    return not isinstance(document, bool) and bool(document == wanted)


def at(document: Any, path: str) -> Any:
    """What stands at a path such as `values.messages[-1].content`; None if nothing does."""
    if _STEP.sub("", path).strip("."):
        return None
    for step in _STEP.finditer(path):
        index, key = step.groups()
        if index is not None and isinstance(document, list) and -len(document) <= int(index) < len(document):
            document = document[int(index)]
        elif key is not None and isinstance(document, Mapping):
            document = document.get(key)
        else:
            return None
    return document
