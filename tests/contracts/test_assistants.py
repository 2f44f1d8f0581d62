"""The assistants' port over the history database."""

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
from threadline.domain.records import Assistant, AssistantQuery, Cron
from threadline.storage.assistants import SqlAssistants
from threadline.storage.database import Database, open_database
from threadline.storage.tables import crons

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "history.db") as database:
        yield database


@pytest.fixture
def assistants(database: Database) -> SqlAssistants:
    return SqlAssistants(database)


def assistant(minutes: int = 0, owner: str = "me", **values: Any) -> Assistant:
    at = START + timedelta(minutes=minutes)
    return replace(Assistant(str(uuid4()), "agent", owner, "name", created_at=at, updated_at=at), **values)


def query(**values: Any) -> AssistantQuery:
    return AssistantQuery(**{"owner": "me", "graphs": ["agent"], **values})


async def names(assistants: SqlAssistants, **values: Any) -> list[str]:
    found, total = await assistants.search(query(**values, limit=100))
    assert total == len(found)
    return [one.name for one in found]


async def test_one_is_kept_whole_and_its_id_is_taken(assistants: SqlAssistants) -> None:
    one = assistant(
        description="설명", config={"tags": ["t"]}, context={"a": {"b": [1, None]}}, metadata={"한": 1}, version=1
    )

    assert await assistants.create(one)
    assert not await assistants.create(replace(one, owner="other"))
    assert await assistants.get(one.assistant_id) == one
    assert await assistants.get("nobody") is None


async def test_a_page_and_how_many_there_are(assistants: SqlAssistants) -> None:
    for minutes in range(5):
        await assistants.create(assistant(minutes, name=str(minutes)))
    await assistants.create(assistant(9, owner="other"))

    first, total = await assistants.search(query(limit=2, offset=1))

    assert [one.name for one in first] == ["3", "2"]
    assert total == 5
    assert await assistants.search(query(limit=0)) == ([], 5)
    assert await names(assistants, sort_by="name", descending=False) == list("01234")


async def test_the_services_own_are_everybodys_as_long_as_their_graph_is_served(assistants: SqlAssistants) -> None:
    await assistants.create(assistant(owner="", name="served"))
    await assistants.create(assistant(owner="", name="gone", graph_id="gone"))
    await assistants.create(assistant(1, name="mine", graph_id="gone"))

    assert await names(assistants) == ["mine", "served"]
    assert await names(assistants, owner="other") == ["served"]
    assert await names(assistants, graph_id="gone") == ["mine"]


@pytest.mark.parametrize(("asked", "found"), [("ALPH", ["Alpha"]), ("%", ["50%"]), ("_", ["under_score"]), ("zz", [])])
async def test_a_name_is_found_by_any_part_in_any_case(assistants: SqlAssistants, asked: str, found: list[str]) -> None:
    for name in ("Alpha", "50%", "under_score"):
        await assistants.create(assistant(name=name))

    assert await names(assistants, name=asked) == found


METADATA = {
    "text": "t",
    "whole": 1,
    "real": 1.5,
    "yes": True,
    "no": False,
    "none": None,
    "list": [1, "two", {"x": None}],
    "in": {"x": 1, "deep": {"y": "z"}},
    'a."key" %': "odd",
    "": "empty",
    "한글": "값",
}


@pytest.mark.parametrize("wanted", [{key: value} for key, value in METADATA.items()])
async def test_metadata_is_found_by_each_of_its_values(assistants: SqlAssistants, wanted: dict[str, Any]) -> None:
    await assistants.create(assistant(name="yes", metadata=METADATA))
    await assistants.create(assistant(name="no", metadata={"other": 1}))

    assert await names(assistants, metadata=wanted) == ["yes"]


