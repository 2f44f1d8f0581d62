"""What our savers keep: LangGraph's contract, on history alone and with the live tier before it."""

from __future__ import annotations

import asyncio
import json
import math
import operator
import sqlite3
import sys
from base64 import b64decode
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, TypedDict
from uuid import UUID, uuid4

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import _messages_delta_reducer, add_messages
from langgraph.types import Command, interrupt
from redis.asyncio import Redis

from tests.contracts.conftest import Clock, RedisServer, until
from threadline.domain.errors import Conflict
from threadline.storage import open_saver
from threadline.storage.keys import live_checkpoint
from threadline.storage.tiered import TieredSaver

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")


@dataclass
class Bench:
    """A saver and what it stands on."""

    saver: TieredSaver
    file: Path
    redis: RedisServer
    clock: Clock

    def document(self, thread_id: str, ns: str = "") -> dict[str, Any] | None:
        """What Redis holds of a thread."""
        with self.redis.client() as client:
            text = client.execute_command("JSON.GET", live_checkpoint(thread_id, ns))
        return json.loads(text) if text else None

    def bytes_on_disk(self) -> bytes:
        return b"".join(path.read_bytes() for path in self.file.parent.glob(f"{self.file.name}*"))


@pytest.fixture
async def tiered(database: str, redis: RedisServer) -> AsyncIterator[Bench]:
    clock = Clock()
    async with open_saver(history=database, live=redis.url, clock=clock) as saver:
        yield Bench(saver, Path(database.removeprefix("sqlite:///")), redis, clock)


@pytest.fixture
async def breakable(database: str, own_redis: RedisServer) -> AsyncIterator[Bench]:
    """Like `tiered`, on a Redis that may be killed."""
    clock = Clock()
    async with open_saver(history=database, live=own_redis.url, clock=clock) as saver:
        yield Bench(saver, Path(database.removeprefix("sqlite:///")), own_redis, clock)


@pytest.fixture(params=["history only", "tiered"])
async def saver(request: pytest.FixtureRequest, database: str) -> AsyncIterator[TieredSaver]:
    live = request.getfixturevalue("redis").url if request.param == "tiered" else None
    async with open_saver(history=database, live=live) as opened:
        yield opened


def extend(notes: list[str], more: Sequence[list[str]]) -> list[str]:
    return [*notes, *chain.from_iterable(more)]


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    trail: Annotated[list[str], operator.add]
    notes: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=3)]
    talk: Annotated[list[AnyMessage], DeltaChannel(_messages_delta_reducer, snapshot_frequency=7)]
    value: Any


def conversation(saver: BaseCheckpointSaver[Any] | None, **nodes: Any) -> Any:
    """Two steps a turn: `think` keeps whatever the input's text is mapped to, `speak` answers."""

    def think(state: State) -> dict[str, Any]:
        return {"trail": ["think"]}

    def speak(state: State) -> dict[str, Any]:
        heard = state["messages"][-1].content
        answer = AIMessage(f"heard {heard}", id=f"ai-{len(state['messages'])}")
        talk = [HumanMessage(heard, id=f"heard-{len(state.get('talk', []))}"), answer.model_copy()]
        return {"trail": ["speak"], "notes": [f"on {heard}"], "messages": [answer], "talk": talk}

    graph = StateGraph(State)
    graph.add_node("think", nodes.get("think", think))
    graph.add_node("speak", nodes.get("speak", speak))
    graph.add_edge(START, "think")
    graph.add_edge("think", "speak")
    graph.add_edge("speak", END)
    return graph.compile(checkpointer=saver)


def thread(thread_id: str | None = None, **more: str) -> Any:
    return {"configurable": {"thread_id": thread_id or str(uuid4()), **more}}


def said(text: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(text, id=f"human-{text}")]}


async def texts(graph: Any, config: Any) -> list[str]:
    return [message.content for message in (await graph.aget_state(config)).values.get("messages", [])]


