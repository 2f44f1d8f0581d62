"""When a cron runs next: in its time zone, once a day also on the days that have 23 or 25 hours."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from threadline.domain.errors import Invalid
from threadline.services.schedule import next_time

NEW_YORK = "America/New_York"


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("schedule", "zone", "after", "expected"),
    [
        ("*/5 * * * *", None, utc(2026, 1, 1, 0, 0), utc(2026, 1, 1, 0, 5)),
        ("0 9 * * mon-fri", "Asia/Seoul", utc(2026, 11, 20, 12), utc(2026, 11, 23, 0)),
        ("@Weekly", None, utc(2026, 11, 22, 0), utc(2026, 11, 29, 0)),
        ("0 0 29 2 *", None, utc(2026, 1, 1), utc(2028, 2, 29)),
        ("30 2 * * *", NEW_YORK, utc(2026, 3, 8, 5), utc(2026, 3, 8, 7)),  # there is no 2:30: at 3:00
        ("30 1 * * *", NEW_YORK, utc(2026, 11, 1, 5), utc(2026, 11, 1, 5, 30)),  # the first of two 1:30
        ("30 1 * * *", NEW_YORK, utc(2026, 11, 1, 5, 30), utc(2026, 11, 2, 6, 30)),  # not the second
        ("0 * * * *", NEW_YORK, utc(2026, 11, 1, 5), utc(2026, 11, 1, 6)),  # every hour is every hour
    ],
)
def test_the_next_time(schedule: str, zone: str | None, after: datetime, expected: datetime) -> None:
    assert next_time(schedule, zone, after) == expected


@pytest.mark.parametrize("schedule", ["* * * * * *", "0 0 31 2 *", "R * * * *", "H * * * *", "@reboot", "1e9 * * * *"])
def test_no_schedule(schedule: str) -> None:
    with pytest.raises(Invalid, match="Invalid cron schedule"):
        next_time(schedule, None, utc(2026, 1, 1))
