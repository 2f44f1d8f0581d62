"""Turns per second of a three-node graph on each checkpoint saver, and what a long conversation costs.

    python -m bench.checkpoints throughput
    python -m bench.checkpoints growth --turns 1000

Rounds alternate between the savers, so that a slow moment of the machine meets them all; the ratios are of medians of
one run. One JSON object is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Annotated, Any, TypedDict
from uuid import uuid4

import httpx
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from threadline.storage import open_saver

Opener = Callable[[Path], AbstractAsyncContextManager[Any]]


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    plan: str


def three_nodes(saver: Any) -> Any:
    """Analyse, act, answer: four messages a turn with about 1.9 KB of text."""

    async def analyse(state: State) -> dict[str, Any]:
        return {"plan": "act", "messages": [AIMessage("I will look it up. " * 10)]}

    async def act(state: State) -> dict[str, Any]:
        return {"messages": [AIMessage("found: " + "result " * 120)]}

    async def answer(state: State) -> dict[str, Any]:
        return {"messages": [AIMessage("The answer is " + "word " * 120)]}

    graph = StateGraph(State)
    for node in (analyse, act, answer):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "analyse")
    graph.add_edge("analyse", "act")
    graph.add_edge("act", "answer")
    graph.add_edge("answer", END)
    return graph.compile(checkpointer=saver)


async def turns_per_second(saver: Any, *, sessions: int, turns: int) -> tuple[float, float]:
    """Whole turns per second of wall time, and milliseconds of this process's CPU time per turn."""
    graph = three_nodes(saver)

    async def session() -> None:
        config = {"configurable": {"thread_id": str(uuid4())}}
        for turn in range(turns):
            await graph.ainvoke({"messages": [HumanMessage(f"question {turn}")]}, config, durability="sync")

    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(session() for _ in range(sessions)))
    done = sessions * turns
    return done / (time.perf_counter() - started), (time.process_time() - cpu) * 1000 / done


@asynccontextmanager
async def memory(_: Path) -> AsyncIterator[Any]:
    yield InMemorySaver()


@asynccontextmanager
async def stock(folder: Path) -> AsyncIterator[Any]:
    async with AsyncSqliteSaver.from_conn_string(str(folder / f"{uuid4()}.sqlite")) as saver:
        yield saver


def ours(live: str | None) -> Opener:
    @asynccontextmanager
    async def opened(folder: Path) -> AsyncIterator[Any]:
        async with open_saver(history=f"sqlite:///{folder / f'{uuid4()}.sqlite'}", live=live) as saver:
            yield saver

    return opened


async def throughput(*, rounds: int, sessions: int, turns: int, redis: str | None) -> dict[str, Any]:
    savers: dict[str, Opener] = {"threadline": ours(None), "stock sqlite": stock, "memory": memory}
    found: dict[str, list[tuple[float, float]]] = {}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if redis is None:
            from threadline.storage.embedded import available, embedded_redis

            if available():
                redis = await stack.enter_async_context(embedded_redis(folder))
        if redis is not None:
            savers["threadline, live tier"] = ours(redis)
        for number in range(rounds + 1):
            for name, opener in savers.items():
                async with opener(folder) as saver:
                    measured = await turns_per_second(saver, sessions=sessions, turns=turns if number else 1)
                if number:  # the first round warms up
                    found.setdefault(name, []).append(measured)
    median = {name: statistics.median(rate for rate, _ in each) for name, each in found.items()}
    cpu = {name: statistics.median(ms for _, ms in each) for name, each in found.items()}
    result = {
        "sessions": sessions,
        "turns": turns,
        "rounds": rounds,
        "turns per second": {name: round(rate, 1) for name, rate in median.items()},
        "each round": {name: [round(rate, 1) for rate, _ in each] for name, each in found.items()},
        "CPU ms per turn": {name: round(ms, 2) for name, ms in cpu.items()},
        "ratios": {
            "threadline / stock sqlite": round(median["threadline"] / median["stock sqlite"], 2),
            "threadline / memory": round(median["threadline"] / median["memory"], 2),
        },
    }
    if redis is not None:
        result["ratios"]["live tier / without"] = round(median["threadline, live tier"] / median["threadline"], 2)
    return result