# The contract itself


@pytest.mark.parametrize("kind", ["history only", "tiered"])
async def test_conformance(kind: str, redis: RedisServer, tmp_path: Path) -> None:
    live = redis.url if kind == "tiered" else None

    @checkpointer_test(name=kind)
    async def factory() -> AsyncIterator[TieredSaver]:
        async with open_saver(history=f"sqlite:///{tmp_path}/{uuid4()}.sqlite", live=live) as opened:
            yield opened

    report = await validate(factory)
    failures = {name: result.failures for name, result in report.results.items() if result.failures}
    assert failures == {}
    assert all(result.passed for result in report.results.values()), "every capability is implemented"


async def test_a_conversation_goes_on_after_a_restart(database: str, redis: RedisServer) -> None:
    config = thread()
    async with open_saver(history=database, live=redis.url) as first:
        await conversation(first).ainvoke(said("one"), config, durability="sync")
    async with open_saver(history=database, live=redis.url) as second:
        graph = conversation(second)
        await graph.ainvoke(said("two"), config, durability="sync")
        assert await texts(graph, config) == ["one", "heard one", "two", "heard two"]


async def test_the_file_opens_with_the_stock_saver(saver: TieredSaver, database: str) -> None:
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    config = thread()
    await conversation(saver).ainvoke(said("one"), config, durability="sync")
    async with AsyncSqliteSaver.from_conn_string(database.removeprefix("sqlite:///")) as stock:
        assert await texts(conversation(stock), config) == ["one", "heard one"]


async def test_every_commit_is_synced_and_deletions_are_overwritten(tiered: Bench) -> None:
    for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("secure_delete", 1), ("busy_timeout", 5000)):

        def asked(connection: sqlite3.Connection, pragma: str = pragma) -> Any:
            return connection.execute(f"PRAGMA {pragma}").fetchone()

        assert await tiered.saver._history._writer.change(asked) == (value,), pragma


async def test_synchronous_calls_work_from_other_threads_only(saver: TieredSaver) -> None:
    config = thread()
    await conversation(saver).ainvoke(said("one"), config, durability="sync")
    with pytest.raises(asyncio.InvalidStateError, match="aget_tuple"):
        saver.get_tuple(config)
    found = await asyncio.to_thread(saver.get_tuple, config)
    assert found == await saver.aget_tuple(config)
    listed = await asyncio.to_thread(lambda: list(saver.list(config)))
    assert listed == [item async for item in saver.alist(config)]
    await asyncio.to_thread(saver.delete_thread, config["configurable"]["thread_id"])
    assert await saver.aget_tuple(config) is None


async def test_a_list_may_be_read_slowly(saver: TieredSaver) -> None:
    """Reading on while others write: the stock saver would wait for itself."""
    config = thread()
    graph = conversation(saver)
    for turn in range(40):  # over a page of checkpoints
        await graph.ainvoke(said(str(turn)), config, durability="sync")
    steps = []
    async for item in saver.alist(config):
        assert await saver.aget_tuple(item.config) is not None
        steps.append(item.metadata["step"])
    assert steps == sorted(steps, reverse=True)
    assert len(steps) == 160
    assert [item.metadata["step"] async for item in saver.alist(config, limit=130)] == steps[:130]
    assert [item async for item in saver.alist(config, limit=0)] == []


# Both tiers give the same values


class Colour(Enum):
    RED = "red"


class Planted:
    """Stands for any class an attacker would like to see built."""

    built = 0

    def __init__(self, **fields: Any) -> None:
        Planted.built += 1


def nested(depth: int) -> Any:
    value: Any = "bottom"
    for _ in range(depth):
        value = {"deeper": [value]}
    return value


