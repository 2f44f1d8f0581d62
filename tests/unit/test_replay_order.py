"""Which runs a replay plays, in which order; and the pace of a reader that was held up."""

from __future__ import annotations

import pytest

from threadline.domain.events import Event
from threadline.domain.records import Course
from threadline.services.pace import HELD_UP, PORTION, Clock, Pace
from threadline.services.replay import _merged


@pytest.mark.parametrize(
    ("runs", "start", "beside", "begun", "whole", "expected"),
    [
        ("abc", 0, "", "abc", True, "abc"),
        ("", 0, "", "abc", True, "abc"),  # no checkpoint is left of any
        ("ac", 0, "", "abc", True, "abc"),  # one was cancelled before its first checkpoint
        ("ac", 0, "b", "abc", True, "ac"),  # one is on another branch alone
        ("acd", 1, "", "abcd", False, "cd"),
        ("acd", 2, "", "abcde", False, "de"),
        ("abc", 3, "", "abcde", False, "de"),
        ("xyab", 0, "", "ab", True, "xyab"),  # those of the thread it is a copy of
        ("xab", 0, "", "acb", True, "xacb"),
        ("ab", 0, "b", "ab", True, "ab"),  # one the line leaves
    ],
)
def test_the_runs_of_a_line(runs: str, start: int, beside: str, begun: str, whole: bool, expected: str) -> None:
    course = Course(tuple(runs), start, {run_id: frozenset("1") for run_id in beside})
    assert "".join(_merged(course, begun, whole=whole)) == expected


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def events(*at: float) -> list[Event]:
    return [Event(number, "custom", (), None, time) for number, time in enumerate(at, start=1)]


async def test_who_was_late_by_a_little_catches_up_and_who_was_away_goes_on() -> None:
    time = Time()
    pace = Pace(1, max_gap=3, clock=Clock(lambda: time.now, time.sleep))
    due: list[tuple[float, int]] = []
    late = {2: HELD_UP / 2, 4: 60.0, 6: 60.0}
    async for portion in pace.portions(events(0, 10, 20, 30, 40, 50)):
        for event in portion:
            due.append((time.now, event.id))
            time.now += late.get(event.id, 0)

    assert due == [(0, 1), (10, 2), (20, 3), (30, 4), (100, 5), (110, 6)]
    async for portion in pace.portions(events(60)):
        due.append((time.now, portion[0].id))
    assert due[-1] == (173, 1)


async def test_a_clock_that_was_set_back_makes_nobody_wait() -> None:
    time = Time()
    pace = Pace(2, max_gap=3, clock=Clock(lambda: time.now, time.sleep))
    seen = [[event.id for event in portion] async for portion in pace.portions(events(100, 40, 41, 41))]
    assert (seen, time.now) == ([[1, 2], [3, 4]], 0.5)


async def test_all_at_once_comes_in_portions() -> None:
    pace = Pace(None, max_gap=0, clock=Clock())
    lengths = [len(portion) async for portion in pace.portions(events(*range(2 * PORTION + 1)))]
    assert lengths == [PORTION, PORTION, 1]
    assert [portion async for portion in pace.portions([])] == []
