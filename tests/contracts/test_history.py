"""What the history promises beyond LangGraph's contract: acknowledged is on disk, and a fault hits only its own run."""

from __future__ import annotations

import asyncio
import json
import operator
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, TypedDict
from uuid import uuid4

import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, StateGraph

from tests.contracts.conftest import until
from tests.contracts.test_savers import conversation, extend, said, texts, thread
from threadline.domain.errors import Conflict, Invalid, Unavailable
from threadline.storage import open_saver
from threadline.storage.history import History, open_history
from threadline.storage.writer import ROWS, Writer


@pytest.fixture
def file(database: str) -> Path:
    return Path(database.removeprefix("sqlite:///"))


@pytest.fixture
async def history(database: str) -> AsyncIterator[History]:
    async with open_history(database, patience=0.1) as opened:
        yield opened


def place(thread_id: str | None = None) -> Any:
    return thread(thread_id, checkpoint_ns="")


async def put(history: History, config: Any, value: Any = None) -> Any:
    checkpoint = empty_checkpoint() | {"channel_values": {"value": value}}
    return await history.aput(config, checkpoint, {"source": "loop", "step": 1}, {})  # type: ignore[arg-type]


def ids(file: Path) -> set[str]:
    """The checkpoints another process would see at this moment."""
    with closing(sqlite3.connect(file)) as connection:
        return {found for (found,) in connection.execute("SELECT checkpoint_id FROM checkpoints")}


# On disk, together


async def test_a_put_is_on_disk_when_it_returns(history: History, file: Path) -> None:
    for _ in range(20):
        saved = await put(history, place())
        assert saved["configurable"]["checkpoint_id"] in ids(file)


async def test_many_sessions_share_a_transaction(history: History, file: Path) -> None:
    before = history.commits
    saved = await asyncio.gather(*(put(history, place()) for _ in range(200)))
    assert history.commits - before <= 3
    assert {config["configurable"]["checkpoint_id"] for config in saved} == ids(file)


async def test_closing_writes_what_is_waiting(database: str, file: Path) -> None:
    async with open_history(database) as history:
        puts = [asyncio.create_task(put(history, place())) for _ in range(100)]
        await asyncio.sleep(0)
    saved = await asyncio.gather(*puts)
    assert {config["configurable"]["checkpoint_id"] for config in saved} == ids(file)
    with pytest.raises(Unavailable, match="closed"):
        await put(history, place())
    assert not Path(f"{file}-wal").exists(), "the file stands alone"


async def test_writes_within_one_transaction_keep_their_order(history: History) -> None:
    """The first value of a task counts, the last error does; also where all arrive at once."""
    config = await put(history, place())
    await asyncio.gather(
        history.aput_writes(config, [("value", "first")], "task"),
        history.aput_writes(config, [("__error__", "first")], "task"),
        history.aput_writes(config, [("value", "second")], "task"),
        history.aput_writes(config, [("__error__", "second")], "task"),
    )
    found = await history.aget_tuple(config)
    assert found is not None
    assert found.pending_writes == [("task", "__error__", "second"), ("task", "value", "first")]


async def test_the_last_answer_counts_also_beside_a_value(history: History) -> None:
    """`Command(resume=..., update=...)` keeps both under one task; each goes by its own rule."""
    config = await put(history, place())
    await history.aput_writes(config, [("__resume__", "yes"), ("value", "first")], "task")
    await history.aput_writes(config, [("__resume__", "no"), ("value", "second")], "task")
    found = await history.aget_tuple(config)
    assert found is not None
    assert found.pending_writes == [("task", "__resume__", "no"), ("task", "value", "first")]


async def test_a_task_with_more_writes_than_one_statement_inserts_is_kept_whole(history: History) -> None:
    config = await put(history, place())
    written = [("x", number) for number in range(ROWS + 1)]

    await history.aput_writes(config, written, "task")

    found = await history.aget_tuple(config)
    assert found is not None
    assert [write[1:] for write in found.pending_writes or ()] == written


async def test_who_brings_more_than_fits_waits(file: Path) -> None:
    writer = Writer(file, room=10_000, patience=5)
    await writer.open()
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        rows = [(str(uuid4()), "", str(uuid4()), None, "msgpack", bytes(4000), b"{}") for _ in range(20)]
        puts = [asyncio.create_task(writer.insert("checkpoint", [row])) for row in rows]
        puts[10].cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert writer._held <= 12_100
        assert len(writer._waiting) == 16
        puts[11].cancel()
        other.execute("ROLLBACK")
    await asyncio.wait(puts)
    assert [n for n, each in enumerate(puts) if each.cancelled()] == [10, 11]
    assert len(ids(file)) == 18
    await writer.aclose()


# Faults


