"""What a run ended with, read from its log: its state, or its error."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from threadline.domain.events import Event

ReadState = Callable[[str], Awaitable[bytes]]
"""The JSON of the state as of a checkpoint."""


@dataclass(frozen=True, slots=True)
class Result:
    """`values` is the JSON of the state, with what waits as `__interrupt__`; `error` is `{error, message}`."""

    values: bytes
    error: dict[str, Any] | None


class Ending:
    """Gathers from a run's events, one after the other, what its result is made of."""

    def __init__(self) -> None:
        self._last: Event | None = None
        self._interrupts: list[Any] = []
        self._end: Event | None = None

    def see(self, event: Event) -> None:
        if event.type == "values" and not event.ns:
            self._last = event
        elif event.type == "interrupt":
            self._interrupts.append(event.data)
        elif event.type == "end":
            self._end = event

    async def result(self, state: ReadState) -> Result | None:
        """None if the log has no end."""
        if self._end is None:
            return None
        failure, last = self._end.data["error"], self._last.data if self._last is not None else {}
        if "values" in last:
            values, interrupts = orjson.dumps(last["values"]), last["interrupts"]
        else:
            place = self._end.data["checkpoint_id"]
            values = await state(place) if place else b"{}"
            interrupts = last.get("interrupts") or self._interrupts
        return Result(with_interrupts(values, interrupts), error_of(failure) if failure is not None else None)


def ending_of(events: Iterable[Event]) -> Ending:
    ending = Ending()
    for event in events:
        ending.see(event)
    return ending


async def followed(events: AsyncIterable[Event]) -> Ending:
    ending = Ending()
    async for event in events:
        ending.see(event)
    return ending


def error_of(error: Mapping[str, Any]) -> dict[str, Any]:
    """A run's error in the words of the LangGraph Server API: the exception's name and what may be told of it."""
    return {"error": error.get("type") or error["kind"], "message": error["message"]}


def with_interrupts(values: bytes, interrupts: Any) -> bytes:
    """The JSON of a state with what waits as `__interrupt__`."""
    if not interrupts:
        return values
    told = b'"__interrupt__":%s}' % orjson.dumps(interrupts)
    if not values.startswith(b"{"):  # a graph whose state is one value, not a mapping
        return b"{" + told
    return values[:-1] + (b"," if values != b"{}" else b"") + told
