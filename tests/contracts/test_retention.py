"""What retention leaves reads as it did before: by age and number, on all kinds of graphs, beside running writers."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypedDict
from uuid import uuid4

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from graph.conversation import Conversation
from graph.state import State as AgentState
from tests.contracts.test_savers import conversation, said, thread
from threadline.domain.records import Limits, Pin, Pruned, Run, Thread
from threadline.storage import open_saver, pruning
from threadline.storage.database import open_database
from threadline.storage.history import History, open_history
from threadline.storage.pruner import HistoryPruner
from threadline.storage.pruning import earliest_id, made_at
from threadline.storage.records import SqlPins, SqlRuns, SqlThreads

NOW = datetime.now(UTC) + timedelta(hours=1)
"""Later than anything the tests make."""


@dataclass
class Unlisted:
    """A type on no list."""

    text: str


@dataclass
class House:
    """A history and the records beside it."""

    history: History
    pruner: HistoryPruner
    file: Path
    pins: SqlPins
    runs: SqlRuns
    threads: SqlThreads

    async def prune(self, config: Any, graph: Any = None, *, thrifty: bool = False, **limits: Any) -> Pruned:
        """With a graph, that one is asked what a conversation comes to."""
        pruner = self.pruner
        if graph is not None:
            pruner = self.history.pruner(self.file.with_name("history.db"), rebuild=asking(graph), thrifty=thrifty)
        done = await pruner.prune(config["configurable"]["thread_id"], Limits(**limits), now=NOW)
        assert done is not None
        return done


def asking(graph: Any) -> Any:
    async def values(thread_id: str, checkpoint_id: str, graph_id: str | None) -> Any:
        return (await graph.aget_state(thread(thread_id, checkpoint_id=checkpoint_id))).values

    return values


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    file, records = tmp_path / "checkpoints.db", tmp_path / "history.db"
    async with open_database(records) as database, open_history(f"sqlite:///{file}") as history:
        pruner = history.pruner(records)
        yield House(history, pruner, file, SqlPins(database), SqlRuns(database), SqlThreads(database))


async def states(graph: Any, config: Any) -> dict[str, Any]:
    """Every state of a thread as a reader sees it, by its checkpoint's id; how it is stored is left out."""
    return {
        state.config["configurable"]["checkpoint_id"]: (
            state.values,
            state.next,
            {name: value for name, value in state.metadata.items() if name != "counters_since_delta_snapshot"},
            state.tasks,
            state.interrupts,
            state.created_at,
        )
        async for state in graph.aget_state_history(config)
    }


async def parents(history: History, config: Any) -> dict[str, str | None]:
    return {
        saved.config["configurable"]["checkpoint_id"]: saved.parent_config
        and saved.parent_config["configurable"]["checkpoint_id"]
        async for saved in history.alist(config)
    }


async def assert_whole(house: House, graph: Any, config: Any, before: dict[str, Any]) -> dict[str, Any]:
    """What is left reads as before, also in a process that knows nothing yet, and leads back to a first one."""
    after = await states(graph, config)
    assert after == {one: before[one] for one in after}
    async with open_history(f"sqlite:///{house.file}", cache=0) as fresh:
        assert await states(graph.copy({"checkpointer": fresh}), config) == after
    line = await parents(house.history, {"configurable": {**config["configurable"], "checkpoint_ns": ""}})
    assert {parent for parent in line.values() if parent is not None} <= set(line)
    return after


def place_of(config: Any, checkpoint_id: str) -> Any:
    return {"configurable": {**config["configurable"], "checkpoint_id": checkpoint_id}}


def plain(saver: Any) -> Any:
    """Three steps a turn and no delta channel."""

    class Notes(TypedDict, total=False):
        heard: str
        count: int

    graph = StateGraph(Notes)
    graph.add_node("one", lambda state: {"count": state.get("count", 0) + 1})
    graph.add_node("two", lambda state: {"heard": f"{state['heard']}!"})
    graph.add_edge(START, "one")
    graph.add_edge("one", "two")
    graph.add_edge("two", END)
    return graph.compile(checkpointer=saver)


