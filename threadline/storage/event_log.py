"""The event log: what a run writes and every reader follows.

A run that is going on is a tape in this process, copied to the live log (Redis) in batches so that it survives a
crash. A finished one is in the archive before its last event is shown. Readers keep a position, not a queue, so a slow
one costs nothing.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Hashable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import structlog

from threadline.domain.errors import Unavailable
from threadline.domain.events import ATTEMPT_SPAN, Event, EventType
from threadline.domain.ports import Archive, LiveLog

log = structlog.get_logger(__name__)

KEPT_VALUES = 16
"""States of a run that are kept at hand while it goes on. A reader that is further behind reads them from history."""

PORTION = 64
"""Events a reader is given together, at most: one that reads a long log from its start must let others have a turn."""
MODERATION = 4
"""How many times as long as the loop took to come to a reader it may wait for more, up to `MODERATION_LIMIT` seconds.
On an idle machine that is nothing; on a busy one several events make one write, and all readers gain by it."""
MODERATION_LIMIT = 0.1

BATCH_SECONDS = 0.05
"""How long events gather before they go to the live log together."""


class Tape:
    """One run's events in this process, and those who wait for more."""

    __slots__ = ("copied", "ended", "events", "next_id", "shared", "values", "waiting", "woken")

    def __init__(self, events: Iterable[Event], next_id: int) -> None:
        self.events = list(events)
        self.next_id = next_id
        self.copied = len(self.events)
        self.ended = False
        self.waiting: set[asyncio.Event] = set()
        self.woken = 0.0
        self.shared: dict[Hashable, Any] = {}
        self.values: OrderedDict[tuple[tuple[str, ...], str], bytes] = OrderedDict()

    def wake(self) -> None:
        self.woken = time.monotonic()
        for waiter in self.waiting:
            waiter.set()

    async def portions(self, after: int) -> AsyncGenerator[Sequence[Event]]:
        """All there is, as often as there is more."""
        position, waiter = bisect_right(self.events, after, key=lambda event: event.id), asyncio.Event()
        self.waiting.add(waiter)
        try:
            while True:
                waiter.clear()
                while position < len(self.events):
                    portion = self.events[position : position + PORTION]
                    position += len(portion)
                    yield portion
                if self.ended:
                    return
                await waiter.wait()
                behind = time.monotonic() - self.woken
                if behind > 0.002 and not self.ended:
                    await asyncio.sleep(min(MODERATION * behind, MODERATION_LIMIT))
        finally:
            self.waiting.discard(waiter)


