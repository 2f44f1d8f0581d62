"""Threads that leave and arrive whole: parents first, whatever the file of checkpoints holds; nothing half way."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from threadline.domain.events import Event
from threadline.domain.records import Limits, Pin, Run, Thread, Turn
from threadline.domain.stored import Stored, StoredBranch, StoredCheckpoint, StoredHead, StoredWrite, Taken
from threadline.storage import open_saver
from threadline.storage.database import open_database
from threadline.storage.records import SqlArchive, SqlPins, SqlRuns, SqlThreads, SqlTurns
from threadline.storage.tiered import TieredSaver
from threadline.storage.transfer import SqlExchange

NOW = datetime(2026, 11, 23, tzinfo=UTC)
OLD, NEW = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"


@dataclass
class Place:
    """Both databases, and who moves threads."""

    exchange: SqlExchange
    saver: TieredSaver
    file: Path
    threads: SqlThreads
    runs: SqlRuns
    turns: SqlTurns
    pins: SqlPins
    archive: SqlArchive

    async def stored(self, thread_id: str) -> list[Stored] | None:
        return await self.exchange.take(thread_id, lambda taken: list(taken.stored()))


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(tmp_path / "history.db"))
        file = tmp_path / "checkpoints.db"
        saver = await stack.enter_async_context(open_saver(history=f"sqlite:///{file}", live=None))
        records = (SqlThreads(database), SqlRuns(database), SqlTurns(database), SqlPins(database), SqlArchive(database))
        yield Place(SqlExchange(database, saver), saver, file, *records)


def thread(thread_id: str) -> Thread:
    return Thread(thread_id, owner="me", created_at=NOW, updated_at=NOW)


def checkpoint(id: str, parent: str | None = None, ns: str = "") -> StoredCheckpoint:
    return StoredCheckpoint(ns, id, parent, "msgpack", b"\x80", b"{}")


def write(id: str, idx: int, ns: str = "") -> StoredWrite:
    return StoredWrite(ns, id, "task", "path", idx, "channel", "null", b"")


async def test_a_thread_leaves_and_arrives_as_it_was(place: Place) -> None:
    run = Run("00000000-0000-4000-8000-0000000000aa", OLD, "agent", "t", "success", {"message": "hi"}, NOW, position=1)
    log = [Event(1, "run", (), {"a": 1}, 1.5), Event(2, "end", ("sub:1",), None, 2.0)]
    turn = Turn(OLD, "hi", "ho", ["x"], "m", 3, 0.5, NOW, {"turn_id": "t", "run_ids": [run.run_id]})
    stored: list[Stored] = [checkpoint("1"), write("1", -3), write("1", 0), checkpoint("2", "1")]
    stored += [checkpoint("1", ns="sub:1"), write("1", 0, "sub:1")]

    await place.exchange.begin(OLD)
    await place.exchange.keep_stored(OLD, stored)
    await place.exchange.keep_runs([(run, log)])
    assert await place.exchange.take(OLD, lambda taken: taken) is None
    pin = Pin(OLD, "", "1", "here", NOW)
    await place.exchange.finish(thread(OLD), turns=[turn], pins=[pin], branches=[])

    def look(taken: Taken) -> tuple[Taken, list[Event], list[Stored]]:
        return taken, list(taken.log(run.run_id)), list(taken.stored())

    found = await place.exchange.take(OLD, look)
    assert found is not None
    taken, events, rows = found
    assert (taken.thread, taken.runs, taken.pins) == (thread(OLD), [run], [pin])
    assert [replace(one, id=None) for one in taken.turns] == [turn]
    assert events == log
    assert rows == stored
    await place.exchange.sweep()
    assert await place.stored(OLD) == stored


async def test_heads_and_branches_go_along(place: Place) -> None:
    branch = StoredBranch("2", "the other", True, NOW)
    stored = [checkpoint("1"), checkpoint("2", "1"), checkpoint("3", "1"), StoredHead("", "2", "3")]

    await place.exchange.begin(OLD)
    await place.exchange.keep_stored(OLD, stored)
    await place.exchange.finish(thread(OLD), turns=[], pins=[], branches=[branch])

    assert await place.stored(OLD) == stored
    assert await place.exchange.take(OLD, lambda taken: taken.branches) == [branch]


async def test_parents_come_first_and_circles_are_cut(place: Place) -> None:
    await place.threads.create(thread(OLD))
    await place.exchange.keep_stored(OLD, [checkpoint("1", "3"), checkpoint("2", "1"), checkpoint("3", None)])
    await place.exchange.keep_stored(OLD, [checkpoint("4", "gone"), write("nowhere", 0), checkpoint("5", "5")])
    await place.exchange.keep_stored(OLD, [checkpoint("6", "7"), checkpoint("7", "6")])

    rows = await place.stored(OLD)

    assert rows is not None
    seen: list[str] = []
    for each in rows:
        assert isinstance(each, StoredCheckpoint)
        assert each.parent_id is None or each.parent_id in seen
        seen.append(each.checkpoint_id)
    assert sorted(seen) == ["1", "2", "3", "4", "5", "6", "7"]
    parents = {each.checkpoint_id: each.parent_id for each in rows if isinstance(each, StoredCheckpoint)}
    assert (parents["1"], parents["2"], parents["3"], parents["4"], parents["5"]) == ("3", "1", None, None, None)


async def test_what_was_broken_off_is_swept_and_nothing_else(place: Place) -> None:
    run = Run("00000000-0000-4000-8000-0000000000bb", NEW, "agent", "t", "success", {}, NOW)
    await place.threads.create(thread(OLD))
    await place.exchange.keep_stored(OLD, [checkpoint("1")])
    await place.exchange.begin(NEW)
    await place.exchange.keep_stored(NEW, [checkpoint("1"), write("1", 0)])
    await place.exchange.keep_runs([(run, [Event(1, "end", (), None, 0.0)])])

    await place.exchange.sweep()

    assert await place.runs.get(run.run_id) is None
    assert await place.archive.read(run.run_id) is None
    with sqlite3.connect(place.file) as connection:
        for table in ("checkpoints", "writes"):
            assert connection.execute(f"SELECT * FROM {table} WHERE thread_id = ?", (NEW,)).fetchall() == []
    assert await place.stored(OLD) == [checkpoint("1")]


async def test_retention_leaves_alone_what_is_arriving(place: Place) -> None:
    later = NOW + timedelta(days=1)
    pruner = place.saver.pruner(place.file.with_name("history.db"))
    await place.exchange.begin(NEW)
    await place.exchange.keep_stored(NEW, [checkpoint("1"), checkpoint("2", "1"), checkpoint("3", "2")])

    assert await pruner.prune(NEW, Limits(max_checkpoints=1), now=later) is None
    await place.exchange.finish(thread(NEW), turns=[], pins=[], branches=[])
    assert (await pruner.look(NEW, Limits(max_checkpoints=1), now=later)) is not None