VALUES: dict[str, Any] = {
    "datetime": datetime(2026, 11, 22, 18, 30, 1, 5, tzinfo=UTC),
    "date": date(2026, 11, 22),
    "timedelta": timedelta(days=1, microseconds=3),
    "uuid": UUID("6f0ff2e8-4d4c-4c9e-9c61-0f3d3f0c2a11"),
    "decimal": Decimal("3.140"),
    "path": Path("/tmp/x"),
    "integer keys": {1: "one", (2, 3): "pair"},
    "set": {1, 2},
    "deque": deque([1, 2]),
    "bytes": b"\x00\xff",
    "nothing": None,
    "infinity": math.inf,
    "Korean, zero byte": "안녕 \x00 \U0001f9f5",
    "deep": nested(100),  # two levels each
    "big integer": 2**63 + 1,
    "send": {"__send__": True, "node": "n", "arg": 1},
    "messages": [ToolMessage("x", tool_call_id="1", artifact={"a": {1: Decimal(1)}}), AIMessage("y", id="2")],
}


@pytest.mark.parametrize("name", VALUES)
async def test_values_come_back_as_they_were(tiered: Bench, name: str) -> None:
    value, config, memory = VALUES[name], thread(), InMemorySaver()
    for each in (tiered.saver, memory):
        await conversation(each).ainvoke({**said("one"), "value": value}, config, durability="sync")
    reference = (await conversation(memory).aget_state(config)).values
    assert reference["value"] == value

    hits = tiered.saver.live_hits
    live = await conversation(tiered.saver).aget_state(config)
    assert tiered.saver.live_hits == hits + 1
    history = await conversation(tiered.saver).aget_state(live.config)  # asked by id
    assert tiered.saver.live_hits == hits + 1
    for state in (live, history):
        assert state.values == reference
        assert type(state.values["value"]) is type(value)
    assert (live.metadata, live.parent_config, live.next) == (history.metadata, history.parent_config, history.next)


async def test_not_a_number_stays_one(tiered: Bench) -> None:
    config = thread()
    await conversation(tiered.saver).ainvoke({**said("one"), "value": {"x": math.nan}}, config, durability="sync")
    state = await conversation(tiered.saver).aget_state(config)
    assert math.isnan(state.values["value"]["x"])


@pytest.mark.parametrize("lc", [1, 2])
async def test_a_dict_that_looks_like_a_constructor_stays_a_dict(tiered: Bench, lc: int) -> None:
    trap = {"lc": lc, "type": "constructor", "id": [__name__, "Planted"], "kwargs": {"x": 1}}
    unimported = {"lc": lc, "type": "constructor", "id": ["this", "Zen"], "kwargs": {}}
    message = AIMessage("", tool_calls=[{"id": "1", "name": "t", "args": trap}], id="trap")
    config = thread()
    sys.modules.pop("this", None)
    await conversation(tiered.saver).ainvoke(
        {"messages": [message], "value": [trap, unimported]}, config, durability="sync"
    )
    hits = tiered.saver.live_hits
    state = await conversation(tiered.saver).aget_state(config)
    assert tiered.saver.live_hits == hits + 1
    assert state.values["value"] == [trap, unimported]
    assert state.values["messages"][0].tool_calls[0]["args"] == trap
    assert Planted.built == 0
    assert "this" not in sys.modules


async def test_unlisted_types_are_read_as_plain_data_until_a_graph_allows_them(tiered: Bench) -> None:
    """And a reader that may not build them does not spoil the live copy for one that may."""
    config = thread()
    await conversation(tiered.saver).ainvoke({**said("one"), "value": Colour.RED}, config, durability="sync")
    allowed = tiered.saver.with_allowlist([(Colour.__module__, "Colour")])
    for _ in range(2):
        assert (await tiered.saver.aget_tuple(config)).checkpoint["channel_values"]["value"] == "red"
        assert (await allowed.aget_tuple(config)).checkpoint["channel_values"]["value"] is Colour.RED
        with tiered.redis.client() as client:
            client.flushall()  # the second time round, the strict reader brings the copy back
    assert allowed.live_hits == tiered.saver.live_hits > 0
    assert tiered.saver.with_allowlist([]) is tiered.saver


