"""Compares two runs, branches or sessions step by step: aligned by node, the first difference named."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from langgraph.constants import START

from threadline.domain import ports
from threadline.domain.errors import Conflict, Missing
from threadline.domain.records import ENDED, Caller, Place, Run, Thread
from threadline.services.account import Account, accounts
from threadline.services.alignment import align
from threadline.services.branches import Branches
from threadline.services.checkpoints import Checkpoints
from threadline.services.difference import Canon, Change, canonical, changes, digest

LOOKS = 100
"""Pairs of steps whose states are read to find the first difference, where no log says what the steps did."""
ASPECTS = ("error", "intent", "tool_calls", "answer", "interrupts", "state")
"""What is compared of two steps of the same nodes; the first of these that differs is named."""

_GOING = "Run {} is still going on. Compare it once it has ended."


@dataclass(slots=True)
class _Step:
    """A step as it is aligned and looked through; what it held is read again for those that are shown.

    `said` holds a digest for each aspect, where the log or the run's request tells; None where nothing does.
    """

    key: tuple[str, ...]
    place: Place | None
    run_id: str | None
    source: str | None
    said: Mapping[str, bytes] | None = None
    index: int = 0
    """Its place among its run's logged steps."""


@dataclass(slots=True)
class Side:
    """One of the two: its steps behind `shared`, and what is told of it as a whole."""

    thread: Thread
    caller: Caller
    about: dict[str, Any]
    line: Sequence[Place]
    steps: list[_Step] = field(default_factory=list)
    runs: Mapping[str, Run] = field(default_factory=dict)


