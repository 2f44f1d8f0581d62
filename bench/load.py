"""Drives many chats at once against a service on this machine and says what a turn costs.

    python bench/load.py --clients 100 --turns 3

Without `--url` it starts a service of its own, with a model server that costs next to nothing, and afterwards drives
the same graph in a bare process: no server, no history, no Redis. What the service adds is then a ratio of two figures
of the same minute, which says more than either of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

ROOT = Path(__file__).resolve().parents[1]
LOOPBACK = ("127.0.0.1", "::1", "localhost")
STOP_SECONDS = 10
SERVICE = "from threadline.app.cli import main; main()"

QUESTIONS = {
    "stub": ("Tell me about the sea.", 'use calculator {"expression": "(15+27)*3"}', "And what else?"),
    "offline": ("hello", "What is (15+27)*3?", "times 2?"),
}
"""What a client says, turn by turn and over again: one turn in three takes a tool."""

_EVENT = re.compile(rb"^event: (\w+)\r?$", re.MULTILINE)
_SESSION = re.compile(rb'"session_id":"([0-9a-f-]{36})"')


class Trouble(Exception):
    """What the load cannot be driven with or without; the message says it in plain words."""


@dataclass(slots=True)
class Turn:
    """One turn as its client saw it; times in seconds since the request was sent."""

    first_event: float | None = None
    first_token: float | None = None
    took: float | None = None
    events: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """Where to ask, and the processes whose CPU time counts; those of a service that is not ours are unknown."""

    host: str
    port: int
    key: str | None = None
    processes: dict[str, psutil.Process] = field(default_factory=dict)


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it ends its children then too
    try:
        if options.bare:
            print(json.dumps(asyncio.run(bare(options))))
            return
        report = asyncio.run(asyncio.wait_for(measure(options), options.seconds))
    except Trouble as trouble:
        sys.exit(f"load: {trouble}")
    except TimeoutError:
        sys.exit(f"load: not done after {options.seconds:g} s; --seconds allows more")
    except KeyboardInterrupt:
        sys.exit(130)
    print(json.dumps(report, indent=2) if options.json else words(report))
    sys.exit(1 if report["errors"] else 0)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The whole measurement as JSON types; times in milliseconds, memory in megabytes."""
    if options.url:
        return await drive(_stranger(options.url), options)
    async with model_server(options) as environment:
        async with own_service(environment) as service:
            report = await drive(service, options)
        report["bare"] = await _bare_child(options, environment)
    cost, limit = report["cpu_ms_per_turn"]["service"], report["bare"]["cpu_ms_per_turn"]
    report["service_to_bare"] = round(cost / limit, 2)
    return report


async def drive(service: Service, options: argparse.Namespace) -> dict[str, Any]:
    """All clients at once, each of them turn after turn."""
    questions = QUESTIONS[options.model]
    warming = [client(service, questions, turns=len(questions)) for _ in range(2)]
    for turn in [turn for turns in await asyncio.gather(*warming) for turn in turns]:
        if turn.error:
            raise Trouble(f"the service does not answer well: {turn.error}")

    processes = {**service.processes, "load": psutil.Process()}
    before, began = {name: cpu(process) for name, process in processes.items()}, time.perf_counter()
    clients = [client(service, questions, turns=options.turns) for _ in range(options.clients)]
    turns = [turn for turns in await asyncio.gather(*clients) for turn in turns]
    seconds = time.perf_counter() - began
    spent = {name: cpu(process) - before[name] for name, process in processes.items()}

    ended = [turn for turn in turns if turn.error is None]
    return {
        "clients": options.clients,
        "turns": len(turns),
        "tokens": options.tokens if options.model == "stub" else None,
        "model": options.model,
        "seconds": round(seconds, 2),
        "turns_per_second": round(len(ended) / seconds, 1),
        "events_per_second": round(sum(turn.events for turn in turns) / seconds),
        "first_event_ms": spread([turn.first_event for turn in ended]),
        "first_token_ms": spread([turn.first_token for turn in ended]),
        "turn_ms": spread([turn.took for turn in ended]),
        "errors": counted(turn.error for turn in turns if turn.error),
        "cpu_ms_per_turn": {name: round(1000 * used / len(turns), 2) for name, used in spent.items()},
        "rss_mb": {name: round(process.memory_info().rss / 2**20) for name, process in service.processes.items()},
    }


async def client(service: Service, questions: Sequence[str], *, turns: int) -> list[Turn]:
    """One person in one session: says something, reads the stream to its end, goes on. Stops at an error."""
    done: list[Turn] = []
    session: str | None = None
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None
    try:
        for number in range(turns):
            turn = Turn()
            done.append(turn)
            try:
                if reader is None or writer is None:
                    reader, writer = await asyncio.open_connection(service.host, service.port)
                session = await _say(questions[number % len(questions)], session, turn, reader, writer, service)
            except (OSError, asyncio.IncompleteReadError) as error:
                turn.error = type(error).__name__
            if turn.error:
                break
    finally:
        if writer is not None:
            writer.close()
    return done