async def test_what_redis_holds_is_one_opaque_string(tiered: Bench) -> None:
    config = thread()
    await conversation(tiered.saver).ainvoke(said("a secret word"), config, durability="sync")
    document = tiered.document(config["configurable"]["thread_id"])
    assert document is not None
    assert "secret" not in json.dumps(document)
    type_, data = document["checkpoint"].split(":")
    assert type_ == "msgpack"
    assert b"secret" in b64decode(data, validate=True)


@pytest.mark.parametrize(
    "damage",
    [
        ("$.checkpoint", "msgpack:AAAA"),
        ("$.checkpoint", "json:" + "e30="),
        ("$.checkpoint", "pickle:gASVAAAA"),
        ("$.checkpoint", {"lc": 2, "type": "constructor", "id": ["this", "Zen"]}),
        ("$.metadata", "not JSON"),
        ("$.thread_id", "another"),
        ("$", [1]),
    ],
)
async def test_a_damaged_live_copy_is_not_believed(tiered: Bench, damage: tuple[str, Any]) -> None:
    config = thread()
    graph = conversation(tiered.saver)
    await graph.ainvoke(said("one"), config, durability="sync")
    with tiered.redis.client() as client:
        key = live_checkpoint(config["configurable"]["thread_id"], "")
        assert client.execute_command("JSON.SET", key, damage[0], json.dumps(damage[1]))
    misses = tiered.saver.live_misses
    assert await texts(graph, config) == ["one", "heard one"]
    assert tiered.saver.live_misses == misses + 1
    assert tiered.saver.live_ok
    await texts(graph, config)
    assert tiered.saver.live_misses == misses + 1, "it was replaced"


# The live tier may be wrong, empty or away


async def test_a_live_copy_that_is_behind_is_not_used(tiered: Bench, database: str) -> None:
    """A crash between the two writes: history has turn two, Redis turn one."""
    config = thread()
    await conversation(tiered.saver).ainvoke(said("one"), config, durability="sync")
    async with open_saver(history=database, live=None) as history_only:
        await conversation(history_only).ainvoke(said("two"), config, durability="sync")
    graph = conversation(tiered.saver)
    assert await texts(graph, config) == ["one", "heard one", "two", "heard two"]
    hits = tiered.saver.live_hits
    await graph.ainvoke(said("three"), config, durability="sync")
    assert tiered.saver.live_hits > hits, "it was brought up to date"
    assert len(await texts(graph, config)) == 6


async def test_writes_that_only_history_has_are_seen(tiered: Bench, database: str) -> None:
    """A crash after a task's writes were kept: the task does not run again."""
    runs: list[str] = []

    def think(state: State) -> dict[str, Any]:
        runs.append("think")
        return {"trail": ["think"]}

    def broken(state: State) -> dict[str, Any]:
        raise RuntimeError("power cut")

    config = thread()
    with pytest.raises(RuntimeError, match="power cut"):
        await conversation(tiered.saver, think=think, speak=broken).ainvoke(said("one"), config, durability="sync")
    before = await tiered.saver.aget_tuple(config)
    async with open_saver(history=database, live=None) as history_only:
        await history_only.aput_writes(before.config, [("trail", ["kept"])], str(uuid4()))
    hits = tiered.saver.live_hits
    after = await tiered.saver.aget_tuple(config)
    assert tiered.saver.live_hits == hits + 1
    assert len(after.pending_writes) == len(before.pending_writes) + 1
    await conversation(tiered.saver, think=think).ainvoke(None, config, durability="sync")
    assert runs == ["think"]


