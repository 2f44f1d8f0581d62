"""The crons' port over the history database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from threadline.domain.errors import Invalid
from threadline.domain.records import Cron, CronQuery, Thread
from threadline.storage.crons import SqlCrons
from threadline.storage.database import Database, open_database
from threadline.storage.records import SqlThreads

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "history.db") as database:
        yield database


@pytest.fixture
def crons(database: Database) -> SqlCrons:
    return SqlCrons(database)


def cron(**values: Any) -> Cron:
    made = Cron(str(uuid4()), "assistant", "me", "0 * * * *", {}, START, START, next_run_at=START)
    return replace(made, **values)


async def test_one_is_kept_whole_changed_and_deleted(crons: SqlCrons) -> None:
    one = cron(
        payload={"input": {"한": [1, None]}}, thread_id="t", timezone="Asia/Seoul", end_time=START, metadata={"a": 1}
    )
    await crons.create(one)
    assert await crons.get(one.cron_id) == one

    changed = await crons.change(one.cron_id, lambda kept: replace(kept, enabled=False, end_time=None))
    assert changed == await crons.get(one.cron_id) == replace(one, enabled=False, end_time=None)

    await crons.delete(one.cron_id)
    assert await crons.get(one.cron_id) is None
    assert await crons.change(one.cron_id, lambda kept: kept) is None


async def test_search(crons: SqlCrons) -> None:
    kept = [
        cron(created_at=START, thread_id="t", metadata={"n": 1, "tags": ["a", "b"]}),
        cron(created_at=START + HOUR, enabled=False, assistant_id="other"),
        cron(created_at=START + 2 * HOUR, next_run_at=START - HOUR),
    ]
    for one in (*kept, cron(owner="you")):
        await crons.create(one)
    first, second, third = kept

    async def found(**values: Any) -> list[Cron]:
        page, total = await crons.search(CronQuery("me", **values))
        assert total == len(page)
        return list(page)

    assert await found() == [third, second, first]
    assert await found(descending=False) == [first, second, third]
    assert (await found(sort_by="next_run_at", descending=False))[0] == third
    assert await found(thread_id="t") == await found(metadata={"tags": ["b"]}) == [first]
    assert await found(assistant_id="other") == await found(enabled=False) == [second]
    assert await found(enabled=True) == [third, first]
    assert await crons.search(CronQuery("me", limit=1, offset=1)) == ([second], 3)
    with pytest.raises(Invalid):
        await found(metadata={str(n): n for n in range(200)})


async def test_what_is_due_is_taken_once(crons: SqlCrons) -> None:
    late, now, later = cron(next_run_at=START - HOUR), cron(), cron(next_run_at=START + HOUR)
    for one in (now, later, late, cron(enabled=False), cron(next_run_at=None)):
        await crons.create(one)
    assert await crons.due() == START - HOUR

    takes = [crons.take(START, lambda _: START + 2 * HOUR) for _ in range(5)]
    taken = [one for batch in await asyncio.gather(*takes) for one in batch]

    assert taken == [late, now]
    assert await crons.due() == START + HOUR
    assert await crons.get(late.cron_id) == replace(late, next_run_at=START + 2 * HOUR)


async def test_a_time_that_cannot_be_found_takes_none(crons: SqlCrons) -> None:
    one = cron()
    await crons.create(one)

    def fail(_: Cron) -> datetime:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await crons.take(START, fail)
    assert await crons.get(one.cron_id) == one


async def test_more_than_one_page_is_due(crons: SqlCrons) -> None:
    for minutes in range(5):
        await crons.create(cron(next_run_at=START - timedelta(minutes=minutes)))

    first = await crons.take(START, lambda _: None, limit=3)
    rest = await crons.take(START, lambda _: None, limit=3)

    assert (len(first), len(rest)) == (3, 2)
    assert await crons.due() is None


async def test_they_go_with_their_thread(crons: SqlCrons, database: Database) -> None:
    threads = SqlThreads(database)
    await threads.create(Thread("t", "me", START, START))
    gone, stays = cron(thread_id="t"), cron()
    for one in (gone, stays):
        await crons.create(one)

    await threads.delete("t")

    assert await crons.search(CronQuery("me")) == ([stays], 1)
