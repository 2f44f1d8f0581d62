"""The records' ports over the history database."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from threadline.domain.errors import Unavailable
from threadline.domain.events import Event
from threadline.domain.records import Pin, Run, Thread, Turn, TurnSummary
from threadline.storage.database import Database, open_database
from threadline.storage.records import SqlArchive, SqlPins, SqlRuns, SqlThreads, SqlTurns
from threadline.storage.tables import metadata

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "history.db") as database:
        yield database


def thread(minutes: int = 0, owner: str = "me") -> Thread:
    at = START + timedelta(minutes=minutes)
    return Thread(str(uuid4()), owner=owner, created_at=at, updated_at=at)


def run(of: Thread, minutes: int = 0, **values: Any) -> Run:
    run_id = str(uuid4())
    at = START + timedelta(minutes=minutes)
    return replace(Run(run_id, of.thread_id, "agent", run_id, "pending", {"message": "hi"}, at), **values)


def turn(of: Run, **values: Any) -> Turn:
    extra = {"turn_id": of.turn_id, "run_ids": [of.run_id], "status": "success", "ended_at": START.isoformat()}
    whole = Turn(of.thread_id, "hi", "안녕", ["weather"], "m", 5, None, of.created_at, extra)
    return replace(whole, **values)


async def test_threads_of_an_owner_the_last_used_first(database: Database) -> None:
    threads, runs = SqlThreads(database), SqlRuns(database)
    mine = [thread(minutes) for minutes in range(5)]
    for one in [*mine, thread(9, owner="other")]:
        await threads.create(one)
    await runs.create(run(mine[0], 10), title="a title")
    await runs.create(run(mine[0], 11), title="another title")

    first = await threads.list(owner="me", limit=2)
    rest = await threads.list(owner="me", limit=9, before=first[-1].thread_id)

    assert [t.thread_id for t in [*first, *rest]] == [mine[i].thread_id for i in (0, 4, 3, 2, 1)]
    used = {"updated_at": START + timedelta(minutes=11), "metadata": {"graph_id": "agent"}, "status": "busy"}
    assert first[0] == replace(mine[0], title="a title", **used)
    assert await threads.get(mine[1].thread_id) == mine[1]
    assert await threads.get("nobody") is None


async def test_threads_used_at_the_same_moment_are_paged_without_loss(database: Database) -> None:
    threads = SqlThreads(database)
    for _ in range(7):
        await threads.create(thread())

    seen: list[str] = []
    while page := await threads.list(owner="me", limit=2, before=seen[-1] if seen else None):
        seen += [t.thread_id for t in page]

    assert len(seen) == len(set(seen)) == 7


async def test_a_run_from_pending_to_its_end(database: Database) -> None:
    threads, runs, archive = SqlThreads(database), SqlRuns(database), SqlArchive(database)
    of = thread()
    await threads.create(of)
    one, other = run(of, 1), run(of, 2)
    await runs.create(other)
    await runs.create(one)
    await runs.start(replace(one, attempt=2))

    begun = replace(one, status="running", attempt=2, position=1)
    assert await runs.list(status=("pending", "running")) == [begun, other]
    assert await runs.begun(of.thread_id, after=0) == [begun]
    assert await runs.begun(of.thread_id, after=1) == []
    assert await runs.list(thread_id="nobody") == []

    log = [Event(1, "run", (), {"a": 1}, 0.5), Event(2, "end", ("x",), {"글": None}, 1.5)]
    ended = replace(one, status="error", attempt=2, ended_at=START, error={"kind": "k"})
    await runs.finish(ended, turn=turn(one), log=log)

    assert await runs.get(one.run_id) == replace(ended, updated_at=START, position=1)
    assert await runs.list(thread_id=of.thread_id, status=("pending", "running")) == [other]
    assert await archive.read(one.run_id) == log
    assert await archive.read(other.run_id) is None
    assert await runs.get("nobody") is None


async def test_finishing_twice_is_harmless(database: Database) -> None:
    threads, runs, turns = SqlThreads(database), SqlRuns(database), SqlTurns(database)
    of = thread()
    await threads.create(of)
    one = run(of)
    await runs.create(one)
    ended = replace(one, status="success", ended_at=START)
    await runs.finish(ended, turn=turn(one), log=[])
    await runs.finish(ended, turn=turn(one, assistant_message="again"), log=[Event(1, "run", (), {}, 0)])

    [row] = await turns.list(of.thread_id, limit=9)
    assert row.assistant_message == "again"
    assert len(await SqlArchive(database).read(one.run_id) or []) == 1


async def test_turns_newest_first(database: Database) -> None:
    threads, runs, turns = SqlThreads(database), SqlRuns(database), SqlTurns(database)
    of, other = thread(), thread()
    for one in (of, other):
        await threads.create(one)
    for number in range(4):
        done = run(of, number, ended_at=START)
        await runs.create(done)
        await runs.finish(replace(done, status="success"), turn=turn(done, user_message=str(number)), log=[])

    page = await turns.list(of.thread_id, limit=2)
    rest = await turns.list(of.thread_id, limit=9, before=page[-1].id)

    assert [t.user_message for t in [*page, *rest]] == ["3", "2", "1", "0"]
    assert await turns.summary([of.thread_id, other.thread_id]) == {of.thread_id: TurnSummary(4, "success")}
    assert await turns.get(of.thread_id, page[0].extra_metadata["turn_id"]) == page[0]
    assert await turns.get(other.thread_id, page[0].extra_metadata["turn_id"]) is None
    assert await turns.list(other.thread_id, limit=9) == []


async def test_turns_are_copied_but_for_those_that_ended_elsewhere(database: Database) -> None:
    threads, runs, turns = SqlThreads(database), SqlRuns(database), SqlTurns(database)
    source, target, whole = thread(), thread(1), thread(2)
    for one in (source, target, whole):
        await threads.create(one)
    for minutes, checkpoint_id in enumerate(["c1", "c2", None, "c3"]):
        one = run(source, minutes, ended_at=START)
        made = turn(one, user_message=f"in {checkpoint_id}")
        made.extra_metadata["checkpoint_id"] = checkpoint_id
        await runs.create(one)
        await runs.finish(one, turn=made, log=[])

    await turns.copy(source.thread_id, target.thread_id, without=["c2", "c9"])
    await turns.copy(source.thread_id, whole.thread_id)

    assert [t.user_message for t in await turns.list(target.thread_id, limit=9)] == ["in c3", "in c1"]
    assert len(await turns.list(whole.thread_id, limit=9)) == 4


async def test_delete_takes_everything_of_the_thread(database: Database, tmp_path: Path) -> None:
    threads, runs, turns = SqlThreads(database), SqlRuns(database), SqlTurns(database)
    gone, kept = thread(), thread()
    for one in (gone, kept):
        await threads.create(one)
        done = run(one, ended_at=START)
        await runs.create(done)
        log = [Event(1, "run", (), {"of": one.thread_id}, 0)]
        await runs.finish(replace(done, status="success"), turn=turn(done), log=log)

    await threads.delete(gone.thread_id)

    assert await threads.get(gone.thread_id) is None
    assert await runs.list(thread_id=gone.thread_id) == []
    assert await turns.list(gone.thread_id, limit=9) == []
    assert len(await runs.list(thread_id=kept.thread_id)) == 1
    assert all(gone.thread_id.encode() not in file.read_bytes() for file in tmp_path.glob("history.db*"))


async def test_many_writers_at_once(database: Database) -> None:
    threads, runs = SqlThreads(database), SqlRuns(database)
    of = [thread() for _ in range(60)]

    await asyncio.gather(*(threads.create(one) for one in of))
    await asyncio.gather(*(runs.create(run(one)) for one in of))

    assert len(await runs.list()) == 60


async def test_the_migrations_make_the_tables_the_code_knows(database: Database, tmp_path: Path) -> None:
    """`tables` and the migrations are written apart; they may not come to differ."""
    with sqlite3.connect(tmp_path / "history.db") as file:
        for name, table in metadata.tables.items():
            made = {column: kind for _, column, kind, *_ in file.execute(f"PRAGMA table_info({name})")}
            indexes = {index for _, index, *_ in file.execute(f"PRAGMA index_list({name})")}
            assert made == {c.name: c.type.compile(dialect=database.writer.dialect) for c in table.columns}
            assert {index.name for index in table.indexes} <= indexes


async def test_a_file_from_a_newer_version_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    async with open_database(path):
        pass
    with sqlite3.connect(path) as file:
        file.execute("UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(Unavailable, match="newer version"):
        async with open_database(path):
            pass

    with sqlite3.connect(path) as file:
        assert file.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)


async def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"history\.db"):
        async with open_database(tmp_path / "nowhere" / "history.db"):
            pass


async def test_pins_of_a_thread_oldest_first(database: Database) -> None:
    pins, one, other = SqlPins(database), thread(), thread()
    first = Pin(one.thread_id, "", "b", "the start", START)
    second = Pin(one.thread_id, "inner", "a", None, START + timedelta(minutes=1))
    for pin in (second, first, Pin(other.thread_id, "", "b", None, START)):
        assert await pins.put(pin) == pin

    assert await pins.list(one.thread_id) == [first, second]
    renamed = await pins.put(replace(first, name="다시", created_at=START + timedelta(hours=1)))
    assert renamed == replace(first, name="다시")
    for _ in range(2):
        await pins.remove(one.thread_id, "inner", "a")
    assert await pins.list(one.thread_id) == [renamed]
    await SqlThreads(database).delete(one.thread_id)
    assert await pins.list(one.thread_id) == []
    assert len(await pins.list(other.thread_id)) == 1
