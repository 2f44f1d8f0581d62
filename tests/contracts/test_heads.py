"""Where a thread goes on from once somebody switched: exact, until the next checkpoint, whatever else is done."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from tests.contracts.conftest import RedisServer
from tests.contracts.test_retention import NOW, agent, human, plain, states
from tests.contracts.test_savers import thread
from threadline.domain.errors import Conflict
from threadline.domain.records import Limits
from threadline.storage import open_saver
from threadline.storage.history import open_history
from threadline.storage.lines import SavedLines
from threadline.storage.tiered import TieredSaver


@pytest.fixture
async def saver(database: str, redis: RedisServer) -> AsyncIterator[TieredSaver]:
    async with open_saver(history=database, live=redis.url) as opened:
        yield opened


def place(config: Any) -> str:
    return str(config["configurable"]["thread_id"])


async def head(saver: Any, config: Any) -> str:
    found = await saver.aget_tuple(config)
    return str(found.config["configurable"]["checkpoint_id"])


async def forked(saver: Any, config: Any, graph: Any, said: Any) -> tuple[str, str]:
    """A thread of two turns and a fork of the first one; the heads of both."""
    first = [await graph.ainvoke(said(str(n)), config, durability="sync") for n in range(2)]
    assert len(first) == 2
    old = await head(saver, config)
    every = [saved.config["configurable"]["checkpoint_id"] async for saved in saver.alist(config)]
    fork = {"configurable": {**config["configurable"], "checkpoint_id": every[-2]}}
    await graph.ainvoke(said("another"), fork, durability="sync")
    return old, await head(saver, config)


def heard(text: str) -> dict[str, Any]:
    return {"heard": text}


GRAPHS = [(plain, heard), (agent, human)]


@pytest.mark.parametrize(("make", "said"), GRAPHS, ids=["plain", "delta"])
async def test_a_switch_lasts_until_the_next_checkpoint(saver: TieredSaver, make: Any, said: Any) -> None:
    graph, config, lines = make(saver), thread(), saver.lines()
    old, new = await forked(saver, config, graph, said)
    before = await states(graph, config)
    assert (await lines.head(place(config)), await lines.switched(place(config))) == (new, None)

    assert await lines.switch(place(config), old)

    assert (await head(saver, config), await lines.head(place(config))) == (old, old)
    assert await lines.switched(place(config)) == old
    assert (await graph.aget_state(config)).values == before[old][0]
    assert await states(graph, config) == before
    await graph.ainvoke(said("more"), config, durability="sync")
    grown = await head(saver, config)
    assert (grown > new, await lines.switched(place(config))) == (True, None)
    line = {one.checkpoint_id: one.parent_id for one in await lines.places(place(config))}
    while grown is not None and grown != old:
        grown = line[grown] or ""
    assert grown == old
    after = await states(graph, config)
    assert {one: state for one, state in after.items() if one in before and one != old} == {
        one: state for one, state in before.items() if one != old
    }


async def test_only_an_end_can_be_switched_to(saver: TieredSaver) -> None:
    graph, config, lines = plain(saver), thread(), saver.lines()
    old, new = await forked(saver, config, graph, heard)
    inner = [one.checkpoint_id for one in await lines.places(place(config)) if one.checkpoint_id not in (old, new)]
    for one in [*inner, "nobody"]:
        assert not await lines.switch(place(config), one)
    assert await head(saver, config) == new
    with pytest.raises(Conflict):
        await lines.cut(place(config), {inner[0]})
    assert not await lines.switch("another thread", old)


async def test_it_outlives_pruning_copying_and_a_run_that_is_taken_back(saver: TieredSaver) -> None:
    graph, config, lines = agent(saver), thread(), saver.lines()
    old, new = await forked(saver, config, graph, human)
    await lines.switch(place(config), old)
    state = (await graph.aget_state(config)).values
    config["metadata"] = {"run_id": "taken back"}
    await graph.ainvoke(human("not said"), config, durability="sync")
    await saver.adelete_for_runs(["taken back"])
    del config["metadata"]
    assert await head(saver, config) == old

    await saver.acopy_thread(place(config), "a copy")
    assert await head(saver, thread("a copy")) == old
    done = await saver.pruner().prune(place(config), Limits(max_checkpoints=1), now=NOW)
    assert done is not None
    assert await head(saver, config) == old
    assert (await graph.aget_state(config)).values["messages"][: len(state["messages"])] == state["messages"]
    await saver.aprune(["a copy"], strategy="keep_latest")
    assert await head(saver, thread("a copy")) == old
    assert new not in {one.checkpoint_id for one in await lines.places("a copy")}
    await saver.adelete_thread("a copy")
    assert await saver.aget_tuple(thread("a copy")) is None


async def test_the_live_copy_is_the_head_and_what_is_cut_is_not_there(saver: TieredSaver, redis: RedisServer) -> None:
    graph, config, lines = plain(saver), thread(), saver.lines()
    old, new = await forked(saver, config, graph, heard)
    await lines.switch(place(config), old)
    await head(saver, config)
    hits = saver.live_hits
    assert (await head(saver, config), saver.live_hits) == (old, hits + 1)
    tail = {one.checkpoint_id for one in await lines.places(place(config)) if one.checkpoint_id > old}

    assert await lines.cut(place(config), tail)

    with redis.client() as client:
        assert client.keys(f"*{place(config)}*") == []
    assert await head(saver, config) == old
    assert new not in {one.checkpoint_id for one in await lines.places(place(config))}
    assert await lines.switched(place(config)) is None


async def test_what_was_said_on_it_goes_with_it(saver: TieredSaver, database: str) -> None:
    """Its input too, which LangGraph writes to the checkpoint before."""
    graph, config, lines = agent(saver), thread(), saver.lines()
    await graph.ainvoke(human("shared"), config, durability="sync")
    shared = {one.checkpoint_id for one in await lines.places(place(config))}
    before = await states(graph, config)
    await graph.ainvoke(human("a secret"), config, durability="sync")
    tail = {one.checkpoint_id for one in await lines.places(place(config))} - shared
    with closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as connection:
        held = [value for (value,) in connection.execute("SELECT value FROM writes") if b"a secret" in value]
    assert held

    assert await lines.cut(place(config), tail)

    with closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as connection:
        assert not any("6120736563726574" in line.lower() for line in connection.iterdump())
    assert await states(graph, config) == before


async def test_langgraphs_own_saver_opens_the_file(saver: TieredSaver, database: str, tmp_path: Path) -> None:
    """It knows of no head: it goes on from the newest."""
    graph, config, lines = plain(saver), thread(), saver.lines()
    old, new = await forked(saver, config, graph, heard)
    await lines.switch(place(config), old)
    async with AsyncSqliteSaver.from_conn_string(database.removeprefix("sqlite:///")) as stock:
        assert await head(stock, config) == new
        await plain(stock).ainvoke(heard("theirs"), config, durability="sync")
    assert await head(saver, config) > new


async def test_a_file_from_before_there_were_heads(tmp_path: Path) -> None:
    file = tmp_path / "old.sqlite"
    async with AsyncSqliteSaver.from_conn_string(str(file)) as stock:
        config = thread()
        await plain(stock).ainvoke(heard("theirs"), config, durability="sync")
        newest = await head(stock, config)
    async with open_history(f"sqlite:///{file}", read_only=True) as history:
        assert await head(history, config) == newest
        assert await history.pruner().look(place(config), Limits(max_checkpoints=1), now=NOW) is not None
    with closing(sqlite3.connect(file)) as connection:
        assert not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'heads'").fetchone()
    async with open_history(f"sqlite:///{file}") as history:
        assert isinstance(history.lines(forget=_nothing), SavedLines)
        assert await head(history, config) == newest


async def _nothing(places: Any) -> None:
    pass
