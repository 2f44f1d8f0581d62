"""Threads and whose they are: every request's session is checked here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Literal
from uuid import UUID, uuid4

from threadline.domain import ports
from threadline.domain.errors import Conflict, Invalid, Missing
from threadline.domain.records import Caller, Thread, ThreadQuery


class Keep(Enum):
    """Says that something stays as it is, where None means that there shall be none."""

    KEEP = "keep"


KEEP = Keep.KEEP


@dataclass(frozen=True, slots=True)
class Ttl:
    """What becomes of a thread after `ttl` minutes: it goes, or all of its past but the newest state does."""

    ttl: float
    strategy: Literal["delete", "keep_latest"] = "delete"


class Threads:
    """Opens threads for callers. Somebody else's thread is missing, like one that never was."""

    def __init__(self, threads: ports.Threads, *, ttl: Ttl | None = None) -> None:
        """`ttl` is for threads that are given none of their own."""
        self._threads = threads
        self._ttl = ttl
        self.expiring = asyncio.Event()
        """Set when a thread is given a time to live."""

    async def check(self, thread_id: str, caller: Caller) -> Thread:
        """The caller's thread. Raises Invalid (no UUID) or Missing."""
        canonical = as_uuid(thread_id, "session")
        thread = await self._threads.get(canonical)
        if thread is None or thread.owner != caller.id:
            raise Missing(f"There is no session {canonical}.")
        return thread

    async def exists(self, thread_id: str) -> bool:
        """Whether anybody has a thread of this id."""
        return await self._threads.get(thread_id) is not None

    def new(self, thread_id: str | None, caller: Caller) -> Thread:
        """A thread that is not kept yet: its first run keeps it."""
        now = datetime.now(UTC)
        return Thread(
            thread_id or str(uuid4()),
            owner=caller.id,
            created_at=now,
            updated_at=now,
            state_updated_at=now,
            **_expiry(self._ttl, now),
        )

    async def unused(self, thread_id: str, caller: Caller) -> Thread:
        """A new thread under an id of the caller's choice. Raises Missing if it is somebody else's already."""
        canonical = as_uuid(thread_id, "session")
        if await self._threads.get(canonical) is not None:
            raise Missing(f"There is no session {canonical}.")
        return self.new(canonical, caller)

    async def list(self, caller: Caller, *, limit: int, before: str | None) -> list[Thread]:
        if before is not None:
            before = (await self.check(before, caller)).thread_id
        return await self._threads.list(owner=caller.id, limit=limit, before=before)

    async def create(
        self,
        caller: Caller,
        *,
        thread_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: Ttl | None = None,
        if_exists: Literal["raise", "do_nothing"] = "raise",
    ) -> tuple[Thread, bool]:
        """A thread and whether it is new: it is not if the caller has one of that id, where that is fine.

        Raises Invalid (no UUID) or Conflict.
        """
        now, ttl = datetime.now(UTC), ttl or self._ttl
        thread = Thread(
            as_uuid(thread_id, "thread") if thread_id is not None else str(uuid4()),
            owner=caller.id,
            created_at=now,
            updated_at=now,
            metadata=dict(metadata or {}),
            state_updated_at=now,
            **_expiry(ttl, now),
        )
        try:
            await self._threads.create(thread)
        except Conflict:
            there = await self._threads.get(thread.thread_id)
            if if_exists == "raise" or there is None or there.owner != caller.id:
                raise
            return there, False
        self._expiring(ttl)
        return thread, True

    async def change(self, thread: Thread, *, metadata: Mapping[str, Any], ttl: Ttl | Keep | None = KEEP) -> Thread:
        """Merge metadata into the thread's, key by key; give it another time to live, or none."""
        now = datetime.now(UTC)
        changes: dict[str, Any] = {"metadata": metadata, "updated_at": now}
        if not isinstance(ttl, Keep):
            changes |= _expiry(ttl, now)
        changed = await self._threads.change(thread.thread_id, changes)
        if changed is None:
            raise Missing(f"There is no session {thread.thread_id}.")
        self._expiring(None if isinstance(ttl, Keep) else ttl)
        return changed

    async def search(self, query: ThreadQuery) -> tuple[Sequence[Thread], int]:
        """One page of threads, and how many there are in all."""
        return await self._threads.search(query)

    async def delete(self, thread: Thread) -> None:
        await self._threads.delete(thread.thread_id)

    def _expiring(self, ttl: Ttl | None) -> None:
        if ttl is not None:
            self.expiring.set()


def _expiry(ttl: Ttl | None, now: datetime) -> dict[str, Any]:
    if ttl is None:
        return {"ttl": None, "expires_at": None}
    return {"ttl": asdict(ttl), "expires_at": now + timedelta(minutes=ttl.ttl)}


def as_uuid(text: str, what: str) -> str:
    """The canonical spelling of a UUID. Raises Invalid."""
    try:
        return str(UUID(text))
    except ValueError:
        raise Invalid(f"The {what} id must be a UUID.") from None
