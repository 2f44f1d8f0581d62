"""Reads a shared session as a thread of whoever brings it. Nothing it holds is built, and no id in it is trusted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO
from uuid import uuid4

from threadline.domain.events import Event
from threadline.domain.records import Pin, Run, Thread, Turn
from threadline.domain.stored import Stored, StoredBranch, StoredCheckpoint, StoredHead, StoredWrite
from threadline.services import eventcheck, packed
from threadline.services.exporting import nameless, shared
from threadline.services.sessionfile import (
    ORDER,
    AnyLine,
    BadFile,
    Bounds,
    BranchLine,
    CheckpointLine,
    EventLine,
    Header,
    HeadLine,
    PinLine,
    RunLine,
    ThreadLine,
    TurnLine,
    WriteLine,
    is_deep,
    read,
)

REFERENCES = frozenset({"run_id", "thread_id", "turn_id", "session_id", "parent_run_id"})
"""Keys under which records, events and metadata name runs and the thread."""
LISTS = frozenset({"run_ids", "parent_ids"})
RECORDS = 100_000
"""Runs, turns and pins in a file, of each at most: they are held in memory."""
CHECKPOINTS = 1_000_000
VERSION = re.compile(r"\d{1,40}(\.[0-9.e+-]{1,60})?")

Key = tuple[str, str]
"""A namespace and a checkpoint's id in it."""