def agent(saver: Any) -> Any:
    """The state of the built-in graph, its conversation included, and an answer of no model."""

    def respond(state: Any) -> dict[str, Any]:
        return {"messages": [AIMessage(f"answer {len(state['messages'])}", id=f"ai-{uuid4()}")]}

    graph = StateGraph(AgentState)
    graph.add_node("think", lambda state: {})
    graph.add_node("respond", respond)
    graph.add_edge(START, "think")
    graph.add_edge("think", "respond")
    graph.add_edge("respond", END)
    return graph.compile(checkpointer=saver)


def human(text: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(text, id=f"human-{uuid4()}")]}


# By number


async def test_the_newest_stay_and_nothing_else(house: House) -> None:
    graph, config = plain(house.history), thread()
    for turn in range(5):
        await graph.ainvoke({"heard": str(turn)}, config, durability="sync")
    before = await states(graph, config)

    done = await house.prune(config, max_checkpoints=6)

    after = await assert_whole(house, graph, config, before)
    assert list(after) == list(before)[:6]
    assert (done.checkpoints, done.left) == (len(before) - 6, 6)
    assert done.size > 0
    line = await parents(house.history, config)
    assert list(line.values()) == [*list(line)[1:], None]
    assert (await house.prune(config, max_checkpoints=6)).checkpoints == 0


async def test_writes_go_with_their_checkpoint(house: House) -> None:
    graph, config = plain(house.history), thread()
    for turn in range(5):
        await graph.ainvoke({"heard": str(turn)}, config, durability="sync")

    await house.prune(config, max_checkpoints=3)

    with closing(sqlite3.connect(house.file)) as connection:
        ids = {found for (found,) in connection.execute("SELECT checkpoint_id FROM checkpoints")}
        owners = {found for (found,) in connection.execute("SELECT DISTINCT checkpoint_id FROM writes")}
    assert len(ids) == 3
    assert owners <= ids


@pytest.mark.parametrize("keep", [1, 40])
async def test_a_long_conversation_with_forks(house: House, keep: int) -> None:
    """The built-in state: its snapshots are rare, and what lies behind the last one that is needed goes."""
    graph, config = agent(house.history), thread()
    dice, forks = random.Random(keep), list[str]()
    for turn in range(120):
        if turn % 40 == 39:
            old = dice.choice(list(await states(graph, config)))
            place = await graph.aupdate_state(place_of(config, old), human(f"instead {turn}"), as_node="think")
            forks.append(place["configurable"]["checkpoint_id"])
            await graph.ainvoke(None, place, durability="sync")
        await graph.ainvoke(human(f"turn {turn}"), config, durability="sync")
    before = await states(graph, config)

    done = await house.prune(config, max_checkpoints=keep)

    after = await assert_whole(house, graph, config, before)
    assert set(list(before)[:keep]) <= set(after)
    assert done.checkpoints > len(before) / 6, "it takes something"
    messages = (await graph.aget_state(config)).values["messages"]
    await graph.ainvoke(human("and on"), config, durability="sync")
    assert len((await graph.aget_state(config)).values["messages"]) == len(messages) + 2


@pytest.mark.parametrize("keep", [1, 2, 7])
async def test_a_conversation_is_written_out_where_it_is_cut(house: House, keep: int) -> None:
    """Its graph says what it comes to, so nothing behind the limit need stay. Pins are written out by themselves."""
    graph, config = agent(house.history), thread()
    for turn in range(12):
        await graph.ainvoke(human(f"turn {turn}"), config, durability="sync")
    before = await states(graph, config)
    pin = list(before)[20]
    await house.pins.put(Pin(config["configurable"]["thread_id"], "", pin, None, NOW))

    await house.prune(config, graph, max_checkpoints=keep)

    assert list(await assert_whole(house, graph, config, before)) == [*list(before)[:keep], pin]
    async with AsyncSqliteSaver.from_conn_string(str(house.file)) as stock:
        assert await states(agent(stock), config) == {one: before[one] for one in (*list(before)[:keep], pin)}
    await graph.ainvoke(human("and on"), config, durability="sync")
    after = await states(graph, config)
    assert len(next(iter(after.values()))[0]["messages"]) == 26
    await house.prune(config, graph, max_checkpoints=keep)
    assert list(await assert_whole(house, graph, config, after)) == [*list(after)[:keep], pin]


