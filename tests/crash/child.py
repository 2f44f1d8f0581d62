"""The process that is killed: it serves turns on many threads at once and tells its parent all it does.

Run as a module it is a fork server: it imports everything once, then forks a life for each order on standard input. A
life that is killed is a process of its own that is really gone. What it tells goes straight into the pipe, so all that
was told before the kill is read after it.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import random
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from typing import Any, NoReturn

import structlog
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_id,
)
from redis.exceptions import RedisError

from tests.crash.talk import LOOKS, Mark, conversation, marks_in, place, question, turns
from threadline.storage.checkpoints import open_saver
from threadline.storage.rows import Row
from threadline.storage.tiered import TieredSaver

HASTE = 20
"""How much faster the saver's clock goes, so that it soon tries a Redis again that was away."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a life has to do. `ends`: finish what was cut off and no more. `fault`: what is wrong with its saver."""

    life: int
    seed: int
    history: str
    live: str | None
    threads: Sequence[str]
    ends: bool = False
    fault: str = ""

    def line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


def tell(what: str, thread: str = "", **more: Any) -> None:
    """One line, in one write: it is there whole or not at all."""
    line = json.dumps([what, thread, more]).encode() + b"\n"
    assert len(line) <= 4096, line
    os.write(sys.stdout.fileno(), line)


class Telling(BaseCheckpointSaver[str]):
    """A saver that says when it is called and when the call has returned.

    A put is slow to begin, so that there is time to be killed between the writes of a step and its checkpoint.
    """

    def __init__(self, saver: TieredSaver, chance: random.Random) -> None:
        super().__init__(serde=saver.serde)
        self.saver = saver
        self.chance = chance
        self.known: set[tuple[str, str]] = set()

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> Telling:
        clone = type(self)(self.saver.with_allowlist(extra_allowlist), self.chance)
        clone.known = self.known
        return clone

    def get_next_version(self, current: str | None, channel: None) -> str:
        return self.saver.get_next_version(current, channel)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        thread = config["configurable"]["thread_id"]
        marks = self.new(thread, checkpoint["channel_values"].items())
        tell("putting", thread, marks=marks)
        await asyncio.sleep(self.chance.uniform(0, 0.005))
        result = await self.saver.aput(config, checkpoint, metadata, new_versions)
        self.known.update((thread, mark) for mark in marks)
        tell("put", thread, marks=marks)
        return result

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        thread = config["configurable"]["thread_id"]
        marks = self.new(thread, writes)
        tell("writing", thread, marks=marks)
        await self.saver.aput_writes(config, writes, task_id, task_path)
        tell("written", thread, marks=marks)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await self.saver.aget_tuple(config)

    async def alist(self, config: RunnableConfig | None, **options: Any) -> AsyncIterator[CheckpointTuple]:
        async for item in self.saver.alist(config, **options):
            yield item

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return await self.saver.aget_delta_channel_history(config=config, channels=channels)

    def new(self, thread: str, channels: Iterable[tuple[str, Any]]) -> list[str]:
        """The marks among these values that are in no checkpoint yet."""
        return [mark for mark in marks_in(channels) if (thread, mark) not in self.known]


async def serve(order: Order) -> None:
    chance = random.Random(order.seed)
    async with open_saver(history=order.history, live=order.live, clock=lambda: time.monotonic() * HASTE) as saver:
        slow_to_keep(saver, chance)
        telling = FAULTS.get(order.fault, Telling)(saver, chance)
        graph = conversation(telling, partial(work, order.life, chance))
        tell("ready")
        async with asyncio.TaskGroup() as talks:
            for thread in order.threads:
                talks.create_task(talk(graph, thread, telling, ends=order.ends))
    tell("done")


async def talk(graph: Any, thread: str, saver: Telling, *, ends: bool) -> None:
    """Finish the turn that was cut off, if there is one, then take turns until the end of this life."""
    config = place(thread)
    try:
        state = await graph.aget_state(config)
        saver.known.update((thread, mark) for mark in marks_in(state.values.items()))
        done = turns(state.values)
        tell("found", thread, checkpoint_id=state.config["configurable"].get("checkpoint_id"))
        if state.tasks:  # `next` leaves out the tasks whose writes are kept
            tell("resume", thread)
            done = await turn(graph, None, config, saver=saver)
        while not ends:
            tell("turn", thread, number=done)
            done = await turn(graph, question(thread, done), config, saver=saver)
    except Exception as error:  # whatever it is, the parent wants to hear of it
        traceback.print_exc()
        tell("failed", thread, error=repr(error)[:500])


