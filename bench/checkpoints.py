"""Turns per second of a three-node graph on each checkpoint saver, and what a long conversation costs.

    python -m bench.checkpoints throughput
    python -m bench.checkpoints growth --turns 1000
    python -m bench.checkpoints cadence
    python -m bench.checkpoints plot

Rounds alternate between the savers, so that a slow moment of the machine meets them all; a ratio is the median of the
rounds' own. One JSON object is printed. The last three are in `bench/long_threads.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
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

LIVE = "threadline, live tier"

Opener = Callable[[Path], AbstractAsyncContextManager[Any]]


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    plan: str


def three_nodes(saver: Any, state: type = State) -> Any:
    """Analyse, act, answer: four messages a turn with about 1.9 KB of text."""

    async def analyse(_: Any) -> dict[str, Any]:
        return {"plan": "act", "messages": [AIMessage("I will look it up. " * 10)]}

    async def act(_: Any) -> dict[str, Any]:
        return {"messages": [AIMessage("found: " + "result " * 120)]}

    async def answer(_: Any) -> dict[str, Any]:
        return {"messages": [AIMessage("The answer is " + "word " * 120)]}

    graph = StateGraph(state)
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
            savers[LIVE] = ours(redis)
        for number in range(rounds + 1):
            for name, opener in savers.items():
                gc.collect()  # every saver begins with the same heap
                async with opener(folder) as saver:
                    measured = await turns_per_second(saver, sessions=sessions, turns=turns if number else 1)
                if number:  # the first round warms up
                    found.setdefault(name, []).append(measured)
    rates = {name: [rate for rate, _ in each] for name, each in found.items()}
    ratios = {
        "threadline / stock sqlite": ratio(rates["threadline"], rates["stock sqlite"]),
        "threadline / memory": ratio(rates["threadline"], rates["memory"]),
    }
    if LIVE in rates:
        ratios["live tier / without"] = ratio(rates[LIVE], rates["threadline"])
    return {
        "sessions": sessions,
        "turns": turns,
        "rounds": rounds,
        "turns per second": {name: round(statistics.median(each), 1) for name, each in rates.items()},
        "CPU ms per turn": {name: round(statistics.median(ms for _, ms in each), 2) for name, each in found.items()},
        "each round": {name: " ".join(f"{rate:.0f}" for rate in each) for name, each in rates.items()},
        "ratios": ratios,
    }


def ratio(of: Sequence[float], to: Sequence[float]) -> dict[str, float]:
    """The median of the rounds' ratios, and how far the middle half of them is spread."""
    each = [one / other for one, other in zip(of, to, strict=True)]
    low, _, high = statistics.quantiles(each, n=4) if len(each) > 1 else each * 3
    return {"median": round(statistics.median(each), 2), "from": round(low, 2), "to": round(high, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    speed = commands.add_parser("throughput")
    speed.add_argument("--rounds", type=int, default=11)
    speed.add_argument("--sessions", type=int, default=50)
    speed.add_argument("--turns", type=int, default=4)
    speed.add_argument("--redis", help="URL of a Redis; an embedded one by default")
    long = commands.add_parser("growth")
    long.add_argument("--turns", type=int, default=1000)
    cadence = commands.add_parser("cadence")
    cadence.add_argument("--turns", type=int, default=1000)
    cadence.add_argument("--shares", type=float, nargs="+", default=[0.5, 0.25, 0.1, 0.05])
    plot = commands.add_parser("plot")
    plot.add_argument("--turns", type=int, default=1000)
    plot.add_argument("--to", type=Path, default=Path("docs/images/checkpoint-cost.svg"))
    options = vars(parser.parse_args())
    from bench import long_threads

    measure = {
        "throughput": throughput,
        "growth": long_threads.growth,
        "cadence": long_threads.cadence,
        "plot": long_threads.plot,
    }[options.pop("command")]
    print(json.dumps({"cores": os.cpu_count(), **asyncio.run(measure(**options))}, indent=2, default=str))


if __name__ == "__main__":
    main()