async def test_a_live_copy_from_before_the_cut_reads_the_same(house: House, redis: Any) -> None:
    """The service has the newest checkpoint in Redis and in its cache; another process writes it out and cuts."""
    async with open_saver(history=f"sqlite:///{house.file}", live=redis.url) as saver:
        graph, config = agent(saver), thread()
        for turn in range(4):
            await graph.ainvoke(human(f"turn {turn}"), config, durability="sync")
        before = (await graph.aget_state(config)).values
        hits = saver.live_hits

        await house.prune(config, agent(house.history), max_checkpoints=1)

        assert (await graph.aget_state(config)).values == before
        saver._history._cache.clear()
        assert (await graph.aget_state(config)).values == before
        assert saver.live_hits == hits + 2
        await graph.ainvoke(human("and on"), config, durability="sync")
        assert (await graph.aget_state(config)).values["messages"][: len(before["messages"])] == before["messages"]


async def test_what_only_its_graph_may_build_stays_as_it_is(house: House) -> None:
    """A cut decodes nothing but the conversation."""

    class Notes(TypedDict, total=False):
        messages: Annotated[list[AnyMessage], Conversation()]
        heard: Any

    builder = StateGraph(Notes)
    builder.add_node("say", lambda state: {"messages": [AIMessage("yes", id=str(uuid4()))], "heard": Unlisted("kept")})
    builder.add_edge(START, "say")
    builder.add_edge("say", END)
    graph, config = builder.compile(checkpointer=house.history), thread()
    for turn in range(4):
        await graph.ainvoke(human(str(turn)), config, durability="sync")
    newest = (await graph.aget_state(config)).config

    await house.prune(config, graph, max_checkpoints=1)

    trusting = house.history.with_allowlist([(Unlisted.__module__, Unlisted.__qualname__)])
    found = await trusting.aget_tuple(newest)
    assert found is not None
    assert found.checkpoint["channel_values"]["heard"] == Unlisted("kept")
    assert len(found.checkpoint["channel_values"]["messages"].value) == 8


async def test_the_thrifty_write_out_only_what_has_grown(house: House) -> None:
    graph, config = agent(house.history), thread()
    sizes = []
    for turn in range(40):
        await graph.ainvoke(human(f"turn {turn} " + "x" * 8000), config, durability="sync")
        sizes.append((await house.prune(config, graph, thrifty=True, max_checkpoints=4)).left)
    assert sizes[:3] == [4] * 3, "a small one always"
    assert 4 < sum(size == 4 for size in sizes) < 20, sizes
    assert max(sizes) < 80, sizes
    assert len((await graph.aget_state(config)).values["messages"]) == 80


async def test_channels_whose_snapshots_never_meet(house: House) -> None:
    """Two delta channels with snapshots at different steps: whatever stays for the one is right for the other too."""
    graph, config = conversation(house.history), thread()
    for turn in range(45):
        await graph.ainvoke(said(str(turn)), config, durability="sync")
    before = await states(graph, config)

    done = await house.prune(config, max_checkpoints=2)

    assert done.checkpoints > 0
    await assert_whole(house, graph, config, before)


async def test_a_channel_that_is_never_written_keeps_nothing(house: House) -> None:
    graph, config = conversation(house.history, speak=lambda state: {"trail": ["speak"]}), thread()
    for turn in range(5):
        await graph.ainvoke(said(str(turn)), config, durability="sync")
    before = await states(graph, config)

    await house.prune(config, max_checkpoints=2)

    assert len(await assert_whole(house, graph, config, before)) == 2


