"""Frames are made once for all who read a run, whenever they come and however fast they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Hashable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import pytest

from api import encoding
from api.encoding import Frame, encoded
from threadline.domain.events import Event
from threadline.domain.records import Run
from threadline.storage.event_log import PORTION, TieredEventLog
from threadline.storage.memory_live import MemoryLiveLog

RUN = Run("r", "t", "g", "r", "running", {}, datetime(2026, 1, 1, tzinfo=UTC))


class Archive:
    def __init__(self) -> None:
        self.events: list[Event] | None = None

    async def read(self, run_id: str) -> list[Event] | None:
        return self.events


class Reads:
    """A log with one run in it, as the routes see it."""

    def __init__(self) -> None:
        self.archive = Archive()
        self.log = TieredEventLog(live=MemoryLiveLog(), archive=self.archive, now=lambda: 1.5)
        self.log.open("r")
        self.written = 0
        self.encoded = 0

    def write(self, count: int) -> None:
        for _ in range(count):
            self.log.append("r", "custom", self.written)
            self.written += 1

    async def end(self) -> None:
        end = self.log.draft_end("r", "end")
        self.archive.events = [*self.log.events("r"), end]
        self.written += 1
        await self.log.close("r", end)

    def portions(self, run: Run, *, after: int = 0) -> AsyncGenerator[Sequence[Event]]:
        return self.log.portions(run.run_id, after=after)

    def shared(self, run: Run) -> dict[Hashable, Any] | None:
        return self.log.shared(run.run_id)

    def encoder(self) -> Numbered:
        return Numbered(self)

    async def read(self, *, after: int = 0) -> list[bytes]:
        runs: Any = self
        async with aclosing(encoded(runs, RUN, self.encoder, start=after)) as portions:
            return [data async for _, frames in portions for data in lines(frames)]

    @property
    def kept(self) -> int:
        shared = self.shared(RUN)
        assert shared is not None
        return sum(len(one._made) for one in shared.values())


class Numbered:
    """A format whose frames say how many events came before: it must be given every one of them."""

    like = "numbered"

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._seen = 0

    async def frames(self, event: Event, *, shown: bool = True) -> Sequence[Frame]:
        self._reads.encoded += 1
        await asyncio.sleep(0)  # as where a state must be read
        self._seen += 1
        return [((event.id,), b"%d:%a\n" % (self._seen, event.data))]


def lines(frames: bytes) -> list[bytes]:
    return frames.split(b"\n")[:-1]


def whole(reads: Reads) -> list[bytes]:
    events = reads.archive.events
    assert events is not None
    return [b"%d:%a" % (number, event.data) for number, event in enumerate(events, 1)]


async def settled() -> None:
    for _ in range(1000):
        await asyncio.sleep(0)


@pytest.fixture
def reads() -> Reads:
    return Reads()


@pytest.fixture
def nothing_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "SPARE", 0)


async def test_an_event_is_encoded_once_for_all_readers(reads: Reads) -> None:
    readers = [asyncio.create_task(reads.read()) for _ in range(50)]
    for _ in range(10):
        reads.write(3 * PORTION)
        await settled()
    await reads.end()

    assert await asyncio.gather(*readers) == [whole(reads)] * 50
    assert reads.encoded == reads.written == 30 * PORTION + 1


async def test_who_comes_later_takes_what_is_still_there(reads: Reads) -> None:
    readers = [asyncio.create_task(reads.read())]
    for _ in range(10):
        reads.write(20)
        await settled()
        readers.append(asyncio.create_task(reads.read()))
    await settled()
    await reads.end()

    assert await asyncio.gather(*readers) == [whole(reads)] * 11
    assert reads.encoded == 201


@pytest.mark.usefixtures("nothing_spare")
async def test_who_comes_later_encodes_what_has_been_and_shares_what_comes(reads: Reads) -> None:
    first = asyncio.create_task(reads.read())
    reads.write(200)
    await settled()
    late = [asyncio.create_task(reads.read()) for _ in range(3)]
    await settled()
    assert reads.encoded == 4 * 200

    reads.write(500)
    await settled()
    await reads.end()

    assert await asyncio.gather(first, *late) == [whole(reads)] * 4
    assert reads.encoded == 4 * 200 + 501


@pytest.mark.usefixtures("nothing_spare")
async def test_who_all_come_back_share_again(reads: Reads) -> None:
    lost = asyncio.create_task(reads.read())
    reads.write(100)
    await settled()
    lost.cancel()
    await asyncio.wait({lost})
    reads.write(10)
    before = reads.encoded

    back = [asyncio.create_task(reads.read()) for _ in range(20)]
    await settled()
    assert reads.encoded == before + 20 * 110
    reads.write(300)
    await settled()
    await reads.end()

    assert await asyncio.gather(*back) == [whole(reads)] * 20
    assert reads.encoded == before + 20 * 110 + 301


@pytest.mark.usefixtures("nothing_spare")
async def test_one_reader_keeps_no_frames_and_none_stay_that_all_have_taken(reads: Reads) -> None:
    readers = [asyncio.create_task(reads.read())]
    await settled()
    reads.write(100)
    await settled()
    assert reads.kept == 0

    readers.append(asyncio.create_task(reads.read()))
    await settled()
    reads.write(100)
    await settled()

    assert reads.kept == 0
    await reads.end()
    await asyncio.gather(*readers)


async def test_who_is_too_far_behind_goes_on_alone(reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "SPARE", 100)
    monkeypatch.setattr(encoding, "ROOM", 1000)
    runs: Any = reads
    fast = asyncio.create_task(reads.read())
    slow = encoded(runs, RUN, reads.encoder)
    reads.write(1)
    seen = lines((await anext(slow))[1])
    await settled()

    reads.write(1000)
    await settled()
    assert 0 < reads.kept < 500
    await reads.end()
    seen += [data async for _, frames in slow for data in lines(frames)]

    assert seen == await fast == whole(reads)


async def test_frames_larger_than_the_room_for_them_are_shared(reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "SPARE", 1)
    monkeypatch.setattr(encoding, "ROOM", 2)
    readers = [asyncio.create_task(reads.read()) for _ in range(5)]
    for _ in range(10):
        reads.write(1)
        await settled()
    await reads.end()

    assert await asyncio.gather(*readers) == [whole(reads)] * 5
    assert reads.encoded == 11


async def test_who_leaves_in_the_middle_of_an_event_harms_nobody(reads: Reads) -> None:
    readers = [asyncio.create_task(reads.read()) for _ in range(3)]
    await settled()
    reads.write(1)
    while not reads.encoded:  # the first of them is at it
        await asyncio.sleep(0)
    readers[0].cancel()
    reads.write(100)
    await settled()
    await reads.end()

    assert await asyncio.gather(*readers[1:]) == [whole(reads)] * 2


@pytest.mark.usefixtures("nothing_spare")
async def test_who_leaves_is_waited_for_no_longer(reads: Reads) -> None:
    runs: Any = reads
    fast, slow = asyncio.create_task(reads.read()), encoded(runs, RUN, reads.encoder)
    reads.write(1)
    await anext(slow)
    await settled()
    reads.write(10)
    await settled()
    assert reads.kept == 10

    await slow.aclose()

    assert reads.kept == 0
    await reads.end()
    assert await fast == whole(reads)


async def test_a_run_that_has_ended_is_read_from_its_archive(reads: Reads) -> None:
    reads.write(5)
    await reads.end()

    assert await reads.read() == whole(reads)
    assert reads.shared(RUN) is None


async def test_a_reader_may_begin_after_an_event(reads: Reads) -> None:
    first = asyncio.create_task(reads.read())
    reads.write(5)
    await settled()
    rest = asyncio.create_task(reads.read(after=5))
    await settled()
    reads.write(5)
    await reads.end()

    assert (await first)[5:] == await rest
    assert reads.encoded == 11


async def test_large_frames_are_not_sent_all_together(reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "WRITE_BYTES", 20)
    runs: Any = reads
    reads.write(PORTION)
    await reads.end()

    sent = [frames async for _, frames in encoded(runs, RUN, reads.encoder)]

    assert [line for some in sent for line in lines(some)] == whole(reads)
    assert max(map(len, sent)) < 20 + 10