async def test_an_expired_session_comes_back_unnoticed(database: str, redis: RedisServer) -> None:
    config = thread()
    key = live_checkpoint(config["configurable"]["thread_id"], "")
    async with open_saver(history=database, live=redis.url, ttl=50) as saver:
        graph = conversation(saver)
        await graph.ainvoke(said("one"), config, durability="sync")
        with redis.client() as client:
            assert 48 <= client.ttl(key) <= 50
            client.expire(key, 5)
            await saver.aget_tuple(config)
            assert 48 <= client.ttl(key) <= 50, "reading renews the lease"
            client.expire(key, 5)
            await graph.ainvoke(said("two"), config, durability="sync")
            assert 48 <= client.ttl(key) <= 50, "so does writing"
            client.pexpire(key, 1)
            until(lambda: not client.exists(key), "the lease to run out")
        await graph.ainvoke(said("three"), config, durability="sync")
        assert len(await texts(graph, config)) == 6
        with redis.client() as client:
            assert client.exists(key), "the session is live again"


async def test_a_wiped_redis_is_filled_again(tiered: Bench) -> None:
    config = thread()
    graph = conversation(tiered.saver)
    await graph.ainvoke(said("one"), config, durability="sync")
    with tiered.redis.client() as client:
        client.flushall()
        for index in client.execute_command("FT._LIST"):
            client.execute_command("FT.DROPINDEX", index)
    await graph.ainvoke(said("two"), config, durability="sync")
    assert await texts(graph, config) == ["one", "heard one", "two", "heard two"]
    assert tiered.saver.live_ok
    assert tiered.document(config["configurable"]["thread_id"]) is not None


async def test_a_run_survives_the_death_of_redis(breakable: Bench) -> None:
    def speak(state: State) -> dict[str, Any]:
        breakable.redis.kill()
        return {"trail": ["speak"], "messages": [AIMessage("still here", id="ai")]}

    config = thread()
    assert breakable.saver.live_ok
    result = await conversation(breakable.saver, speak=speak).ainvoke(said("one"), config, durability="sync")
    assert [message.content for message in result["messages"]] == ["one", "still here"]
    assert not breakable.saver.live_ok
    graph = conversation(breakable.saver)
    await graph.ainvoke(said("two"), config, durability="sync")
    assert len(await texts(graph, config)) == 4


async def test_redis_comes_back_by_itself(breakable: Bench) -> None:
    config = thread()
    graph = conversation(breakable.saver)
    await graph.ainvoke(said("one"), config, durability="sync")
    breakable.redis.kill()
    await graph.ainvoke(said("two"), config, durability="sync")
    assert not breakable.saver.live_ok

    breakable.redis.start()
    await graph.ainvoke(said("three"), config, durability="sync")
    assert not breakable.saver.live_ok, "it is not asked again before the pause is over"
    breakable.clock.now += 10
    assert await texts(graph, config) == ["one", "heard one", "two", "heard two", "three", "heard three"]
    assert breakable.saver.live_ok
    hits = breakable.saver.live_hits
    assert len(await texts(graph, config)) == 6
    assert breakable.saver.live_hits == hits + 1


async def test_a_stale_copy_in_a_redis_that_hung_is_not_served(breakable: Bench) -> None:
    """Redis kept turn one while it was away. Its late answers reach nobody."""
    config, other = thread(), thread()
    graph = conversation(breakable.saver)
    await graph.ainvoke(said("one"), config, durability="sync")
    await graph.ainvoke(said("another session"), other, durability="sync")

    breakable.redis.freeze()
    started = asyncio.get_running_loop().time()
    await asyncio.gather(*(graph.aget_state(config) for _ in range(100)))
    await graph.ainvoke(said("two"), config, durability="sync")
    assert asyncio.get_running_loop().time() - started < 5, "not one timeout for every call"
    assert not breakable.saver.live_ok

    breakable.redis.thaw()
    breakable.clock.now += 10
    for _ in range(3):
        assert await texts(graph, config) == ["one", "heard one", "two", "heard two"]
        assert await texts(graph, other) == ["another session", "heard another session"]
    assert breakable.saver.live_ok


