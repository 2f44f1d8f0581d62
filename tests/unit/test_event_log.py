"""The event log: one writer, many readers, no loss."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

import pytest

from threadline.domain.errors import Unavailable
from threadline.domain.events import ATTEMPT_SPAN, Event
from threadline.storage.event_log import PORTION, TieredEventLog


class Shelf:
    """A live log and an archive in dictionaries; the live log may be away."""

    def __init__(self) -> None:
        self.live: dict[str, list[Event]] = {}
        self.archived: dict[str, list[Event]] = {}
        self.away = False
        self.batches = 0

    async def extend(self, batches: Mapping[str, Sequence[Event]], *, ended: Collection[str] = ()) -> None:
        if self.away:
            raise Unavailable("away")
        self.batches += 1
        for run_id, events in batches.items():
            self.live.setdefault(run_id, []).extend(events)
        await self.delete(ended)

    async def read(self, run_id: str) -> list[Event]:
        if self.away:
            raise Unavailable("away")
        return self.live.get(run_id, [])

    async def delete(self, run_ids: Collection[str]) -> None:
        if self.away:
            raise Unavailable("away")
        for run_id in run_ids:
            self.live.pop(run_id, None)


class Archive:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def read(self, run_id: str) -> list[Event] | None:
        return self._shelf.archived.get(run_id)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def log(shelf: Shelf) -> TieredEventLog:
    return TieredEventLog(live=shelf, archive=Archive(shelf), now=lambda: 1.5)


async def everything(log: TieredEventLog, after: int = 0) -> list[Event]:
    return [event async for event in log.follow("r", after=after)]


async def end(log: TieredEventLog, shelf: Shelf) -> None:
    last = log.draft_end("r", {"status": "success"})
    shelf.archived["r"] = [*log.events("r"), last]
    await log.close("r", last)


async def test_readers_that_come_early_late_and_afterwards_see_the_same(log: TieredEventLog, shelf: Shelf) -> None:
    log.open("r")
    early = asyncio.create_task(everything(log))
    await asyncio.sleep(0)
    log.append("r", "custom", 1)
    late = asyncio.create_task(everything(log))
    await asyncio.sleep(0)
    log.append("r", "custom", 2)
    await end(log, shelf)

    assert await early == await late == await everything(log)
    assert [(e.id, e.data) for e in await early] == [(1, 1), (2, 2), (3, {"status": "success"})]


async def test_a_reader_goes_on_after_an_id(log: TieredEventLog, shelf: Shelf) -> None:
    log.open("r")
    for number in range(5):
        log.append("r", "custom", number)
    live = asyncio.create_task(everything(log, after=3))
    await asyncio.sleep(0)
    await end(log, shelf)

    assert [event.id for event in await live] == [4, 5, 6]
    assert [event.id for event in await everything(log, after=5)] == [6]
    assert await everything(log, after=6) == []


async def test_a_reader_that_leaves_leaves_nothing_behind(log: TieredEventLog) -> None:
    log.open("r")
    log.append("r", "custom", 1)
    reading = log.follow("r")
    await anext(reading)
    await reading.aclose()

    assert log._tapes["r"].waiting == set()


async def test_the_end_is_archived_before_it_is_shown(log: TieredEventLog, shelf: Shelf) -> None:
    log.open("r")
    reading = asyncio.create_task(everything(log))
    await asyncio.sleep(0)
    last = log.draft_end("r", {"status": "success"})
    await asyncio.sleep(0)
    assert not reading.done()
    shelf.archived["r"] = [last]
    await log.close("r", last)

    assert await reading == [last]


async def test_events_are_copied_in_batches_and_only_once(log: TieredEventLog, shelf: Shelf) -> None:
    log.open("r")
    for number in range(100):
        log.append("r", "custom", number)
    await log.flush()
    log.append("r", "custom", 100)
    await log.flush()
    await log.flush()

    assert [event.data for event in shelf.live["r"]] == list(range(101))
    assert shelf.batches == 2


async def test_copying_goes_on_in_the_background_and_ends_with_the_rest(log: TieredEventLog, shelf: Shelf) -> None:
    log.open("r")
    async with log.copying():
        log.append("r", "custom", 1)
        async with asyncio.timeout(5):
            while not shelf.live.get("r"):
                await asyncio.sleep(0)
        log.append("r", "custom", 2)

    assert [event.data for event in shelf.live["r"]] == [1, 2]


async def test_while_the_live_log_is_away_nothing_is_lost(log: TieredEventLog, shelf: Shelf) -> None:
    log.open("r")
    shelf.away = True
    log.append("r", "custom", 1)
    with pytest.raises(Unavailable):
        await log.flush()
    log.append("r", "custom", 2)
    shelf.away = False
    await log.flush()

    assert [event.data for event in shelf.live["r"]] == [1, 2]
    shelf.away = True
    await end(log, shelf)
    assert len(await everything(log)) == 3


async def test_a_finished_run_leaves_the_live_log(log: TieredEventLog, shelf: Shelf) -> None:
    log.open("r")
    log.append("r", "custom", 1)
    await log.flush()
    await end(log, shelf)
    await log.flush()

    assert shelf.live == {}


async def test_after_a_crash_new_ids_are_above_all_that_anybody_saw(log: TieredEventLog, shelf: Shelf) -> None:
    shelf.live["r"] = [Event(1, "custom", (), "old", 1.0)]
    await log.reopen("r", attempt=2)
    fresh = log.append("r", "custom", "new")
    await log.flush()

    assert fresh.id == ATTEMPT_SPAN + 1
    assert [event.data for event in shelf.live["r"]] == ["old", "new"]
    assert [event.data for event in log.events("r")] == ["old", "new"]


async def test_after_a_crash_without_the_live_log_the_run_goes_on(log: TieredEventLog, shelf: Shelf) -> None:
    shelf.away = True
    await log.reopen("r", attempt=3)

    assert log.append("r", "custom", "new").id == 2 * ATTEMPT_SPAN + 1


async def test_a_run_nobody_knows_has_no_events(log: TieredEventLog) -> None:
    assert await everything(log) == []


async def test_what_is_there_at_once_is_given_together_but_not_without_bound(log: TieredEventLog) -> None:
    log.open("r")
    for number in range(PORTION + 5):
        log.append("r", "custom", number)
    portions = log.portions("r", after=2)

    assert [event.data for event in await anext(portions)] == list(range(2, PORTION + 2))
    assert [event.data for event in await anext(portions)] == list(range(PORTION + 2, PORTION + 5))
    await portions.aclose()
