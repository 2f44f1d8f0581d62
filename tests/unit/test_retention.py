"""The sweep: every thread that might give something, none in vain, and no fault ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from threadline.domain.errors import Unavailable
from threadline.domain.records import Limits, Pruned
from threadline.services import retention
from threadline.services.metrics import Metrics
from threadline.services.retention import Retention, rebuilder


class Threads:
    """A pruner over numbers: how many checkpoints each thread has, and what happens when it is pruned."""

    def __init__(self, **counts: int) -> None:
        self.counts = counts
        self.asked: list[str] = []
        self.settled = 0
        self.answers: dict[str, Callable[[], Pruned | None]] = {}

    async def crowded(self, limits: Limits, *, now: datetime, after: str, count: int) -> list[tuple[str, int]]:
        return sorted(item for item in self.counts.items() if item[0] > after and item[1] > 1)[:count]

    async def look(self, thread_id: str, limits: Limits, *, now: datetime) -> Pruned | None:
        raise AssertionError("a sweep does not look")

    async def prune(self, thread_id: str, limits: Limits, *, now: datetime) -> Pruned | None:
        self.asked.append(thread_id)
        if thread_id in self.answers:
            return self.answers[thread_id]()
        gone, self.counts[thread_id] = self.counts[thread_id] - 1, 1
        return Pruned(thread_id, gone, gone * 10, 1)

    async def settle(self) -> None:
        self.settled += 1


class Clock:
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def sweeper(threads: Threads, clock: Clock, **limits: Any) -> Retention:
    return Retention(threads, Limits(**limits or {"max_checkpoints": 1}), metrics=Metrics(), every=60, clock=clock)


async def test_every_page_is_swept_and_told_once(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PAGE", 2)
    threads = Threads(a=3, b=2, c=1, d=5, e=2)

    with capture_logs() as logs:
        assert await sweeper(threads, clock).sweep() == 8
        assert await sweeper(threads, clock).sweep() == 0

    assert threads.asked == ["a", "b", "d", "e"]
    assert threads.settled == 1
    [entry] = logs
    assert entry.items() >= {"event": "checkpoints_pruned", "threads": 4, "checkpoints": 8, "bytes": 80}.items()


async def test_a_thread_of_which_nothing_goes_is_left_until_it_grows(clock: Clock) -> None:
    threads = Threads(a=5)
    threads.answers["a"] = lambda: Pruned("a", 0, 0, threads.counts["a"])
    sweeping = sweeper(threads, clock)

    for _ in range(3):
        await sweeping.sweep()
    assert threads.asked == ["a"]
    threads.counts["a"] = 6
    await sweeping.sweep()
    assert threads.asked == ["a", "a"]
    clock.now += retention.AGAIN
    await sweeping.sweep()
    assert threads.asked == ["a", "a", "a"]


async def test_or_until_it_has_aged(clock: Clock) -> None:
    threads = Threads(a=5)
    threads.answers["a"] = lambda: Pruned("a", 0, 0, 5)
    sweeping = sweeper(threads, clock, max_age=timedelta(hours=12))

    await sweeping.sweep()
    clock.now += timedelta(minutes=29)
    await sweeping.sweep()
    assert threads.asked == ["a"]
    clock.now += timedelta(minutes=1)
    await sweeping.sweep()
    assert threads.asked == ["a", "a"]


async def test_a_thread_in_use_is_asked_again(clock: Clock) -> None:
    threads = Threads(a=5)
    threads.answers["a"] = lambda: None
    sweeping = sweeper(threads, clock)
    for _ in range(2):
        assert await sweeping.sweep() == 0
    assert threads.asked == ["a", "a"]
    assert threads.settled == 0


async def test_a_graph_that_cannot_read_its_thread_stops_no_other(clock: Clock) -> None:
    threads = Threads(a=5, b=5)
    threads.answers["a"] = lambda: Pruned(no="such")  # type: ignore[call-arg]
    with capture_logs() as logs:
        assert await sweeper(threads, clock).sweep() == 4
    assert [entry["event"] for entry in logs] == ["retention_failed", "checkpoints_pruned"]
    assert logs[0]["thread_id"] == "a"


async def test_a_history_that_is_away_is_tried_again_later(clock: Clock) -> None:
    threads = Threads(a=5, b=5, c=5, d=5)

    def away() -> Pruned:
        raise Unavailable("The history is locked by another process.")

    threads.answers = dict.fromkeys(threads.counts, away)
    sweeping = sweeper(threads, clock)
    with capture_logs() as logs:
        assert await sweeping.sweep() == 0
    assert threads.asked == ["a", "b", "c"], "and not all of them in vain"
    assert [entry["reason"] for entry in logs] == ["The history is locked by another process."] * 3
    threads.answers.clear()
    async with sweeping.sweeping():
        while any(count > 1 for count in threads.counts.values()):
            await asyncio_turn()
    assert threads.asked == [*"abc", *"abcd"]


async def test_without_a_limit_nothing_is_asked(clock: Clock) -> None:
    threads = Threads(a=5)
    async with Retention(threads, Limits(), metrics=Metrics(), every=0.001, clock=clock).sweeping():
        for _ in range(10):
            await asyncio_turn()
    assert threads.asked == []


async def test_a_graph_that_has_gone_rebuilds_nothing() -> None:
    assert await rebuilder({}, "agent")("thread", "checkpoint", "another") == {}


async def asyncio_turn() -> None:
    """Let whatever is ready in the loop go on."""
    await asyncio.sleep(0)
