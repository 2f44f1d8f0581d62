"""What is kept for good about threads, runs and turns."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

RunStatus = Literal["pending", "running", "success", "error", "timeout", "interrupted"]
ENDED: frozenset[RunStatus] = frozenset({"success", "error", "timeout", "interrupted"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `id` is stable and reveals nothing of the key it stands for."""

    id: str


@dataclass(frozen=True, slots=True)
class Thread:
    """A durable conversation. Times are UTC."""

    thread_id: str
    owner: str
    created_at: datetime
    updated_at: datetime
    title: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a graph on a thread. Exactly one of `input`, `resume` and `checkpoint_id` starts it.

    `turn_id` is the id of the turn's first run: an interrupted turn has one run more for every resume.
    `kwargs` holds what the run was asked to do: `{message}`, `{resume: {interrupt_id, value}}` or `{checkpoint_id}`.
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
