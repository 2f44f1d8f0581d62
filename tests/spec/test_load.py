"""Load: many chats at once, of which none fails, and none holds up the others."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import psutil
import pytest

from tests.service import CLEAN, ROOT, Client, Frame, settings
from tests.stubs.model_server import ModelStub
from threadline.app.logs import configure
from threadline.app.server import listen, run

LIMIT = 0.05
"""Seconds one callback may hold up the event loop, and every other chat with it."""


def answered(frames: list[Frame]) -> str:
    """What the agent said in a turn, which must have ended well."""
    assert frames[-1].event == "done", frames[-1]
    assert frames[-1].data["status"] == "success"
    return next(frame.data["content"] for frame in frames if frame.event == "message")


async def test_a_hundred_chats_at_once_each_get_their_own_answer(service: Client) -> None:
    async def chat(number: int) -> list[str]:
        first = await service.chat(f"What is {number} * 3?")
        return [answered(first), answered(await service.chat("times 2?", first[0].data["session_id"]))]

    async with asyncio.timeout(60):
        answers = await asyncio.gather(*(chat(number) for number in range(100, 200)))

    for number, (first, second) in enumerate(answers, 100):
        assert str(number * 3) in first
        assert str(number * 6) in second


async def test_no_frame_waits_until_the_one_before_it_is_acknowledged() -> None:
    no_delay: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        no_delay.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    with listen("127.0.0.1", 0) as listener:
        async with await asyncio.start_server(accepted, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            assert await no_delay, "TCP_NODELAY is off"
            writer.close()


async def test_the_load_generator_tells_what_a_turn_costs_and_cleans_up_after_itself(tmp_path: Path) -> None:
    command = (sys.executable, "bench/load.py", "--clients", "2", "--turns", "3", "--tokens", "10", "--json")
    environment = {**CLEAN, "TMPDIR": str(tmp_path)}
    load = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(60):
            output, _ = await load.communicate()
    finally:
        if load.returncode is None:
            load.terminate()  # it ends its children too
            await load.wait()

    report = json.loads(output)
    assert load.returncode == 0
    assert (report["turns"], report["errors"]) == (6, {})
    assert report["events_per_second"] > report["turns_per_second"] > 0
    assert 0 < report["first_event_ms"]["p50"] <= report["first_token_ms"]["p50"] <= report["turn_ms"]["p50"]
    assert report["service_to_bare"] > 1
    assert not any(tmp_path.iterdir())
    assert not [process for process in psutil.process_iter() if str(tmp_path) in " ".join(told(process))]


def told(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


# No callback holds up the event loop. The service runs in a process of its own, which watches its loop.

on_linux = pytest.mark.skipif(
    not Path("/proc/thread-self/schedstat").exists(), reason="only Linux tells how long a thread waited for a CPU"
)


@on_linux
@pytest.mark.parametrize("kind", ["offline", "server"])
async def test_no_chat_holds_up_the_loop(kind: str, tmp_path: Path, model: ModelStub) -> None:
    """Neither a fresh session nor a follow-up, neither a tool nor what is loaded at its first use."""
    if kind == "offline":
        questions, values = ("What is 5 km in miles?", "times 2?"), {}
    else:
        questions = ('use calculator {"expression": "5 km to mile"}', "And then?")
        values = {"openai_base_url": model.url, "model": "stub"}

    async with watched(tmp_path, **values) as (client, holds), asyncio.timeout(60):
        await asyncio.gather(*(converse(client, questions) for _ in range(50)))

    assert not holds, "\n".join(described(hold) for hold in holds)


@on_linux
async def test_an_answer_that_comes_all_at_once_does_not_hold_up_the_loop(tmp_path: Path, model: ModelStub) -> None:
    model.tokens = 1000
    async with watched(tmp_path, openai_base_url=model.url, model="stub") as (client, holds):
        await asyncio.gather(*(converse(client, ["hi"]) for _ in range(3)))

    assert not holds, "\n".join(described(hold) for hold in holds)


BLOCKS = {
    "sleeps": "time.sleep(0.1)",
    "reads": "os.read(pipe, 1)",
    "computes": "while time.thread_time() < began + 0.1: pass",
}
YIELDS = {
    "waits": "await asyncio.sleep(0.2)",
    "hands it to a thread": "await asyncio.to_thread(time.sleep, 0.2)",
}


@on_linux
@pytest.mark.parametrize("work", BLOCKS.values(), ids=BLOCKS)
async def test_a_node_that_holds_up_the_loop_is_found(work: str, tmp_path: Path) -> None:
    async with watched(tmp_path, config=graph_that(work, tmp_path)) as (client, holds):
        await converse(client, ["hi", "hi again"])

    assert [hold for hold in holds if hold["seconds"] > 0.09 and "in offender" in hold["stack"]]


@on_linux
@pytest.mark.parametrize("work", YIELDS.values(), ids=YIELDS)
async def test_a_node_that_leaves_the_loop_to_others_is_not(work: str, tmp_path: Path) -> None:
    async with watched(tmp_path, config=graph_that(work, tmp_path)) as (client, holds):
        await converse(client, ["hi", "hi again"])

    assert not [hold for hold in holds if "in offender" in hold["stack"]]


async def converse(client: Client, questions: Any) -> None:
    session_id = None
    for question in questions:
        frames = await client.chat(question, session_id)
        assert frames[-1].event == "done", frames[-1]
        session_id = frames[0].data["session_id"]


def graph_that(work: str, folder: Path) -> Path:
    """The langgraph.json of a project whose only node does this."""
    (folder / "offence.py").write_text(
        f"""
