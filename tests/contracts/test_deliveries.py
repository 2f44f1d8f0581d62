"""The port of what webhooks are still to be told, over the history database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from threadline.domain.records import Delivery, Run, Thread
from threadline.storage.database import Database, open_database
from threadline.storage.deliveries import SqlDeliveries
from threadline.storage.records import SqlRuns, SqlThreads

START = datetime(2026, 1, 1, tzinfo=UTC)
THREAD = Thread("thread", owner="me", created_at=START, updated_at=START)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "history.db") as database:
        yield database


def delivery(number: int, thread_id: str | None = "thread") -> Delivery:
    at = START + timedelta(minutes=number)
    return Delivery(f"run {number}", thread_id, "http://x.example/", bytes(range(256)), at)


async def test_the_oldest_is_told_first(database: Database) -> None:
    deliveries = SqlDeliveries(database)
    for number in (2, 1, 3):
        await deliveries.put(delivery(number))

    assert await deliveries.pending(limit=2) == [delivery(1), delivery(2)]


async def test_it_is_there_until_it_is_removed(database: Database) -> None:
    deliveries = SqlDeliveries(database)
    await deliveries.put(delivery(1))
    await deliveries.tried("run 1", 2)
    assert await deliveries.pending(limit=9) == [replace(delivery(1), attempts=2)]

    await deliveries.put(replace(delivery(1), body=b"later"))  # the run ended once more, after a crash
    assert await deliveries.pending(limit=9) == [replace(delivery(1), body=b"later")]

    for run_id in ("run 1", "run 1", "nobody"):
        await deliveries.remove(run_id)
        await deliveries.tried(run_id, 5)
    assert await deliveries.pending(limit=9) == []


async def test_it_is_kept_with_the_end_of_its_run_and_goes_with_its_thread(database: Database) -> None:
    deliveries, runs, threads = SqlDeliveries(database), SqlRuns(database), SqlThreads(database)
    run = Run("run 1", "thread", "agent", "run 1", "running", {}, START)
    await runs.create(run, thread=THREAD)
    assert await deliveries.pending(limit=9) == []

    await runs.finish(replace(run, status="success", ended_at=START), turn=None, log=[], delivery=delivery(1))
    await deliveries.put(delivery(2, thread_id=None))  # of a run whose thread went with it
    assert await deliveries.pending(limit=9) == [delivery(1), delivery(2, thread_id=None)]

    await threads.delete("thread")
    assert await deliveries.pending(limit=9) == [delivery(2, thread_id=None)]
