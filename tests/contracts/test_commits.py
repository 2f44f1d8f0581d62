"""Group commit in the history database: one transaction for many, and nobody suffers for a neighbour."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import IntegrityError

from threadline.storage.database import Database, open_database


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "history.db") as opened:
        await opened.write(lambda connection: connection.execute(text("CREATE TABLE t (n INTEGER PRIMARY KEY)")))
        yield opened


async def insert(database: Database, number: int) -> int:
    def work(connection: Connection) -> int:
        connection.execute(text("INSERT INTO t VALUES (:n)"), {"n": number})
        return number

    return await database.write(work)


async def numbers(database: Database) -> list[int]:
    return await database.read(lambda connection: list(connection.execute(text("SELECT n FROM t")).scalars()))


async def test_what_is_brought_at_one_moment_is_one_transaction(database: Database) -> None:
    commits = 0

    def count(_: Connection) -> None:
        nonlocal commits
        commits += 1

    event.listen(database.engine, "commit", count)
    assert await asyncio.gather(*(insert(database, number) for number in range(50))) == list(range(50))
    assert await numbers(database) == list(range(50))
    assert commits == 1


async def test_work_that_fails_takes_no_other_with_it(database: Database) -> None:
    await insert(database, 3)
    done = await asyncio.gather(*(insert(database, number) for number in range(6)), return_exceptions=True)

    assert [result for result in done if not isinstance(result, BaseException)] == [0, 1, 2, 4, 5]
    assert isinstance(done[3], IntegrityError)
    assert await numbers(database) == list(range(6))


async def test_who_was_cancelled_before_it_began_has_written_nothing(database: Database) -> None:
    async with database.writer.begin() as connection:  # the turn to write is taken
        await connection.execute(text("INSERT INTO t VALUES (100)"))
        waiting = asyncio.create_task(insert(database, 1))
        other = asyncio.create_task(insert(database, 2))
        await asyncio.sleep(0)
        waiting.cancel()
    await other

    assert await numbers(database) == [2, 100]


async def test_what_waits_when_the_database_closes_is_written(tmp_path: Path) -> None:
    async with open_database(tmp_path / "history.db") as opened:
        await opened.write(lambda connection: connection.execute(text("CREATE TABLE t (n INTEGER PRIMARY KEY)")))
        last = asyncio.create_task(insert(opened, 1))
        await asyncio.sleep(0)
    assert await last == 1