class Comparison:
    """Reads what runs logged, and states where it must. Changes nothing."""

    def __init__(
        self,
        *,
        branches: Branches,
        checkpoints: Checkpoints,
        lines: ports.Lines,
        runs: ports.Runs,
        log: ports.EventLog,
    ) -> None:
        self._branches = branches
        self._checkpoints = checkpoints
        self._lines = lines
        self._runs = runs
        self._log = log

    async def of_sessions(
        self,
        caller: Caller,
        a: tuple[Thread, str | None],
        b: tuple[Thread, str | None],
        *,
        after: int,
        limit: int,
    ) -> dict[str, Any]:
        """Two lines, each of a session and one of its branches by id or name; without one, the line shown by default.

        Raises Missing, or Conflict while a run of them goes on.
        """
        sides = [await self._line(thread, caller, branch) for thread, branch in (a, b)]
        same_session = a[0].thread_id == b[0].thread_id
        ids = [[place.checkpoint_id for place in side.line] for side in sides]
        shared = _shared(*ids) if same_session else 0
        for side in sides:
            await self._read(side, from_index=shared)
        told = {"steps": shared, "checkpoint_id": ids[0][shared - 1]} if shared else None
        return await self._compared(*sides, shared=told, after=after, limit=limit)

    async def of_runs(
        self, caller: Caller, a: tuple[Thread, Run], b: tuple[Thread, Run], *, after: int, limit: int
    ) -> dict[str, Any]:
        """Two runs. Raises Conflict while one of them goes on."""
        sides = []
        for thread, run in (a, b):
            _check_ended([run])
            places = [place for place in await self._lines.places(thread.thread_id) if place.run_id == run.run_id]
            side = Side(thread, caller, {"session_id": thread.thread_id, "run_id": run.run_id}, places)
            await self._read(side, only=run)
            sides.append(side)
        return await self._compared(*sides, shared=None, after=after, limit=limit)

    async def _line(self, thread: Thread, caller: Caller, branch: str | None) -> Side:
        found, line = await self._branches.line(thread, branch)
        about = {
            "session_id": thread.thread_id,
            "branch_id": found.branch_id if found else None,
            "head_checkpoint_id": found.head.checkpoint_id if found else None,
            "pruned": bool(line) and line[0].step is not None and line[0].step > 0,
        }
        return Side(thread, caller, about, line)

    # What the steps are, and what each did

    async def _read(self, side: Side, *, from_index: int = 0, only: Run | None = None) -> None:
        """Fill in the side's steps from the checkpoint at `from_index` on."""
        places = side.line[from_index:]
        known = [only] if only else await self._runs.list(thread_id=side.thread.thread_id)
        side.runs = {run.run_id: run for run in known}
        order = [only.run_id] if only else list(dict.fromkeys(place.run_id for place in places if place.run_id))
        _check_ended([side.runs[run_id] for run_id in order if run_id in side.runs])
        ran = await self._lines.ran(side.thread.thread_id, [place.checkpoint_id for place in places])
        on_line = {place.checkpoint_id: place for place in side.line}
        logged: dict[str, list[_Step]] = {}
        spent: list[dict[str, Any]] = []
        for run_id in order:
            if run_id not in side.runs:  # a copied session names runs of another one
                continue
            steps, end = await self._logged(side.runs[run_id])
            logged[run_id] = steps
            spent.append(end)
        if only:
            steps = _of_run(logged.get(only.run_id, []), places, ran, side.runs)
        else:
            steps = _of_line(places, ran, logged, side.runs, on_line)
        side.steps = _with_input(steps)
        side.about |= {"steps": len(side.steps), **_sums(spent)}

    async def _logged(self, run: Run) -> tuple[list[_Step], dict[str, Any]]:
        """What a run logged of its steps, in digests; and how it ended."""
        events = await self._events(run.run_id)
        steps = []
        for index, account in enumerate(accounts(events)):
            place = Place(account.checkpoint_id, None, run.run_id, account.source) if account.checkpoint_id else None
            key = account.nodes if account.source in (None, "loop") else (account.source,)
            steps.append(_Step(key, place, run.run_id, account.source, _said(account, run), index))
        end: dict[str, Any] = next((event.data for event in reversed(events) if event.type == "end"), {})
        usage = end.get("usage") or {}
        return steps, {"tokens": usage.get("total_tokens"), "cost": end.get("cost"), "ms": end.get("ms")}

    async def _events(self, run_id: str) -> list[Any]:
        return [event async for portion in self._log.portions(run_id) for event in portion]

    # What differs

    async def _compared(
        self, a: Side, b: Side, *, shared: dict[str, Any] | None, after: int, limit: int
    ) -> dict[str, Any]:
        pairs = await asyncio.to_thread(align, [step.key for step in a.steps], [step.key for step in b.steps])
        aligned = [(a.steps[i] if i is not None else None, b.steps[j] if j is not None else None) for i, j in pairs]
        async with AsyncExitStack() as stack:
            states = [_States(self._checkpoints, self._lines, side, stack) for side in (a, b)]
            first, complete = await self._first(aligned, states)
            shown = range(after, min(after + limit, len(aligned)))
            wanted = [*shown, *([first] if first is not None and first not in shown else [])]
            told = await self._told(aligned, wanted, (a, b), states)
            for each in states:
                await each.check()
        named = _named(told[first], first) if first is not None else None
        return {
            "a": a.about,
            "b": b.about,
            "same": first is None and complete,
            "complete": complete,
            "shared": shared,
            "first_difference": named,
            "steps": [told[index] for index in shown],
            "next": shown.stop if shown.stop < len(aligned) else None,
        }

    async def _first(
        self, aligned: Sequence[tuple[_Step | None, _Step | None]], states: Sequence[_States]
    ) -> tuple[int | None, bool]:
        """The index of the first pair that differs, and whether all were looked at up to it, or to the end."""
        unknown = 0
        for index, (a, b) in enumerate(aligned):
            if a is None or b is None or (a.said is not None and b.said is not None and a.said != b.said):
                return index, True
            if a.said is None or b.said is None:
                unknown += 1
                if unknown > LOOKS:
                    return None, False
                if await _state_changes(a, b, states):
                    return index, True
        return None, True

    async def _told(
        self,
        aligned: Sequence[tuple[_Step | None, _Step | None]],
        wanted: Sequence[int],
        sides: tuple[Side, Side],
        states: Sequence[_States],
    ) -> dict[int, dict[str, Any]]:
        """What is told of some pairs, by their index. One side's states are read in order before the other's."""
        for side, each in enumerate(states):
            await each.load([s for index in wanted for s in each.needed(*aligned[index], side=side)])
        books: dict[str, list[Account]] = {}
        told = {}
        for index in wanted:
            pair = aligned[index]
            accounts = [await self._account(step, books) for step in pair]
            shown = [
                _shown(step, account, side.runs) if step else None
                for step, account, side in zip(pair, accounts, sides, strict=True)
            ]
            differs = _differing(*pair)
            state = await _state_changes(*pair, states) if _may_differ(*pair) else []
            if state and "state" not in differs:
                differs.append("state")
            status = "only_b" if pair[0] is None else "only_a" if pair[1] is None else "changed" if differs else "same"
            one = pair[0] or pair[1]
            told[index] = {
                "index": index,
                "nodes": list(one.key) if one else [],
                "status": status,
                "differs": differs if status == "changed" else [],
                "a": shown[0],
                "b": shown[1],
                "state": state,
            }
        return told

    async def _account(self, step: _Step | None, books: dict[str, list[Account]]) -> Account | None:
        if step is None or step.said is None or step.run_id is None:
            return None
        if step.run_id not in books:
            books.clear()  # no more than one run at a time
            books[step.run_id] = accounts(await self._events(step.run_id))
        book = books[step.run_id]
        return book[step.index] if step.index < len(book) else None