@pytest.mark.parametrize("seed", range(8))
async def test_random_lives(house: House, seed: int) -> None:
    """Runs, forks, replays and edits, pruned now and then by a random limit with random pins."""
    dice = random.Random(seed)
    graph, config = conversation(house.history), thread()
    thread_id = config["configurable"]["thread_id"]
    pinned = set[str]()
    for step in range(40):
        known = list(await states(graph, config))
        place = place_of(config, dice.choice(known)) if known and dice.random() < 0.4 else config
        match dice.randrange(4):
            case 0 if known:
                await graph.aupdate_state(place, said(f"edit {step}"), as_node=dice.choice(["think", "speak"]))
            case 1 if known:
                await graph.ainvoke(None, place, durability=dice.choice(["sync", "async", "exit"]))
            case _:
                await graph.ainvoke(said(str(step)), place, durability=dice.choice(["sync", "async", "exit"]))
        if dice.random() < 0.2:
            before = await states(graph, config)
            pin = dice.choice(list(before))
            await house.pins.put(Pin(thread_id, "", pin, None, NOW))
            pinned.add(pin)
            await house.prune(config, graph if seed % 2 else None, max_checkpoints=dice.randrange(1, 12))
            after = await assert_whole(house, graph, config, before)
            assert pinned <= set(after)
            assert list(after)[:1] == list(before)[:1]


# By age


async def put(history: History, config: Any, made: datetime, value: str = "") -> Any:
    ticks = str(uuid6(clock_seq=1))
    checkpoint = empty_checkpoint() | {"id": earliest_id(made)[:19] + ticks[19:], "channel_values": {"value": value}}
    return await history.aput(config, checkpoint, {"source": "loop", "step": 1}, {})  # type: ignore[arg-type]


async def test_the_old_go(house: House) -> None:
    first = thread(checkpoint_ns="")
    config, made = first, []
    for days in (40, 31, 30, 29, 1):
        config = await put(house.history, config, NOW - timedelta(days=days) + timedelta(seconds=1), str(days))
        made.append(config["configurable"]["checkpoint_id"])

    done = await house.prune(first, max_age=timedelta(days=30))

    assert done.checkpoints == 2
    assert set(await parents(house.history, first)) == set(made[2:])


async def test_the_newest_stays_however_old_it_is(house: House) -> None:
    first = thread(checkpoint_ns="")
    config = await put(house.history, first, NOW - timedelta(days=500))
    newest = await put(house.history, config, NOW - timedelta(days=400))

    done = await house.prune(first, max_age=timedelta(days=1), max_checkpoints=10)

    assert done.checkpoints == 1
    assert await parents(house.history, first) == {newest["configurable"]["checkpoint_id"]: None}


async def test_ids_that_tell_no_time_are_never_too_old(house: House) -> None:
    first = thread(checkpoint_ns="")
    for name in ("a", "b", str(uuid4())):
        checkpoint = empty_checkpoint() | {"id": name}
        await house.history.aput(first, checkpoint, {"source": "loop", "step": 1}, {})  # type: ignore[arg-type]

    assert (await house.prune(first, max_age=timedelta(seconds=1))).checkpoints == 0


def test_an_id_tells_when_it_was_made() -> None:
    before = datetime.now(UTC)
    made = made_at(str(uuid6(clock_seq=3)))
    assert made is not None
    assert before - timedelta(seconds=1) < made < datetime.now(UTC) + timedelta(seconds=1)
    assert made_at(earliest_id(NOW)) == NOW
    assert earliest_id(before - timedelta(seconds=1)) < str(uuid6(clock_seq=3)) < earliest_id(NOW)
    assert made_at("no uuid") is None
    assert made_at(str(uuid4())) is None


# What stays in any case