@pytest.mark.parametrize("bad", ["\ud800", 2**70])
async def test_a_put_that_cannot_be_stored_fails_alone(history: History, file: Path, bad: Any) -> None:
    good = [put(history, place()) for _ in range(10)]
    wrong = history.aput_writes(place() | thread("t", checkpoint_ns="", checkpoint_id="1"), [("value", 1)], bad)
    *saved, error = await asyncio.gather(*good, wrong, return_exceptions=True)
    assert isinstance(error, Invalid)
    assert {config["configurable"]["checkpoint_id"] for config in saved} == ids(file)  # type: ignore[index]


async def test_a_locked_file_fails_the_run_and_no_more(history: History, file: Path) -> None:
    config = await put(history, place(), "before")
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked"):
            await put(history, config, "lost")
        found = await history.aget_tuple(place(config["configurable"]["thread_id"]))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"value": "before"}
        other.execute("ROLLBACK")
    after = await put(history, config, "after")
    assert await history.aget_tuple(after) is not None


async def test_a_full_disk_fails_the_run_and_no_more(history: History) -> None:
    def allow(pages: int) -> Any:
        return history._writer.change(lambda connection: connection.execute(f"PRAGMA max_page_count={pages}"))

    config = await put(history, place(), "before")
    await allow(1)  # no more than there are
    with pytest.raises(Unavailable, match="full"):
        await put(history, config, "x" * 100_000)
    found = await history.aget_tuple(place(config["configurable"]["thread_id"]))
    assert found is not None
    assert found.checkpoint["channel_values"] == {"value": "before"}
    await allow(1_000_000)
    assert await history.aget_tuple(await put(history, config, "x" * 100_000)) is not None