class _States:
    """The states of one side, in canonical form; those that are gone are None."""

    def __init__(self, checkpoints: Checkpoints, lines: ports.Lines, side: Side, stack: AsyncExitStack) -> None:
        self._checkpoints = checkpoints
        self._lines = lines
        self._side = side
        self._stack = stack
        self._canon = Canon()
        self._known: dict[str, Any] = {}
        self._graph: Any = None
        self._parents = {place.checkpoint_id: place.parent_id for place in side.line}

    async def load(self, checkpoint_ids: Sequence[str]) -> None:
        for one in dict.fromkeys(checkpoint_ids):
            await self.at(one)

    async def at(self, checkpoint_id: str | None) -> Any:
        if checkpoint_id is None or checkpoint_id not in self._parents:
            return None
        if checkpoint_id not in self._known:
            if self._graph is None:
                self._graph = await self._stack.enter_async_context(
                    self._checkpoints.open(self._side.thread, self._side.caller)
                )
            found = await self._checkpoints.values(self._graph, self._side.thread, checkpoint_id)
            self._known[checkpoint_id] = await asyncio.to_thread(self._canon, found)
        return self._known[checkpoint_id]

    async def around(self, step: _Step | None) -> tuple[Any, Any]:
        """The states before and after a step."""
        if step is None or step.place is None:
            return None, None
        one = step.place.checkpoint_id
        return await self.at(self._parents.get(one)), await self.at(one)

    def needed(self, a: _Step | None, b: _Step | None, *, side: int) -> list[str]:
        """The checkpoints whose states tell a pair apart."""
        step = (a, b)[side]
        if not _may_differ(a, b) or step is None or step.place is None:
            return []
        one = step.place.checkpoint_id
        return [before, one] if (before := self._parents.get(one)) else [one]

    async def check(self) -> None:
        """Raise Missing if what was read has gone meanwhile: it may not have been whole."""
        left = {place.checkpoint_id for place in await self._lines.places(self._side.thread.thread_id)}
        if not left.issuperset(self._known):
            raise Missing("Checkpoints of this session were removed while they were read. Ask again.")


def _shared(a: Sequence[str], b: Sequence[str]) -> int:
    count = 0
    while count < len(a) and count < len(b) and a[count] == b[count]:
        count += 1
    return count


def _check_ended(runs: Collection[Run]) -> None:
    for run in runs:
        if run.status not in ENDED:
            raise Conflict(_GOING.format(run.run_id))


def _of_line(
    places: Sequence[Place],
    ran: Mapping[str, tuple[str, ...]],
    logged: Mapping[str, list[_Step]],
    runs: Mapping[str, Run],
    on_line: Mapping[str, Place],
) -> list[_Step]:
    """The steps of a line: of each checkpoint, and of the work a run on it broke off, or left to be answered."""
    by_id = {step.place.checkpoint_id: step for steps in logged.values() for step in steps if step.place}
    steps: list[_Step] = []
    for index, place in enumerate(places):
        steps += _step_of(place, ran, by_id.get(place.checkpoint_id), runs)
        following = places[index + 1].run_id if index + 1 < len(places) else None
        own = logged.get(place.run_id or "", [])
        left_open = own and own[-1].place is None and following != place.run_id
        if left_open and all(step.place is None or step.place.checkpoint_id in on_line for step in own):
            steps.append(own[-1])
    return steps


def _of_run(
    logged: Sequence[_Step], places: Sequence[Place], ran: Mapping[str, tuple[str, ...]], runs: Mapping[str, Run]
) -> list[_Step]:
    """The steps of a run: as it logged them, whatever retention has taken; without a log, of its checkpoints."""
    known = {place.checkpoint_id: place for place in places}
    if not logged:
        return [step for place in places for step in _step_of(place, ran, None, runs)]
    steps: list[_Step] = []
    for step in logged:
        if step.place is None:
            steps.append(step)
        else:
            steps += _step_of(known.get(step.place.checkpoint_id, step.place), ran, step, runs)
    return steps


def _step_of(
    place: Place, ran: Mapping[str, tuple[str, ...]], logged: _Step | None, runs: Mapping[str, Run]
) -> list[_Step]:
    """The step that led to a checkpoint; none for a fork, which changes nothing."""
    if place.source == "fork":
        return []
    if place.source == "loop":
        key = ran.get(place.checkpoint_id) or (logged.key if logged else ()) or ("?",)
    else:
        key = (place.source or "?",)
    said = logged.said if logged else None
    if place.source == "input" and said is None and place.run_id and place.run_id in runs:
        said = _asked(runs[place.run_id])
    if place.source == "update":
        said = None
    return [_Step(key, place, place.run_id, place.source, said, logged.index if logged else 0)]


