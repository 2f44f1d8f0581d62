"""What a turn costs in a long conversation, and what it takes to read one in a new process."""

from __future__ import annotations

import asyncio
import gc
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypedDict
from uuid import uuid4

import httpx
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from bench.checkpoints import memory, stock, three_nodes
from graph import conversation
from graph.conversation import Conversation
from threadline.storage import open_saver

REPEATS = 9
"""Processes that read the same state; the median counts."""
AT = (1, 10, 30, 100, 200, 300, 450, 600, 800, 1000)
"""Turns at which the stock savers are looked at: a real run of theirs to turn 1000 would write 4.7 GB."""


class Growing(TypedDict):
    messages: Annotated[list[AnyMessage], Conversation()]
    plan: str


@dataclass
class Long:
    """A conversation that was really held: per turn CPU in ms, KB of rows, KB that the process had written to disk."""

    cpu: list[float] = field(default_factory=list)
    rows: list[float] = field(default_factory=list)
    disk: list[float] = field(default_factory=list)


async def growth(*, turns: int) -> dict[str, Any]:
    """CPU, bytes and cold reads of one long conversation of the built-in graph, against the stock saver's."""
    with tempfile.TemporaryDirectory() as folder:
        return await _growth(Path(folder), turns)


async def cadence(*, turns: int, shares: Sequence[float]) -> dict[str, Any]:
    """The same for several cadences of snapshots: a snapshot after so many updates for each message held."""
    result: dict[str, Any] = {}
    for share in shares:
        conversation.SNAPSHOT_SHARE = share
        with tempfile.TemporaryDirectory() as folder:
            result[str(share)] = await _growth(Path(folder), turns)
    return result