async def test_what_is_pinned_stays_and_becomes_a_parent(house: House) -> None:
    graph, config = plain(house.history), thread()
    for turn in range(6):
        await graph.ainvoke({"heard": str(turn)}, config, durability="sync")
    before = await states(graph, config)
    early, late = list(before)[-3], list(before)[10]
    for pin in (early, late):
        await house.pins.put(Pin(config["configurable"]["thread_id"], "", pin, "here", NOW))

    await house.prune(config, max_checkpoints=2)

    after = await assert_whole(house, graph, config, before)
    newest, second, *_ = before
    assert await parents(house.history, config) == {newest: second, second: late, late: early, early: None}
    await graph.ainvoke(None, place_of(config, early), durability="sync")
    assert (await graph.aget_state(config)).values["heard"] == "0!"
    assert set(after) <= set(await states(graph, config))


async def test_a_question_that_waits_stays(house: House) -> None:
    """Also where another branch is the newest meanwhile."""

    def ask(state: Any) -> dict[str, Any]:
        return {"trail": [str(interrupt({"question": "how many?"}))]}

    graph, config = conversation(house.history, think=ask), thread()
    await graph.ainvoke(said("order"), config, durability="sync")
    asked = await graph.aget_state(config)
    assert asked.interrupts
    other = await graph.aupdate_state(config, {"trail": ["elsewhere"]}, as_node="speak")
    for turn in range(4):
        other = await graph.aupdate_state(other, {"trail": [str(turn)]}, as_node="speak")
    # A fork of its own, which leaves the question without a child but not answered.
    before = await states(graph, config)

    await house.prune(config, max_checkpoints=1)
    await assert_whole(house, graph, config, before)

    graph2, config2 = conversation(house.history, think=ask), thread()
    await graph2.ainvoke(said("order"), config2, durability="sync")
    waiting = await states(graph2, config2)
    await house.prune(config2, max_checkpoints=1)
    after = await assert_whole(house, graph2, config2, waiting)
    await graph2.ainvoke(Command(resume=3), config2, durability="sync")
    assert (await graph2.aget_state(config2)).values["trail"] == ["3", "speak"]
    assert len(after) >= 1


async def test_a_waiting_end_of_an_old_branch_stays(house: House) -> None:
    def ask(state: Any) -> dict[str, Any]:
        return {"count": int(interrupt("how many?"))} if state["heard"] == "ask" else {"count": 0}

    class Notes(TypedDict, total=False):
        heard: str
        count: int

    builder = StateGraph(Notes)
    builder.add_node("one", ask)
    builder.add_edge(START, "one")
    builder.add_edge("one", END)
    graph, config = builder.compile(checkpointer=house.history), thread()
    await graph.ainvoke({"heard": "first"}, config, durability="sync")
    base = await graph.aget_state(config)
    await graph.ainvoke({"heard": "ask"}, config, durability="sync")
    asked = await graph.aget_state(config)
    await graph.ainvoke({"heard": "other"}, base.config, durability="sync")
    before = await states(graph, config)

    await house.prune(config, max_checkpoints=1)

    after = await assert_whole(house, graph, config, before)
    assert asked.config["configurable"]["checkpoint_id"] in after
    await graph.ainvoke(Command(resume=7), asked.config, durability="sync")
    assert (await graph.aget_state(config)).values == {"heard": "ask", "count": 7}


async def test_subgraphs_go_with_the_checkpoint_they_ran_under(house: House) -> None:
    class Count(TypedDict, total=False):
        heard: str
        said: int

    inner = StateGraph(Count)
    inner.add_node("say", lambda state: {"said": state.get("said", 0) + 1})
    inner.add_edge(START, "say")
    inner.add_edge("say", END)
    outer = StateGraph(Count)
    outer.add_node("inner", inner.compile(checkpointer=True))
    outer.add_edge(START, "inner")
    outer.add_edge("inner", END)
    graph, config = outer.compile(checkpointer=house.history), thread()
    for turn in range(6):
        await graph.ainvoke({"heard": str(turn)}, config, durability="sync")
    before = await states(graph, config)
    inside = thread(config["configurable"]["thread_id"], checkpoint_ns="inner")
    inside_before = {one: saved async for one, saved in by_id(house.history, inside)}

    replayed = list(before)[1]
    expected = await graph.aget_state(place_of(config, replayed), subgraphs=True)
    await house.prune(config, max_checkpoints=4)

    await assert_whole(house, graph, config, before)
    inside_after = {one: saved async for one, saved in by_id(house.history, inside)}
    assert list(inside_after)[:1] == list(inside_before)[:1]
    assert len(inside_after) < len(inside_before)
    assert inside_after == {one: inside_before[one] for one in inside_after}
    found = await graph.aget_state(place_of(config, replayed), subgraphs=True)
    assert (found.values, found.tasks) == (expected.values, expected.tasks)


