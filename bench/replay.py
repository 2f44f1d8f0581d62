"""What recorded replay gives and what recording costs.

    python -m bench.replay throughput --turns 1000
    python -m bench.replay archive --turns 300

`throughput` talks one long session with a model that takes no time, then plays it back at once, each time in a service
process that has just started, and says how many events a second came live and came back, and what memory that took.

`archive` makes the same runs with their log in a plain list, with their log as the service keeps it (Redis while the
run goes on, SQLite afterwards), and, if it is installed, the library `langgraph-replay` recording the same graph; in
turns, in one process. Runs have their row in the history either way.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from bench.load import QUESTIONS, Service, Trouble, Turn, _say, model_server, own_service, streamed
from tests.projects.server.graphs import bench as speaking
from threadline.domain.events import Event
from threadline.domain.records import Run, Thread
from threadline.services.recorder import Recorder, graph_modes
from threadline.storage.breaker import Breaker
from threadline.storage.database import Database, open_database
from threadline.storage.embedded import available, embedded_redis
from threadline.storage.event_log import TieredEventLog
from threadline.storage.records import SqlArchive, SqlRuns, SqlThreads
from threadline.storage.redis_live import RedisLiveLog, open_redis

SHORT = 100
"""Turns of the shortest session. What a replay takes should be the same for half the turns as for all of them: the page
caches of SQLite, 2 MB a connection, fill up on the way there."""
LIBRARY = "langgraph_replay"
SAMPLE = 0.02


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it ends its children then too
    measure = throughput if options.what == "throughput" else archive
    try:
        report = asyncio.run(asyncio.wait_for(measure(options), options.seconds))
    except Trouble as trouble:
        sys.exit(f"replay: {trouble}")
    except TimeoutError:
        sys.exit(f"replay: not done after {options.seconds:g} s; --seconds allows more")
    except KeyboardInterrupt:
        sys.exit(130)
    print(json.dumps(report, indent=2))


# Throughput and memory


async def throughput(options: argparse.Namespace) -> dict[str, Any]:
    """Events a second, live and replayed, and megabytes of the service before, at most during, and after a replay."""
    with tempfile.TemporaryDirectory(prefix="threadline-replay-") as state:
        async with model_server(options) as environment:
            async with own_service(environment, state=state) as service:
                await _talk(service, options.model, 5)
                short, _ = await _talk(service, options.model, SHORT)
                half, _ = await _talk(service, options.model, options.turns // 2)
                long, live = await _talk(service, options.model, options.turns)
            played = {}
            for format, asked in FORMATS.items():
                for turns, session in ((SHORT, short), (options.turns // 2, half), (options.turns, long)):
                    name = f"{turns} turns"
                    async with own_service(environment, state=state) as service:
                        played[f"{format}, {name}"] = await _replayed(service, session, asked, warm=short)
    rate = live["events_per_second"]
    whole = played[f"chat, {options.turns} turns"]
    return {
        "turns": options.turns,
        "model": options.model,
        "live": live,
        "replayed": played,
        "replay_to_live": round(whole["events_per_second"] / rate, 1),
        "memory_grown_mb": {
            name: round(each["rss_mb"]["most"] - each["rss_mb"]["before"], 1) for name, each in played.items()
        },
    }


FORMATS: dict[str, dict[str, Any]] = {
    "chat": {},
    "langgraph": {"format": "langgraph", "modes": ["messages-tuple", "updates"], "subgraphs": True},
    "protocol": {"format": "protocol", "modes": ["messages", "tools", "custom", "lifecycle", "updates"]},
}


async def _talk(service: Service, model: str, turns: int) -> tuple[str, dict[str, Any]]:
    """One session, one turn after the other; its id, and how fast its events came."""
    questions = QUESTIONS[model]
    session: str | None = None
    events, began = 0, time.perf_counter()
    reader, writer = await asyncio.open_connection(service.host, service.port)
    with closing(writer):
        for number in range(turns):
            turn = Turn()
            session = await _say(questions[number % len(questions)], session, turn, reader, writer, service)
            if turn.error or session is None:
                raise Trouble(f"the service does not answer well: {turn.error}")
            events += turn.events
    return session or "", _rate(events, time.perf_counter() - began)


async def _replayed(service: Service, session: str, asked: dict[str, Any], *, warm: str) -> dict[str, Any]:
    """One session at once, after another one, with which all that is loaded at first use is in memory."""
    process = service.processes["service"]
    await _play(service, warm, asked)
    before = most = process.memory_info().rss
    playing = asyncio.create_task(_play(service, session, asked))
    while not playing.done():
        most = max(most, process.memory_info().rss)
        await asyncio.sleep(SAMPLE)
    turn = await playing
    return {
        **_rate(turn.events, turn.took or 0),
        "first_event_ms": round(1000 * (turn.first_event or 0)),
        "rss_mb": {"before": _mb(before), "most": _mb(most), "after": _mb(process.memory_info().rss)},
    }


async def _play(service: Service, session: str, asked: dict[str, Any]) -> Turn:
    turn = Turn()
    body = {"mode": "recorded", **asked}
    reader, writer = await asyncio.open_connection(service.host, service.port)
    with closing(writer):
        path = f"/sessions/{session}/replay"
        _, last = await streamed(service, path, body, turn, reader, writer, token=b"token")
    if turn.error or last != b"replay_done":
        raise Trouble(f"the replay broke off: {turn.error or last.decode()}")
    return turn


def _rate(events: int, seconds: float) -> dict[str, Any]:
    return {"events": events, "seconds": round(seconds, 2), "events_per_second": round(events / seconds)}


def _mb(size: int) -> float:
    return round(size / 2**20, 1)


# What a recording costs


Turns = Callable[[int], Coroutine[Any, Any, None]]


async def archive(options: argparse.Namespace) -> dict[str, Any]:
    """CPU milliseconds a turn, this process and all its threads, and kilobytes a turn on disk."""
    if not available():
        raise Trouble("no embedded Redis fits this machine")
    with tempfile.TemporaryDirectory(prefix="threadline-archive-") as folder:
        async with open_kept(Path(folder)) as kept:
            ways = {"list": kept.plain(options.tokens), "threadline": kept.logged(options.tokens)}
            library = Path(folder) / "library.db"
            if importlib.util.find_spec(LIBRARY):
                ways[LIBRARY] = _library(options.tokens, library)
            for run in ways.values():
                await run(20)  # first use
            size, kept_before = _size(library), kept.size()
            spent, redis = await _measured(ways, options, kept)
            turns = options.turns
            disk = {
                "threadline": {
                    "logs": round(kept.logs() / kept.count / 1000, 2),
                    "file": round((kept.size() - kept_before) / turns / 1000, 2),
                }
            }
            if LIBRARY in ways:
                disk[LIBRARY] = {"file": round((_size(library) - size) / turns / 1000, 2)}
    cpu = {name: round(statistics.median(each), 2) for name, each in spent.items()}
    paired = {
        name: round(statistics.median(b - a for a, b in zip(spent["list"], each, strict=True)), 2)
        for name, each in spent.items()
        if name != "list"
    }
    report: dict[str, Any] = {
        "turns": turns,
        "tokens": options.tokens,
        "events_a_turn": kept.events,
        "cpu_ms_per_turn": cpu,
        "more_than_the_list_ms": paired,
        "redis_cpu_ms_per_turn": redis,
        "kb_per_turn": disk,
    }
    if LIBRARY not in ways:
        report[LIBRARY] = "not installed, so not measured: pip install langgraph-replay"
    return report


async def _measured(
    ways: dict[str, Turns], options: argparse.Namespace, kept: Kept
) -> tuple[dict[str, list[float]], float]:
    spent: dict[str, list[float]] = {name: [] for name in ways}
    redis = 0.0
    each = options.turns // options.rounds
    for _ in range(options.rounds):
        for name, run in ways.items():
            used, redis_used = time.process_time(), kept.redis_cpu()
            await run(each)
            spent[name].append(1000 * (time.process_time() - used) / each)
            redis += kept.redis_cpu() - redis_used if name == "threadline" else 0
    return spent, round(1000 * redis / options.turns, 2)


async def _stream(recorder: Recorder, graph: Any, tokens: int, thread_id: str, run_id: str) -> None:
    """One turn, told to a recorder part by part, as the service does."""
    config = {"configurable": {"thread_id": thread_id}, "metadata": {"run_id": run_id}}
    given = {"messages": [HumanMessage(str(tokens), id=str(uuid4()))]}
    async for part in graph.astream(
        given, config, stream_mode=graph_modes(recorder.wanted), version="v2", subgraphs=True
    ):
        recorder.record(part)
    recorder.close_tasks("success")
    recorder.close_message()


def _graph() -> Any:
    return speaking.copy(update={"checkpointer": InMemorySaver()})


class Unlogged(SqlRuns):
    """Keeps runs as ever, but not their logs."""

    def _archive(self, connection: Any, run: Run, log: Any) -> None:
        pass


class Listed:
    """The least a log can be: a list, gone with its run."""

    def __init__(self) -> None:
        self._log: list[Event] = []

    def open(self, run_id: str) -> None:
        self._log = []

    def append(self, run_id: str, type: Any, data: Any, *, ns: tuple[str, ...] = ()) -> Event:
        event = Event(len(self._log) + 1, type, ns, data, time.time())
        self._log.append(event)
        return event

    def events(self, run_id: str) -> list[Event]:
        return self._log

    def draft_end(self, run_id: str, data: Any) -> Event:
        return Event(len(self._log) + 1, "end", (), data, time.time())

    async def close(self, run_id: str, end: Event) -> None:
        self._log.append(end)


class Kept:
    """Where runs are kept, and what the logs among it take."""

    def __init__(self, database: Database, log: TieredEventLog, folder: Path, redis: psutil.Process) -> None:
        self._folder = folder
        self._redis = redis
        self._threads = SqlThreads(database)
        self._logged, self._unlogged = SqlRuns(database), Unlogged(database)
        self._log = log
        self.count = self.events = 0

    def plain(self, tokens: int) -> Turns:
        return partial(self._turns, tokens, self._unlogged, Listed())

    def logged(self, tokens: int) -> Turns:
        return partial(self._turns, tokens, self._logged, self._log)

    async def _turns(self, tokens: int, runs: SqlRuns, log: Any, count: int) -> None:
        for _ in range(count):
            run_id, now = str(uuid4()), datetime.now(UTC)
            thread = Thread(str(uuid4()), owner="bench", created_at=now, updated_at=now)
            run = Run(run_id, thread.thread_id, "bench", run_id, "running", {}, now)
            log.open(run_id)
            await runs.create(run, thread=thread)
            await _stream(Recorder(partial(log.append, run_id)), _graph(), tokens, thread.thread_id, run_id)
            end = log.draft_end(run_id, {"status": "success", "error": None})
            events = [*log.events(run_id), end]
            await runs.finish(replace(run, status="success", ended_at=datetime.now(UTC)), turn=None, log=events)
            await log.close(run_id, end)
            if runs is self._logged:
                self.count, self.events = self.count + 1, len(events)

    def logs(self) -> int:
        with closing(sqlite3.connect(self._folder / "history.db")) as connection:
            (size,) = connection.execute("SELECT sum(length(events)) FROM run_logs").fetchone()
        return int(size)

    def size(self) -> int:
        """Bytes of the tables and indexes that hold logs."""
        with closing(sqlite3.connect(self._folder / "history.db")) as connection:
            names = "SELECT name FROM sqlite_master WHERE tbl_name = 'run_logs'"
            query = f"SELECT coalesce(sum(pgsize), 0) FROM dbstat WHERE name IN ({names})"
            (size,) = connection.execute(query).fetchone()
        return int(size)

    def redis_cpu(self) -> float:
        times = self._redis.cpu_times()
        return float(times.user + times.system)


@asynccontextmanager
async def open_kept(folder: Path) -> AsyncIterator[Kept]:
    async with (
        embedded_redis(folder) as url,
        open_redis(url) as redis,
        open_database(folder / "history.db") as database,
    ):
        live = RedisLiveLog(redis, ttl=3600, breaker=Breaker("live log"))
        log = TieredEventLog(live=live, archive=SqlArchive(database))
        process = next(one for one in psutil.Process().children(recursive=True) if "redis" in one.name())
        async with log.copying():
            yield Kept(database, log, folder, process)


def _library(tokens: int, file: Path) -> Turns:
    """The graph with the library's own checkpointer and its callbacks, as its guide says; nothing else records."""
    from langgraph_replay import ReplayCallbackHandler, ReplayCheckpointer  # type: ignore[import-not-found]

    graph = speaking.copy(update={"checkpointer": ReplayCheckpointer(db_path=str(file))})
    handler = ReplayCallbackHandler(str(file))

    async def turns(count: int) -> None:
        for _ in range(count):
            config: Any = {"configurable": {"thread_id": str(uuid4())}, "callbacks": [handler]}
            given = {"messages": [HumanMessage(str(tokens), id=str(uuid4()))]}
            async for _ in graph.astream(given, config, stream_mode=graph_modes(()), version="v2", subgraphs=True):
                pass

    return turns


def _size(file: Path) -> int:
    """Of a SQLite file with its log."""
    size = 0
    for name in (file, file.with_name(f"{file.name}-wal")):
        with suppress(FileNotFoundError):
            size += name.stat().st_size
    return size


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What recorded replay gives and what recording costs.")
    parser.add_argument("what", choices=("throughput", "archive"))
    parser.add_argument("--turns", type=int, default=None, help="default: 1000 for throughput, 300 for archive")
    parser.add_argument("--tokens", type=int, default=100, help="of an answer; not of the offline model")
    parser.add_argument("--model", choices=tuple(QUESTIONS), default="offline", help="of throughput")
    parser.add_argument("--rounds", type=int, default=10, help="of archive: the ways take turns so often")
    parser.add_argument("--seconds", type=float, default=570, help="give up after so long")
    options = parser.parse_args()
    options.delay = 0.0
    options.turns = options.turns or (1000 if options.what == "throughput" else 300)
    return options


if __name__ == "__main__":
    main()