async def _growth(folder: Path, turns: int) -> dict[str, Any]:
    file, plain = folder / "long.sqlite", folder / "plain.sqlite"
    config: Any = {"configurable": {"thread_id": str(uuid4())}}
    async with open_saver(history=f"sqlite:///{file}", live=None) as saver:
        graph = built_in(saver)
        held = await hold(graph, config, file, turns)
        messages = (await graph.aget_state(config)).values["messages"]
    async with AsyncSqliteSaver.from_conn_string(str(plain)) as saver:
        await three_nodes(saver).aupdate_state(config, {"messages": messages})
    last = min(100, turns // 2)
    worst, replayed = farthest(file, last * 5)
    reads = await cold_reads(
        {
            "latest": (f"sqlite:///{file}", config["configurable"]["thread_id"], ""),
            "farthest from a snapshot": (f"sqlite:///{file}", config["configurable"]["thread_id"], worst),
            "stock sqlite": (str(plain), config["configurable"]["thread_id"], ""),
        }
    )

    def means(values: Sequence[float]) -> dict[str, float]:
        return {
            "first 10": round(statistics.mean(values[:10]), 2),
            "first 100": round(statistics.mean(values[:100]), 2),
            "all": round(statistics.mean(values), 2),
            f"last {last}": round(statistics.mean(values[-last:]), 2),
            "largest": round(max(values), 2),
        }

    snapshots = [turn + 1 for turn, size in enumerate(held.rows) if size > 3 * statistics.median(held.rows)]
    return {
        "turns": turns,
        "messages": len(messages),
        "turns with a snapshot": snapshots,
        "CPU ms per turn": means(held.cpu),
        "KB of rows per turn": means(held.rows),
        "KB written to disk per turn": means(held.disk) if held.disk else None,
        "cold read ms": {name: round(statistics.median(each), 1) for name, each in reads.items()},
        "updates since a snapshot, at the farthest": replayed,
        "ratios": {
            "CPU": round(statistics.mean(held.cpu[-last:]) / statistics.mean(held.cpu[:10]), 2),
            "rows": round(statistics.mean(held.rows[-last:]) / statistics.mean(held.rows[:100]), 2),
            "disk": held.disk and round(statistics.mean(held.disk[-last:]) / statistics.mean(held.disk[:100]), 2),
            "cold read / stock sqlite": spread(reads["latest"], reads["stock sqlite"]),
            "cold read, farthest / stock sqlite": spread(reads["farthest from a snapshot"], reads["stock sqlite"]),
        },
    }


async def hold(graph: Any, config: Any, file: Path, turns: int) -> Long:
    held = Long()
    rows, disk = size(file), written()
    for turn in range(turns):
        question = HumanMessage(f"question {turn}: what is (15+27)*3?", id=str(uuid4()))
        began = time.process_time()
        await graph.ainvoke({"messages": [question]}, config, durability="sync")
        held.cpu.append((time.process_time() - began) * 1000)
        rows, before = size(file), rows
        held.rows.append((rows - before) / 1024)
        if disk is not None:
            now = written() or 0
            held.disk.append((now - disk) / 1024)
            disk = now
    return held


def built_in(saver: Any) -> Any:
    """The agent with the offline model and a tool that costs nothing."""
    from graph.build import build
    from threadline.services.models import ModelConfig, open_models
    from tools.catalog import ToolConfig, open_toolbox

    models = open_models(ModelConfig(offline_delay=0))
    nowhere = {f"{name}_url": "http://127.0.0.1:9" for name in ("weather", "geocoding", "wikipedia", "tavily", "brave")}
    toolbox = open_toolbox(ToolConfig(timeout=1, cache_size=0, cache_ttl=1, **nowhere), http=httpx.AsyncClient())
    return build(
        chat=models.chat, analysis=models.analysis, specs=toolbox.specs(), call_tool=toolbox.call, window=40
    ).compile(checkpointer=saver)


def size(file: Path) -> int:
    """Bytes of rows, which is what a turn adds; the file itself grows by pages and its log by transactions."""
    with closing(sqlite3.connect(file)) as connection:
        try:
            (rows,) = connection.execute(
                "SELECT (SELECT coalesce(sum(length(checkpoint) + length(metadata)), 0) FROM checkpoints)"
                " + (SELECT coalesce(sum(length(value)), 0) FROM writes)"
            ).fetchone()
        except sqlite3.OperationalError:  # no table yet
            return 0
    return int(rows)


def written() -> int | None:
    """Bytes this process has sent to the disk, its log and the moving of it into the file included; Linux only."""
    try:
        fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    except OSError:
        return None
    return int(fields["write_bytes"])


def farthest(file: Path, among: int) -> tuple[str, int]:
    """Of the newest checkpoints the one with most updates to replay: its id, and how many they are."""
    with closing(sqlite3.connect(file)) as connection:
        found = connection.execute(
            "SELECT checkpoint_id, metadata FROM checkpoints ORDER BY checkpoint_id DESC LIMIT ?", (among,)
        ).fetchall()
    since = [
        (json.loads(metadata).get("counters_since_delta_snapshot", {}).get("messages", [0])[0], checkpoint_id)
        for checkpoint_id, metadata in found
    ]
    updates, checkpoint_id = max(since)
    return checkpoint_id, updates


def spread(of: Sequence[float], to: Sequence[float]) -> dict[str, float]:
    each = [one / other for one, other in zip(of, to, strict=True)]
    low, _, high = statistics.quantiles(each, n=4)
    return {"median": round(statistics.median(each), 2), "from": round(low, 2), "to": round(high, 2)}


async def cold_reads(what: dict[str, tuple[str, str, str]]) -> dict[str, list[float]]:
    """Milliseconds new processes take for a state, once everything is imported and the file is open; in turns."""
    reads: dict[str, list[float]] = {name: [] for name in what}
    for _ in range(REPEATS):
        for name, arguments in what.items():
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", COLD, *arguments), stdout=asyncio.subprocess.PIPE
            )
            out, _ = await child.communicate()
            reads[name].append(float(out))
    return reads


COLD = """
import asyncio, sys, time
from bench.long_threads import AsyncSqliteSaver, built_in, open_saver, three_nodes

async def main(where, thread_id, checkpoint_id):
    ours = where.startswith("sqlite:///")
    opened = open_saver(history=where, live=None) if ours else AsyncSqliteSaver.from_conn_string(where)
    async with opened as saver:
        graph = built_in(saver) if ours else three_nodes(saver)
        place = {"thread_id": thread_id} | ({"checkpoint_id": checkpoint_id} if checkpoint_id else {})
        await graph.aget_state({"configurable": {"thread_id": "none"}})
        started = time.perf_counter()
        state = await graph.aget_state({"configurable": place})
        print((time.perf_counter() - started) * 1000)
        assert len(state.values["messages"]) > 1

asyncio.run(main(*sys.argv[1:]))
"""


# The plot: the same graph on every saver


