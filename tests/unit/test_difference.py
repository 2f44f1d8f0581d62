"""What differs and what does not: alignment against brute force, changes that lead from one value to the other."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from threadline.services.alignment import align
from threadline.services.difference import canonical, changes, digest

words = st.lists(st.sampled_from("abc"), max_size=14)


def longest(a: Sequence[str], b: Sequence[str]) -> int:
    """How many items a longest common subsequence has."""
    best = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            best[i + 1][j + 1] = best[i][j] + 1 if x == y else max(best[i][j + 1], best[i + 1][j])
    return best[-1][-1]


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(words, words)
def test_alignment_is_whole_and_as_long_as_can_be(a: list[str], b: list[str]) -> None:
    pairs = align(a, b)

    assert [i for i, _ in pairs if i is not None] == list(range(len(a)))
    assert [j for _, j in pairs if j is not None] == list(range(len(b)))
    both = [(i, j) for i, j in pairs if i is not None and j is not None]
    assert all(a[i] == b[j] for i, j in both)
    assert len(both) == longest(a, b)


def test_sequences_with_nothing_in_common_cost_no_more_than_the_bound() -> None:
    dice = random.Random(5)
    a, b = ([dice.choice(letters) for _ in range(20_000)] for letters in ("abc", "bcd"))
    began = time.perf_counter()
    pairs = align(a, b)
    assert time.perf_counter() - began < 5
    assert [i for i, _ in pairs if i is not None] == list(range(len(a)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("xyz/~"), inner, max_size=3),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(json_values, json_values)
def test_changes_are_empty_for_equal_values_alone(before: Any, after: Any) -> None:
    assert (changes(before, after) == []) is (digest(before) == digest(after))
    assert changes(before, before) == []


def test_places_are_json_pointers() -> None:
    before = {"a/b": {"~": 1}, "gone": 1, "rows": ["x", "y", "z"]}
    after = {"a/b": {"~": 2}, "came": None, "rows": ["x", "new", "y", {"n": 1}]}
    assert changes(before, after) == [
        {"path": "/a~1b/~0", "before": 1, "after": 2},
        {"path": "/came", "after": None},
        {"path": "/rows/1", "after": "new"},
        {"path": "/rows/2", "before": "z"},
        {"path": "/rows/3", "after": {"n": 1}},
        {"path": "/gone", "before": 1},
    ]


def test_messages_are_compared_by_what_they_say() -> None:
    def conversation(answer: str) -> dict[str, Any]:
        call = {"name": "calculator", "args": {"expression": "6*7"}, "id": f"call_{uuid4()}"}
        usage = {"input_tokens": 1, "output_tokens": random.randrange(99), "total_tokens": 1}
        return {
            "messages": [
                HumanMessage("hi", id=str(uuid4())),
                AIMessage("", tool_calls=[call], id=str(uuid4())),
                ToolMessage("42", tool_call_id=call["id"], name="calculator"),
                AIMessage(answer, id=str(uuid4()), usage_metadata=usage, response_metadata={"ms": 3}),
            ]
        }

    one, same, other = (canonical(conversation(text)) for text in ("it is 42", "it is 42", "마흔둘"))
    assert changes(one, same) == []
    assert changes(one, other) == [{"path": "/messages/3/content", "before": "it is 42", "after": "마흔둘"}]
    assert one["messages"][1] == {
        "type": "ai",
        "content": "",
        "tool_calls": [{"name": "calculator", "args": {"expression": "6*7"}}],
    }


def test_an_id_that_was_drawn_and_a_time_do_not_count_and_others_do() -> None:
    def order(**of: Any) -> Any:
        return canonical({"order_id": str(uuid4()), "id": f"run-{uuid4()}", "created_at": uuid4().hex, **of})

    assert changes(order(), order()) == []
    assert changes(order(id="A-1"), order(id="A-2")) == [{"path": "/id", "before": "A-1", "after": "A-2"}]
    assert changes(order(when="2026-01-01T10:00"), order(when="2026-01-02T10:00"))[0]["path"] == "/when"
    assert changes(canonical({1, 2, 3}), canonical({3, 2, 1})) == []
    assert canonical(float("nan")) is None
