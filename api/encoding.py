"""A run in one stream format, encoded once for all who read it while it goes on."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from threadline.domain.events import Event
from threadline.domain.records import Run
from threadline.services.runs import Runs

Place = tuple[int, ...]
Frame = tuple[Place, bytes]
"""A frame and its place: places of one run and format increase, and do not depend on who reads."""
Encode = Callable[[Sequence[Event]], Awaitable[bytes]]

ROOM = 2**20
"""Bytes of frames that are kept for readers who have not taken them. Who is further behind encodes for itself."""
SPARE = 2**15
"""Bytes of the newest frames that are kept for readers who are still to come."""
WRITE_BYTES = 2**17
"""Bytes after which frames are sent and no more added. A reader that stops reading holds this and a frame, at most."""


class Encoder(Protocol):
    """One format. It is given every event of a run, in order."""

    @property
    def like(self) -> Hashable:
        """Equal for encoders that make the same frames of the same run."""
        ...

    async def frames(self, event: Event, *, shown: bool = True) -> Sequence[Frame]:
        """The event's frames. Of one that is not `shown` only that is done which later ones build on."""
        ...


async def encoded(
    runs: Runs,
    run: Run,
    encoder: Callable[[], Encoder],
    *,
    after: Place = (),
    line: int = 0,
    start: int = 0,
) -> AsyncGenerator[tuple[Event, bytes]]:
    """A run's frames behind the place `after`, which is in line `line`: those together that are there at once, and the
    last event they are of. `start`: the reader has taken the events up to this one, and the encoder need not know them.
    """
    reader = _Reader(runs, run, encoder, line=line, start=start)
    try:
        async with aclosing(runs.portions(run, after=start)) as portions:
            async for portion in portions:
                reader.join()
                gathered, size = list[bytes](), 0
                for event in portion:
                    for place, data in await reader.frames(event):
                        if place > after:
                            gathered.append(data)
                            size += len(data)
                    if size >= WRITE_BYTES:
                        yield event, b"".join(gathered)
                        gathered, size = [], 0
                reader.join()
                yield portion[-1], b"".join(gathered)
    finally:
        reader.leave()


def alone(encoder: Encoder, *, after: Place, line: int) -> Encode:
    """Makes frames of what is given to it, those behind the place `after` in line `line`, and shares nothing."""

    async def encode(events: Sequence[Event]) -> bytes:
        found = [frame for event in events for frame in await encoder.frames(event, shown=event.id >= line)]
        return b"".join([data for place, data in found if place > after])

    return encode


@dataclass(slots=True)
class _Made:
    frames: Sequence[Frame]
    size: int
    awaited: int
    """Readers who have not taken them."""


class _Encoding:
    """What an encoder has made so far, or the newest of it: frames of the events after `start`, up to `last`."""

    def __init__(self, encoder: Encoder, last: int) -> None:
        self.start = self.last = last
        self.readers = 0
        self.broken = False
        self._encoder = encoder
        self._made: OrderedDict[int, _Made] = OrderedDict()
        self._held = 0
        self._making = asyncio.Lock()

    def join(self, position: int) -> bool:
        """Count in a reader that has the frames of the events up to `position`, if it can go on from there."""
        if self.broken or not self.start <= position <= self.last:
            return False
        self.readers += 1
        for id, made in self._made.items():
            made.awaited += id > position
        return True

    def leave(self, position: int) -> None:
        self.readers -= 1
        for id, made in self._made.items():
            made.awaited -= id > position
        self._forget()

    async def frames(self, event: Event) -> Sequence[Frame] | None:
        """An event's frames; None if they are gone, or the encoder was left in the middle of an event."""
        if event.id > self.last:
            async with self._making:
                if event.id > self.last and not self.broken:
                    await self._make(event)
        made = self._made.get(event.id)
        if made is None:
            return None
        made.awaited -= 1
        self._forget()
        return made.frames

    async def _make(self, event: Event) -> None:
        try:
            frames = await self._encoder.frames(event)
        except BaseException:  # also who makes it may be cancelled
            self.broken = True
            raise
        self.last = event.id
        size = sum([len(data) for _, data in frames])
        self._made[event.id] = _Made(frames, size, self.readers)
        self._held += size

    def _forget(self) -> None:
        """Let go of the oldest frames: beyond `SPARE` if nobody waits for them, and beyond `ROOM` all but the last."""
        while self._held > SPARE:
            id, oldest = next(iter(self._made.items()))
            if oldest.awaited and (self._held <= ROOM or id == self.last):
                return
            del self._made[id]
            self.start = id
            self._held -= oldest.size


class _Reader:
    """One reader. It encodes for itself until it is where others are, and from then on reads along with them."""

    def __init__(self, runs: Runs, run: Run, encoder: Callable[[], Encoder], *, line: int, start: int) -> None:
        self._runs = runs
        self._run = run
        self._new = encoder
        self._line = line
        self._position = start
        self._shared = runs.shared(run)
        self._own = encoder()
        self._along: _Encoding | None = None

    async def frames(self, event: Event) -> Sequence[Frame]:
        frames = await self._along.frames(event) if self._along is not None else None
        if frames is None:
            if self._along is not None:
                await self._part()
            frames = await self._own.frames(event, shown=event.id >= self._line)
        self._position = event.id
        return frames

    def leave(self) -> None:
        if self._along is not None:
            self._along.leave(self._position)
            self._along = None

    def join(self) -> None:
        """Read along with others who are at this place; offer them what this one has if there are none any more."""
        if self._along is not None or self._shared is None:
            return
        encoding: _Encoding | None = self._shared.get(self._own.like)
        left = encoding is None or encoding.broken or (not encoding.readers and encoding.last < self._position)
        if left and self._position + 1 >= self._line:  # before, it would make frames that it has seen
            encoding = self._shared[self._own.like] = _Encoding(self._own, self._position)
        if encoding is not None and encoding.join(self._position):
            self._along = encoding

    async def _part(self) -> None:
        """Go on alone, for good, with an encoder that has seen what this reader has."""
        self.leave()
        self._shared, self._own = None, self._new()
        async with aclosing(self._runs.portions(self._run)) as portions:
            async for portion in portions:
                for event in portion:
                    if event.id > self._position:
                        return
                    await self._own.frames(event, shown=False)