async def plot(*, turns: int, to: Path) -> dict[str, Any]:
    """Draw cost per turn against turn number: ours of a real run, the stock savers' where they were looked at."""
    from threadline.storage.embedded import available, embedded_redis

    at = [turn for turn in AT if turn <= turns]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "long.sqlite"
        config: Any = {"configurable": {"thread_id": str(uuid4())}}
        async with open_saver(history=f"sqlite:///{file}", live=None) as saver:
            real = await hold(three_nodes(saver, Growing), config, file, turns)
        points = {
            "AsyncSqliteSaver": await look(stock, folder, at, rows_of_sqlite),
            "InMemorySaver": await look(memory, folder, at, rows_of_memory),
        }
        if available():
            async with embedded_redis(folder) as redis:
                points["AsyncRedisSaver"] = await look(redis_saver(redis), folder, at, sent_to_redis)
    draw(real, at, points, to)
    return {
        "turns": turns,
        "threadline": {"CPU ms, last 100": round(statistics.mean(real.cpu[-100:]), 2)}
        | {"KB, last 100": round(statistics.mean(real.rows[-100:]), 1)},
        "at turn": at,
        "savers": {
            name: {"CPU ms": [round(cpu, 1) for cpu, _ in each], "KB": [round(kb, 1) for _, kb in each]}
            for name, each in points.items()
        },
        "drawn": to,
    }


async def look(
    opener: Callable[[Path], Any], folder: Path, at: Sequence[int], bytes_of: Callable[[Any], Any]
) -> list[tuple[float, float]]:
    """CPU in ms and KB of a turn of the three-node graph with `add_messages`, at some turns of a conversation."""
    found = []
    for turn in at:
        async with opener(folder) as saver:
            graph = three_nodes(saver)
            config: Any = {"configurable": {"thread_id": str(uuid4())}}
            if turn > 1:
                await graph.aupdate_state(config, {"messages": list(said(turn - 1))})
            cpu, kb = [], []
            for _ in range(3):
                gc.collect()
                before, began = await bytes_of(saver), time.process_time()
                await graph.ainvoke({"messages": [HumanMessage("question")]}, config, durability="sync")
                cpu.append((time.process_time() - began) * 1000)
                kb.append((await bytes_of(saver) - before) / 1024)
            found.append((statistics.median(cpu), statistics.median(kb)))
    return found


def said(turns: int) -> list[AnyMessage]:
    """What the three-node graph has said after so many turns."""
    texts = ("I will look it up. " * 10, "found: " + "result " * 120, "The answer is " + "word " * 120)
    return [
        message
        for turn in range(turns)
        for message in (
            HumanMessage(f"question {turn}", id=str(uuid4())),
            *(AIMessage(t, id=str(uuid4())) for t in texts),
        )
    ]


async def rows_of_sqlite(saver: Any) -> int:
    cursor = await saver.conn.execute("PRAGMA database_list")
    _, _, file = await cursor.fetchone()
    return size(Path(file))


async def rows_of_memory(saver: Any) -> int:
    stored = sum(len(data) for _, data in saver.blobs.values())
    stored += sum(len(data) for one in saver.writes.values() for _, _, (_, data), _ in one.values())
    return stored + sum(
        len(checkpoint[1]) + len(metadata[1])
        for spaces in saver.storage.values()
        for space in spaces.values()
        for checkpoint, metadata, _ in space.values()
    )


async def sent_to_redis(saver: Any) -> int:
    return int((await saver._redis.info("stats"))["total_net_input_bytes"])


def redis_saver(url: str) -> Callable[[Path], Any]:
    @asynccontextmanager
    async def opened(_: Path) -> AsyncIterator[Any]:
        from langgraph.checkpoint.redis.aio import AsyncRedisSaver
        from redis.asyncio import Redis

        async with Redis.from_url(url) as client:
            saver = AsyncRedisSaver(redis_client=client)
            await saver.asetup()
            yield saver

    return opened


def draw(real: Long, at: Sequence[int], points: dict[str, list[tuple[float, float]]], to: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "threadline", "svg.fonttype": "none", "font.size": 9}
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    turns = range(1, len(real.cpu) + 1)
    for axis, mine, column, unit in ((axes[0], real.cpu, 0, "CPU ms"), (axes[1], real.rows, 1, "KB stored")):
        axis.plot(turns, mine, color="tab:blue", linewidth=0.5, alpha=0.35)
        axis.plot(turns, smooth(mine), color="tab:blue", linewidth=2, label="threadline (mean of 50 turns)")
        for (name, found), color in zip(points.items(), ("tab:orange", "tab:green", "tab:red"), strict=False):
            axis.plot(at, [each[column] for each in found], "o-", color=color, markersize=3, linewidth=1, label=name)
        axis.set(xlabel="turn", ylabel=f"{unit} per turn", yscale="log", xlim=(0, len(real.cpu)))
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, metadata={"Date": None, "Creator": None})


def smooth(values: Sequence[float], over: int = 50) -> list[float]:
    return [statistics.mean(values[max(0, end - over) : end]) for end in range(1, len(values) + 1)]