async def test_a_file_that_may_not_be_written_fails_the_run_and_no_more(history: History) -> None:
    connection = history._writer._connection
    assert connection is not None
    config = await put(history, place(), "before")
    connection.execute("PRAGMA query_only=ON")
    results = await asyncio.gather(*(put(history, config) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(result, Unavailable) and "written" in result.message for result in results)
    assert await history.aget_tuple(config) is not None
    connection.execute("PRAGMA query_only=OFF")
    assert await history.aget_tuple(await put(history, config)) is not None


async def test_what_cannot_be_serialized_is_refused(history: History, file: Path) -> None:
    with pytest.raises(Invalid):
        await put(history, place(), object())
    with pytest.raises(Invalid):
        await history.aput(place(), empty_checkpoint(), {"source": object()}, {})  # type: ignore[typeddict-item]
    with pytest.raises(Invalid):
        await history.aput_writes(place() | thread(checkpoint_id="1"), [("value", object())], "task")
    assert ids(file) == set()


@pytest.mark.parametrize("key", ["a'b", 'a"b', "step') OR 1=1 --", "", "a b", "스텝", "a;b", "$", "a]"])
async def test_odd_keys_in_a_filter_are_refused(history: History, key: str) -> None:
    await put(history, place())
    with pytest.raises(Invalid):
        [item async for item in history.alist(None, filter={key: 1})]


async def test_values_in_a_filter_are_only_values(history: History) -> None:
    config = await put(history, place())
    for value in ("' OR 1=1 --", '"', "loop' --", {"a": "'"}, ["x"], None, True):
        assert [item async for item in history.alist(config, filter={"source": value})] == []
    assert len([item async for item in history.alist(None, filter={"source": "loop", "step": 1})]) == 1


# The file


async def test_a_file_of_the_stock_saver_goes_on(database: str, file: Path) -> None:
    config = thread()
    async with AsyncSqliteSaver.from_conn_string(str(file)) as stock:
        await conversation(stock).ainvoke(said("one"), config, durability="sync")
    async with open_saver(history=database, live=None) as saver:
        graph = conversation(saver)
        assert await texts(graph, config) == ["one", "heard one"]
        await graph.ainvoke(said("two"), config, durability="sync")
        expected = await told(graph, config)
    async with AsyncSqliteSaver.from_conn_string(str(file)) as stock:
        assert await told(conversation(stock), config) == expected
        await conversation(stock).ainvoke(said("three"), config, durability="sync")
    async with open_saver(history=database, live=None) as saver:
        assert len(await texts(conversation(saver), config)) == 6


async def told(graph: Any, config: Any) -> list[Any]:
    """Every state of a thread: values, what is next, and where it stands."""
    return [
        (state.config, state.values, state.next, state.metadata, state.parent_config, state.tasks)
        async for state in graph.aget_state_history(config)
    ]


async def test_a_file_from_before_task_paths_is_brought_up_to_date(database: str, file: Path) -> None:
    async with open_history(database) as history:
        config = await put(history, place(), "old")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("ALTER TABLE writes DROP COLUMN task_path")
    async with open_history(database) as history:
        await history.aput_writes(config, [("value", "new")], "task", "path")
        found = await history.aget_tuple(config)
    assert found is not None
    assert found.pending_writes == [("task", "value", "new")]


async def refused(database: str, kind: type[Exception]) -> None:
    """The file is not opened, and stays as it was."""
    file = Path(database.removeprefix("sqlite:///"))
    before = file.read_bytes() if file.is_file() else None
    with pytest.raises(kind):
        async with open_history(database):
            pass
    assert (file.read_bytes() if file.is_file() else None) == before


async def test_a_file_that_is_no_database_is_refused(database: str, file: Path) -> None:
    file.write_bytes(b"Dear diary, " * 1000)
    await refused(database, Invalid)


async def test_another_database_is_refused(database: str, file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE checkpoints (id INTEGER)")
    await refused(database, Invalid)


@pytest.mark.parametrize("change", ["PRAGMA user_version=7", "ALTER TABLE checkpoints ADD COLUMN mood TEXT"])
async def test_a_file_from_a_newer_version_is_refused(database: str, file: Path, change: str) -> None:
    async with open_history(database) as history:
        await put(history, place())
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(change)
    await refused(database, Conflict)


async def test_a_folder_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    await refused(f"sqlite:///{tmp_path}/taken/history.sqlite", Unavailable)
    await refused(f"sqlite:///{tmp_path}", Unavailable)


async def test_a_damaged_file_is_told(history: History, file: Path) -> None:
    config = await put(history, place(), "x" * 50_000)
    await history._writer.change(lambda connection: None, scrubs=True)
    data = bytearray(file.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    file.write_bytes(data)
    with pytest.raises(Unavailable):
        await history.aget_tuple(config)


PROCESS = """
import asyncio, sys, uuid
from langgraph.checkpoint.base import empty_checkpoint
from threadline.storage.history import open_history

async def session(history, puts):
    config = {"configurable": {"thread_id": str(uuid.uuid4()), "checkpoint_ns": ""}}
    for _ in range(puts):
        config = await history.aput(config, empty_checkpoint(), {}, {})
        await history.aput_writes(config, [("value", "x" * 500)], str(uuid.uuid4()))
        assert await history.aget_tuple(config)

async def main():
    async with open_history(sys.argv[1]) as history:
        await asyncio.gather(*(session(history, 20) for _ in range(5)))

asyncio.run(main())
"""


async def test_several_processes_share_a_file(database: str, file: Path) -> None:
    children = [subprocess.Popen([sys.executable, "-c", PROCESS, database], stderr=subprocess.PIPE) for _ in range(3)]
    until(lambda: all(child.poll() is not None for child in children), "the processes", seconds=60)
    assert [(child.returncode, child.communicate()[1]) for child in children] == [(0, b"")] * 3
    assert len(ids(file)) == 300
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT count(*) FROM writes").fetchone() == (300,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# Lists


async def test_a_list_of_everything_is_cut_into_pages(history: History) -> None:
    """Also where threads share a checkpoint id."""
    checkpoint = empty_checkpoint()
    await asyncio.gather(*(history.aput(place(), checkpoint, {}, {}) for _ in range(250)))
    listed = [item async for item in history.alist(None)]
    assert len({item.config["configurable"]["thread_id"] for item in listed}) == len(listed) == 250
    assert len([item async for item in history.alist(None, limit=130)]) == 130


async def test_large_checkpoints_make_small_pages(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threadline.storage.history.PAGE_BYTES", 25_000)
    config = place()
    saved = []
    for number in range(10):
        config = await put(history, config, "x" * 10_000 + str(number))
        saved.append(config)
    listed: list[CheckpointTuple] = [item async for item in history.alist(place(config["configurable"]["thread_id"]))]
    assert [item.config for item in listed] == saved[::-1]


# Delta channels


async def test_pruning_keeps_what_a_delta_channel_is_rebuilt_from(history: History, file: Path) -> None:
    graph, config = conversation(history), thread()
    for turn in range(7):
        await graph.ainvoke(said(str(turn)), config, durability="sync")
        before = (await graph.aget_state(config)).values
        await history.aprune([config["configurable"]["thread_id"]])
        assert (await graph.aget_state(config)).values == before
        assert before["notes"] == [f"on {n}" for n in range(turn + 1)]
    assert 1 < len(ids(file)) < 14, "of 28"
    await history.aprune([config["configurable"]["thread_id"]], strategy="delete")
    assert ids(file) == set()


async def test_a_delta_channel_nothing_was_written_to_needs_no_ancestors(history: History, file: Path) -> None:
    """Its counters grow with every step all the same, and must keep neither a pruning nor a deletion from happening."""

    class Unused(TypedDict, total=False):
        trail: Annotated[list[str], operator.add]
        notes: Annotated[list[str], DeltaChannel(extend)]

    async def step(state: Unused) -> Unused:
        return {"trail": ["step"]}

    graph = StateGraph(Unused).add_node("step", step).add_edge(START, "step").compile(checkpointer=history)
    config = thread()
    for turn in (1, 2):
        await graph.ainvoke({"trail": []}, config | {"metadata": {"run_id": f"run-{turn}"}}, durability="sync")
    newest = [item async for item in history.alist(config, limit=1)]
    assert "notes" in newest[0].metadata["counters_since_delta_snapshot"]
    await history.adelete_for_runs(["run-1"])
    await history.aprune([config["configurable"]["thread_id"]])
    assert ids(file) == {newest[0].config["configurable"]["checkpoint_id"]}
    assert (await graph.aget_state(config)).values["trail"] == ["step", "step"]


async def test_a_run_that_others_are_rebuilt_from_is_not_deleted(history: History, file: Path) -> None:
    graph, config = conversation(history), thread()
    for turn in (1, 2):
        await graph.ainvoke(said(str(turn)), config | {"metadata": {"run_id": f"run-{turn}"}}, durability="sync")
    held = ids(file)
    with pytest.raises(Conflict):
        await history.adelete_for_runs(["run-1"])
    assert ids(file) == held
    await history.adelete_for_runs(["run-2"])
    assert (await graph.aget_state(config)).values["notes"] == ["on 1"]
    await history.adelete_for_runs(["run-1"])
    assert ids(file) == set()


async def test_a_checkpoint_that_is_its_own_ancestor_ends_the_search(history: History) -> None:
    first = await put(history, place())
    checkpoint = empty_checkpoint()
    second = await history.aput(first, checkpoint, {}, {})
    again = empty_checkpoint() | {"id": first["configurable"]["checkpoint_id"]}
    await history.aput(second, again, {}, {})  # type: ignore[arg-type]
    await history.aput_writes(first, [("notes", ["x"])], "task")
    found = await history.aget_delta_channel_history(config=second, channels=["notes", "other"])
    assert found == {"notes": {"writes": [("task", "notes", ["x"])]}, "other": {"writes": []}}


def test_metadata_is_as_the_stock_saver_writes_it() -> None:
    from threadline.storage.rows import Row
    from threadline.storage.serde import strict_serializer

    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}, "metadata": {"who": "나\x00"}}
    row = Row.write(config, empty_checkpoint(), {"step": 1}, strict_serializer())
    assert row.metadata == json.dumps({"step": 1, "who": "나"}, ensure_ascii=False).encode()


# Conversations kept rebuilt


async def test_a_history_is_the_same_from_the_cache_and_from_the_file(history: History) -> None:
    graph, config = conversation(history), thread()
    for turn in range(12):
        await graph.ainvoke(said(str(turn)), config, durability="sync")
        state = await graph.aget_state(config)
        assert [message.content for message in state.values["talk"]][::2] == [str(n) for n in range(turn + 1)]
    newest = {"configurable": state.config["configurable"]}
    cached = await history.aget_delta_channel_history(config=newest, channels=["talk"])
    assert await history.aget_delta_channel_history(config=newest, channels=["talk"]) == cached
    history._cache.clear()
    assert await history.aget_delta_channel_history(config=newest, channels=["talk"]) == cached


async def test_what_a_reader_does_to_its_lists_reaches_nobody(history: History) -> None:
    graph, config = conversation(history), thread()
    for turn in range(9):
        await graph.ainvoke(said(str(turn)), config, durability="sync")
    newest = (await graph.aget_state(config)).config
    for _ in range(3):
        found = await history.aget_delta_channel_history(config=newest, channels=["talk"])
        found["talk"]["writes"].clear()
        seed: Any = found["talk"].get("seed")
        (seed.value if hasattr(seed, "value") else seed).clear()
        assert len((await graph.aget_state(config)).values["talk"]) == 18


async def test_kept_conversations_are_bounded_in_bytes(database: str) -> None:
    async with open_history(database, cache=30_000) as history:
        graph = conversation(history)
        configs = [thread() for _ in range(10)]
        for text in ("x" * 1000, "y" * 1000, "z" * 1000):
            for config in configs:
                await graph.ainvoke(said(text), config, durability="sync")
        for config in configs:
            assert len((await graph.aget_state(config)).values["talk"]) == 6
        assert 0 < history._cache._held <= 30_000
        assert 0 < len(history._cache._known) < 10
        await history.adelete_thread(configs[0]["configurable"]["thread_id"])
        assert history._cache._held == 0
