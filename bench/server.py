"""The LangGraph Server API of this service and of `langgraph dev` under one load: same project, same script, one run.

    python -m bench.server --clients 100 --rounds 3

Both servers run at once and take turns being asked, so that a slow moment of the machine meets both; the one that is
not asked is idle. Then the same graph runs alone, `graph.astream` with `InMemorySaver`: what a turn costs at the least.
The ratios of one run say more than its figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from bench.load import ROOT, STOP_SECONDS, Service, Trouble, Turn, between, child, counted, cpu, own_service, spread
from bench.load import streamed as read_frames

PROJECT = ROOT / "tests" / "projects" / "server"
START_SECONDS = 60
OURS, THEIRS = "threadline", "langgraph dev"
SHORT_TURNS = 30
"""Turns of one client alone, for the time to the first event."""


def main() -> None:
    options = _options()
    if options.bare:
        print(json.dumps(asyncio.run(bare(options))))
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it ends its children then too
    try:
        report = asyncio.run(asyncio.wait_for(measure(options), options.seconds))
    except Trouble as trouble:
        sys.exit(f"server: {trouble}")
    except TimeoutError:
        sys.exit(f"server: not done after {options.seconds:g} s; --seconds allows more")
    except KeyboardInterrupt:
        sys.exit(130)
    print(json.dumps(report, indent=2))


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The whole measurement as JSON types; times in milliseconds, memory in megabytes."""
    alone: dict[str, list[Turn]] = {}
    rounds: dict[str, list[dict[str, Any]]] = {}
    floor: list[dict[str, Any]] = []
    report: dict[str, Any] = {"load_average": [round(number, 1) for number in os.getloadavg()]}
    async with AsyncExitStack() as stack:
        services = {OURS: await stack.enter_async_context(own_service({}, config=PROJECT / "langgraph.json"))}
        if not options.alone:
            services[THEIRS] = await stack.enter_async_context(langgraph_dev(options.jobs))
        for service in services.values():  # what is loaded at its first use is loaded now
            _check(await clients(service, 2, turns=3, tokens=options.tokens))
        for _ in range(3):
            for name, service in services.items():
                found = await clients(service, 1, turns=SHORT_TURNS // 3, tokens=options.tokens)
                alone.setdefault(name, []).extend(_check(found))
        for _ in range(options.rounds):
            for name, service in services.items():
                rounds.setdefault(name, []).append(await one_round(service, options))
            floor.append(await _bare_child(options))
        if options.readers:
            report["idle_readers"] = await idle_readers(services[OURS], options)
    report["bare"] = {name: _range(floor, name) for name in ("cpu_ms_per_turn", "turns_per_second")}
    for name in services:
        report[name] = {
            "one_client": {
                "first_event_ms": spread([turn.first_event for turn in alone[name]]),
                "first_token_ms": spread([turn.first_token for turn in alone[name]]),
                "turn_ms": spread([turn.took for turn in alone[name]]),
            },
            **{key: _range(rounds[name], key) for key in ("turns_per_second", "cpu_ms_per_turn", "first_event_ms")},
            "cpu_parts": rounds[name][-1]["cpu_parts"],
            "rss_mb": rounds[name][-1]["rss_mb"],
        }
    report["ratios"] = _ratios(report)
    return report


def _ratios(report: dict[str, Any]) -> dict[str, float]:
    ours, floor = report[OURS], report["bare"]["cpu_ms_per_turn"]["median"]
    ratios = {"cpu_to_bare": ours["cpu_ms_per_turn"]["median"] / floor}
    if THEIRS in report:
        theirs = report[THEIRS]
        ratios["their_cpu_to_bare"] = theirs["cpu_ms_per_turn"]["median"] / floor
        ratios["first_event"] = (
            ours["one_client"]["first_event_ms"]["p50"] / theirs["one_client"]["first_event_ms"]["p50"]
        )
        ratios["turns_per_second"] = ours["turns_per_second"]["median"] / theirs["turns_per_second"]["median"]
    return {name: round(value, 3) for name, value in ratios.items()}


async def one_round(service: Service, options: argparse.Namespace) -> dict[str, Any]:
    """All clients at once, each of them turn after turn on a thread of its own. CPU is that of all its processes."""
    before, began = {name: cpu(process) for name, process in service.processes.items()}, time.perf_counter()
    turns = _check(await clients(service, options.clients, turns=options.turns, tokens=options.tokens))
    seconds = time.perf_counter() - began
    used = {name: 1000 * (cpu(process) - before[name]) / len(turns) for name, process in service.processes.items()}
    times = spread([turn.first_event for turn in turns])
    return {
        "turns_per_second": round(len(turns) / seconds, 1),
        "cpu_ms_per_turn": round(sum(used.values()), 2),
        "cpu_parts": {name: round(value, 2) for name, value in used.items()},
        "first_event_ms": times["p50"] if times else None,
        "rss_mb": {name: round(process.memory_info().rss / 2**20) for name, process in service.processes.items()},
    }


def _check(turns: Sequence[Turn]) -> Sequence[Turn]:
    """Raises Trouble if one of them failed: figures of what did not work are worth nothing."""
    failed = counted(turn.error for turn in turns if turn.error)
    if failed:
        raise Trouble(f"turns failed: {failed}")
    return turns


async def clients(service: Service, number: int, *, turns: int, tokens: int) -> list[Turn]:
    threads = await new_threads(service, number)
    done = await asyncio.gather(*(client(service, thread, turns=turns, tokens=tokens) for thread in threads))
    return [turn for turns in done for turn in turns]


async def new_threads(service: Service, number: int) -> list[str]:
    """Their ids. Made beforehand, so that a turn is one request."""
    limits = httpx.Limits(max_connections=20)
    async with httpx.AsyncClient(base_url=f"http://{service.host}:{service.port}", limits=limits, timeout=60) as http:
        answers = await asyncio.gather(*(http.post("/threads", json={}) for _ in range(number)))
    return [answer.raise_for_status().json()["thread_id"] for answer in answers]


async def client(service: Service, thread_id: str, *, turns: int, tokens: int) -> list[Turn]:
    """One person on one thread, over a connection that is kept. Stops at an error."""
    call = {
        "assistant_id": "bench",
        "input": {"messages": [{"role": "user", "content": str(tokens)}]},
        "stream_mode": ["messages-tuple"],
    }
    done: list[Turn] = []
    reader, writer = await asyncio.open_connection(service.host, service.port)
    try:
        for _ in range(turns):
            done.append(turn := Turn())
            path = f"/threads/{thread_id}/runs/stream"
            try:
                _, last = await read_frames(service, path, call, turn, reader, writer, token=b"messages")
            except (OSError, asyncio.IncompleteReadError) as error:
                turn.error = type(error).__name__
            if turn.error is None and (last != b"messages" or turn.events <= tokens):
                turn.error = f"{turn.events} events, the last one {last.decode()}"
            if turn.error:
                break
    finally:
        writer.close()
    return done


async def idle_readers(service: Service, options: argparse.Namespace) -> dict[str, Any]:
    """Readers who wait on threads where nothing happens, while the others chat: what one of them holds of memory."""
    process = service.processes["service"]
    threads = await new_threads(service, options.readers)
    before = process.memory_info().rss
    lines = [await _idle_reader(service, thread) for thread in threads]
    each = (process.memory_info().rss - before) / options.readers / 1024
    try:
        busy = await one_round(service, options)
        left = sum(reader.at_eof() for reader, _ in lines)
    finally:
        for _, writer in lines:
            writer.close()
    kept = {key: busy[key] for key in ("turns_per_second", "cpu_ms_per_turn", "first_event_ms")}
    return {"readers": options.readers, "kb_each": round(each, 1), "left": left, **kept}


async def _idle_reader(service: Service, thread_id: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(service.host, service.port)
    writer.write(f"GET /threads/{thread_id}/stream HTTP/1.1\r\nhost: {service.host}\r\n\r\n".encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in answer.partition(b"\r\n")[0]:
        raise Trouble(f"a reader was turned away: {answer[:200]!r}")
    return reader, writer


# The bare limit


async def bare(options: argparse.Namespace) -> dict[str, Any]:
    """CPU time per turn of the graph alone, streaming its messages, with its state in memory."""
    from langgraph.checkpoint.memory import InMemorySaver

    sys.path.insert(0, str(PROJECT))
    graphs = __import__("graphs")
    graph = graphs.bench.copy(update={"checkpointer": InMemorySaver()})

    async def chat(name: str) -> None:
        for _ in range(options.turns):
            config: Any = {"configurable": {"thread_id": name}}
            given = {"messages": [{"role": "user", "content": str(options.tokens)}]}
            async for _ in graph.astream(given, config, stream_mode=["messages"]):
                pass

    await asyncio.gather(*(chat(f"warm-{number}") for number in range(2)))
    began, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(chat(str(number)) for number in range(options.clients)))
    turns, seconds = options.clients * options.turns, time.perf_counter() - began
    return {
        "turns_per_second": round(turns / seconds, 1),
        "cpu_ms_per_turn": round(1000 * (time.process_time() - used) / turns, 2),
    }


async def _bare_child(options: argparse.Namespace) -> dict[str, Any]:
    shape = ("--clients", str(options.clients), "--turns", str(options.turns), "--tokens", str(options.tokens))
    async with child("-m", "bench.server", "--bare", *shape) as (_, line):
        return dict(json.loads(line))


# The peer


@asynccontextmanager
async def langgraph_dev(jobs: int | None) -> AsyncIterator[Service]:
    """LangGraph's development server over a copy of the project, since it leaves its state beside it."""
    with tempfile.TemporaryDirectory(prefix="threadline-peer-") as folder:
        project, home = Path(folder) / "project", Path(folder) / "home"
        shutil.copytree(PROJECT, project, ignore=shutil.ignore_patterns("__pycache__"))
        home.mkdir()
        port = _free_port()
        flags = ["--no-browser", "--no-reload", "--host", "127.0.0.1", "--port", str(port)]
        flags += ["--n-jobs-per-worker", str(jobs)] if jobs else []
        server = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "langgraph_cli", "dev", *flags),
            cwd=project,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                "LOG_LEVEL": "WARNING",
                "LANGSMITH_TRACING": "false",
                "LANGGRAPH_CLI_NO_ANALYTICS": "1",
                "LANGGRAPH_NO_VERSION_CHECK": "true",  # it would ask a package index
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            await _until_up(url, server)
            process = psutil.Process(server.pid)
            family = [process, *process.children(recursive=True)]
            address = urlsplit(url)
            processes = {"service" if one is process else f"child {one.pid}": one for one in family}
            yield Service(address.hostname or "", address.port or 0, processes=processes)
        finally:
            for stop in (server.terminate, server.kill):
                if server.returncode is None:
                    stop()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(server.wait(), STOP_SECONDS)


async def _until_up(url: str, server: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(START_SECONDS), httpx.AsyncClient() as http:
        while server.returncode is None:
            with suppress(httpx.TransportError):
                if (await http.get(f"{url}/ok")).status_code == 200:
                    return
            await asyncio.sleep(0.1)
    raise Trouble("langgraph dev did not start: is it installed?")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _range(rounds: Sequence[dict[str, Any]], name: str) -> dict[str, float]:
    values = [found[name] for found in rounds]
    return {"median": round(statistics.median(values), 2), "least": min(values), "most": max(values)}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The LangGraph Server API beside `langgraph dev`, under one load.")
    parser.add_argument("--clients", type=between(1, 1000), default=100, help="clients at once")
    parser.add_argument("--turns", type=between(1, 100), default=3, help="turns of each in a round")
    parser.add_argument("--rounds", type=between(1, 20), default=3, help="rounds of each server, in turns")
    parser.add_argument("--tokens", type=between(1, 10_000), default=100, help="tokens of an answer")
    parser.add_argument("--readers", type=between(0, 5000), default=0, help="idle readers in one more round of ours")
    parser.add_argument("--jobs", type=between(1, 1000), help="langgraph dev --n-jobs-per-worker; unset: its default")
    parser.add_argument("--alone", action="store_true", help="without langgraph dev")
    parser.add_argument("--seconds", type=float, default=300, help="give up after this long")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