async def growth(*, turns: int) -> dict[str, Any]:
    """CPU, bytes and cold reads of one long conversation of the built-in graph, against the stock saver's."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "long.sqlite"
        config: Any = {"configurable": {"thread_id": str(uuid4())}}
        cpu, written = [], []
        async with open_saver(history=f"sqlite:///{file}", live=None) as saver:
            graph = built_in(saver)
            before = size(file)
            for turn in range(turns):
                question = HumanMessage(f"question {turn}: what is (15+27)*3?", id=str(uuid4()))
                started = time.process_time()
                await graph.ainvoke({"messages": [question]}, config, durability="sync")
                cpu.append((time.process_time() - started) * 1000)
                now = size(file)
                written.append(now - before)
                before = now
            messages = (await graph.aget_state(config)).values["messages"]
        plain = Path(folder) / "plain.sqlite"
        async with AsyncSqliteSaver.from_conn_string(str(plain)) as saver:
            await three_nodes(saver).aupdate_state(config, {"messages": messages})
        reads: dict[str, list[float]] = {"threadline": [], "stock sqlite": []}
        for _ in range(7):
            reads["threadline"].append(await cold_read(f"sqlite:///{file}", config))
            reads["stock sqlite"].append(await cold_read(str(plain), config))
    median = {name: statistics.median(each) for name, each in reads.items()}
    last = min(100, turns // 2)
    return {
        "turns": turns,
        "messages": len(messages),
        "CPU ms per turn": {
            "first 10": round(statistics.mean(cpu[:10]), 2),
            "first 100": round(statistics.mean(cpu[:100]), 2),
            f"last {last}": round(statistics.mean(cpu[-last:]), 2),
        },
        "KB per turn": {
            "first 100": round(statistics.mean(written[:100]) / 1024, 1),
            "all": round(statistics.mean(written) / 1024, 1),
            f"last {last}": round(statistics.mean(written[-last:]) / 1024, 1),
            "largest": round(max(written) / 1024, 1),
        },
        "cold read ms": {name: round(each, 1) for name, each in median.items()},
        "ratios": {
            "CPU": round(statistics.mean(cpu[-last:]) / statistics.mean(cpu[:10]), 2),
            "bytes": round(statistics.mean(written[-last:]) / statistics.mean(written[:100]), 2),
            "cold read / stock sqlite": round(median["threadline"] / median["stock sqlite"], 2),
        },
    }


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
        (rows,) = connection.execute(
            "SELECT (SELECT coalesce(sum(length(checkpoint) + length(metadata)), 0) FROM checkpoints)"
            " + (SELECT coalesce(sum(length(value)), 0) FROM writes)"
        ).fetchone()
    return int(rows)


async def cold_read(where: str, config: Any) -> float:
    """Milliseconds a new process takes for the latest state, once everything is imported and the file is open."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", COLD, where, config["configurable"]["thread_id"]), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate()
    return float(out)


COLD = """
import asyncio, sys, time
from bench.checkpoints import AsyncSqliteSaver, built_in, open_saver, three_nodes

async def main(where, thread_id):
    ours = where.startswith("sqlite:///")
    opened = open_saver(history=where, live=None) if ours else AsyncSqliteSaver.from_conn_string(where)
    async with opened as saver:
        graph = built_in(saver) if ours else three_nodes(saver)
        config = {"configurable": {"thread_id": thread_id}}
        await graph.aget_state({"configurable": {"thread_id": "none"}})
        started = time.perf_counter()
        state = await graph.aget_state(config)
        print((time.perf_counter() - started) * 1000)
        assert len(state.values["messages"]) > 1

asyncio.run(main(*sys.argv[1:]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    speed = commands.add_parser("throughput")
    speed.add_argument("--rounds", type=int, default=5)
    speed.add_argument("--sessions", type=int, default=50)
    speed.add_argument("--turns", type=int, default=4)
    speed.add_argument("--redis", help="URL of a Redis; an embedded one by default")
    long = commands.add_parser("growth")
    long.add_argument("--turns", type=int, default=1000)
    options = vars(parser.parse_args())
    measure = {"throughput": throughput, "growth": growth}[options.pop("command")]
    print(json.dumps({"cores": os.cpu_count(), **asyncio.run(measure(**options))}, indent=2))


if __name__ == "__main__":
    main()