async def by_id(history: History, config: Any) -> AsyncIterator[tuple[str, Any]]:
    async for saved in history.alist(config):
        yield saved.config["configurable"]["checkpoint_id"], (saved.checkpoint, saved.metadata, saved.pending_writes)


async def test_the_live_copy_agrees_about_the_parent(house: House, redis: Any, tmp_path: Path) -> None:
    async with open_saver(history=f"sqlite:///{house.file}", live=redis.url) as saver:
        graph, config = plain(saver), thread()
        for turn in range(3):
            await graph.ainvoke({"heard": str(turn)}, config, durability="sync")
        expected = await saver.aget_tuple(config)
        hits = saver.live_hits
        await house.prune(config, max_checkpoints=1)

        found = await saver.aget_tuple(config)

    assert saver.live_hits == hits + 1
    assert expected is not None
    assert expected.parent_config is not None
    assert found == expected._replace(parent_config=None)


# Beside others


async def test_a_thread_in_use_is_left_alone(house: House) -> None:
    graph, config = plain(house.history), thread()
    for turn in range(3):
        await graph.ainvoke({"heard": str(turn)}, config, durability="sync")
    thread_id = config["configurable"]["thread_id"]
    before = await states(graph, config)
    run = Run(str(uuid4()), thread_id, "agent", str(uuid4()), "pending", {"message": "hi"}, NOW)
    await house.threads.create(Thread(thread_id, owner="me", created_at=NOW, updated_at=NOW))
    await house.runs.create(run)

    limits = Limits(max_checkpoints=1)
    assert await house.pruner.prune(thread_id, limits, now=NOW) is None
    assert await house.pruner.look(thread_id, limits, now=NOW) is None
    assert await states(graph, config) == before

    with closing(sqlite3.connect(house.file.with_name("history.db"))) as connection, connection:
        connection.execute("UPDATE runs SET status = 'success'")
    assert (await house.prune(config, max_checkpoints=1)).left == 1


