"""What is kept for good about threads, runs and turns."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, Protocol
from uuid import UUID, uuid5

from threadline.domain.filters import Filter

_GRAPHS = UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")

RunStatus = Literal["pending", "running", "success", "error", "timeout", "interrupted"]
ThreadStatus = Literal["idle", "busy", "interrupted", "error"]
ThreadOrder = Literal["thread_id", "status", "created_at", "updated_at", "state_updated_at", "expires_at"]
CronOrder = Literal["cron_id", "assistant_id", "thread_id", "next_run_at", "end_time", "created_at", "updated_at"]
AssistantOrder = Literal["assistant_id", "graph_id", "name", "created_at", "updated_at"]
MultitaskStrategy = Literal["reject", "interrupt", "rollback", "enqueue"]
ENDED: frozenset[RunStatus] = frozenset({"success", "error", "timeout", "interrupted"})


class User(dict[str, Any]):
    """What a project's own authentication says of a caller: a mapping, with its fields as attributes as well.

    It has `identity`, `display_name`, `is_authenticated`, `permissions` and whatever else the project gave it.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `id` is stable and reveals nothing of the key it stands for.

    `user` is there where the project authenticates its callers itself, `headers` are those of the request that the
    project wants its graphs to see.
    """

    id: str
    user: User | None = field(default=None, compare=False)
    headers: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def permissions(self) -> tuple[str, ...]:
        return tuple(self.user["permissions"]) if self.user is not None else ()


class Owned(Protocol):
    """A record that is somebody's."""

    @property
    def owner(self) -> str: ...

    @property
    def metadata(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Thread:
    """A durable conversation. Times are UTC.

    `status` is `busy` while a run is pending or going on, whatever was kept. `error` is `{error, message}` of a last
    run that failed, `interrupts` what the thread waits for as `{task_id: [{id, value}]}`. `metadata` holds `graph_id`
    and `assistant_id` once something ran on it. `ttl` is `{strategy, ttl}`: what becomes of the thread at `expires_at`,
    and the minutes it was given.
    """

    thread_id: str
    owner: str
    created_at: datetime
    updated_at: datetime
    title: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    status: ThreadStatus = "idle"
    config: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    interrupts: dict[str, Any] = field(default_factory=dict)
    begun: int = 0
    state_updated_at: datetime | None = None
    ttl: dict[str, Any] | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ThreadQuery:
    """Which threads, and in which order. `metadata` must be contained in a thread's, as PostgreSQL's `@>` has it: every
    key with its value, every element of a list. No `owner` asks for everybody's; `allowed` is what an auth handler
    says that it must be besides."""

    owner: str | None = None
    allowed: Filter | None = None
    ids: Collection[str] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    status: ThreadStatus | None = None
    expiring: bool = False
    sort_by: ThreadOrder = "updated_at"
    descending: bool = True
    limit: int = 10
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Assistant:
    """A graph with its config, named and versioned. The owner `""` is the service itself: every caller sees it."""

    assistant_id: str
    graph_id: str
    owner: str
    name: str
    created_at: datetime
    updated_at: datetime
    description: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    version: int = 1


def system_assistant_id(graph_id: str) -> str:
    """The id of the assistant that every graph has from the start: the same on every LangGraph server."""
    return str(uuid5(_GRAPHS, graph_id))


@dataclass(frozen=True, slots=True)
class AssistantQuery:
    """Which assistants, and in which order: those of `owner` and of the service itself, the latter only for `graphs`.

    `name` is any part of a name in any case; `owner`, `allowed` and `metadata` are as in `ThreadQuery`.
    """

    graphs: Collection[str]
    owner: str | None = None
    allowed: Filter | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    graph_id: str | None = None
    name: str | None = None
    sort_by: AssistantOrder = "created_at"
    descending: bool = True
    limit: int = 10
    offset: int = 0


@dataclass(frozen=True, slots=True)
class AssistantVersion:
    """An assistant as it was from `created_at` on; no version ever changes."""

    assistant_id: str
    version: int
    graph_id: str
    name: str
    created_at: datetime
    description: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cron:
    """A run that starts by the clock. `payload` is the body the runs are created with, `next_run_at` None is never.

    `user` is what the project's own authentication said of the owner, in JSON types: the runs are theirs.
    """

    cron_id: str
    assistant_id: str
    owner: str
    schedule: str
    payload: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    thread_id: str | None = None
    timezone: str | None = None
    end_time: datetime | None = None
    next_run_at: datetime | None = None
    on_run_completed: Literal["delete", "keep"] = "delete"
    enabled: bool = True
    metadata: dict[str, Any] = field(default_factory=dict)
    user: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class CronQuery:
    """Which crons, and in which order. `owner`, `allowed` and `metadata` are as in `ThreadQuery`."""

    owner: str | None = None
    allowed: Filter | None = None
    assistant_id: str | None = None
    thread_id: str | None = None
    enabled: bool | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sort_by: CronOrder = "created_at"
    descending: bool = True
    limit: int = 10
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a graph on a thread.

    `turn_id` is the id of the turn's first run: an interrupted turn has one run more for every resume. `position` is
    its place among those that have begun on its thread, from 1; 0 until it begins.
    `kwargs` holds what the run was asked to do, in JSON types; `threadline.services.runs` says with which keys.
    """

    run_id: str
    thread_id: str
    graph_id: str
    turn_id: str
    status: RunStatus
    kwargs: dict[str, Any]
    created_at: datetime
    attempt: int = 1
    ended_at: datetime | None = None
    error: dict[str, Any] | None = None
    assistant_id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    multitask_strategy: MultitaskStrategy = "enqueue"
    position: int = 0
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """A row of `chat_history`. `cost` is in US dollars; None is "unknown", never "free"."""

    session_id: str
    user_message: str | None
    assistant_message: str | None
    tools_used: list[str]
    model_used: str | None
    tokens_used: int | None
    cost: float | None
    created_at: datetime
    extra_metadata: dict[str, Any]
    id: int | None = None


@dataclass(frozen=True, slots=True)
class TurnSummary:
    """A session's turns at a glance; `last` is the status the last one ended with, as readers were told it."""

    turns: int
    last: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a webhook is still to be told of a run, and how often it was tried in vain. Without `thread_id` it outlives
    the run's thread."""

    run_id: str
    thread_id: str | None
    url: str
    body: bytes
    created_at: datetime
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Pin:
    """A checkpoint that retention leaves alone. `name` is what somebody calls it, None if they have no name for it."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    name: str | None
    created_at: datetime


class Place(NamedTuple):
    """Where a checkpoint stands in its thread, and the run that made it; none made an edit.

    `source` and `step` are LangGraph's: `input`, `loop`, `update` or `fork`, and the number of the step. `made_at`
    is what the id says, if it does.
    """

    checkpoint_id: str
    parent_id: str | None
    run_id: str | None
    source: str | None = None
    step: int | None = None
    made_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """What is said of a branch: its name, and whether it is the session's main line.

    It is said of the checkpoint that was the branch's last one then. Whatever becomes of the tree, that stays on it.
    """

    thread_id: str
    checkpoint_id: str
    name: str | None
    main: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Course:
    """The runs along a line of checkpoints, oldest first; those from index `start` on made the checkpoint it was asked
    for, or came after it. `beside` holds what is not on the line: checkpoints by the run that made them."""

    runs: tuple[str, ...]
    start: int
    beside: Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class PrunedLogs:
    """What went of the logs of runs, or would: how many, and their bytes."""

    runs: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how many checkpoints of a thread are kept. None takes nothing; each limit takes on its own."""

    max_age: timedelta | None = None
    max_checkpoints: int | None = None

    def __bool__(self) -> bool:
        return self.max_age is not None or self.max_checkpoints is not None


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went of a thread, or would: how many checkpoints, their bytes, and how many stay."""

    thread_id: str
    checkpoints: int
    size: int
    left: int


def shown_error(error: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A run's error as its thread shows it."""
    return {"error": error.get("type") or error["kind"], "message": error["message"]} if error else None