def _with_input(steps: Sequence[_Step]) -> list[_Step]:
    """The input and the step that takes it in as one: only after that one the state has it."""
    merged: list[_Step] = []
    for step in steps:
        last = merged[-1] if merged else None
        takes_in = step.source == "loop" and step.key in ((START,), ("?",)) and step.run_id is not None
        if takes_in and last is not None and last.source == "input" and last.run_id == step.run_id:
            last.place = step.place
        else:
            merged.append(step)
    return merged


def _asked(run: Run) -> dict[str, bytes]:
    """What an input step is: what was said, or given."""
    return {"state": _short(canonical(run.kwargs.get("input", run.kwargs.get("message"))))}


def _said(account: Account, run: Run) -> dict[str, bytes]:
    if account.source == "input":
        return _asked(run)
    aspects = {
        "error": account.errors,
        "intent": account.intent,
        "tool_calls": account.tool_calls,
        "answer": account.answer,
        "interrupts": account.interrupts,
        "state": {name: sorted(map(canonical, results), key=digest) for name, results in account.results.items()},
    }
    return {name: _short(canonical(value)) for name, value in aspects.items()}


def _short(value: Any) -> bytes:
    return blake2b(digest(value), digest_size=12).digest()


def _sums(spent: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of all runs; null where that of any is not known."""
    sums: dict[str, Any] = {}
    for name in ("tokens", "cost", "ms"):
        values = [one[name] for one in spent]
        sums[name] = sum(values) if values and None not in values else None
    return sums


def _differing(a: _Step | None, b: _Step | None) -> list[str]:
    if a is None or b is None or a.said is None or b.said is None:
        return []
    return [name for name in ASPECTS if a.said.get(name) != b.said.get(name)]


def _may_differ(a: _Step | None, b: _Step | None) -> bool:
    """Whether states have to be read: the logs say that something differs, or do not say."""
    return a is None or b is None or a.said is None or b.said is None or a.said != b.said


async def _state_changes(a: _Step | None, b: _Step | None, states: Sequence[_States]) -> list[Change]:
    """How the states after two steps differ, but for what differed before; of a single step, what it changed."""
    pairs = [await each.around(step) for each, step in zip(states, (a, b), strict=True)]
    if a is None or b is None:
        then, now = pairs[0] if a is not None else pairs[1]
        return changes({} if then is None and isinstance(now, dict) else then, now) if now is not None else []
    (then_a, now_a), (then_b, now_b) = pairs
    if now_a is None or now_b is None:
        return []
    found = await asyncio.to_thread(changes, now_a, now_b)
    if not found or then_a is None or then_b is None:
        return found
    known = {digest(change) for change in await asyncio.to_thread(changes, then_a, then_b)}
    return [change for change in found if digest(change) not in known]


def _shown(step: _Step, account: Account | None, runs: Mapping[str, Run]) -> dict[str, Any]:
    place = step.place
    run = runs.get(step.run_id or "")
    asked = run.kwargs.get("message") if run and step.source == "input" else None
    return {
        "checkpoint_id": place.checkpoint_id if place else None,
        "run_id": step.run_id,
        "source": step.source,
        **({"message": asked} if step.source == "input" else {}),
        "intent": account.intent if account else None,
        "tool_calls": account.tool_calls if account else [],
        "answer": account.answer if account else None,
        "interrupts": account.interrupts if account else [],
        "errors": account.errors if account else [],
        "tokens": account.spent.tokens if account else None,
        "cost": account.spent.cost if account else None,
        "ms": account.ms if account else None,
    }


def _named(told: Mapping[str, Any], index: int) -> dict[str, Any]:
    """The first difference in a few words: which nodes, in what, and from what to what."""
    a, b = told["a"], told["b"]
    what = "step" if told["status"] != "changed" else next(n for n in ASPECTS if n in told["differs"])
    field_of = {"error": "errors"}.get(what, what)
    named: dict[str, Any] = {"index": index, "nodes": told["nodes"], "what": what, "status": told["status"]}
    if what not in ("step", "state"):
        named |= {"before": a[field_of], "after": b[field_of]}
    elif told["state"]:
        named |= told["state"][0]
    elif a is not None and b is not None and "message" in a:
        named |= {"before": a["message"], "after": b.get("message")}
    named["a"], named["b"] = (side["checkpoint_id"] if side else None for side in (a, b))
    return named
