"""A comparison on a terminal: the first difference, then the steps side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from threadline.app.client import Client
from threadline.app.tables import rows
from threadline.app.transcript import clean, fit
from threadline.domain.errors import Invalid, Missing

_WIDEST = 100
_CHANGES = 8
"""Changes of a step's state that are shown; the JSON has all."""
_MARKS = {"same": " ", "changed": "~", "only_a": "-", "only_b": "+"}


def ask(client: Client, a: str, b: str, *, after: int, limit: int) -> dict[str, Any]:
    """What the service says. Each is a session, a `session@branch` or a run. Raises Invalid for a run and a session."""
    page = {"after": after, "limit": limit}
    (first, branch), (second, other) = _split(a), _split(b)
    named = {"branch": branch, "with_branch": other}
    try:
        of = {key: value for key, value in named.items() if value is not None}
        found: dict[str, Any] = client.get(f"/sessions/{_quoted(first)}/compare", **{"with": second}, **of, **page)
    except Missing as missing:
        if branch is not None or other is not None:
            raise
        try:
            found = client.get(f"/runs/{_quoted(first)}/compare", **{"with": second}, **page)
        except Missing:
            if "no session" not in missing.message:
                raise missing from None
            raise Missing(f"{first} and {second} are not two sessions, and not two runs.") from None
    return found


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Both sides, the first difference, and a table of the steps."""
    for side in "ab":
        yield f"{side.upper()}  {_side(found[side])}"
    if found["shared"]:
        yield f"They begin with the same {_counted(found['shared']['steps'], 'checkpoint')}."
    yield ""
    yield from _first(found)
    if not found["steps"]:
        return
    yield ""
    table: list[tuple[str, ...]] = [(" ", "STEP", "NODES", "TOKENS A", "B", "MS A", "B", "COST A", "B", "DIFFERS IN")]
    table += [_row(step) for step in found["steps"]]
    head, *shown = rows(table)
    yield head
    for step, line in zip(found["steps"], shown, strict=True):
        yield line
        yield from _details(step)
    if found["next"] is not None:
        yield f"More: --after {found['next']}"


def _split(given: str) -> tuple[str, str | None]:
    one, at, branch = given.partition("@")
    if at and not branch:
        raise Invalid(f"{given} names no branch after the @.")
    return one, branch or None


def _side(side: Mapping[str, Any]) -> str:
    what = f"run {side['run_id']}" if "run_id" in side else f"session {side['session_id']}, branch {side['branch_id']}"
    known = [_counted(side["steps"], "step"), *_spent(side)]
    return f"{what}: {' · '.join(known)}{' (older steps were pruned)' if side.get('pruned') else ''}"


def _spent(side: Mapping[str, Any]) -> Iterator[str]:
    if side["tokens"] is not None:
        yield f"{side['tokens']} tokens"
    if side["cost"]:
        yield f"${side['cost']:.4f}"
    if side["ms"] is not None:
        yield f"{side['ms']} ms"


def _first(found: Mapping[str, Any]) -> Iterator[str]:
    first = found["first_difference"]
    if first is None:
        yield "No difference." if found["complete"] else "No difference in what was looked at; no log says more."
        return
    only = {"only_a": "only A has this step", "only_b": "only B has this step"}.get(first["status"])
    nodes = " + ".join(first["nodes"])
    yield f"First difference: step {first['index'] + 1}, {clean(nodes)}: {only or first['what'].replace('_', ' ')}"
    yield from _change(first, "  ")


def _row(step: Mapping[str, Any]) -> tuple[str, ...]:
    sides = [step["a"] or {}, step["b"] or {}]
    tokens, ms = ([_number(side.get(name)) for side in sides] for name in ("tokens", "ms"))
    cost = ["" if side.get("cost") is None else f"{side['cost']:.4f}" for side in sides]
    differs = ", ".join(name.replace("_", " ") for name in step["differs"])
    nodes = " + ".join(step["nodes"])
    return (_MARKS[step["status"]], str(step["index"] + 1), nodes, *tokens, *ms, *cost, differs)


def _details(step: Mapping[str, Any]) -> Iterator[str]:
    """What differs in a step, besides what the state's changes say."""
    a, b = step["a"], step["b"]
    indent = " " * 6
    for name in ("errors", "intent", "tool_calls", "interrupts"):
        if a and b and step["status"] == "changed" and a[name] != b[name]:
            yield f"{indent}{name.replace('_', ' ')}"
            yield from _change({"before": a[name], "after": b[name]}, f"{indent}  ")
    for change in step["state"][:_CHANGES]:
        yield fit(f"{indent}{clean(change['path']) or '/'}", _WIDEST)
        yield from _change(change, f"{indent}  ")
    if len(step["state"]) > _CHANGES:
        yield f"{indent}and {_counted(len(step['state']) - _CHANGES, 'more change')}"


def _change(change: Mapping[str, Any], indent: str) -> Iterator[str]:
    for mark, name in (("-", "before"), ("+", "after")):
        if name in change:
            yield fit(f"{indent}{mark} {clean(_text(change[name]))}", _WIDEST)


def _text(value: Any) -> str:
    if isinstance(value, Mapping) and {"type", "content"} <= value.keys():  # a message
        calls = [f"{call['name']} {_text(call['args'])}" for call in value.get("tool_calls", ())]
        return f"{value['type']}: {' '.join([_text(value['content']), *calls])}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _quoted(one: str) -> str:
    return quote(one, safe="")