import asyncio, os, threading, time
from langgraph.graph import MessagesState, StateGraph

async def offender(state: MessagesState):
    began, (pipe, end) = time.thread_time(), os.pipe()
    threading.Timer(0.1, os.write, (end, b".")).start()
    {work}
    return {{"messages": [("ai", "done")]}}

graph = StateGraph(MessagesState).add_node(offender).set_entry_point("offender")
""",
        encoding="utf-8",
    )
    config = folder / "langgraph.json"
    config.write_text(json.dumps({"dependencies": ["."], "graphs": {"agent": "./offence.py:graph"}}), encoding="utf-8")
    return config


def described(hold: dict[str, Any]) -> str:
    return f"held up for {hold['seconds'] * 1000:.0f} ms, {hold['cpu'] * 1000:.0f} ms of CPU\n{hold['stack']}"


@asynccontextmanager
async def watched(folder: Path, **values: Any) -> AsyncIterator[tuple[Client, list[dict[str, Any]]]]:
    """The service in a process of its own, and what held up its loop meanwhile, which is known at the end."""
    told = json.dumps({"data_dir": str(folder / "data"), **values}, default=str)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from tests.spec.test_load import main; main()", told),
        cwd=ROOT,
        env=CLEAN,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    holds: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(60):
            url = (await child.stdout.readline()).decode().rpartition(" ")[2].strip()
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            child.stdin.write(b"watch\n")
            yield Client(http), holds
            child.stdin.close()
        async with asyncio.timeout(20):
            holds += json.loads(await child.stdout.readline())
            child.terminate()
            await child.wait()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


def main() -> None:
    """The watched process: serves, and watches its loop from a line on its standard input to the end of that."""
    configure(level="error", format="json")
    threading.Thread(target=_obey, args=(watch := Watch(),), daemon=True).start()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with watch.installed():
        asyncio.run(run(settings(**json.loads(sys.argv[1]))))  # asyncio's own loop: uvloop's callbacks go unseen


def _obey(watch: Watch) -> None:
    watch.on = bool(sys.stdin.readline())
    sys.stdin.read()
    watch.on = False
    print(json.dumps(watch.holds), flush=True)


class Watch:
    """Notes what held up the event loop of this thread, and the stack at that moment.

    How long a callback takes says little on a busy machine, where the system lets a thread wait for a CPU. Linux counts
    that waiting, so it is taken off. What is left the callback did itself: it computed, slept, or waited for a disk, a
    lock or a peer. Such a wait counts if it happens again at the same place, since a single one may come from outside:
    another thread of ours that was made to wait while it held the interpreter.
    """

    def __init__(self) -> None:
        self.on = False
        self._held: list[dict[str, Any]] = []
        self._stack = ""

    @property
    def holds(self) -> list[dict[str, Any]]:
        seen = Counter(hold["stack"] for hold in self._held)
        return [hold for hold in self._held if hold["cpu"] > LIMIT or seen[hold["stack"]] > 1]

    @contextmanager
    def installed(self) -> Iterator[None]:
        run = asyncio.Handle._run
        ledger = os.open("/proc/thread-self/schedstat", os.O_RDONLY)

        def timed(handle: asyncio.Handle) -> None:
            if not self.on:
                run(handle)
                return
            self._stack = ""
            before, began = os.pread(ledger, 64, 0), time.perf_counter_ns()
            signal.setitimer(signal.ITIMER_REAL, LIMIT)  # by then the stack is of interest
            run(handle)
            signal.setitimer(signal.ITIMER_REAL, 0)
            took = time.perf_counter_ns() - began
            if took > LIMIT * 1e9:
                self._judge(took, before, os.pread(ledger, 64, 0))

        signal.signal(signal.SIGALRM, self._note)
        asyncio.Handle._run = timed  # type: ignore[method-assign]
        try:
            yield
        finally:
            asyncio.Handle._run = run  # type: ignore[method-assign]
            os.close(ledger)

    def _note(self, _: int, frame: FrameType | None) -> None:
        self._stack = "".join(traceback.format_stack(frame)[-16:])

    def _judge(self, took: int, before: bytes, after: bytes) -> None:
        """In nanoseconds; the ledger says how long the thread was on a CPU, and how long it waited for one."""
        cpu, queued = (int(b) - int(a) for a, b in zip(before.split()[:2], after.split()[:2], strict=True))
        if took - queued > LIMIT * 1e9:
            self._held.append({"seconds": (took - queued) / 1e9, "cpu": cpu / 1e9, "stack": self._stack})