@dataclass(slots=True)
class Plan:
    """What a file holds that was read to its end and is sound. `ids` are the new ids by the old."""

    header: Header
    thread: ThreadLine
    ids: dict[str, str] = field(default_factory=dict)
    runs: dict[str, RunLine] = field(default_factory=dict)
    turns: list[TurnLine] = field(default_factory=list)
    pins: list[PinLine] = field(default_factory=list)
    branches: list[BranchLine] = field(default_factory=list)
    checkpoints: int = 0
    heads: dict[str, None] = field(default_factory=dict)
    """The checkpoints of the thread itself that have no child, the newest last."""

    @property
    def thread_id(self) -> str:
        return self.ids[self.thread.thread_id]

    def referred(self, value: Any) -> Any:
        """JSON in which runs and the thread go by their new ids."""
        if isinstance(value, Mapping):
            return {key: self._reference(key, item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.referred(item) for item in value]
        return value

    def _reference(self, key: str, value: Any) -> Any:
        if key in REFERENCES and isinstance(value, str):
            return self.ids.get(value, value)
        if key in LISTS and isinstance(value, list):
            return [self.ids.get(item, item) if isinstance(item, str) else item for item in value]
        return self.referred(value)

    @property
    def graph_id(self) -> str:
        """The graph the thread's state belongs to."""
        return str(self.thread.metadata.get("graph_id", self.header.graph.id))

    @property
    def metadata(self) -> dict[str, Any]:
        """The thread's, without what says whose it was."""
        return {**self.referred(nameless(self.thread.metadata)), "graph_id": self.graph_id}

    def thread_of(self, new: Thread) -> Thread:
        """The record, on the ground of a new thread of its owner's."""
        line = self.thread
        return replace(
            new,
            title=line.title,
            config=self.referred(nameless(line.config)),
            status=line.status,
            error=line.error,
            interrupts=line.interrupts,
            begun=max((run.position for run in self.runs.values()), default=0),
            created_at=min(line.created_at, new.created_at),
            state_updated_at=line.state_updated_at,
        )

    def turn_rows(self) -> list[Turn]:
        rows = []
        for line in self.turns:
            fields = line.model_dump(exclude={"kind"})
            fields["extra_metadata"] = self.referred(fields["extra_metadata"])
            rows.append(Turn(session_id=self.thread_id, **fields))
        return rows

    def pin_rows(self) -> list[Pin]:
        return [Pin(self.thread_id, line.ns, line.checkpoint, line.name, line.created_at) for line in self.pins]

    def branch_rows(self) -> list[StoredBranch]:
        return [StoredBranch(line.checkpoint, line.name, line.main, line.created_at) for line in self.branches]

    def run_of(self, line: RunLine) -> Run:
        fields = line.model_dump(exclude={"kind"})
        fields |= {
            "run_id": self.ids[line.run_id],
            "turn_id": self.ids[line.turn_id],
            "kwargs": self.referred(shared(line.kwargs)),
            "metadata": self.referred(nameless(line.metadata)),
        }
        return Run(thread_id=self.thread_id, **fields)


def examine(file: BinaryIO, bounds: Bounds) -> Plan:
    """Read a file to its end. Raises BadFile for whatever is wrong with it, Conflict if a newer version wrote it."""
    check: _Check | None = None
    header: Header | None = None
    for line in read(file, bounds):
        if isinstance(line, Header):
            header = line
        elif isinstance(line, ThreadLine) and header is not None:
            check = _Check(Plan(header, line, {line.thread_id: str(uuid4())}))
        elif check is None:
            raise BadFile("The file has no thread.")
        else:
            check.take(line)
    if check is None:
        raise BadFile("The file has no thread.")
    return check.plan


def runs_in(file: BinaryIO, bounds: Bounds, plan: Plan) -> Iterator[tuple[Run, list[Event]]]:
    """The runs of a file that was examined, with their logs."""
    run: RunLine | None = None
    log: list[Event] = []
    for line in read(file, bounds):
        if isinstance(line, EventLine):
            log.append(Event(line.id, line.type, tuple(line.ns), plan.referred(line.data), line.at))  # type: ignore[arg-type]
            continue
        if run is not None:
            yield plan.run_of(run), log
            run, log = None, []
        if isinstance(line, RunLine):
            run = line
        elif ORDER[line.kind] > ORDER["run"]:
            return


def stored_in(file: BinaryIO, bounds: Bounds, plan: Plan) -> Iterator[Stored]:
    """The checkpoints and writes of a file that was examined."""
    for line in read(file, bounds):
        if isinstance(line, CheckpointLine):
            metadata = json.dumps(plan.referred(nameless(line.metadata)), ensure_ascii=False, allow_nan=False)
            yield StoredCheckpoint(line.ns, line.id, line.parent, line.type, line.data, metadata.encode())
        elif isinstance(line, WriteLine):
            task = (line.task_id, line.task_path, line.idx, line.channel)
            yield StoredWrite(line.ns, line.checkpoint, *task, line.type, line.data)
        elif isinstance(line, HeadLine):
            yield StoredHead(line.ns, line.checkpoint, line.since)
        elif ORDER[line.kind] > ORDER["head"]:
            return


class _Check:
    """Looks at each line in the light of those before it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._run: str | None = None
        self._event: EventLine | None = None
        self._seen = set[Key]()
        self._place: Key | None = None
        self._writes = set[tuple[str, int]]()
        self._pinned = set[Key]()
        self._turns, self._stood, self._named = set[str](), set[str](), set[str]()

    def take(self, line: AnyLine) -> None:
        if not isinstance(line, RunLine | EventLine):
            self._end_log()
        match line:
            case RunLine():
                self._begin_run(line)
            case EventLine():
                self._log(line)
            case TurnLine():
                self._turn(line)
            case CheckpointLine():
                self._checkpoint(line)
            case WriteLine():
                self._write(line)
            case HeadLine():
                self._head(line)
            case PinLine():
                self._pin(line)
            case BranchLine():
                self._branch(line)

    def _rename(self, *ids: str) -> None:
        """Give runs new ids, also those that are not in the file: whoever's they are, they are not this thread's."""
        for id in ids:
            self.plan.ids.setdefault(id, str(uuid4()))

    def _turn(self, line: TurnLine) -> None:
        self._count("turns", len(self.plan.turns))
        turn_id = line.extra_metadata.turn_id
        if turn_id in self._turns:
            raise BadFile(f"The file holds turn {turn_id} twice.")
        self._turns.add(turn_id)
        self._rename(turn_id, *line.extra_metadata.run_ids)
        self.plan.turns.append(line)

    def _begin_run(self, line: RunLine) -> None:
        self._end_log()
        self._count("runs", len(self.plan.runs))
        if line.run_id in self.plan.runs:
            raise BadFile(f"The file holds run {line.run_id} twice.")
        self._rename(line.run_id, line.turn_id)
        self.plan.runs[line.run_id] = line
        self._run = line.run_id

    def _log(self, line: EventLine) -> None:
        if line.run_id != self._run:
            raise BadFile(f"An event of run {line.run_id} does not stand behind its run.")
        before = self._event
        if before is not None and (line.id <= before.id or before.type == "end"):
            raise BadFile(f"The events of run {line.run_id} are not in order.")
        if before is None and line.type not in ("run", "end"):  # one that was cancelled before it began just ends
            raise BadFile(f"The events of run {line.run_id} do not begin with its beginning.")
        if not eventcheck.fits(line.type, line.data):
            raise BadFile(f"Event {line.id} of run {line.run_id} is no event of the type {line.type!r}.")
        self._event = line

    def _end_log(self) -> None:
        if self._event is not None and self._event.type != "end":
            raise BadFile(f"The events of run {self._run} are cut off.")
        self._run = self._event = None

    def _checkpoint(self, line: CheckpointLine) -> None:
        key = (line.ns, line.id)
        if key in self._seen:
            raise BadFile(f"The file holds checkpoint {line.id} twice.")
        if line.parent is not None and (line.ns, line.parent) not in self._seen:
            raise BadFile(f"Checkpoint {line.id} comes before its parent, or the parent is missing.")
        if self.plan.checkpoints == CHECKPOINTS:
            raise BadFile("The file holds too many checkpoints.")
        _check_checkpoint(line)
        if run_id := line.metadata.get("run_id"):  # of a run that is not in the file, as after a copy
            self._rename(run_id)
        self.plan.checkpoints += 1
        self._seen.add(key)
        self._place, self._writes = key, set()
        if not line.ns:
            self.plan.heads.pop(line.parent or "", None)
            self.plan.heads[line.id] = None

    def _write(self, line: WriteLine) -> None:
        if (line.ns, line.checkpoint) != self._place:
            raise BadFile(f"A write of checkpoint {line.checkpoint} does not stand behind it.")
        if (line.task_id, line.idx) in self._writes:
            raise BadFile(f"Checkpoint {line.checkpoint} holds a write twice.")
        self._writes.add((line.task_id, line.idx))
        try:
            deep = is_deep(packed.opened(line.type, line.data))
        except (ValueError, TypeError, RecursionError) as error:
            raise BadFile(f"A write of checkpoint {line.checkpoint} is damaged.") from error
        if deep:
            raise BadFile(f"A write of checkpoint {line.checkpoint} is nested too deep.")

    def _pin(self, line: PinLine) -> None:
        key = (line.ns, line.checkpoint)
        if key not in self._seen or key in self._pinned:
            raise BadFile(f"A pin is of no checkpoint of the file, or the second of one: {line.checkpoint}.")
        self._pinned.add(key)
        self.plan.pins.append(line)

    def _head(self, line: HeadLine) -> None:
        there = not line.checkpoint or (line.ns, line.checkpoint) in self._seen
        if not there or (line.ns, line.since) not in self._seen or line.ns in self._stood:
            raise BadFile(f"A head is of no checkpoint of the file, or the second of its namespace: {line.checkpoint}.")
        self._stood.add(line.ns)

    def _branch(self, line: BranchLine) -> None:
        if ("", line.checkpoint) not in self._seen or line.checkpoint in self._named:
            raise BadFile(f"A branch is of no checkpoint of the file, or the second of one: {line.checkpoint}.")
        self._named.add(line.checkpoint)
        self.plan.branches.append(line)

    def _count(self, what: str, held: int) -> None:
        if held == RECORDS:
            raise BadFile(f"The file holds too many {what}.")


def _check_checkpoint(line: CheckpointLine) -> None:
    """Whether it is what savers and graphs take for a checkpoint."""
    try:
        opened = packed.opened(line.type, line.data)
        fits = (
            isinstance(opened, dict)
            and not is_deep(opened)
            and opened["id"] == line.id
            and isinstance(opened["v"], int)
            and isinstance(opened["ts"], str)
            and _named(opened["channel_values"])
            and _versions(opened["channel_versions"])
            and _named(opened["versions_seen"])
            and all(_versions(seen) for seen in opened["versions_seen"].values())
            and _words(opened.get("updated_channels") or [])
            and _metadata(line.metadata)
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadFile(f"Checkpoint {line.id} is damaged.") from error
    if not fits:
        raise BadFile(f"Checkpoint {line.id} is not what a checkpoint is.")


def _named(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def _words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _versions(value: Any) -> bool:
    """A number each, or a text that begins with one: the next version is made from it."""
    return _named(value) and all(
        VERSION.fullmatch(each) is not None if isinstance(each, str) else isinstance(each, int | float)
        for each in value.values()
    )


def _metadata(metadata: Mapping[str, Any]) -> bool:
    """Whether it has LangGraph's fields as LangGraph has them; any of them may be missing."""
    counters = metadata.get("counters_since_delta_snapshot") or {}
    pairs = _named(counters) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(n, int) for n in pair)
        for pair in counters.values()
    )
    parents = metadata.get("parents", {})
    texts = (metadata.get("source", ""), metadata.get("run_id") or "", metadata.get("graph_id") or "")
    return (
        pairs
        and _named(parents)
        and _words(list(parents.values()))
        and isinstance(metadata.get("step", 0), int)
        and _words(list(texts))
    )