async def test_it_opens_without_a_redis(database: str, tmp_path: Path) -> None:
    async with open_saver(history=database, live=f"unix://{tmp_path}/nobody.sock") as saver:
        assert not saver.live_ok
        config = thread()
        await conversation(saver).ainvoke(said("one"), config, durability="sync")
        assert await texts(conversation(saver), config) == ["one", "heard one"]


async def test_a_client_handed_in_is_used_and_left_open(database: str, redis: RedisServer) -> None:
    async with Redis.from_url(redis.url, decode_responses=True) as client:
        async with open_saver(history=database, live=client) as saver:
            config = thread()
            await conversation(saver).ainvoke(said("one"), config, durability="sync")
            hits = saver.live_hits
            assert await texts(conversation(saver), config) == ["one", "heard one"]
            assert saver.live_hits == hits + 1
        assert await client.ping()


@pytest.mark.parametrize("pool", ["ours", "the client's own"])
async def test_a_hundred_sessions_at_once(database: str, redis: RedisServer, pool: str) -> None:
    async with AsyncExitStack() as stack:
        live = redis.url if pool == "ours" else await stack.enter_async_context(Redis.from_url(redis.url))
        saver = await stack.enter_async_context(open_saver(history=database, live=live))
        graph = conversation(saver)
        configs = [thread() for _ in range(100)]
        for text in ("one", "two"):
            await asyncio.gather(*(graph.ainvoke(said(text), config, durability="sync") for config in configs))
        assert saver.live_ok
        assert saver.live_misses == 0
        found = await asyncio.gather(*(texts(graph, config) for config in configs))
        assert found == [["one", "heard one", "two", "heard two"]] * 100


async def test_cancelled_runs_leave_a_saver_that_works(tiered: Bench) -> None:
    """Wherever the cancellation strikes, between the tiers or within one, the thread goes on from what was kept."""
    graph, configs = conversation(tiered.saver), [thread() for _ in range(30)]
    runs = [asyncio.create_task(graph.ainvoke(said("one"), config, durability="sync")) for config in configs]
    for run in runs:
        await asyncio.wait(runs, return_when=asyncio.FIRST_COMPLETED, timeout=0.005)
        run.cancel()
    await asyncio.wait(runs)
    assert any(run.cancelled() for run in runs)
    for config in configs:
        await graph.ainvoke(said("two"), config, durability="sync")
        assert (await texts(graph, config))[-2:] == ["two", "heard two"]
    assert tiered.saver.live_ok


# What graphs do with it


def asks(state: State) -> dict[str, Any]:
    first = interrupt({"question": "first?"})
    second = interrupt({"question": "second?"})
    return {"trail": [f"{first}, {second}"]}


async def test_an_interrupt_waits_and_is_resumed(saver: TieredSaver) -> None:
    config = thread()
    graph = conversation(saver, think=asks)
    await graph.ainvoke(said("one"), config, durability="sync")
    assert [i.value for i in (await graph.aget_state(config)).interrupts] == [{"question": "first?"}]
    await graph.ainvoke(Command(resume="yes"), config, durability="sync")
    assert [i.value for i in (await graph.aget_state(config)).interrupts] == [{"question": "second?"}]
    await graph.ainvoke(Command(resume="no"), config, durability="sync")
    state = await graph.aget_state(config)
    assert state.values["trail"] == ["yes, no", "speak"]
    assert state.interrupts == ()


async def test_an_interrupt_waits_through_an_outage(breakable: Bench) -> None:
    """The answer to the first question is kept while Redis is away, and what Redis knew before does not undo it."""
    config = thread()
    graph = conversation(breakable.saver, think=asks)
    await graph.ainvoke(said("one"), config, durability="sync")
    breakable.redis.freeze()
    await graph.ainvoke(Command(resume="yes"), config, durability="sync")
    breakable.redis.thaw()
    breakable.clock.now += 10
    await graph.ainvoke(Command(resume="no"), config, durability="sync")
    assert (await graph.aget_state(config)).values["trail"] == ["yes, no", "speak"]
    assert breakable.saver.live_ok


