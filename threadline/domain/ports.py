"""What the services ask of storage. Each port has one contract suite over all its implementations."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Hashable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar

from threadline.domain.events import Event, EventType
from threadline.domain.filters import Filter
from threadline.domain.records import (
    Assistant,
    AssistantQuery,
    AssistantVersion,
    Course,
    Cron,
    CronQuery,
    Delivery,
    Limits,
    Mark,
    Pin,
    Place,
    Pruned,
    PrunedLogs,
    Run,
    RunStatus,
    Thread,
    ThreadQuery,
    ThreadStatus,
    Turn,
    TurnSummary,
)
from threadline.domain.stored import Stored, StoredBranch, Taken

T = TypeVar("T")


class Threads(Protocol):
    """Threads, newest `updated_at` first."""

    async def create(self, thread: Thread) -> None:
        """Raises Conflict if there is a thread of that id, whoever's."""
        ...

    async def get(self, thread_id: str) -> Thread | None: ...

    async def list(
        self, *, owner: str | None, allowed: Filter | None = None, limit: int, before: str | None = None
    ) -> list[Thread]:
        """At most `limit` threads, of `owner` and `allowed` as in `ThreadQuery`, that come after thread `before` in the
        order."""
        ...

    async def search(self, query: ThreadQuery) -> tuple[Sequence[Thread], int]:
        """One page of the threads that match, and how many match in all. Raises Invalid for an overgrown filter."""
        ...

    async def change(self, thread_id: str, changes: Mapping[str, Any]) -> Thread | None:
        """Set fields of the record; `metadata` is merged into the old one, key by key. The thread as it then is."""
        ...

    async def delete(self, thread_id: str) -> None:
        """Delete the thread with its runs, turns, archived logs, pins, crons and deliveries."""
        ...


class Assistants(Protocol):
    """Assistants and their versions."""

    async def create(self, assistant: Assistant) -> bool:
        """Keep a new one; False if its id is taken."""
        ...

    async def get(self, assistant_id: str) -> Assistant | None: ...

    async def search(self, query: AssistantQuery) -> tuple[Sequence[Assistant], int]:
        """One page of those that match, and how many match in all. Raises Invalid for an overgrown filter."""
        ...

    async def change(self, assistant_id: str, alter: Callable[[Assistant, int], Assistant]) -> Assistant | None:
        """Replace one by what `alter` makes of it and of the next version's number, and keep that as a version unless
        it already is one. None if there is no such assistant."""
        ...

    async def versions(
        self,
        assistant_id: str,
        *,
        metadata: Mapping[str, Any] | None = None,
        version: int | None = None,
        limit: int = 10,
        offset: int = 0,
    ) -> Sequence[AssistantVersion]:
        """Newest first; `version` asks for one alone. Raises Invalid for an overgrown filter."""
        ...

    async def delete(self, assistant_id: str) -> None:
        """Delete the assistant with its versions and its crons."""
        ...


class Crons(Protocol):
    """Runs that start by the clock."""

    async def create(self, cron: Cron) -> None: ...

    async def get(self, cron_id: str) -> Cron | None: ...

    async def search(self, query: CronQuery) -> tuple[Sequence[Cron], int]:
        """One page of those that match, and how many match in all. Raises Invalid for an overgrown filter."""
        ...

    async def change(self, cron_id: str, alter: Callable[[Cron], Cron]) -> Cron | None:
        """Replace one by what `alter` makes of it. None if there is no such cron."""
        ...

    async def delete(self, cron_id: str) -> None: ...

    async def take(
        self, now: datetime, following: Callable[[Cron], datetime | None], *, limit: int = 100
    ) -> Sequence[Cron]:
        """The enabled crons that are due, as they were; in the same transaction each gets its `following` time, so
        that none is taken twice."""
        ...

    async def due(self) -> datetime | None:
        """When the next one is due."""
        ...


