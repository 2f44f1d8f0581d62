"""What a checkpoint may build: standard types and those allowed. All else is data, whoever wrote it and wherever."""

from __future__ import annotations

import dataclasses
import importlib
import json
import operator
import os
import pickle
import sqlite3
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypedDict
from uuid import uuid4

import ormsgpack
import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import _messages_delta_reducer
from langgraph.types import Command, interrupt
from pydantic import BaseModel, SecretStr

from tests.contracts.conftest import RedisServer
from tests.contracts.test_savers import thread
from threadline.domain.errors import Unavailable
from threadline.storage import open_saver
from threadline.storage.keys import live_checkpoint

# Types of one's own


class Colour(Enum):
    RED = "red"


class Seat(BaseModel):
    row: int
    colour: Colour = Colour.RED
    key: SecretStr = SecretStr("secret")


@dataclasses.dataclass
class Table:
    seats: list[Seat]


class Point(NamedTuple):
    x: int


class State(TypedDict):
    seat: Seat
    table: Table
    point: Point
    colours: Annotated[list[Colour], operator.add]
    secret: SecretStr
    value: Any
    talk: Annotated[list[AnyMessage], DeltaChannel(_messages_delta_reducer, snapshot_frequency=3)]


OWN = {
    "seat": Seat(row=1),
    "table": Table([Seat(row=2)]),
    "point": Point(3),
    "colours": [Colour.RED],
    "secret": SecretStr("secret"),
}


def booking(saver: Any, *nodes: Callable[[State], Any]) -> Any:
    graph = StateGraph(State)
    before = START
    for number, node in enumerate(nodes or (lambda state: {"value": "done"},)):
        graph.add_node(str(number), node)
        graph.add_edge(before, str(number))
        before = str(number)
    graph.add_edge(before, END)
    return graph.compile(checkpointer=saver)


@pytest.fixture(params=["history only", "tiered"])
def live(request: pytest.FixtureRequest) -> str | None:
    return request.getfixturevalue("redis").url if request.param == "tiered" else None


@pytest.mark.parametrize("allow", [[State], [Seat, Table, Point, SecretStr], [f"{__name__}:State"]], ids=str)
async def test_allowed_types_come_back_as_they_were(database: str, live: str | None, allow: list[Any]) -> None:
    def ask(state: State) -> dict[str, Any]:
        return {"value": interrupt(Table([Seat(row=9)])), "point": Point(4)}

    config = thread()
    async with open_saver(history=database, live=live, allow=allow) as saver:
        await booking(saver, ask).ainvoke(OWN, config, durability="sync")
    async with open_saver(history=database, live=live, allow=allow) as saver:
        graph = booking(saver, ask)
        state = await graph.aget_state(config)
        assert {name: state.values[name] for name in OWN} == OWN
        assert type(state.values["point"]) is Point
        assert state.interrupts[0].value == Table([Seat(row=9)])
        if live:
            assert saver.live_hits
        await graph.ainvoke(Command(resume=Colour.RED), config, durability="sync")
        async for state in graph.aget_state_history(config):
            for name, value in state.values.items():
                expected = {**OWN, "value": Colour.RED, "talk": []}[name]
                assert value in (expected, Point(4), []), "from history, by id"


async def test_what_is_not_allowed_is_read_as_its_plain_data(database: str, live: str | None) -> None:
    config = thread()
    async with open_saver(history=database, live=live) as saver:
        graph = booking(saver)
        await graph.ainvoke(OWN, config, durability="sync")
        values = (await graph.aget_state(config)).values
    seat = {"row": 1, "colour": "red", "key": "secret"}
    assert values["seat"] == seat
    assert values["table"] == {"seats": [{**seat, "row": 2}]}
    assert (values["point"], values["colours"], values["secret"]) == ({"x": 3}, ["red"], "secret")


async def test_a_saver_may_read_what_another_wrote_under_another_list(database: str, live: str | None) -> None:
    config = thread()
    async with open_saver(history=database, live=live) as saver:
        await booking(saver).ainvoke(OWN, config, durability="sync")
    async with open_saver(history=database, live=live, allow=[State]) as saver:
        assert (await booking(saver).aget_state(config)).values["seat"] == OWN["seat"]