class TieredEventLog:
    """The `EventLog` port over a live log and an archive."""

    def __init__(self, *, live: LiveLog, archive: Archive, now: Callable[[], float] = time.time) -> None:
        self._live = live
        self._archive = archive
        self._now = now
        self._tapes: dict[str, Tape] = {}
        self._uncopied: dict[str, Tape] = {}
        self._ended: set[str] = set()
        self._work = asyncio.Event()

    def open(self, run_id: str) -> None:
        """Begin the log of a new run, so that readers may come before its first event."""
        self._tapes[run_id] = Tape((), next_id=1)

    def drop(self, run_id: str) -> None:
        """Forget the log of a run that was never kept."""
        tape = self._tapes.pop(run_id)
        tape.ended = True
        tape.wake()

    async def reopen(self, run_id: str, *, attempt: int) -> list[Event]:
        """Take up the log of a run that a crash cut off; its new events get ids above all earlier ones."""
        try:
            events = await self._live.read(run_id)
        except Unavailable:
            events = []
        self._tapes[run_id] = Tape(events, next_id=(attempt - 1) * ATTEMPT_SPAN + 1)
        return events

    def append(self, run_id: str, type: EventType, data: Any, *, ns: tuple[str, ...] = ()) -> Event:
        """Append and show an event. `data` must be JSON types and is not to be changed afterwards."""
        tape = self._tapes[run_id]
        event = self._make(tape, type, data, ns)
        tape.events.append(event)
        tape.wake()
        self._uncopied[run_id] = tape
        self._work.set()
        return event

    def keep_values(self, run_id: str, ns: tuple[str, ...], checkpoint_id: str, values: bytes) -> None:
        """Keep the JSON of a state at hand for the readers of a run that is going on; the last few are kept."""
        kept = self._tapes[run_id].values
        kept[ns, checkpoint_id] = values
        while len(kept) > KEPT_VALUES:
            kept.popitem(last=False)

    def values(self, run_id: str, ns: tuple[str, ...], checkpoint_id: str) -> bytes | None:
        """The JSON of a state, if it is at hand."""
        tape = self._tapes.get(run_id)
        return tape.values.get((ns, checkpoint_id)) if tape else None

    def shared(self, run_id: str) -> dict[Hashable, Any] | None:
        """What the readers of a run share among them; it goes with the tape."""
        tape = self._tapes.get(run_id)
        return tape.shared if tape else None

    def events(self, run_id: str) -> list[Event]:
        """What a run that is going on has written so far."""
        return self._tapes[run_id].events

    def position(self, run_id: str) -> int:
        """The id of the last event a run that is going on has written; 0 before the first."""
        tape = self._tapes.get(run_id)
        return tape.events[-1].id if tape and tape.events else 0

    def draft_end(self, run_id: str, data: Any) -> Event:
        """The last event, made but not yet shown: archive the log with it, then `close`."""
        return self._make(self._tapes[run_id], "end", data, ())

    async def close(self, run_id: str, end: Event) -> None:
        """Show the last event and forget the tape: from here on the archive answers. The live log goes later."""
        tape = self._tapes.pop(run_id)
        self._uncopied.pop(run_id, None)
        self._ended.add(run_id)
        self._work.set()
        tape.events.append(end)
        tape.ended = True
        tape.wake()

    async def discard(self, run_ids: Collection[str]) -> None:
        """Delete live logs. A live log that is away loses them by their TTL."""
        try:
            await self._live.delete(run_ids)
        except Unavailable:
            log.warning("live_log_away", runs=len(run_ids))

    async def portions(self, run_id: str, *, after: int = 0) -> AsyncGenerator[Sequence[Event]]:
        tape = self._tapes.get(run_id)
        if tape is not None:
            async with aclosing(tape.portions(after)) as portions:
                async for portion in portions:
                    yield portion
            return
        events = [event for event in await self._archive.read(run_id) or () if event.id > after]
        for start in range(0, len(events), PORTION):
            yield events[start : start + PORTION]

    async def follow(self, run_id: str, *, after: int = 0) -> AsyncGenerator[Event]:
        async with aclosing(self.portions(run_id, after=after)) as portions:
            async for portion in portions:
                for event in portion:
                    yield event

    @asynccontextmanager
    async def copying(self) -> AsyncIterator[None]:
        """Copy events to the live log in the background, and what is left of them at the end."""
        task = asyncio.create_task(self._copy())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})
            with suppress(Unavailable):
                await self.flush()

    async def _copy(self) -> None:
        """Copy new events in batches, for ever. While the live log is away they stay here and are tried again."""
        while True:
            await self._work.wait()
            await asyncio.sleep(BATCH_SECONDS)
            try:
                await self.flush()
            except Unavailable:
                log.warning("live_log_away", runs=len(self._uncopied))
                await asyncio.sleep(1)

    async def flush(self) -> None:
        """Copy everything there is to copy now, and drop what is in the archive by now."""
        self._work.clear()
        ended, self._ended = self._ended, set()
        tapes = dict(self._uncopied)
        batches = {run_id: tape.events[tape.copied :] for run_id, tape in tapes.items()}
        if not batches and not ended:
            return
        try:
            await self._live.extend(batches, ended=ended)
        except Unavailable:
            if batches:
                self._work.set()
            raise
        for run_id, tape in tapes.items():
            tape.copied += len(batches[run_id])
            if tape.copied == len(tape.events) and self._uncopied.get(run_id) is tape:
                del self._uncopied[run_id]

    def _make(self, tape: Tape, type: EventType, data: Any, ns: tuple[str, ...]) -> Event:
        event = Event(tape.next_id, type, ns, data, self._now())
        tape.next_id += 1
        return event
