"""Conversations already rebuilt, so that the next turn reads only what came since. In this process, bounded in bytes.

Only messages are kept: what else a delta channel may hold could be changed in place by its reducer, messages are
replaced instead. A kept history is that of one checkpoint, which nothing can change but a write to an ancestor of it;
who writes says so here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.base import DeltaChannelHistory, PendingWrite
from langgraph.checkpoint.serde.types import _DeltaSnapshot

Place = tuple[str, str]
"""A thread id and a checkpoint namespace."""
SPREAD = 4096
"""Counters of changes; threads share them, which now and then costs a history that could have been kept."""
OBJECTS = 4
"""Bytes a message takes in memory, for each of its bytes on disk: an estimate."""


@dataclass(frozen=True, slots=True)
class Known:
    """The history of a thread's delta channels at one checkpoint, as one reader saw it."""

    checkpoint_id: str
    channels: Mapping[str, DeltaChannelHistory]
    size: int
    allowed: frozenset[tuple[str, str]]
    """The types its reader might build. Another reader's values may be others, so it is nothing to them."""


class DeltaCache:
    """The newest known history of each thread; those not used for longest go first. `room` is in bytes."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._held = 0
        self._known: OrderedDict[Place, Known] = OrderedDict()
        self._changes = [0] * SPREAD
        self._lock = Lock()

    def begin(self, place: Place) -> tuple[int, Known | None]:
        """What is known of a thread, and what `keep` wants back: whatever changes in between, makes it stale."""
        with self._lock:
            known = self._known.get(place)
            if known is not None:
                self._known.move_to_end(place)
            return self._changes[hash(place) % SPREAD], known

    def keep(self, place: Place, known: Known, *, since: int) -> None:
        with self._lock:
            if self._changes[hash(place) % SPREAD] != since or known.size > self._room:
                return
            self._drop(place)
            self._known[place] = known
            self._held += known.size
            while self._held > self._room:
                self._drop(next(iter(self._known)))

    def changed(self, place: Place, checkpoint_id: str) -> None:
        """A checkpoint was put or written to. Ids grow, so an ancestor of what is known has a smaller one."""
        with self._lock:
            self._changes[hash(place) % SPREAD] += 1
            known = self._known.get(place)
            if known is not None and checkpoint_id < known.checkpoint_id:
                self._drop(place)

    def forget(self, place: Place) -> None:
        """Checkpoints of this thread were deleted."""
        with self._lock:
            self._changes[hash(place) % SPREAD] += 1
            self._drop(place)

    def clear(self) -> None:
        """Something was deleted."""
        with self._lock:
            self._changes = [count + 1 for count in self._changes]
            self._known.clear()
            self._held = 0

    def _drop(self, place: Place) -> None:
        known = self._known.pop(place, None)
        if known is not None:
            self._held -= known.size


def may_be_kept(history: DeltaChannelHistory) -> bool:
    """Whether this history is of messages only."""
    seed: Any = history.get("seed", [])
    seed = seed.value if isinstance(seed, _DeltaSnapshot) else seed
    return _messages(seed) and all(_messages(value) for _, _, value in history["writes"])


def extended(known: DeltaChannelHistory, writes: list[PendingWrite]) -> DeltaChannelHistory:
    """A known history and what came after it. Nothing a reader does to its lists reaches what is known."""
    result: DeltaChannelHistory = {"writes": [*known["writes"], *writes]}
    if "seed" in known:
        seed = known["seed"]
        result["seed"] = _DeltaSnapshot(list(seed.value)) if isinstance(seed, _DeltaSnapshot) else list(seed)
    return result


def _messages(value: Any) -> bool:
    if isinstance(value, list):
        return all(issubclass(kind, BaseMessage) for kind in set(map(type, value)))
    return isinstance(value, BaseMessage)
