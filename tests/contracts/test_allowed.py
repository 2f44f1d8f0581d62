"""What an auth handler leaves of what is searched: the same in SQL as where one record is looked at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from threadline.domain.records import Assistant, AssistantQuery, Cron, CronQuery, Run, Thread, ThreadQuery
from threadline.services.permission import Grant
from threadline.storage.assistants import SqlAssistants
from threadline.storage.crons import SqlCrons
from threadline.storage.database import Database, open_database
from threadline.storage.records import SqlRuns, SqlThreads

AT = datetime(2026, 1, 1, tzinfo=UTC)
METADATA: tuple[dict[str, Any], ...] = (
    {},
    {"owner": None},
    {"owner": "ada"},
    {"owner": "ada", "team": {"name": "red", "size": 3}, "people": ["a", "b"], "n": 1},
    {"owner": "bob", "team": {"name": "blue"}, "people": ["b"], "n": 2.5},
    {"owner": "아다", "quoted\"'": "it's", "people": [], "n": True},
)
FILTERS: tuple[dict[str, Any], ...] = (
    {"owner": "ada"},
    {"owner": {"$eq": "아다"}},
    {"owner": {"$ne": "ada"}},
    {"owner": None},
    {"people": {"$contains": "b"}},
    {"people": {"$contains": ["a", "b"]}},
    {"people": ["b"]},
    {"team": {"name": "red"}},
    {"n": {"$gte": 2}},
    {"quoted\"'": "it's"},
    {"$or": [{"owner": "bob"}, {"n": 1}]},
    {"$and": [{"owner": "ada"}, {"people": {"$contains": "a"}}]},
    {"owner": "nobody"},
)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "history.db") as database:
        yield database


def thread(owner: str, metadata: Mapping[str, Any]) -> Thread:
    return Thread(str(uuid4()), owner, AT, AT, metadata=dict(metadata))


def run(of: Thread) -> Run:
    run_id = str(uuid4())
    return Run(run_id, of.thread_id, "agent", run_id, "pending", {}, AT)


@pytest.mark.parametrize("owner", [None, "me"])
async def test_what_is_found_is_what_is_granted(database: Database, owner: str | None) -> None:
    threads, runs = SqlThreads(database), SqlRuns(database)
    assistants, crons = SqlAssistants(database), SqlCrons(database)
    kept: list[Any] = []
    for whose in ("me", "you"):
        for metadata in METADATA:
            one = thread(whose, metadata)
            await threads.create(one)
            await runs.create(run(one))
            other = Assistant(str(uuid4()), "agent", whose, "name", AT, AT, metadata=dict(metadata))
            assert await assistants.create(other)
            late = Cron(str(uuid4()), "a", whose, "@daily", {}, AT, AT, metadata=dict(metadata))
            await crons.create(late)
            kept += [await threads.get(one.thread_id), other, late]

    for allowed in (None, *FILTERS):
        grant = Grant(owner, allowed)
        wanted = [record for record in kept if grant.holds(record)]
        listed = await threads.list(owner=owner, allowed=allowed, limit=100)
        going = await runs.unfinished(owner, ("pending",), allowed=allowed)
        searched = [
            await threads.search(ThreadQuery(owner=owner, allowed=allowed, limit=100)),
            await assistants.search(AssistantQuery(["agent"], owner=owner, allowed=allowed, limit=100)),
            await crons.search(CronQuery(owner=owner, allowed=allowed, limit=100)),
        ]
        found = [record for page, total in searched for record in page if total == len(page)]

        assert {id_of(record) for record in found} == {id_of(record) for record in wanted}, allowed
        theirs = {record.thread_id for record in wanted if isinstance(record, Thread)}
        assert {one.thread_id for one in listed} == {one.thread_id for one in going} == theirs, allowed


async def test_a_page_counts_what_is_allowed(database: Database) -> None:
    threads = SqlThreads(database)
    for metadata in METADATA * 3:
        await threads.create(thread("me", metadata))

    page, total = await threads.search(ThreadQuery(allowed={"owner": "ada"}, metadata={"n": 1}, limit=2, offset=1))

    assert (len(page), total) == (2, 3)


def id_of(record: Any) -> str:
    return str(getattr(record, "assistant_id", None) if isinstance(record, Assistant) else _id(record))


def _id(record: Any) -> str:
    return record.cron_id if isinstance(record, Cron) else record.thread_id