@pytest.mark.parametrize(
    ("wanted", "holds"),
    [
        ({}, True),
        (METADATA, True),
        ({"in": {}}, True),
        ({"in": {"x": 1}}, True),
        ({"in": {"deep": {"y": "z"}}}, True),
        ({"in": {"deep": {"y": "other"}}}, False),
        ({"in": {"x": 1, "missing": 1}}, False),
        ({"in.x": 1}, False),
        ({"list": [1]}, True),
        ({"list": [2]}, False),
        ({"whole": 1.0}, True),
        ({"whole": "1"}, False),
        ({"whole": 2**70}, False),
        ({"yes": 1}, False),
        ({"text": None}, False),
        ({"missing": None}, False),
        ({"text": "t", "whole": 2}, False),
        ({"text": {"x": 1}}, False),
        ({"whole": {"x": 1}}, False),
        ({"list": {"0": 1}}, False),
    ],
)
async def test_what_metadata_holds(assistants: SqlAssistants, wanted: dict[str, Any], holds: bool) -> None:
    await assistants.create(assistant(metadata=METADATA))

    assert bool(await names(assistants, metadata=wanted)) is holds


async def test_each_change_is_a_version_and_none_is_lost(assistants: SqlAssistants) -> None:
    one = assistant()
    await assistants.create(one)

    def add(present: Assistant, version: int) -> Assistant:
        return replace(present, metadata={**present.metadata, str(version): True}, version=version)

    await asyncio.gather(*(assistants.change(one.assistant_id, add) for _ in range(10)))

    kept = await assistants.versions(one.assistant_id, limit=100)
    now = await assistants.get(one.assistant_id)
    assert now is not None
    assert now.metadata == {str(version): True for version in range(2, 12)}
    assert [version.version for version in kept] == list(range(11, 0, -1))
    assert kept[-1].metadata == {}
    page = await assistants.versions(one.assistant_id, metadata={"5": True}, limit=2, offset=1)
    assert [version.version for version in page] == [10, 9]
    [alone] = await assistants.versions(one.assistant_id, limit=5, version=3)
    assert alone.metadata == {"2": True, "3": True}


async def test_going_back_to_a_version_changes_none(assistants: SqlAssistants) -> None:
    one = assistant(name="first")
    await assistants.create(one)
    await assistants.change(one.assistant_id, lambda present, version: replace(present, name="second", version=version))

    back = await assistants.change(
        one.assistant_id, lambda present, _: replace(present, name="first", version=1, updated_at=START)
    )
    third = await assistants.change(one.assistant_id, lambda present, version: replace(present, version=version))

    kept = await assistants.versions(one.assistant_id, limit=9)
    assert back == one
    assert third == replace(one, version=3)
    assert [(version.version, version.name) for version in kept] == [(3, "first"), (2, "second"), (1, "first")]
    assert await assistants.change("nobody", lambda present, _: present) is None


async def test_a_deleted_one_takes_its_versions_and_crons_along(assistants: SqlAssistants, database: Database) -> None:
    one, other = assistant(), assistant()
    for created in (one, other):
        await assistants.create(created)
        cron = Cron(str(uuid4()), created.assistant_id, "me", "* * * * *", {}, created_at=START, updated_at=START)
        async with database.writer.begin() as connection:
            values = {name: getattr(cron, name) for name in crons.c.keys()}  # noqa: SIM118 (columns are no dict)
            await connection.execute(crons.insert().values(**values))

    await assistants.delete(one.assistant_id)

    assert await assistants.get(one.assistant_id) is None
    assert await assistants.versions(one.assistant_id, limit=9) == []
    assert len(await assistants.versions(other.assistant_id, limit=9)) == 1
    async with database.reader.connect() as connection:
        assert (await connection.execute(crons.select())).mappings().one()["assistant_id"] == other.assistant_id


async def test_a_filter_has_its_limits(assistants: SqlAssistants) -> None:
    deep: Any = 1
    for _ in range(20):
        deep = {"x": deep}

    with pytest.raises(Invalid):
        await assistants.search(query(metadata=deep))
    with pytest.raises(Invalid):
        await assistants.versions("nobody", metadata=deep)
