"""A thread as it stands in storage: what is handed on when the whole of it leaves or arrives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from threadline.domain.events import Event
from threadline.domain.records import Pin, Run, Thread, Turn


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A checkpoint as it is serialized. `parent_id` names one of the same namespace that came before, or nothing."""

    checkpoint_ns: str
    checkpoint_id: str
    parent_id: str | None
    type: str
    data: bytes
    metadata: bytes


@dataclass(frozen=True, slots=True)
class StoredWrite:
    """A task's write to a channel, as it is serialized, of a checkpoint that came before."""

    checkpoint_ns: str
    checkpoint_id: str
    task_id: str
    task_path: str
    idx: int
    channel: str
    type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class StoredHead:
    """Where a namespace stands, if somebody switched it since its newest checkpoint, `since`, was put."""

    checkpoint_ns: str
    checkpoint_id: str
    since: str


Stored = StoredCheckpoint | StoredWrite | StoredHead


@dataclass(frozen=True, slots=True)
class StoredBranch:
    """What is said of the branch whose first own checkpoint this is."""

    checkpoint_id: str
    name: str | None
    main: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Taken:
    """All of a thread as of one moment. `log` gives a run's events, `stored` the checkpoints, each with its writes
    behind it and none before its parent, and then the heads; both read when they are asked."""

    thread: Thread
    runs: Sequence[Run]
    turns: Sequence[Turn]
    pins: Sequence[Pin]
    branches: Sequence[StoredBranch]
    log: Callable[[str], Sequence[Event]]
    stored: Callable[[], Iterator[Stored]]
