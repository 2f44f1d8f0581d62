"""The pace of a recorded replay: events as they were spaced, faster or slower, with long waits between runs cut."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from threadline.domain.events import Event

PORTION = 64
"""Events given together, at most: whoever plays a long log at once must let others have a turn."""
HELD_UP = 1.0
"""Seconds by which the reader may be late and still catch up. One that was away for longer goes on from where it is."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Time in seconds, of which only differences matter, and how to let it pass."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Pace:
    """One reader's pace: `speed` 1 is the original's, None is all at once; `max_gap` is in seconds of the original."""

    def __init__(self, speed: float | None, *, max_gap: float, clock: Clock) -> None:
        self._speed = speed
        self._max_gap = max_gap
        self._clock = clock
        self._due = 0.0
        self._at: float | None = None

    async def portions(self, events: Sequence[Event]) -> AsyncGenerator[Sequence[Event]]:
        """A run's events, each as soon as it is due."""
        if self._speed is None:
            for start in range(0, len(events), PORTION):
                yield events[start : start + PORTION]
                await asyncio.sleep(0)
            return
        start = 0
        for index, event in enumerate(events):
            gap = self._gap(event, self._speed, first=index == 0)
            if self._due + gap <= self._clock.now():
                self._due += gap
                continue
            if index > start:
                yield events[start:index]
                self._look()
            start = index
            self._due += gap
            wait = self._due - self._clock.now()
            if wait > 0:
                await self._clock.sleep(wait)
        if events:
            yield events[start:]
            self._look()

    def _look(self) -> None:
        """See whether the reader was held up."""
        now = self._clock.now()
        if now - self._due > HELD_UP:
            self._due = now

    def _gap(self, event: Event, speed: float, *, first: bool) -> float:
        """Seconds between an event and the one before it, as they are played; none before the very first."""
        if self._at is None:
            self._at, self._due = event.at, self._clock.now()
        gap = max(0.0, event.at - self._at)
        self._at = event.at
        return (min(gap, self._max_gap) if first else gap) / speed
