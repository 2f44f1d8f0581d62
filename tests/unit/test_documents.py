"""Paths into JSON documents."""

from __future__ import annotations

from typing import Any

import pytest

from threadline.services.documents import at

DOCUMENT = {"values": {"messages": [{"content": "hi"}, {"content": "bye"}], "a b": {"글": 1}}, "metadata": None}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("values.messages[-1].content", "bye"),
        ("values.messages[0]", {"content": "hi"}),
        ("values..messages[1].content", "bye"),
        ("values.a b.글", 1),
        ("values.messages[2]", None),
        ("values.messages[-3]", None),
        ("values.messages[x]", None),
        ("values.messages[", None),
        ("values.messages[99999999999999999999]", None),
        ("values.messages.content", None),
        ("values[0]", None),
        ("metadata.x.y", None),
        ("", DOCUMENT),
    ],
)
def test_what_stands_at_a_path(path: str, found: Any) -> None:
    assert at(DOCUMENT, path) == found


def test_a_long_path_takes_no_time() -> None:
    assert at(DOCUMENT, "values" + ".a" * 100_000 + "[") is None