@pytest.mark.parametrize("what", ["pin", "run", "checkpoint"])
async def test_what_comes_between_plan_and_removal_wins(
    house: House, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    graph, config = plain(house.history), thread()
    for turn in range(3):
        await graph.ainvoke({"heard": str(turn)}, config, durability="sync")
    thread_id = config["configurable"]["thread_id"]
    oldest = list(await states(graph, config))[-1]
    planned = house.pruner._plan

    async def then_something_comes(*arguments: Any) -> Any:
        plan = await planned(*arguments)
        if what == "pin":
            await house.pins.put(Pin(thread_id, "", oldest, None, NOW))
        elif what == "run":
            await house.runs.create(Run(str(uuid4()), thread_id, "agent", "t", "pending", {}, NOW))
        else:
            await graph.aupdate_state(place_of(config, oldest), {"heard": "fork"}, as_node="two")
        return plan

    monkeypatch.setattr(house.pruner, "_plan", then_something_comes)
    assert await house.pruner.prune(thread_id, Limits(max_checkpoints=1), now=NOW) is None
    assert oldest in await states(graph, config)


async def test_records_that_are_locked_put_it_off_and_hold_up_nobody(house: House) -> None:
    graph, config = plain(house.history), thread()
    for turn in range(3):
        await graph.ainvoke({"heard": str(turn)}, config, durability="sync")
    thread_id, limits = config["configurable"]["thread_id"], Limits(max_checkpoints=1)
    with closing(sqlite3.connect(house.file.with_name("history.db"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        pruning_now = asyncio.create_task(house.pruner.prune(thread_id, limits, now=NOW))
        async with asyncio.timeout(2):
            await graph.ainvoke({"heard": "meanwhile"}, thread(), durability="sync")
        assert await pruning_now is None
        other.execute("ROLLBACK")
    assert (await house.prune(config, max_checkpoints=1)).left == 1


async def test_it_is_broken_off_at_any_point(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each of its transactions all that is left is right."""
    monkeypatch.setattr(pruning, "ROWS", 7)
    graph, config = agent(house.history), thread()
    for turn in range(60):
        await graph.ainvoke(human(str(turn)), config, durability="sync")
    before = await states(graph, config)
    removed, seen = house.pruner._remove, 0

    async def look_after(*arguments: Any) -> Any:
        nonlocal seen
        answer = await removed(*arguments)
        seen += 1
        if seen in (1, 4):
            await assert_whole(house, graph, config, before)
        return answer

    monkeypatch.setattr(house.pruner, "_remove", look_after)
    done = await house.prune(config, max_checkpoints=5)
    assert seen >= done.checkpoints / 7 > 4


async def test_writers_go_on_while_it_works(house: House) -> None:
    """Sessions that run meanwhile lose nothing, nor does another process's pruner take what this one took."""
    graph = plain(house.history)
    configs = [thread() for _ in range(6)]
    limits = Limits(max_checkpoints=3)

    async def talk(config: Any) -> None:
        for turn in range(12):
            await graph.ainvoke({"heard": str(turn)}, config, durability="sync")

    async def sweep(pruner: HistoryPruner) -> None:
        while not all(each.done() for each in talks):
            for thread_id, _ in await pruner.crowded(limits, now=NOW, after="", count=100):
                await pruner.prune(thread_id, limits, now=NOW)

    talks = [asyncio.create_task(talk(config)) for config in configs]
    async with open_history(f"sqlite:///{house.file}") as other:
        await asyncio.gather(sweep(house.pruner), sweep(other.pruner()), *talks)
    for config in configs:
        await house.pruner.prune(config["configurable"]["thread_id"], limits, now=NOW)
        found = await graph.aget_state(config)
        assert found.values == {"heard": "11!", "count": 12}
        assert len(await states(graph, config)) == 3
    with closing(sqlite3.connect(house.file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_looking_changes_nothing(house: House) -> None:
    graph, config = plain(house.history), thread()
    for turn in range(4):
        await graph.ainvoke({"heard": str(turn)}, config, durability="sync")
    with closing(sqlite3.connect(house.file)) as connection:
        before = list(connection.iterdump())

    would = await house.pruner.look(config["configurable"]["thread_id"], Limits(max_checkpoints=2), now=NOW)

    with closing(sqlite3.connect(house.file)) as connection:
        assert list(connection.iterdump()) == before
    assert would == await house.prune(config, max_checkpoints=2)


async def test_only_threads_of_which_something_might_go_are_named(house: House) -> None:
    first, second, third = sorted(thread(checkpoint_ns="")["configurable"]["thread_id"] for _ in range(3))
    for thread_id, count, age in ((first, 3, 5), (second, 1, 50), (third, 2, 50)):
        config = thread(thread_id, checkpoint_ns="")
        for number in range(count):
            config = await put(house.history, config, NOW - timedelta(days=age) + timedelta(seconds=number))

    async def named(after: str = "", **limits: Any) -> list[tuple[str, int]]:
        return await house.pruner.crowded(Limits(**limits), now=NOW, after=after, count=2)

    assert await named(max_checkpoints=2) == [(first, 3)]
    assert await named(max_age=timedelta(days=10)) == [(third, 2)]
    assert await named(max_age=timedelta(days=10), max_checkpoints=1) == [(first, 3), (third, 2)]
    assert await named(after=first, max_checkpoints=1) == [(third, 2)]
    assert await named(max_checkpoints=9) == []