async def test_langgraph_in_its_strict_mode_allows_what_a_graph_holds(database: str, redis: RedisServer) -> None:
    """It asks `with_allowlist` for a saver at compile time; so nothing has to be listed."""
    code = f"""
import asyncio
from threadline.storage import open_saver
from tests.contracts.test_own_types import OWN, booking

async def main():
    config = {{"configurable": {{"thread_id": "t"}}}}
    async with open_saver(history={database!r}, live={redis.url!r}) as saver:
        graph = booking(saver)
        await graph.ainvoke(OWN, config, durability="sync")
        state = await graph.aget_state(config)
        assert saver.live_hits, "the clone counts for all"
        assert {{name: state.values[name] for name in OWN if name not in ("point", "secret")}} == {{
            name: value for name, value in OWN.items() if name not in ("point", "secret")
        }}, state.values
        assert (await saver.aget_tuple(config)).checkpoint["channel_values"]["colours"] == ["red"]

asyncio.run(main())
"""
    environment = {**os.environ, "LANGGRAPH_STRICT_MSGPACK": "true"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


async def test_readers_with_other_lists_share_no_rebuilt_conversation(database: str) -> None:
    async with open_saver(history=database, live=None) as strict:
        allowing = strict.with_allowlist([(__name__, "Colour")])
        again = strict.with_allowlist([(__name__, "Colour")])
        config = thread()
        for number in range(4):
            said = [HumanMessage(f"{number}"), ToolMessage("x", tool_call_id="1", artifact=Colour.RED)]
            await booking(allowing).ainvoke({"talk": said}, config, durability="sync")
        newest = (await strict.aget_tuple(config)).config
        for _ in range(2):
            for saver, expected in ((strict, "red"), (allowing, Colour.RED), (again, Colour.RED)):
                found = await saver.aget_delta_channel_history(config=newest, channels=["talk"])
                state = (await booking(saver).aget_state(config)).values["talk"]
                seed = found["talk"].get("seed", [])
                told = [*getattr(seed, "value", seed), *(m for _, _, ms in found["talk"]["writes"] for m in ms)]
                assert [message.artifact for message in told if message.type == "tool"] == [expected] * 4
                assert [message.artifact for message in state if message.type == "tool"] == [expected] * 4
        kept = strict._history._cache._known[config["configurable"]["thread_id"], ""]
        assert kept.allowed == again.serde.allowed, "what is kept says whose it is"


# What builds nothing


class Canary:
    """A module that leaves a trace when it is imported, with classes that leave one when they are built."""

    def __init__(self, folder: Path) -> None:
        self.module = f"canary_{uuid4().hex}"
        self._trace = folder / "trace"
        (folder / f"{self.module}.py").write_text(CANARY.format(trace=str(self._trace)))

    @property
    def traces(self) -> list[str]:
        return self._trace.read_text().split() if self._trace.exists() else []

    def forget(self) -> None:
        self._trace.unlink(missing_ok=True)


CANARY = """
from collections import namedtuple
from dataclasses import dataclass
from enum import Enum
from pydantic import BaseModel

def trace(what):
    with open({trace!r}, "a") as file:
        file.write(what + "\\n")

trace("imported")

class Plain:
    def __init__(self, *args, **kwargs):
        trace("built")
    build = construct = model_construct = model_validate_json = classmethod(lambda cls, *args, **kwargs: trace("built"))
    def __reduce__(self):
        return trace, ("unpickled",)

class Model(BaseModel):
    x: int
    def model_post_init(self, context):
        trace("built")

@dataclass
class Data:
    x: int
    def __post_init__(self):
        trace("built")

class Choice(Enum):
    A = 1
    @classmethod
    def _missing_(cls, value):
        trace("built")

class Pair(namedtuple("Pair", "x y")):
    def __new__(cls, *args, **kwargs):
        trace("built")
        return super().__new__(cls, *args, **kwargs)
"""


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Canary]:
    """At the end it must still be silent and not imported."""
    folder = tmp_path / "canary"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    bird = Canary(folder)
    yield bird
    assert bird.traces == []
    assert bird.module not in sys.modules


def test_the_canary_sings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LangGraph's serializer, as it comes, does build it: so a silent canary means something."""
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

    monkeypatch.syspath_prepend(str(tmp_path))
    bird = Canary(tmp_path)
    built = JsonPlusSerializer(allowed_msgpack_modules=True).loads_typed(
        ("msgpack", ormsgpack.packb(ext(2, bird.module, "Plain", {"x": 1})))
    )
    assert type(built).__name__ == "Plain"
    assert bird.traces == ["imported", "built"]


def ext(code: int, *parts: Any) -> ormsgpack.Ext:
    return ormsgpack.Ext(code, ormsgpack.packb(parts))


