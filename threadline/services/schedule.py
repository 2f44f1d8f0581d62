"""Cron schedules: five fields, or a name such as `@daily`, in a time zone.

In the hour that a spring night skips, what was due runs when the clocks have gone forward; in the hour that an autumn
night has twice, once, unless it runs every hour or more often.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from threadline.domain.errors import Invalid

NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FIELDS = 5
FORM = (
    "Invalid cron schedule. Ensure the schedule uses the standard cron format "
    "(minute hour day_of_month month day_of_week). Example: '*/5 * * * *' for every 5 minutes."
)
SECONDS = "A cron runs once a minute at most: five fields, without seconds."


def next_time(schedule: str, timezone: str | None, after: datetime) -> datetime:
    """The first time after `after`, in UTC. Raises Invalid for a schedule or zone that is none."""
    zone = _zone(timezone)
    expression = NAMED.get(schedule.strip().lower(), schedule)
    if len(expression.split()) > FIELDS:
        raise Invalid(f"Invalid cron schedule: '{schedule}'. Reason: {SECONDS}")
    try:
        return next(CronSim(expression, after.astimezone(zone))).astimezone(UTC)
    except (CronSimError, StopIteration, OverflowError):
        raise Invalid(f"Invalid cron schedule: '{schedule}'. Reason: {FORM}") from None


def _zone(name: str | None) -> tzinfo:
    if name is None:
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, no name at all, a folder of names
        raise Invalid(f"Invalid timezone: '{name}'. Use IANA timezone format (e.g. 'America/New_York').") from None
