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
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict
from uuid import uuid4

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    speed = commands.add_parser("throughput")
    speed.add_argument("--rounds", type=int, default=5)
    speed.add_argument("--sessions", type=int, default=50)
    speed.add_argument("--turns", type=int, default=4)
    speed.add_argument("--redis", help="URL of a Redis; an embedded one by default")
    options = vars(parser.parse_args())
    del options["command"]
    print(json.dumps({"cores": os.cpu_count(), **asyncio.run(throughput(**options))}, indent=2))


if __name__ == "__main__":
    main()
