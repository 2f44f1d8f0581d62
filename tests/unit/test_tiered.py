"""The parts of the tiered saver on their own: the breaker, sealed payloads, key names, and what is refused."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Send
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from threadline.domain.errors import Invalid, Unavailable
from threadline.storage import open_saver
from threadline.storage.breaker import Breaker
from threadline.storage.keys import live_checkpoint
from threadline.storage.serde import seal, strict_serializer, unseal
from threadline.storage.together import MOST_BYTES, Together


class Store:
    """A store that answers, fails or hangs as told, and counts who asked."""

    def __init__(self) -> None:
        self.now = 0.0
        self.fault: Exception | None = None
        self.hangs = asyncio.Event()
        self.hangs.set()
        self.asked = 0

    async def ask(self) -> str:
        self.asked += 1
        await self.hangs.wait()
        if self.fault:
            raise self.fault
        return "answer"


@pytest.fixture
async def store() -> Store:
    return Store()


@pytest.fixture
def breaker(store: Store) -> Breaker:
    return Breaker("store", timeout=0.05, pause=3, slots=4, clock=lambda: store.now)


@pytest.mark.parametrize("fault", [RedisConnectionError("gone"), ResponseError("OOM"), OSError("no socket")])
async def test_a_failing_store_is_left_alone_for_a_pause(store: Store, breaker: Breaker, fault: Exception) -> None:
    assert await breaker.call(store.ask) == "answer"
    store.fault = fault
    assert await breaker.call(store.ask) is None
    assert not breaker.closed
    store.fault = None
    store.now = 2.9
    assert await breaker.call(store.ask) is None
    assert store.asked == 2
    store.now = 3.0
    assert await breaker.call(store.ask) == "answer"
    assert breaker.closed


async def test_a_hanging_store_costs_one_timeout(store: Store, breaker: Breaker) -> None:
    store.hangs.clear()
    started = asyncio.get_running_loop().time()
    assert await asyncio.gather(*(breaker.call(store.ask) for _ in range(100))) == [None] * 100
    assert asyncio.get_running_loop().time() - started < 0.5
    assert store.asked == 4, "those that had a slot; the others did not try"


async def test_only_one_caller_tries_after_the_pause(store: Store, breaker: Breaker) -> None:
    store.fault = OSError()
    await breaker.call(store.ask)
    store.now = 3.0
    await asyncio.gather(*(breaker.call(store.ask) for _ in range(20)))
    assert store.asked == 2


async def test_at_most_so_many_ask_at_once(store: Store, breaker: Breaker) -> None:
    store.hangs.clear()
    calls = [asyncio.create_task(breaker.call(store.ask)) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert store.asked == 4
    store.hangs.set()
    assert await asyncio.gather(*calls) == ["answer"] * 20


async def test_a_fault_that_is_not_the_stores_is_raised(store: Store, breaker: Breaker) -> None:
    store.fault = KeyError("ours")
    with pytest.raises(KeyError):
        await breaker.call(store.ask)
    assert breaker.closed


async def test_what_many_ask_meanwhile_shares_the_next_round_trip() -> None:
    rounds: list[Sequence[int]] = []

    async def double(items: Sequence[int]) -> list[int] | None:
        rounds.append(items)
        await asyncio.sleep(0)
        if 13 in items:
            raise LookupError
        return None if 0 in items else [2 * item for item in items]

    together = Together(double, size=lambda item: MOST_BYTES if item == 5 else 1)

    assert await asyncio.gather(*(together(item) for item in (1, 2, 5, 3, 4))) == [2, 4, 10, 6, 8]
    assert rounds == [[1, 2, 5], [3, 4]]
    assert await asyncio.gather(together(0), together(1)) == [None, None]
    with pytest.raises(LookupError):
        await together(13)

    left = asyncio.create_task(together(1))
    stays = asyncio.create_task(together(7))
    await asyncio.sleep(0)
    left.cancel()
    assert await stays == 14
    await together.aclose()


def test_sealing_is_lossless() -> None:
    sealed = seal("msgpack", bytes(range(256)))
    assert sealed.isascii()
    assert unseal(sealed) == ("msgpack", bytes(range(256)))


@pytest.mark.parametrize("sealed", ["", "json:e30=", "pickle:gASV", "msgpack:not base64!", "msgpack:AAA"])
def test_only_sealed_msgpack_is_unsealed(sealed: str) -> None:
    with pytest.raises(ValueError, match=r"sealed|base64|padding"):
        unseal(sealed)


def test_only_listed_types_are_built() -> None:
    from decimal import Decimal
    from fractions import Fraction

    from langchain_core.messages import HumanMessage
    from pydantic import BaseModel

    class Own(BaseModel):
        x: int

    serde = strict_serializer()
    value = serde.loads_typed(serde.dumps_typed([Decimal(1), HumanMessage("x"), Own(x=1)]))
    assert value == [Decimal(1), HumanMessage("x"), {"x": 1}]
    with pytest.raises(TypeError):
        serde.dumps_typed(Fraction(1, 2))


MESSAGES = [
    HumanMessage("안녕 \ud83d", id="1", name="n", additional_kwargs={"a": [1, {"b": None}]}),
    HumanMessage([{"type": "text", "text": "x"}, "y"]),
    SystemMessage("s", response_metadata={1: "int key"}),
    ToolMessage("t", tool_call_id="c", artifact={"at": datetime(2026, 1, 1, tzinfo=UTC)}, status="error"),
    AIMessage(
        "a",
        tool_calls=[{"name": "f", "args": {"x": Decimal(1)}, "id": "c"}],
        invalid_tool_calls=[{"name": "g", "args": "{", "id": "d", "error": "e"}],
        usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    ),
    AIMessage("", additional_kwargs={"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]}),
    AIMessage("extra", beyond={"the": "schema"}),
    AIMessageChunk("chunk", id="2"),
    RemoveMessage("1"),
    HumanMessage.model_construct(content=7, type="human"),
]


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("message", MESSAGES, ids=repr)
def test_messages_are_written_and_read_as_langgraph_does(message: Any) -> None:
    ours, stock = strict_serializer(), JsonPlusSerializer(allowed_msgpack_modules=None)
    for value in (message, {"channel_values": {"messages": _DeltaSnapshot([message]), "send": Send("n", [message])}}):
        written = ours.dumps_typed(value)
        assert written == stock.dumps_typed(value)

        read, expected = ours.loads_typed(written), stock.loads_typed(written)
        assert repr(_bare(read)) == repr(_bare(expected))


def _bare(value: Any) -> Any:
    """A value with messages as all that they hold: class, fields, extras, which fields were set."""
    if isinstance(value, dict):
        return {key: _bare(item) for key, item in value.items()}
    if isinstance(value, _DeltaSnapshot):
        return ["snapshot", _bare(value.value)]
    if isinstance(value, Send):
        return ["send", value.node, _bare(value.arg)]
    if isinstance(value, list):
        return [_bare(item) for item in value]
    if isinstance(value, BaseMessage):
        state = value.__getstate__()
        return [type(value).__name__, *(sorted(item) if isinstance(item, set) else item for item in state.values())]
    return value


def test_strictness_is_not_left_to_the_environment() -> None:
    code = "from threadline.storage.serde import strict_serializer; print(strict_serializer()._allowed_msgpack_modules)"
    for value in ("true", "false"):
        done = run(
            [sys.executable, "-c", code], env={"LANGGRAPH_STRICT_MSGPACK": value}, capture_output=True, text=True
        )
        assert done.stdout.strip() == "None", done.stderr


def test_no_two_places_share_a_key() -> None:
    places = [("a", "b:c"), ("a:b", "c"), ("a:b:c", ""), ("a", ""), ("a%3Ab", "c"), ("스레드", "")]
    assert len({live_checkpoint(*place) for place in places}) == len(places)
    uuid = "6f0ff2e8-4d4c-4c9e-9c61-0f3d3f0c2a11"
    assert live_checkpoint(uuid, "") == f"checkpoint:{uuid}:"


@pytest.mark.parametrize("thread_id", ["", "a,b", "a\nb", "a\x00", "\x7f", "\x85", "\ud800"])
async def test_ids_that_could_be_taken_for_something_else_are_refused(thread_id: str, tmp_path: Path) -> None:
    config: Any = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
    async with open_saver(history=f"sqlite:///{tmp_path}/history.sqlite", live=None) as saver:
        calls = [
            saver.aget_tuple(config),
            anext(saver.alist(config)),
            saver.aput(config, empty_checkpoint(), {}, {}),
            saver.aput_writes(config, [("channel", 1)], "task"),
            saver.aget_delta_channel_history(config=config, channels=["messages"]),
            saver.adelete_thread(thread_id),
            saver.acopy_thread("fine", thread_id),
            saver.acopy_thread(thread_id, "fine"),
            saver.aprune([thread_id]),
        ]
        for call in calls:
            with pytest.raises(Invalid):
                await call
        assert [item async for item in saver.alist(None)] == []


@pytest.mark.parametrize("history", ["history.sqlite", "sqlite:///", "postgres://host/db", "sqlite://history.sqlite"])
async def test_a_history_must_be_a_sqlite_file(history: str) -> None:
    with pytest.raises(Invalid):
        async with open_saver(history=history, live=None):
            pass


async def test_without_redis_there_is_no_live_tier(tmp_path: Path) -> None:
    async with open_saver(history=f"sqlite:///{tmp_path}/a/folder/history.sqlite", live=None) as saver:
        assert not saver.live_ok
        assert not await saver.check_live()
    with pytest.raises(Unavailable, match="closed"):
        await saver.aget_tuple({"configurable": {"thread_id": "x"}})


def test_importing_the_package_imports_no_saver() -> None:
    code = "import sys, threadline.storage; print([m for m in sys.modules if m.startswith(('langgraph', 'redis'))])"
    assert run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