async def turn(graph: Any, input: dict[str, Any] | None, config: Any, *, saver: Telling) -> int:
    """Take one turn, acknowledge it, then look what a reader sees. How many turns there are now."""
    thread = config["configurable"]["thread_id"]
    result = await graph.ainvoke(input, config, durability="sync")
    tell("acknowledged", thread, number=turns(result) - 1, reply=result["messages"][-1].content)
    state = await graph.aget_state(config)
    tell("read", thread, turns=turns(state.values), waits=bool(state.tasks), hits=saver.saver.live_hits)
    return turns(state.values)


async def work(life: int, chance: random.Random, thread: str, turn: int, step: str) -> str:
    """What a step does: it takes a while. The sleep stands for a model or a tool; nobody waits by it."""
    mark = str(Mark(turn, step, life))
    tell("enter", thread, marks=[mark])
    await asyncio.sleep(chance.uniform(0.001, 0.008))
    tell("leave", thread, marks=[mark])
    return mark


def slow_to_keep(saver: TieredSaver, chance: random.Random) -> None:
    """Say when history has a checkpoint and Redis does not, and stay there a little."""
    live = saver._live
    if live is None:
        return
    keep = live.keep

    async def told(rows: Sequence[Row]) -> Sequence[None]:
        for row in rows:
            tell("kept", row.thread_id)
        await asyncio.sleep(chance.uniform(0, 0.001))
        return await keep(rows)

    live.keep = told  # type: ignore[method-assign]


class AcknowledgesEarly(Telling):
    """Says a checkpoint is put before it is."""

    async def aput(self, config: RunnableConfig, checkpoint: Checkpoint, *rest: Any) -> RunnableConfig:
        thread = config["configurable"]["thread_id"]
        marks = self.new(thread, checkpoint["channel_values"].items())
        tell("putting", thread, marks=marks)
        put = partial(self.saver.aput, config, copy.deepcopy(checkpoint), *rest)
        asyncio.get_running_loop().call_later(0.02, lambda: asyncio.ensure_future(put()))
        tell("put", thread, marks=marks)
        return {"configurable": {**config["configurable"], "checkpoint_id": checkpoint["id"]}}


class DropsWrites(Telling):
    """Says that the writes of a step side by side with others are kept, but forgets them."""

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        thread = config["configurable"]["thread_id"]
        marks = self.new(thread, writes)
        if not any(Mark.read(mark).step in LOOKS for mark in marks):
            return await super().aput_writes(config, writes, task_id, task_path)
        tell("writing", thread, marks=marks)
        tell("written", thread, marks=marks)
        return None


class ForgetsWrites(Telling):
    """Keeps the writes of a step, but does not bring them back."""

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found = await super().aget_tuple(config)
        return found and found._replace(pending_writes=[])


class BelievesRedis(Telling):
    """Takes what Redis holds for the newest, and asks history for its pending writes only."""

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        live = self.saver._live
        assert live is not None
        if get_checkpoint_id(config):
            return await super().aget_tuple(config)
        try:
            held = await live.aget_tuple(config)
        except (RedisError, OSError):
            held = None
        return await super().aget_tuple(held.config if held else config)


FAULTS: Mapping[str, type[Telling]] = {
    "acknowledges early": AcknowledgesEarly,
    "drops writes": DropsWrites,
    "forgets writes": ForgetsWrites,
    "believes redis": BelievesRedis,
}
"""Savers that are wrong: the crash test must find each of them out."""


def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # standard output is the pipe
    import_module("threadline.storage.live_checkpoints")  # once for all lives: it takes half a second
    assert threading.active_count() == 1, "a fork has one thread only"
    for line in sys.stdin:
        order = Order(**json.loads(line))
        pid = os.fork()
        if pid == 0:
            live_a_life(order)
        _, status = os.waitpid(pid, 0)
        tell("ended", status=os.waitstatus_to_exitcode(status))


def live_a_life(order: Order) -> NoReturn:
    code = 1
    try:
        tell("born", pid=os.getpid())
        asyncio.run(serve(order))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