async def test_a_fork_from_an_old_checkpoint_becomes_the_newest(saver: TieredSaver) -> None:
    config = thread()
    graph = conversation(saver)
    for text in ("one", "two"):
        await graph.ainvoke(said(text), config, durability="sync")
    history = [state async for state in graph.aget_state_history(config)]
    after_one = next(state for state in history if state.next == () and len(state.values["messages"]) == 2)

    assert len((await graph.aget_state(after_one.config)).values["messages"]) == 2
    await graph.ainvoke(said("other"), after_one.config, durability="sync")
    assert await texts(graph, config) == ["one", "heard one", "other", "heard other"]

    edited = await graph.aupdate_state(after_one.config, {"trail": ["edited"]})
    state = await graph.aget_state(config)
    assert state.config["configurable"]["checkpoint_id"] == edited["configurable"]["checkpoint_id"]
    assert state.values["trail"][-1] == "edited"
    newest = [item async for item in saver.alist(config, limit=1)]
    assert newest[0].config == state.config


async def test_subgraphs_keep_their_own_checkpoints(saver: TieredSaver) -> None:
    child = StateGraph(State)
    child.add_node("ask", asks)
    child.add_edge(START, "ask")
    parent = StateGraph(State)
    parent.add_node("child", child.compile())
    parent.add_edge(START, "child")
    graph = parent.compile(checkpointer=saver)
    config = thread()
    await graph.ainvoke(said("one"), config, durability="sync")
    state = await graph.aget_state(config, subgraphs=True)
    inner = state.tasks[0].state
    assert inner.config["configurable"]["checkpoint_ns"].startswith("child:")
    assert inner.next == ("ask",)
    await graph.ainvoke(Command(resume="yes"), config, durability="sync")
    await graph.ainvoke(Command(resume="no"), config, durability="sync")
    assert (await graph.aget_state(config)).values["trail"] == ["yes, no"]


# Deleting and copying


async def test_a_deleted_thread_leaves_nothing(tiered: Bench) -> None:
    child = StateGraph(State)
    child.add_node("ask", asks)
    child.add_edge(START, "ask")
    parent = StateGraph(State)
    parent.add_node("child", child.compile())
    parent.add_edge(START, "child")
    graph = parent.compile(checkpointer=tiered.saver)
    config, kept = thread(), thread()
    for each in (config, kept):
        await graph.ainvoke(said("mellifluous " * 2000), each, durability="sync")
    await conversation(tiered.saver).ainvoke(said("inaniloquent " * 2000), config, durability="sync")
    with tiered.redis.client() as client:
        assert len(list(client.scan_iter(f"*{config['configurable']['thread_id']}*"))) == 2, "its own and the child's"
    assert b"inaniloquent" in tiered.bytes_on_disk()

    await tiered.saver.adelete_thread(config["configurable"]["thread_id"])

    with tiered.redis.client() as client:
        assert list(client.scan_iter(f"*{config['configurable']['thread_id']}*")) == []
        assert len(list(client.scan_iter(f"*{kept['configurable']['thread_id']}*"))) == 2
    assert await tiered.saver.aget_tuple(config) is None
    assert [item async for item in tiered.saver.alist(config)] == []
    assert config["configurable"]["thread_id"].encode() not in tiered.bytes_on_disk()
    assert b"inaniloquent" not in tiered.bytes_on_disk()
    assert (await graph.aget_state(kept)).next == ("child",)


