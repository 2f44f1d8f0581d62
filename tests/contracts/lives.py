"""A random life of many threads on our saver and on InMemorySaver at once, compared after every step.

Two of our savers take turns on one file, as two processes would; Redis is wiped, killed and set back meanwhile. The
ids of checkpoints are counted and not drawn, so both sides have the same ones and everything is compared as it is.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, rule
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import EmptyInputError, InvalidUpdateError
from langgraph.types import Command

from tests.contracts.conftest import Clock, RedisServer, until
from tests.contracts.exact import difference, exact
from tests.contracts.graphs import DELTAS, KINDS, Fault, Kind, World
from tests.contracts.reference import Reference
from threadline.domain.errors import Conflict
from threadline.storage import open_saver

IN_MEMORY = Path("/dev/shm")
"""Where the files lie if the system has it: what reaches the disk is for the crash test to show."""
STEP_NAMES: set[str] = set()

EXPECTED = (Fault, Conflict, InvalidUpdateError, EmptyInputError)
"""What an operation may raise, as long as it does on both sides."""

EVENTS = (
    "lets the session expire",
    "is wiped",
    "remembers",
    "dies",
    "comes back",
    "comes back as it was",
    "is set back",
)

ids: ContextVar[Iterator[UUID]] = ContextVar("ids")


def counted(tick: int, run: int = 0) -> Iterator[UUID]:
    """Ids that grow with every operation; the same ones, whichever saver it is done on."""
    return (UUID(int=tick << 64 | run << 32 | n) for n in range(1, 1 << 32))


@dataclass(frozen=True)
class Thread:
    """A thread and the kind of graph that runs on it."""

    id: str
    kind: str

    def __repr__(self) -> str:
        return f"<{self.kind} {self.id}>"

    @property
    def graph(self) -> Kind:
        return KINDS[self.kind]

    def config(self, **more: Any) -> dict[str, Any]:
        return {"configurable": {"thread_id": self.id, **more}}


@dataclass
class Side:
    """A saver, and the graphs that run on it."""

    saver: BaseCheckpointSaver[Any]
    world: World
    graphs: dict[str, Any] = field(default_factory=dict)

    def graph(self, thread: Thread) -> Any:
        if thread.kind not in self.graphs:
            self.graphs[thread.kind] = thread.graph.compile(self.saver, self.world)
        return self.graphs[thread.kind]


Act = Callable[[Side], Awaitable[Any]]


@dataclass
class Tally:
    """What was done and compared."""

    states: int = 0
    listed: int = 0
    lives: int = 0
    first: int | None = None
    """After how many equal states there was a difference."""
    hits: int = 0
    done: Counter[str] = field(default_factory=Counter)
    raised: Counter[str] = field(default_factory=Counter)


threads = Bundle[Thread]("threads")
some_threads = st.lists(threads, min_size=1, max_size=2, unique=True)
process = st.integers(0, 1)
marks = st.sampled_from(["?", "?", "??", ""])
"""How many questions are asked during the turn."""
durability = st.sampled_from(["sync", "sync", "async", "exit"])
back = st.integers(0, 12)
"""How many checkpoints before the newest; of all there are, modulo."""
backs = st.lists(st.integers(0, 5), min_size=1, max_size=2)
faults = st.sampled_from([None, None, None, 0, 1, 2, 3])
"""Which part of the graph fails."""
strikes = st.sampled_from([None, None, None, None, "wiped", "killed", "set back"])
"""What strikes Redis in the middle of a run; it is set back at the end, as if it had missed all of it."""


def step(**drawn: Any) -> Callable[[Callable[..., Any]], Any]:
    """A rule that counts how often it was followed."""

    def decorate(function: Callable[..., Any]) -> Any:
        STEP_NAMES.add(function.__name__)

        @wraps(function)
        def counting(self: Lives, **values: Any) -> Any:
            self.tally.done[function.__name__] += 1
            return function(self, **values)

        return rule(**drawn)(counting)

    return decorate


class Lives(RuleBasedStateMachine):
    """Every rule does one thing to both sides, then compares the threads it touched."""

    def __init__(self, server: RedisServer, clock: Clock, tally: Tally) -> None:
        super().__init__()
        self.server, self.clock, self.tally = server, clock, tally
        self.tick = 0
        self.named = 0
        self.runs: dict[str, list[str]] = {}
        self.redis_runs = True
        self.documents: dict[str, bytes] = {}
        with server.client() as client:
            client.flushall()
        self.folder = Path(tempfile.mkdtemp(prefix="threadline-fuzz-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
        self.loop = asyncio.Runner()
        self.reference = Reference(deltas=DELTAS)
        self.model = Side(self.reference, World())
        self.world = World()
        self.stacks = [AsyncExitStack(), AsyncExitStack()]
        self.ours = [self.loop.run(self._open(number, live=True)) for number in range(2)]
        tally.lives += 1

    async def _open(self, number: int, *, live: bool) -> Side:
        saver = open_saver(
            history=f"sqlite:///{self.folder}/history.sqlite", live=self.server.url if live else None, clock=self.clock
        )
        return Side(await self.stacks[number].enter_async_context(saver), self.world)

    def teardown(self) -> None:
        try:
            for number in range(2):
                self.loop.run(self._close(number))
            self.loop.close()
            if not self.redis_runs:
                self.server.start()
        finally:
            shutil.rmtree(self.folder)

    async def _close(self, number: int) -> None:
        self.tally.hits += self.ours[number].saver.live_hits  # type: ignore[attr-defined]
        await self.stacks[number].aclose()

    # Doing and comparing

    def both(self, via: int, act: Act, *touched: Thread, strike: str | None = None, fault: int | None = None) -> None:
        """Do it on one of our savers and on the reference. The same must come of it, here and in every state."""
        self.tick += 1
        self.world.strike = {"wiped": self._wipe, "killed": self._kill}.get(strike or "")
        held = self._held() if strike == "set back" else {}
        fails = set() if fault is None else {each.graph.parts[fault % len(each.graph.parts)] for each in touched}
        told = []
        for side in (self.ours[via], self.model):
            side.world.failing, side.world.ran = fails, []
            told.append(self.loop.run(self._outcome(act, side)))
            told[-1]["ran"] = sorted(side.world.ran)
        self.world.strike = None
        if held:
            self._start(held)
        self._same("outcome", *told)
        self.tally.raised[told[0].get("raised", "nothing")] += 1
        for thread in dict.fromkeys(touched):
            self.compare(thread)

    async def _outcome(self, act: Act, side: Side) -> dict[str, Any]:
        ids.set(counted(self.tick))
        try:
            return {"returned": exact(await act(side))}
        except EXPECTED as error:
            return {"raised": type(error).__name__}
        except RuntimeError as error:
            if "multiple pending interrupts" not in str(error):
                raise
            return {"raised": "several questions"}

    def compare(self, thread: Thread) -> None:
        reference = self.loop.run(self._told(self.model, thread))
        for number in ((0, 1), (0,), (1,))[self.tick % 3]:
            side = self.ours[number]
            ours = self.loop.run(self._told(side, thread))
            self._same(f"{thread} through saver {number}", ours, reference)
        self.tally.states += sum(map(len, reference["states"].values()))
        self.tally.listed += sum(len(reference[name]) for name in ("all", "filtered", "page"))
        if self.redis_runs:
            assert self.server.lasting() == set()

    async def _told(self, side: Side, thread: Thread) -> dict[str, Any]:
        """All that can be asked of a thread: its states in every namespace, and lists of its checkpoints."""
        graph = side.graph(thread)
        everything = [item async for item in side.saver.alist(thread.config())]
        everything.sort(key=lambda item: _place(item), reverse=True)
        states = {}
        for ns in dict.fromkeys(["", *(_place(item)[0] for item in everything)]):
            config = thread.config(checkpoint_ns=ns)
            found = [await graph.aget_state(config, subgraphs=True)]
            found += [state async for state in graph.aget_state_history(config)]
            states[ns] = [exact(state) for state in found]
        for ns, checkpoint_id in self.reference.torn(thread.id):
            for state in states[ns]:
                if state["config"]["configurable"]["checkpoint_id"] == checkpoint_id:
                    del state["values"]
        told: dict[str, Any] = {"states": states, "all": [_item(item) for item in everything]}
        before, wanted = None, {}
        if everything:
            chosen = everything[self.tick % len(everything)]
            before = chosen.config if self.tick % 2 else None
            name = ("source", "step", "run_id", "parents")[self.tick % 4]
            wanted = {name: chosen.metadata.get(name, "none")}
        whole = thread.config(checkpoint_ns="")
        filtered = side.saver.alist(thread.config(), filter=wanted, before=before)
        page = side.saver.alist(whole, filter=wanted, before=before, limit=self.tick % 5)
        told["filtered"] = sorted([_place(item) async for item in filtered])
        told["page"] = [_place(item) async for item in page]
        gone = await side.saver.aget_tuple(thread.config(checkpoint_id=str(UUID(int=self.tick))))
        told["unknown"] = gone
        return told

    def _same(self, what: str, ours: Any, reference: Any) -> None:
        found = difference(ours, reference)
        if found is not None:
            if self.tally.first is None:
                self.tally.first = self.tally.states
            raise AssertionError(
                f"{what}: {found}\n    (the first difference was met after {self.tally.first} equal states)"
            )

    # What the rules use

    def _text(self, mark: str) -> str:
        self.named += 1
        return f"{self.named}{mark}"

    def _old(self, thread: Thread, back: int | None) -> dict[str, Any]:
        """The config of a whole checkpoint before the newest, which is the same on both sides."""
        whole = set(self.reference.checkpoints(thread.id)) - self.reference.torn(thread.id)
        known = sorted(id for ns, id in whole if not ns)
        if back is None or not known:
            return thread.config()
        return thread.config(checkpoint_ns="", checkpoint_id=known[-1 - back % len(known)])

    def _run(self, config: dict[str, Any]) -> dict[str, Any]:
        """The config of a new run."""
        run_id = f"run-{self.tick + 1}"
        self.runs.setdefault(config["configurable"]["thread_id"], []).append(run_id)
        return {**config, "metadata": {"run_id": run_id}}

    def _expire(self, thread: Thread) -> None:
        if self.redis_runs:
            with self.server.client() as client:
                found = list(client.scan_iter(f"*{thread.id}*"))
                for key in found:
                    client.pexpire(key, 1)
                until(lambda: not found or not client.exists(*found), "the lease to run out")

    def _wipe(self) -> None:
        if self.redis_runs:
            with self.server.client() as client:
                client.flushall()

    def _kill(self) -> None:
        self.server.kill()
        self.redis_runs = False

    def _start(self, documents: dict[str, bytes]) -> None:
        if not self.redis_runs:
            self.server.start()
            self.redis_runs = True
        with self.server.client() as client:
            for key, document in documents.items():
                client.restore(key, 3_600_000, document, replace=True)

    def _held(self) -> dict[str, bytes]:
        """What Redis holds, to be put back later."""
        if not self.redis_runs:
            return {}
        with self.server.client() as client:
            found = {key: client.dump(key) for key in client.scan_iter(count=1000)}
        return {key.decode(): value for key, value in found.items() if value is not None}

    # Rules: threads and what runs on them

    @initialize(target=threads, kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=2, max_size=3))
    def begin(self, kinds: list[str]) -> Any:
        return multiple(*(self._thread(kind) for kind in kinds))

    def _thread(self, kind: str) -> Thread:
        self.named += 1
        return Thread(f"thread-{self.named}", kind)

    @step(thread=threads, via=process, durability=durability, strike=strikes)
    def turn(self, thread: Thread, via: int, durability: str, strike: str | None) -> None:
        self._turn(thread, via, durability=durability, strike=strike)

    @step(thread=threads, via=process, mark=marks, durability=durability, fault=faults)
    def turn_that_asks(self, thread: Thread, via: int, mark: str, durability: str, fault: int | None) -> None:
        self._turn(thread, via, mark=mark, durability=durability, fault=fault)

    @step(thread=threads, via=process, durability=durability, fault=faults, strike=strikes)
    def turn_with_a_fault(
        self, thread: Thread, via: int, durability: str, fault: int | None, strike: str | None
    ) -> None:
        self._turn(thread, via, durability=durability, fault=fault or 0, strike=strike)

    @step(thread=threads, via=process, node=st.integers(0, 3), durability=durability)
    def turn_that_stops(self, thread: Thread, via: int, node: int, durability: str) -> None:
        """Before one of its nodes, which then waits."""
        nodes = thread.graph.nodes
        self._turn(thread, via, durability=durability, interrupt_before=[nodes[node % len(nodes)]])

    def _turn(
        self,
        thread: Thread,
        via: int,
        *,
        durability: str,
        mark: str = "",
        fault: int | None = None,
        strike: str | None = None,
        **more: Any,
    ) -> None:
        text, config = self._text(mark), self._run(thread.config())

        async def act(side: Side) -> Any:
            return await _invoke(side, thread, thread.graph.said(text), config, durability, **more)

        self.both(via, act, thread, strike=strike, fault=fault)

    @step(thread=threads, via=process, durability=durability, fault=faults, strike=strikes)
    def go_on(self, thread: Thread, via: int, durability: str, fault: int | None, strike: str | None) -> None:
        """Where a fault or a stop has left it."""
        config = self._run(thread.config())
        self.both(via, lambda side: _invoke(side, thread, None, config, durability), thread, strike=strike, fault=fault)

    @step(
        thread=threads,
        via=process,
        durability=durability,
        asked=st.booleans(),
        all_at_once=st.booleans(),
        update=st.booleans(),
        faults=st.lists(faults, min_size=1, max_size=3),
    )
    def answer(
        self,
        thread: Thread,
        via: int,
        durability: str,
        asked: bool,
        all_at_once: bool,
        update: bool,
        faults: list[int | None],
    ) -> None:
        """So often that all questions are answered, if there are any. A fault leaves an answer behind, not used."""
        if asked:
            self._turn(thread, via, durability=durability, mark="??")
        for fault in faults:
            self._answer(thread, via, durability=durability, all_at_once=all_at_once, update=update, fault=fault)

    def _answer(
        self, thread: Thread, via: int, *, durability: str, all_at_once: bool, update: bool, fault: int | None
    ) -> None:
        text, config = self._text(""), self._run(thread.config())

        async def act(side: Side) -> Any:
            waiting = (await side.graph(thread).aget_state(config)).interrupts
            answered = waiting if all_at_once else waiting[:1]
            resume = {each.id: f"answer {text}" for each in answered} if len(waiting) > 1 else f"answer {text}"
            command: Any = Command(resume=resume, update=thread.graph.said(text) if update else None)
            return await _invoke(side, thread, command, config, durability)

        self.both(via, act, thread, fault=fault)

    @step(thread=threads, via=process, back=back, mark=marks, durability=durability)
    def fork(self, thread: Thread, via: int, back: int, mark: str, durability: str) -> None:
        text, config = self._text(mark), self._run(self._old(thread, back))

        async def act(side: Side) -> Any:
            return await _invoke(side, thread, thread.graph.said(text), config, durability)

        self.both(via, act, thread)

    @step(thread=threads, via=process, back=back, durability=durability, fault=faults)
    def replay(self, thread: Thread, via: int, back: int, durability: str, fault: int | None) -> None:
        config = self._run(self._old(thread, back))
        self.both(via, lambda side: _invoke(side, thread, None, config, durability), thread, fault=fault)

    @step(
        thread=threads,
        via=process,
        back=st.none() | back,
        as_node=st.sampled_from([None, 0, 1, -1, "__copy__", "__end__", "__input__", "inside"]),
    )
    def update(self, thread: Thread, via: int, back: int | None, as_node: Any) -> None:
        if as_node == "inside":
            self._turn(thread, via, durability="sync", mark="?")
            self._update_inside(thread, via)
            return
        text, config = self._text(""), self._old(thread, back)
        node = thread.graph.nodes[as_node] if isinstance(as_node, int) else as_node

        async def act(side: Side) -> Any:
            values = None if node in ("__copy__", "__end__") else thread.graph.said(text)
            return await side.graph(thread).aupdate_state(config, values, node)

        self.both(via, act, thread)

    def _update_inside(self, thread: Thread, via: int) -> None:
        """Change the state of a child that waits, and go on from there."""
        text = self._text("")

        async def act(side: Side) -> Any:
            state = await side.graph(thread).aget_state(thread.config(), subgraphs=True)
            inside = [task.state for task in state.tasks if task.state]
            if not inside:
                return None
            changed = await side.graph(thread).aupdate_state(inside[0].config, {"notes": [text], "text": text})
            return [changed, await _invoke(side, thread, None, changed)]

        self.both(via, act, thread)

    @step(several=st.lists(threads, min_size=2, max_size=4, unique=True), via=process, mark=marks)
    def turns_at_once(self, several: list[Thread], via: int, mark: str) -> None:
        text, configs = self._text(mark), [self._run(thread.config()) for thread in several]

        async def one(side: Side, number: int) -> Any:
            ids.set(counted(self.tick, number))
            thread = several[number]
            return await _invoke(side, thread, thread.graph.said(text), configs[number])

        async def act(side: Side) -> Any:
            return await asyncio.gather(*(one(side, number) for number in range(len(several))))

        self.both(via, act, *several)

    # Rules: copying and deleting

    @step(target=threads, thread=threads, over=st.none() | threads, via=process)
    def copy(self, thread: Thread, over: Thread | None, via: int) -> Thread:
        """To a new thread, or `over` another one, which is refused if that has a history."""
        copied = over if over is not None and over.kind == thread.kind else self._thread(thread.kind)
        self.both(via, lambda side: side.saver.acopy_thread(thread.id, copied.id), thread, copied)
        return copied

    @step(several=some_threads, via=process, strike=strikes)
    def prune(self, several: list[Thread], via: int, strike: str | None) -> None:
        ids = [thread.id for thread in several]
        self.both(via, lambda side: side.saver.aprune(ids), *several, strike=strike)

    @step(several=some_threads, via=process, backs=backs, strike=strikes)
    def delete_runs(self, several: list[Thread], via: int, backs: list[int], strike: str | None) -> None:
        """All of them or, if something that stays needs one, none."""
        known = [self.runs.get(thread.id, ["unknown"]) for thread in several]
        runs = [each[-1 - back % len(each)] for each in known for back in backs]
        touched = list(self.names_to_values.values())  # copies have the same runs
        self.both(via, lambda side: side.saver.adelete_for_runs(runs), *touched, strike=strike)
        for thread in touched:
            newest = max((id for ns, id in self.reference.checkpoints(thread.id) if not ns), default="")
            if ("", newest) in self.reference.torn(thread.id):  # there is nothing left to go on from
                self._delete(thread, via)

    @step(thread=threads, via=process, pruned=st.booleans(), strike=strikes)
    def delete_thread(self, thread: Thread, via: int, pruned: bool, strike: str | None) -> None:
        self._delete(thread, via, pruned=pruned, strike=strike)

    def _delete(self, thread: Thread, via: int, *, pruned: bool = False, strike: str | None = None) -> None:
        async def act(side: Side) -> None:
            if pruned:
                await side.saver.aprune([thread.id], strategy="delete")
            else:
                await side.saver.adelete_thread(thread.id)

        self.both(via, act, thread, strike=strike)

    # Rules: what happens to Redis and to the processes

    @step(thread=threads, event=st.sampled_from(EVENTS), noticed=st.booleans(), look=st.booleans())
    def redis(self, thread: Thread, event: str, noticed: bool, look: bool) -> None:
        """Once it is back, the savers go on without it for a while, if that is not `noticed`."""
        match event:
            case "lets the session expire":
                self._expire(thread)
            case "is wiped":
                self._wipe()
            case "remembers":
                self.documents = self._held()
            case "dies":
                self._kill()
            case "comes back":
                self._kill()
                self._start({})
            case "comes back as it was":
                held = self._held()
                self._kill()
                self._start(held or self.documents)
            case "is set back":
                self._start(self.documents)
        if noticed:
            self.clock.now += 10
        if look:
            self.compare(thread)

    @step(thread=threads, number=process, live=st.booleans(), look=st.booleans())
    def process_starts_anew(self, thread: Thread, number: int, live: bool, look: bool) -> None:
        """With nothing in memory; `live` or with history alone."""
        self.loop.run(self._close(number))
        self.stacks[number] = AsyncExitStack()
        self.ours[number] = self.loop.run(self._open(number, live=live))
        if look:
            self.compare(thread)


def _place(item: Any) -> tuple[str, str]:
    return item.config["configurable"]["checkpoint_ns"], item.config["configurable"]["checkpoint_id"]


def _item(item: Any) -> Any:
    """A checkpoint but for its delta channels: those are states, and where snapshots of them lie is the saver's."""
    told = exact(item)
    for name in DELTAS:
        told["checkpoint"]["channel_values"].pop(name, None)
    return told


async def _invoke(
    side: Side, thread: Thread, what: Any, config: dict[str, Any], durability: str = "sync", **more: Any
) -> Any:
    if thread.graph.durable:
        durability = "sync"
    return await side.graph(thread).ainvoke(what, config, durability=durability, **more)