FORGED: dict[str, Callable[[str], Any]] = {
    "one argument": lambda m: ext(0, m, "Plain", 1),
    "arguments": lambda m: ext(1, m, "Plain", [1]),
    "keywords": lambda m: ext(2, m, "Plain", {"x": 1}),
    "method": lambda m: ext(3, m, "Plain", 1, "build"),
    "pydantic 1": lambda m: ext(4, m, "Plain", {"x": 1}),
    "pydantic 2": lambda m: ext(5, m, "Plain", {"x": 1}, "model_validate_json"),
    "enum": lambda m: ext(0, m, "Choice", 2),
    "dataclass": lambda m: ext(2, m, "Data", {"x": 1}),
    "named tuple": lambda m: ext(2, m, "Pair", {"x": 1, "y": 2}),
    "delta snapshot": lambda m: ormsgpack.Ext(7, ormsgpack.packb([ext(2, m, "Plain", {"x": 1})])),
    "unknown code": lambda m: ext(8, m, "Plain", {"x": 1}),
    "last code": lambda m: ext(127, m, "Plain", {"x": 1}),
    "within a message": lambda m: ext(
        5,
        "langchain_core.messages.human",
        "HumanMessage",
        {"content": "x", "additional_kwargs": {"x": ext(2, m, "Plain", {"x": 1})}},
        "model_validate_json",
    ),
    "within a set": lambda m: ext(0, "builtins", "set", [ext(0, m, "Choice", 2)]),
    "within a send": lambda m: ext(1, "langgraph.types", "Send", ["n", ext(0, m, "Plain", 2)]),
    "in a key": lambda m: {("x", 1): ext(0, m, "Plain", 2)},
    "import by a function": lambda m: ext(0, "importlib", "import_module", m),
    "eval": lambda m: ext(0, "builtins", "eval", f"__import__({m!r})"),
    "dunder": lambda m: ext(0, "builtins", "__import__", m),
    "method of an allowed type": lambda m: ext(3, "pathlib", "Path", m, "touch"),
    "deeper name": lambda m: ext(0, "pathlib", "os.system", "true"),
    "module as a list": lambda m: ext(0, [m], "Plain", 1),
    "too few parts": lambda m: ext(2, m),
    "a mapping for parts": lambda m: ormsgpack.Ext(2, ormsgpack.packb({"module": m})),
    "numpy objects": lambda m: ext(6, "|O", [1], "C", b"\x00" * 8),
    "numpy, an odd type": lambda m: ext(6, m, [1], "C", b""),
}


def checkpoint_bytes(value: Any) -> tuple[str, bytes]:
    """A checkpoint of the graph `booking` with this packed value."""
    checkpoint = {
        **empty_checkpoint(),
        "channel_values": {"value": value, "talk": []},
        "channel_versions": {"value": "1", "talk": "1"},
    }
    return checkpoint["id"], ormsgpack.packb(checkpoint, option=ormsgpack.OPT_NON_STR_KEYS)