async def test_what_is_deleted_while_redis_is_away_is_dropped_when_it_is_back(breakable: Bench) -> None:
    config = thread()
    await conversation(breakable.saver).ainvoke(said("one"), config, durability="sync")
    with breakable.redis.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "-unlink")
        await breakable.saver.adelete_thread(config["configurable"]["thread_id"])
        client.execute_command("ACL", "SETUSER", "default", "+unlink")
    assert not breakable.saver.live_ok
    assert breakable.document(config["configurable"]["thread_id"]) is not None
    assert await breakable.saver.aget_tuple(config) is None, "what is only in Redis does not exist"
    breakable.clock.now += 10
    assert await breakable.saver.check_live()
    assert breakable.document(config["configurable"]["thread_id"]) is None


async def test_deleting_a_run_that_wrote_the_newest_checkpoint(tiered: Bench) -> None:
    config = thread()
    graph = conversation(tiered.saver)
    await graph.ainvoke(said("one"), {**config, "metadata": {"run_id": "run-1"}}, durability="sync")
    await graph.ainvoke(said("two"), {**config, "metadata": {"run_id": "run-2"}}, durability="sync")
    await tiered.saver.adelete_for_runs(["run-2"])
    assert await texts(graph, config) == ["one", "heard one"]


async def test_a_copy_goes_its_own_way(saver: TieredSaver) -> None:
    config, copied = thread(), thread()
    graph = conversation(saver, think=asks)
    await graph.ainvoke(said("one"), config, durability="sync")
    await saver.acopy_thread(config["configurable"]["thread_id"], copied["configurable"]["thread_id"])
    for text in ("yes", "no"):
        await graph.ainvoke(Command(resume=text), copied, durability="sync")
    assert (await graph.aget_state(copied)).values["trail"] == ["yes, no", "speak"]
    assert (await graph.aget_state(config)).values["trail"] == []
    with pytest.raises(Conflict):
        await saver.acopy_thread(config["configurable"]["thread_id"], copied["configurable"]["thread_id"])


async def test_a_line_is_copied_without_what_is_beside_it(saver: TieredSaver, database: str) -> None:
    config, copied = thread(), thread()
    inner = conversation(None, think=asks)
    graph = conversation(saver, think=inner)
    await graph.ainvoke(said("one"), config, durability="sync")
    await graph.ainvoke(Command(resume="yes"), config, durability="sync")
    first = await graph.aget_state(config)
    await graph.ainvoke(said("two"), config, durability="sync")
    line, place = [], first
    while True:
        line.append(place.config["configurable"]["checkpoint_id"])
        if place.parent_config is None:
            break
        place = await graph.aget_state(place.parent_config)

    await saver.lines().copy_line(config["configurable"]["thread_id"], copied["configurable"]["thread_id"], line)

    there = await graph.aget_state(copied)
    assert there.values == first.values
    assert [s.config["configurable"]["checkpoint_id"] async for s in graph.aget_state_history(copied)] == line
    with sqlite3.connect(database.removeprefix("sqlite:///")) as file:
        below = "SELECT count(*) FROM checkpoints WHERE thread_id = ? AND checkpoint_ns != ''"
        of = [file.execute(below, (one["configurable"]["thread_id"],)).fetchone()[0] for one in (config, copied)]
    assert 0 < of[1] < of[0], "subgraphs come along, those of other steps do not"
    await graph.ainvoke(said("three"), copied, durability="sync")
    assert await texts(graph, copied) == [*(message.content for message in first.values["messages"]), "three"]
    with pytest.raises(Conflict):
        await saver.lines().copy_line(config["configurable"]["thread_id"], copied["configurable"]["thread_id"], line)


async def test_sqlite_answers_are_what_sqlite_holds(tiered: Bench) -> None:
    """The newest checkpoint is the one with the greatest id, for us as for anyone who opens the file."""
    config = thread()
    await conversation(tiered.saver).ainvoke(said("one"), config, durability="sync")
    with sqlite3.connect(tiered.file) as file:
        (newest,) = file.execute("SELECT max(checkpoint_id) FROM checkpoints").fetchone()
    found = await tiered.saver.aget_tuple(config)
    assert found.config["configurable"]["checkpoint_id"] == newest