async def _say(
    message: str,
    session: str | None,
    turn: Turn,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    service: Service,
) -> str | None:
    """One turn over a connection that is kept; the id of its session."""
    body = {"message": message, **({"session_id": session} if session else {})}
    first, last = await streamed(service, "/chat", body, turn, reader, writer, token=b"token")
    if turn.error is None and last != b"done":
        turn.error = last.decode() or "nothing came"
    named = _SESSION.search(first)
    return session or (named[1].decode() if named else None)


async def streamed(
    service: Service,
    path: str,
    body: dict[str, Any],
    turn: Turn,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    *,
    token: bytes,
) -> tuple[bytes, bytes]:
    """One request whose frames are noted in `turn`: the first ones, and the last one's name.

    Only as much of HTTP as it takes to count, so that the load takes little of the machine it measures.
    """
    content = json.dumps(body).encode()
    key = f"x-api-key: {service.key}\r\n" if service.key else ""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {service.host}:{service.port}\r\n{key}"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    began = time.perf_counter()
    writer.write(head.encode() + content)
    answer = await reader.readuntil(b"\r\n\r\n")
    status = answer.split(b" ", 2)[1].decode()
    if status != "200":
        turn.error = status
        return b"", b""
    rest = first = last = b""
    ended = False
    while not ended:
        data = await reader.read(65536)
        if not data:
            turn.error = "cut off"
            break
        arrived = rest + data
        ended = arrived.endswith(b"\r\n0\r\n\r\n") or arrived == b"0\r\n\r\n"  # the last chunk, as HTTP marks it
        frames, _, rest = arrived.rpartition(b"\r\n\r\n")  # what is only half there is looked at again
        found = _EVENT.findall(frames)
        if found:
            first, last = first or frames, found[-1]
            turn.events += len(found)
            turn.first_event = turn.first_event or time.perf_counter() - began
            if turn.first_token is None and token in found:
                turn.first_token = time.perf_counter() - began
    turn.took = time.perf_counter() - began
    return first, last


# The bare limit: the same graph, the same model, the same number of chats at once; no server


async def bare(options: argparse.Namespace) -> dict[str, Any]:
    """CPU time per turn of the graph alone, streaming what the service has it stream, with its state in memory."""
    from langgraph.checkpoint.memory import InMemorySaver

    from graph.agent import agent
    from threadline.services.recorder import STREAM_MODES

    graph = (await agent()).copy(update={"checkpointer": InMemorySaver()})
    questions = QUESTIONS[options.model]

    async def chat(name: str, turns: int) -> None:
        for number in range(turns):
            message = {"role": "user", "content": questions[number % len(questions)]}
            config: Any = {"configurable": {"thread_id": name}}
            parts = graph.astream(
                {"messages": [message]}, config, stream_mode=STREAM_MODES, subgraphs=True, version="v2"
            )
            async for _ in parts:
                pass

    await asyncio.gather(*(chat(f"warm-{number}", len(questions)) for number in range(2)))
    began, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(chat(str(number), options.turns) for number in range(options.clients)))
    turns, seconds = options.clients * options.turns, time.perf_counter() - began
    return {
        "turns_per_second": round(turns / seconds, 1),
        "cpu_ms_per_turn": round(1000 * (time.process_time() - used) / turns, 2),
        "rss_mb": round(psutil.Process().memory_info().rss / 2**20),
    }


async def _bare_child(options: argparse.Namespace, environment: dict[str, str]) -> dict[str, Any]:
    shape = ("--clients", str(options.clients), "--turns", str(options.turns), "--model", options.model)
    async with child("bench/load.py", "--bare", *shape, environment=environment) as (_, line):
        return dict(json.loads(line))


# The processes it starts, each of them ended by its id


@asynccontextmanager
async def model_server(options: argparse.Namespace) -> AsyncIterator[dict[str, str]]:
    """The environment of who uses the model: the address of a stub that is up, or nothing for the offline model."""
    if options.model == "offline":
        yield {}
        return
    shape = ("--tokens", str(options.tokens), "--delay", str(options.delay))
    async with child("-m", "tests.stubs.model_server", *shape) as (_, line):
        yield {"OPENAI_BASE_URL": line, "THREADLINE_MODEL": "stub-model"}


@asynccontextmanager
async def own_service(
    environment: dict[str, str], *, config: Path = ROOT / "langgraph.json", state: str | None = None
) -> AsyncIterator[Service]:
    """A service of a project on a free port, its state in a folder that goes with it, or in `state`, which stays."""
    redis: list[psutil.Process] = []
    with nullcontext(state) if state else tempfile.TemporaryDirectory(prefix="threadline-load-") as folder:
        flags = ("--port", "0", "--data-dir", f"{folder}/data", "--config", str(config))
        try:
            async with child("-c", SERVICE, "up", *flags, environment=environment, folder=folder) as (process, line):
                address = urlsplit(line.rpartition(" ")[2])
                redis += [one for one in process.children(recursive=True) if "redis" in one.name()]
                processes = {"service": process, **({"redis": redis[0]} if redis else {})}
                yield Service(address.hostname or "", address.port or 0, processes=processes)
        finally:
            for orphan in redis:  # a service that was killed leaves its Redis behind
                with suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
                    orphan.terminate()
                    await asyncio.to_thread(orphan.wait, STOP_SECONDS)


