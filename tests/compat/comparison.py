"""Two servers' answers to one talk, made comparable and compared."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

from tests.compat.exchanges import UUID, Exchange, SentEvent

KNOWN = {
    "fe096781-5601-53d2-b2f6-0d3403f7e9ca": "<agent>",
    "0b226d00-e4ec-5b58-8e33-88f4bd4debe7": "<parent>",
    "00000000-0000-4000-8000-000000000000": "<nowhere>",
}
TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)?")
EVENT = re.compile(r"\d+-\d+")
HASH = re.compile(r"(?<![0-9a-f-])[0-9a-f]{32}(?![0-9a-f-])")
MOMENTS = ("timestamp", "ts")
ORDERED = ("thread_id", "run_id", "checkpoint_id", "parent_checkpoint_id", "cron_id", "assistant_id")
"""Under these names an id keeps which of the talk's ids it is."""
ABSENT = "<absent>"


@dataclass(frozen=True)
class Difference:
    """Where two answers are not the same. `at` is talk, exchange and place, such as `threads/get/body/values`."""

    at: str
    ours: Any
    theirs: Any

    def __str__(self) -> str:
        return f"{self.at}\n  ours:   {_brief(self.ours)}\n  theirs: {_brief(self.theirs)}"


def differences(talk: str, ours: Sequence[Exchange], theirs: Sequence[Exchange]) -> list[Difference]:
    found: list[Difference] = []
    mine, other = _Mask(), _Mask()
    if [exchange.name for exchange in ours] != [exchange.name for exchange in theirs]:
        return [Difference(talk, [exchange.name for exchange in ours], [exchange.name for exchange in theirs])]
    for one, two in zip(ours, theirs, strict=True):
        at = f"{talk}/{one.name}"
        if one.status != two.status:
            found.append(Difference(f"{at}/status", one.status, two.status))
        found += _compare(f"{at}/headers", mine(one.headers), other(two.headers))
        if isinstance(one.body, list) and isinstance(two.body, list) and _frames(one.body) and _frames(two.body):
            found += _compare_frames(at, [mine.frame(f) for f in one.body], [other.frame(f) for f in two.body])
        else:
            found += _compare(f"{at}/body", mine(one.body), other(two.body))
    return found


@dataclass
class _Mask:
    """Puts the same word where two servers must differ: ids, times, addresses."""

    _seen: dict[str, str] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)

    def __call__(self, value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {self._text(key, ""): self(value[key], key) for key in sorted(value)}
        if isinstance(value, list | tuple):
            return [self(item, name) for item in value]
        if isinstance(value, str):
            return self._text(value, name)
        if name in MOMENTS and isinstance(value, int | float):
            return "<time>"
        return value

    def frame(self, frame: SentEvent) -> SentEvent:
        id = frame.id and (EVENT.sub("<event>", frame.id) if "-" in frame.id else "<seq>")
        return SentEvent(self._text(frame.event, ""), self(frame.data), id, frame.fields)

    def _text(self, text: str, name: str) -> str:
        if len(text) < 8:
            return text
        text = UUID.sub(lambda match: self._id(match.group(), name), text)
        return HASH.sub("<hash>", TIME.sub("<time>", text))

    def _id(self, id: str, name: str) -> str:
        if id in KNOWN:
            return KNOWN[id]
        if id in self._seen:
            return self._seen[id]
        if name not in ORDERED:
            return "<id>"
        kind = name.removeprefix("parent_").removesuffix("_id")
        self._counts[kind] = self._counts.get(kind, 0) + 1
        self._seen[id] = f"<{kind} {self._counts[kind]}>"
        return self._seen[id]


def _frames(body: Sequence[Any]) -> bool:
    return all(isinstance(item, SentEvent) for item in body)


def _compare_frames(at: str, ours: Sequence[SentEvent], theirs: Sequence[SentEvent]) -> Iterator[Difference]:
    """Frame against frame; those that one of them does not have are a difference in themselves."""
    matcher = SequenceMatcher(
        None, [_kind(frame) for frame in ours], [_kind(frame) for frame in theirs], autojunk=False
    )
    for kind, start, end, there, stop in matcher.get_opcodes():
        if kind != "equal":
            for frame in ours[start:end]:
                yield Difference(f"{at}/frames/{frame.event}", frame.data, ABSENT)
            for frame in theirs[there:stop]:
                yield Difference(f"{at}/frames/{frame.event}", ABSENT, frame.data)
            continue
        for mine, other in zip(ours[start:end], theirs[there:stop], strict=True):
            if (mine.fields, mine.id) != (other.fields, other.id):
                yield Difference(f"{at}/lines/{mine.event}", (mine.fields, mine.id), (other.fields, other.id))
            yield from _compare(f"{at}/{mine.event}", mine.data, other.data)


def _kind(frame: SentEvent) -> tuple[str, ...]:
    """What two frames must share to be compared: the event, and in Protocol v2 the graph and what happened to it."""
    params = frame.data.get("params") if isinstance(frame.data, dict) else None
    if not isinstance(params, dict):
        return (frame.event,)
    happened = params["data"].get("event", "") if frame.event in ("lifecycle", "messages") else ""
    return (frame.event, *params["namespace"], happened)


def _compare(at: str, ours: Any, theirs: Any) -> Iterator[Difference]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in sorted(ours.keys() | theirs.keys()):
            yield from _compare(f"{at}/{name}", ours.get(name, ABSENT), theirs.get(name, ABSENT))
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from _compare(f"{at}/{number}", mine, other)
    elif ours != theirs or type(ours) is not type(theirs):
        yield Difference(at, ours, theirs)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 500 else f"{text[:500]}…"
