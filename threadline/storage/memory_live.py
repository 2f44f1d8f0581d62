"""The in-process twins of `redis_live`, for machines on which no Redis can be had; they end with the process."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from threadline.domain.events import Event


class MemoryLiveSessions:
    """The `LiveSessions` port in a dictionary. `now` is in seconds and only its differences matter."""

    def __init__(self, *, ttl: int, now: Callable[[], float] = time.monotonic) -> None:
        self._ttl = ttl
        self._now = now
        self._documents: dict[str, tuple[float, dict[str, Any]]] = {}

    async def read(self, session_id: str) -> dict[str, Any] | None:
        document = self._renew(session_id)
        return copy.deepcopy(document)

    async def open(self, document: dict[str, Any]) -> None:
        if self._renew(document["session_id"]) is None:
            self._sweep()
            self._documents[document["session_id"]] = (self._now() + self._ttl, copy.deepcopy(document))

    async def append(self, session_id: str, message: dict[str, Any], *, context: Mapping[str, Any] = {}) -> bool:
        document = self._renew(session_id)
        if document is None:
            return False
        document["messages"].append(copy.deepcopy(message))
        document["context"].update(context)
        return True

    async def note(self, session_id: str, context: dict[str, Any]) -> None:
        document = self._renew(session_id)
        if document is not None:
            document["context"].update(context)

    async def live(self, session_ids: Sequence[str]) -> set[str]:
        now = self._now()
        return {id for id in session_ids if id in self._documents and self._documents[id][0] > now}

    async def delete(self, session_id: str) -> None:
        self._documents.pop(session_id, None)

    def _renew(self, session_id: str) -> dict[str, Any] | None:
        expires, document = self._documents.get(session_id, (0.0, None))
        if document is None or expires <= self._now():
            self._documents.pop(session_id, None)
            return None
        self._documents[session_id] = (self._now() + self._ttl, document)
        return document

    def _sweep(self) -> None:
        now = self._now()
        for session_id in [id for id, (expires, _) in self._documents.items() if expires <= now]:
            del self._documents[session_id]


class MemoryLiveLog:
    """The `LiveLog` port that keeps nothing: the log's own tapes are all there is."""

    async def extend(self, batches: Mapping[str, Sequence[Event]], *, ended: Collection[str] = ()) -> None:
        return None

    async def read(self, run_id: str) -> list[Event]:
        return []

    async def delete(self, run_ids: Collection[str]) -> None:
        return None