@asynccontextmanager
async def child(
    *arguments: str, environment: dict[str, str] | None = None, folder: str | None = None
) -> AsyncIterator[tuple[psutil.Process, str]]:
    """A Python process and the first line it prints; gone at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        cwd=folder or ROOT,
        env={**CLEAN, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=sys.stderr,
    )
    assert process.stdout is not None
    try:
        line = (await process.stdout.readline()).decode().strip()
        if not line:
            raise Trouble(f"{' '.join(arguments[:3])} did not start")
        yield psutil.Process(process.pid), line
    finally:
        for stop in (process.terminate, process.kill):
            if process.returncode is None:
                stop()
                with suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), STOP_SECONDS)


CLEAN = {
    **{name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ},
    "PYTHONPATH": str(ROOT),
    "THREADLINE_LOG_LEVEL": "warning",
    "THREADLINE_WEATHER_URL": "http://127.0.0.1:9",
    "THREADLINE_GEOCODING_URL": "http://127.0.0.1:9",
    "THREADLINE_WIKIPEDIA_URL": "http://127.0.0.1:9",
    "THREADLINE_SEARCH_PROVIDERS": "wikipedia",
}
"""Nothing of whoever runs this reaches the service, no key and no address, and nothing leaves this machine."""


# Figures and words


def words(report: dict[str, Any]) -> str:
    """The report for people."""
    costs, rss = report["cpu_ms_per_turn"], report["rss_mb"]
    shape = f"{report['clients']} clients, {report['turns']} turns, model {report['model']}"
    lines = [
        f"{shape}, {report['tokens']} tokens a turn" if report["tokens"] else shape,
        *(f"{label:<16}{both(report[name])}" for name, label in TIMES.items()),
        f"{'throughput':<16}{report['turns_per_second']:g} turns/s, {report['events_per_second']} events/s"
        f" for {report['seconds']:g} s",
        f"{'CPU per turn':<16}" + ", ".join(f"{name} {used:g} ms" for name, used in costs.items()),
    ]
    if rss:
        lines.append(f"{'memory':<16}" + ", ".join(f"{name} {size} MB" for name, size in rss.items()))
    if "bare" in report:
        limit = report["bare"]
        lines += [
            f"{'bare graph':<16}{limit['cpu_ms_per_turn']:g} ms CPU per turn, {limit['turns_per_second']:g} turns/s, "
            f"{limit['rss_mb']} MB",
            f"{'ratio':<16}the service takes {report['service_to_bare']:g} times the CPU of the bare graph",
        ]
    lines.append(f"{'errors':<16}" + (", ".join(f"{n} × {kind}" for kind, n in report["errors"].items()) or "none"))
    return "\n".join(lines)


TIMES = {"first_event_ms": "first event", "first_token_ms": "first token", "turn_ms": "turn"}


def both(spread: dict[str, float] | None) -> str:
    return f"p50 {spread['p50']:g} ms, p95 {spread['p95']:g} ms" if spread else "none"


def spread(seconds: Sequence[float | None]) -> dict[str, float] | None:
    known = [1000 * value for value in seconds if value is not None]
    if len(known) < 2:
        return {"p50": round(known[0], 1), "p95": round(known[0], 1)} if known else None
    cuts = statistics.quantiles(known, n=20, method="inclusive")
    return {"p50": round(cuts[9], 1), "p95": round(cuts[18], 1)}


def counted(kinds: Iterator[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for kind in kinds:
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _stranger(url: str) -> Service:
    """A service somebody else started. Raises Trouble unless it is on this machine: this is no tool against others."""
    address = urlsplit(url)
    if address.scheme != "http" or address.hostname not in LOOPBACK:
        raise Trouble("--url must be http on 127.0.0.1")
    return Service(address.hostname, address.port or 80, key=os.environ.get("THREADLINE_KEY"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Drives many chats at once and says what a turn costs.")
    parser.add_argument("--clients", type=between(1, 1000), default=100, help="chats at once")
    parser.add_argument("--turns", type=between(1, 100), default=3, help="turns of each, one after the other")
    parser.add_argument("--tokens", type=between(1, 10_000), default=100, help="tokens of an answer")
    parser.add_argument("--delay", type=float, default=0, help="seconds after each token, as a real model takes")
    parser.add_argument("--model", choices=tuple(QUESTIONS), default="stub", help="who answers in the service started")
    parser.add_argument("--url", help="a service that runs here already; THREADLINE_KEY is shown to it")
    parser.add_argument("--seconds", type=float, default=300, help="give up after this long")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def between(least: int, most: int) -> Any:
    def number(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"between {least} and {most}")
        return value

    return number


if __name__ == "__main__":
    main()