class Runs(Protocol):
    async def create(
        self,
        run: Run,
        *,
        title: str | None = None,
        thread: Thread | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep a new run, and its thread if that is new. An old one was used now, remembers the run's graph and
        assistant in its metadata, the assistant's `config`, and, if it has no title yet, gets this one. A run that is
        kept as running begins."""
        ...

    async def get(self, run_id: str) -> Run | None: ...

    async def list(self, *, thread_id: str | None = None, status: Collection[RunStatus] = ()) -> list[Run]:
        """Oldest first."""
        ...

    async def page(
        self, thread_id: str, *, status: RunStatus | None = None, limit: int, offset: int = 0
    ) -> Sequence[Run]:
        """A thread's runs, newest first."""
        ...

    async def unfinished(
        self, owner: str | None, status: Collection[RunStatus], *, allowed: Filter | None = None
    ) -> Sequence[Run]:
        """The runs that have one of these statuses, on threads of `owner` and `allowed` as in `ThreadQuery`."""
        ...

    async def start(self, run: Run) -> None:
        """The run begins: it is running, in its attempt, and takes the next place on its thread unless it has one."""
        ...

    async def begun(self, thread_id: str, *, after: int) -> Sequence[Run]:
        """A thread's runs that have a place above `after`, in order."""
        ...

    async def order(self, thread_id: str) -> Sequence[str]:
        """The ids of a thread's runs that have begun and ended, in the order in which they began."""
        ...

    async def finish(
        self,
        run: Run,
        *,
        turn: Turn | None,
        log: Sequence[Event],
        leaves: ThreadStatus | None = None,
        interrupts: Mapping[str, Any] | None = None,
        delivery: Delivery | None = None,
    ) -> None:
        """Keep the run's final state, its turn, its whole log, how it `leaves` its thread (None: as it was) and what a
        webhook is to be told in one transaction. Doing it twice is harmless."""
        ...

    async def delete(self, run_id: str) -> None:
        """Delete a run with its log and, if it began one, its turn."""
        ...

    async def forget(self, thread_id: str, run_ids: Collection[str]) -> None:
        """Delete those of a thread's runs with their logs and turns. Of a turn some of whose runs are left, only the
        answer goes. Leaves nothing in the file's log."""
        ...


class Turns(Protocol):
    """`chat_history`."""

    async def list(
        self, session_id: str, *, limit: int, before: int | None = None, without: Collection[str] = ()
    ) -> list[Turn]:
        """Newest first; none that only the runs `without` made."""
        ...

    async def get(self, session_id: str, turn_id: str) -> Turn | None: ...

    async def copy(self, source: str, target: str, *, without: Collection[str] = ()) -> None:
        """Give session `target` the turns of session `source` too, in their order; but where `without` names
        checkpoints, none that ended at one of these, or at none."""
        ...

    async def summary(self, session_ids: Sequence[str]) -> dict[str, TurnSummary]:
        """Of each session that has turns: how many, and how the last one ended."""
        ...


class Pins(Protocol):
    """Checkpoints that retention leaves alone."""

    async def put(self, pin: Pin) -> Pin:
        """Keep the pin; one that is there gets the new name only. What is kept now."""
        ...

    async def remove(self, thread_id: str, checkpoint_ns: str, checkpoint_id: str) -> None:
        """Nothing happens if there is no such pin."""
        ...

    async def list(self, thread_id: str) -> list[Pin]:
        """Oldest first."""
        ...


class Marks(Protocol):
    """What is said of a thread's branches."""

    async def list(self, thread_id: str) -> list[Mark]:
        """Oldest first."""
        ...

    async def put(self, thread_id: str, marks: Sequence[Mark]) -> None:
        """Replace all that is said of a thread's branches by this, in one transaction."""
        ...


class Lines(Protocol):
    """The checkpoints of threads as a tree, read without their states."""

    async def places(self, thread_id: str) -> Sequence[Place]:
        """Every checkpoint of the graph itself, by id, which is oldest first."""
        ...

    async def head(self, thread_id: str) -> str | None:
        """The checkpoint that the thread stands at: its next message goes on from there."""
        ...

    async def switched(self, thread_id: str) -> str | None:
        """The same, if somebody switched to it and it is not the newest; else None."""
        ...

    async def ran(self, thread_id: str, checkpoint_ids: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """For each of these checkpoints that a step made: the nodes that ran in it, by name, sorted."""
        ...

    async def switch(self, thread_id: str, checkpoint_id: str) -> bool:
        """Let the thread stand at another end of its tree; False if that is none. Nothing is copied or moved."""
        ...

    async def cut(self, thread_id: str, checkpoint_ids: Collection[str]) -> bool:
        """Take these checkpoints, the end of a branch, with their writes and what subgraphs did under them. False if
        that cannot be done now: a run is unfinished, one of them was pinned. Conflict if others come after them."""
        ...

    async def copy_line(self, source: str, target: str, checkpoint_ids: Collection[str]) -> None:
        """Copy these checkpoints of a thread, and those of subgraphs below them, to a thread that has none yet. Raises
        Conflict if it has."""
        ...


class Deliveries(Protocol):
    """What webhooks are still to be told."""

    async def put(self, delivery: Delivery) -> None:
        """Keep one, in place of an earlier one of the same run."""
        ...

    async def pending(self, *, limit: int) -> Sequence[Delivery]:
        """Oldest first."""
        ...

    async def tried(self, run_id: str, attempts: int) -> None: ...

    async def remove(self, run_id: str) -> None:
        """Told, or given up. Nothing happens if there is none."""
        ...


class Pruner(Protocol):
    """Takes of the checkpoints what limits do not leave. What stays reads the same afterwards."""

    async def crowded(self, limits: Limits, *, now: datetime, after: str, count: int) -> list[tuple[str, int]]:
        """Threads of which something might go and how many checkpoints each has: the first `count` behind `after`."""
        ...

    async def look(self, thread_id: str, limits: Limits, *, now: datetime) -> Pruned | None:
        """What would go; None if the thread is in use. Changes nothing."""
        ...

    async def prune(self, thread_id: str, limits: Limits, *, now: datetime) -> Pruned | None:
        """Take it, in transactions that nobody waits long for. None if the thread is in use: nothing more was taken."""
        ...

    async def settle(self) -> None:
        """Leave nothing of what was taken in the file's log."""
        ...


class Archive(Protocol):
    """Logs of finished runs."""

    async def read(self, run_id: str) -> list[Event] | None: ...


class OldLogs(Protocol):
    """The logs of runs that ended before some time; of one thread or of all."""

    async def look(self, before: datetime, *, thread_id: str | None = None) -> PrunedLogs:
        """What would go. Changes nothing."""
        ...

    async def prune(self, before: datetime, *, thread_id: str | None = None) -> PrunedLogs:
        """Take them, in transactions that nobody waits long for."""
        ...


class Lineage(Protocol):
    """How a thread's checkpoints hang together, without what they hold."""

    async def places(self, thread_id: str, *, run_id: str, ns: str = "") -> Sequence[Place]:
        """The checkpoints that a run made in a namespace, oldest first."""
        ...

    async def course(self, thread_id: str, *, through: str | None = None) -> Course | None:
        """The line to the newest checkpoint that descends from `through`, or to where the thread stands; None if there
        is no such checkpoint."""
        ...


class Exchange(Protocol):
    """Whole threads, out of the history and into it."""

    async def take(self, thread_id: str, use: Callable[[Taken], T]) -> T | None:
        """What `use`, called in a thread of its own, makes of a thread as of one moment; None if there is none."""
        ...

    async def begin(self, thread_id: str) -> None:
        """A new thread arrives. Nobody sees any of it until `finish`; should that never come, `abandon` or the next
        start takes away what is there of it."""
        ...

    async def keep_runs(self, runs: Sequence[tuple[Run, Sequence[Event]]]) -> None:
        """Keep runs that have ended, with their logs."""
        ...

    async def keep_stored(self, thread_id: str, stored: Sequence[Stored]) -> None: ...

    async def finish(
        self, thread: Thread, *, turns: Sequence[Turn], pins: Sequence[Pin], branches: Sequence[StoredBranch]
    ) -> None:
        """The thread is whole: from here on it is there."""
        ...

    async def abandon(self, thread_id: str) -> None:
        """Take away what is there of a thread that has not arrived whole."""
        ...


class LiveLog(Protocol):
    """Where a running run's log survives the process. Append in batches; order is the caller's."""

    async def extend(self, batches: Mapping[str, Sequence[Event]], *, ended: Collection[str] = ()) -> None:
        """Append to each run's stream, and drop the streams of runs that have ended."""
        ...

    async def read(self, run_id: str) -> list[Event]: ...

    async def delete(self, run_ids: Collection[str]) -> None: ...


class EventLog(Protocol):
    """The log that every run writes and every reader follows."""

    def append(self, run_id: str, type: EventType, data: Any, *, ns: tuple[str, ...] = ()) -> Event: ...

    def follow(self, run_id: str, *, after: int = 0) -> AsyncGenerator[Event]:
        """Every event with an id above `after`, as it comes, until the run's end."""
        ...

    def portions(self, run_id: str, *, after: int = 0) -> AsyncGenerator[Sequence[Event]]:
        """The same, with those together that are there at the same time."""
        ...

    def values(self, run_id: str, ns: tuple[str, ...], checkpoint_id: str) -> bytes | None:
        """The JSON of a state that a run which is going on has just reached, if it is still at hand."""
        ...

    def shared(self, run_id: str) -> dict[Hashable, Any] | None:
        """What the readers of a run share among them while it goes on; None once it has ended."""
        ...


class LiveSessions(Protocol):
    """The live copy of a session. The document is `{session_id, created_at, messages, context}`."""

    async def read(self, session_id: str) -> dict[str, Any] | None:
        """The document, its lease renewed; None once it has expired."""
        ...

    async def open(self, document: dict[str, Any]) -> None:
        """Put the document there unless it is there already, and renew the lease."""
        ...

    async def append(self, session_id: str, message: dict[str, Any], *, context: Mapping[str, Any] = {}) -> bool:
        """Append one message in place and set fields of `context`; False if the session is not live."""
        ...

    async def note(self, session_id: str, context: dict[str, Any]) -> None:
        """Set fields of `context`."""
        ...

    async def live(self, session_ids: Sequence[str]) -> set[str]:
        """Those of the ids that are live. Renews nothing."""
        ...

    async def delete(self, session_id: str) -> None: ...
