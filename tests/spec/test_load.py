"""Load: many chats at once, of which none fails, and none holds up the others."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import psutil
import pytest

from tests.service import CLEAN, ROOT, Client, Frame, running
from tests.stubs.model_server import ModelStub
from threadline.app.logs import configure

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


async def test_the_load_generator_tells_what_a_turn_costs_and_cleans_up_after_itself(tmp_path: Path) -> None:
    command = (sys.executable, "bench/load.py", "--clients", "2", "--turns", "3", "--tokens", "10", "--json")
    environment = {**CLEAN, "TMPDIR": str(tmp_path)}
    load = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(60):
        output, _ = await load.communicate()

    report = json.loads(output)
    assert load.returncode == 0
    assert (report["turns"], report["errors"]) == (6, {})
    assert report["events_per_second"] > report["turns_per_second"] > 0
    assert 0 < report["first_event_ms"]["p50"] < report["first_token_ms"]["p50"] < report["turn_ms"]["p50"]
    assert report["service_to_bare"] > 1
    assert not os.listdir(tmp_path)
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
        questions, values = ("What is 5 km in miles?", "times 2?", "hello"), {}
    else:
        questions = ('use calculator {"expression": "5 km to mile"}', "And then?", "hello")
        values = {"openai_base_url": model.url, "model": "stub"}

    async with watched(tmp_path, **values) as (client, holds), asyncio.timeout(60):
        await asyncio.gather(*(converse(client, questions) for _ in range(50)))

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
        await converse(client, ["hi"])

    assert [hold for hold in holds if hold["seconds"] > 0.09 and "in offender" in hold["stack"]]


@on_linux
@pytest.mark.parametrize("work", YIELDS.values(), ids=YIELDS)
async def test_a_node_that_leaves_the_loop_to_others_is_not(work: str, tmp_path: Path) -> None:
    async with watched(tmp_path, config=graph_that(work, tmp_path)) as (client, holds):
        await converse(client, ["hi"])

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
    """The service in a process of its own, and what held up its loop, which is known once the service has ended."""
    told = json.dumps({"data_dir": str(folder / "data"), **values}, default=str)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from tests.spec.test_load import main; main()", told),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    holds: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(60):
            url = (await child.stdout.readline()).decode().strip()
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            yield Client(http), holds
        child.stdin.close()
        async with asyncio.timeout(20):
            holds += json.loads(await child.stdout.readline())
            await child.wait()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


def main() -> None:
    """The watched process: serves until its standard input is closed, then prints what held up its loop."""
    configure(level="error", format="json")
    asyncio.run(_serve(json.loads(sys.argv[1])))


async def _serve(values: dict[str, Any]) -> None:
    async with running(Path(values.pop("data_dir")), **values) as client:
        with watching() as holds:
            print(client.http.base_url, flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        print(json.dumps(holds), flush=True)


@contextmanager
def watching() -> Iterator[list[dict[str, Any]]]:
    """Every callback of this thread's event loop that holds it up for more than LIMIT, and the stack at that moment.

    The time a callback takes says little on a busy machine, where the system lets it wait for a CPU. Linux counts that
    waiting for each thread, so it is taken off. What is left is what the callback itself did: computing, sleeping,
    waiting for a disk, a lock or a peer. An alarm at LIMIT notes the stack; when there was only waiting, for nothing.
    """
    holds: list[dict[str, Any]] = []
    stack = ""
    run = asyncio.Handle._run
    ledger = os.open("/proc/thread-self/schedstat", os.O_RDONLY)

    def note(_: int, frame: FrameType | None) -> None:
        nonlocal stack
        stack = "".join(traceback.format_stack(frame)[-12:])

    def timed(handle: asyncio.Handle) -> None:
        nonlocal stack
        stack = ""
        cpu, queued, _ = map(int, os.pread(ledger, 64, 0).split())
        began = time.perf_counter_ns()
        signal.setitimer(signal.ITIMER_REAL, LIMIT)
        run(handle)
        signal.setitimer(signal.ITIMER_REAL, 0)
        took = time.perf_counter_ns() - began
        if took > LIMIT * 1e9:
            cpu_after, queued_after, _ = map(int, os.pread(ledger, 64, 0).split())
            held = (took - (queued_after - queued)) / 1e9
            if held > LIMIT:
                holds.append({"seconds": held, "cpu": (cpu_after - cpu) / 1e9, "stack": stack})

    alarm = signal.signal(signal.SIGALRM, note)
    asyncio.Handle._run = timed  # type: ignore[method-assign]
    try:
        yield holds
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        os.close(ledger)