def plant(
    file: Path, checkpoint_id: str, stored: bytes, *, type_: str = "msgpack", metadata: bytes = b'{"step": 1}'
) -> Any:
    """A row as it would be after somebody else wrote to the file. The thread it belongs to."""
    thread_id = str(uuid4())
    with closing(sqlite3.connect(file)) as connection, connection:
        row = (thread_id, "", checkpoint_id, None, type_, stored, metadata)
        connection.execute("INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    return thread(thread_id)


def plant_write(file: Path, config: Any, checkpoint_id: str, stored: bytes, *, type_: str, channel: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        row = (config["configurable"]["thread_id"], "", checkpoint_id, "task", "", 0, channel, type_, stored)
        connection.execute("INSERT INTO writes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)


async def read_in_every_way(saver: Any, config: Any) -> None:
    graph = booking(saver)
    found = await saver.aget_tuple(config)
    assert await saver.aget_tuple(found.config) is not None
    assert [item async for item in saver.alist(config)]
    assert [item async for item in saver.alist(config, filter={"step": 1})]
    await saver.aget_delta_channel_history(config=found.config, channels=["value", "talk"])
    assert (await graph.aget_state(config)).values["talk"] == []
    assert [state async for state in graph.aget_state_history(config)]
    copy = str(uuid4())
    await saver.acopy_thread(config["configurable"]["thread_id"], copy)
    await saver.aprune([config["configurable"]["thread_id"]])
    assert (await graph.ainvoke({"colours": []}, thread(copy), durability="sync"))["value"] == "done"


@pytest.mark.parametrize("name", FORGED)
async def test_nothing_that_is_planted_is_built(database: str, redis: RedisServer, canary: Canary, name: str) -> None:
    forged = FORGED[name](canary.module)
    file = Path(database.removeprefix("sqlite:///"))
    async with open_saver(history=database, live=redis.url) as saver:
        # In a checkpoint
        config = plant(file, *checkpoint_bytes(forged))
        await read_in_every_way(saver, config)
        # In a write, of a step and of a delta channel
        checkpoint_id, stored = checkpoint_bytes(None)
        config = plant(file, checkpoint_id, stored)
        packed = ormsgpack.packb([forged], option=ormsgpack.OPT_NON_STR_KEYS)
        plant_write(file, config, checkpoint_id, packed, type_="msgpack", channel="value")
        await read_in_every_way(saver, config)
        # In Redis alone
        checkpoint_id, stored = checkpoint_bytes(None)
        config = plant(file, checkpoint_id, stored)
        _, forged_bytes = checkpoint_bytes(forged)
        forged_bytes = forged_bytes.replace(_.encode(), checkpoint_id.encode())
        plant_live(redis, config, checkpoint_id, f"msgpack:{b64encode(forged_bytes).decode()}")
        hits = saver.live_hits
        await saver.aget_tuple(config)
        assert saver.live_hits == hits + 1
        await booking(saver).aget_state(config)


def plant_live(redis: RedisServer, config: Any, checkpoint_id: str, sealed: Any, metadata: str = "{}") -> None:
    thread_id = config["configurable"]["thread_id"]
    document = {
        "thread_id": thread_id,
        "checkpoint_ns": "",
        "checkpoint_id": checkpoint_id,
        "parent_checkpoint_id": None,
        "checkpoint": sealed,
        "metadata": metadata,
    }
    with redis.client() as client:
        client.execute_command("JSON.SET", live_checkpoint(thread_id, ""), "$", json.dumps(document))
        client.expire(live_checkpoint(thread_id, ""), 60)


OLD: dict[str, Callable[[str], Any]] = {
    "keywords": lambda m: {"lc": 2, "type": "constructor", "id": [m, "Plain"], "kwargs": {"x": 1}},
    "arguments": lambda m: {"lc": 2, "type": "constructor", "id": [m, "Plain"], "args": [1]},
    "nothing": lambda m: {"lc": 2, "type": "constructor", "id": [m, "Plain"]},
    "method": lambda m: {"lc": 2, "type": "constructor", "id": [m, "Plain"], "method": "build", "args": [1]},
    "methods": lambda m: {"lc": 2, "type": "constructor", "id": [m, "Plain"], "method": [None, "construct"]},
    "of LangChain": lambda m: {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain_core", "prompts", "prompt", "PromptTemplate"],
        "kwargs": {"template": "x", "input_variables": []},
    },
    "serializable": lambda m: {"lc": 1, "type": "constructor", "id": [m, "Plain"], "kwargs": {}},
    "secret": lambda m: {"lc": 1, "type": "secret", "id": ["PATH"]},
    "unknown": lambda m: {"lc": 1, "type": "not_implemented", "id": [m, "Plain"], "repr": "x"},
    "eval": lambda m: {"lc": 2, "type": "constructor", "id": ["builtins", "eval"], "args": [f"__import__({m!r})"]},
    "id of one": lambda m: {"lc": 2, "type": "constructor", "id": [m], "args": [1]},
    "no id": lambda m: {"lc": 2, "type": "constructor", "id": 5, "args": [1]},
    "odd id": lambda m: {"lc": 2, "type": "constructor", "id": [{"a": 1}, 5], "args": [1]},
}


@pytest.mark.parametrize("name", OLD)
async def test_the_old_form_builds_no_more(database: str, canary: Canary, name: str, redis: RedisServer) -> None:
    """JSON, as LangGraph once wrote it; in metadata it has always been data."""
    forged = OLD[name](canary.module)
    file = Path(database.removeprefix("sqlite:///"))
    async with open_saver(history=database, live=redis.url) as saver:
        checkpoint = {**empty_checkpoint(), "channel_values": {"value": forged, "talk": []}}
        checkpoint["channel_versions"] = {"value": "1", "talk": "1"}
        metadata = json.dumps({"step": 1, "writes": forged}).encode()
        config = plant(file, checkpoint["id"], json.dumps(checkpoint).encode(), type_="json", metadata=metadata)
        plant_write(file, config, checkpoint["id"], json.dumps(forged).encode(), type_="json", channel="value")
        found = await saver.aget_tuple(config)
        assert found.metadata["writes"] == forged
        plain = (forged, forged.get("args", []), forged.get("kwargs"), 1)
        assert found.checkpoint["channel_values"]["value"] in plain
        await read_in_every_way(saver, config)
        plant_live(redis, config, checkpoint["id"], f"json:{b64encode(json.dumps(checkpoint).encode()).decode()}")
        await saver.aget_tuple(config)
        plant_live(redis, config, checkpoint["id"], forged, metadata=json.dumps(forged))
        await saver.aget_tuple(config)


async def test_messages_and_dates_of_the_old_form_are_read(database: str) -> None:
    values = {
        "value": [
            {"lc": 2, "type": "constructor", "id": ["datetime", "datetime"], "method": "fromisoformat", "args": [NOON]},
            {"lc": 2, "type": "constructor", "id": ["pathlib", "Path"], "args": ["a", "b"]},
            {"lc": 2, "type": "constructor", "id": [__name__, "Seat"], "kwargs": {"row": 1}},
        ],
        "talk": [
            {
                "lc": 1,
                "type": "constructor",
                "id": ["langchain", "schema", "messages", "AIMessage"],
                "kwargs": {"content": "hello", "id": "1"},
            }
        ],
    }
    checkpoint = {**empty_checkpoint(), "channel_values": values}
    async with open_saver(history=database, live=None, allow=[Seat]) as saver:
        file = Path(database.removeprefix("sqlite:///"))
        config = plant(file, checkpoint["id"], json.dumps(checkpoint).encode(), type_="json")
        read = (await saver.aget_tuple(config)).checkpoint["channel_values"]
    assert read["value"] == [datetime.fromisoformat(NOON), Path("a/b"), Seat(row=1)]
    assert read["talk"] == [AIMessage("hello", id="1")]


NOON = "2024-05-01T12:00:00+00:00"


@pytest.mark.parametrize("type_", ["pickle", "cloudpickle", "", "msgpack", "json"])
async def test_pickle_and_what_is_damaged_is_refused(database: str, canary: Canary, type_: str) -> None:
    stored = pickle.dumps(Planted(canary.module)) if "pickle" in type_ else b"\xc1\xff"
    file = Path(database.removeprefix("sqlite:///"))
    async with open_saver(history=database, live=None) as saver:
        config = plant(file, empty_checkpoint()["id"], stored, type_=type_)
        checkpoint_id, good = checkpoint_bytes(None)
        written = plant(file, checkpoint_id, good)
        plant_write(file, written, checkpoint_id, stored, type_=type_, channel="value")
        for place in (config, written):
            with pytest.raises(Unavailable):
                await saver.aget_tuple(place)
            with pytest.raises(Unavailable):
                [item async for item in saver.alist(place)]
        damaged = plant(file, checkpoint_id, good, metadata=b"{")
        with pytest.raises(Unavailable):
            await saver.aget_tuple(damaged)


class Planted:
    """Pickles as a call of the import function."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __reduce__(self) -> Any:
        return importlib.import_module, (self._module,)


STOCK = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
import {module} as canary
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from tests.contracts.test_own_types import State

def ask(state):
    return {{"value": [interrupt(canary.Data(3))]}}

async def main():
    async with AsyncSqliteSaver.from_conn_string(sys.argv[2]) as saver:
        graph = StateGraph(State).add_node("ask", ask).add_edge(START, "ask").add_edge("ask", END)
        values = [canary.Model(x=1), canary.Data(2), canary.Choice.A, canary.Pair(1, 2)]
        config = {{"configurable": {{"thread_id": "t"}}}}
        await graph.compile(checkpointer=saver).ainvoke({{"value": values, "talk": []}}, config, durability="sync")

asyncio.run(main())
"""


async def test_a_file_of_the_stock_saver_builds_nothing_here(database: str, canary: Canary, tmp_path: Path) -> None:
    file = database.removeprefix("sqlite:///")
    done = subprocess.run(
        [sys.executable, "-c", STOCK.format(module=canary.module), str(tmp_path / "canary"), file],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert canary.traces, "there it did"
    canary.forget()
    async with open_saver(history=database, live=None) as saver:
        graph, config = booking(saver, lambda state: {"value": "done"}), thread("t")
        state = await graph.aget_state(config)
        assert state.values["value"] == [{"x": 1}, {"x": 2}, 1, {"x": 1, "y": 2}]
        found = await saver.aget_tuple(config)
        [asked] = [value for _, channel, value in found.pending_writes if channel == "__interrupt__"]
        assert asked[0].value == {"x": 3}
        assert [item async for item in graph.aget_state_history(config)]
    async with AsyncSqliteSaver.from_conn_string(file) as stock:
        stock.serde = saver.serde  # also where another saver is given our serializer
        assert (await stock.aget_tuple(config)).checkpoint["channel_values"]["value"] == state.values["value"]
