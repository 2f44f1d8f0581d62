"""Threads and whose they are: every request's session is checked here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Literal
from uuid import UUID, uuid4

from threadline.domain import ports
from threadline.domain.errors import Conflict, Invalid, Missing
from threadline.domain.records import Caller, Thread, ThreadQuery
from threadline.services.permission import Grant, Permission, metadata_in

Access = Literal["read", "update", "delete", "search"]
"""What somebody may want of a thread that is there."""


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

    def __init__(self, threads: ports.Threads, *, permission: Permission, ttl: Ttl | None = None) -> None:
        """`ttl` is for threads that are given none of their own."""
        self._threads = threads
        self._permission = permission
        self._ttl = ttl
        self.expiring = asyncio.Event()
        """Set when a thread is given a time to live."""

    async def check(self, thread_id: str, caller: Caller, action: Access, /, **more: Any) -> Thread:
        """The thread, if the caller may do this with it. Raises Invalid (no UUID), Missing or Forbidden.

        `more` is what an auth handler is told besides the id.
        """
        return await self.granted(thread_id, await self.ask(thread_id, caller, action, **more))

    async def ask(self, thread_id: str, caller: Caller, action: Access, /, **more: Any) -> Grant:
        """Whether the caller may do this with a thread. Raises Invalid (no UUID) or Forbidden."""
        value = {"thread_id": UUID(as_uuid(thread_id, "session")), **more}
        return await self._permission.ask(caller, "threads", action, value)

    async def granted(self, thread_id: str, *grants: Grant) -> Thread:
        """The thread, if it is among those of every grant. Raises Missing."""
        canonical = as_uuid(thread_id, "session")
        thread = await self._threads.get(canonical)
        if thread is None or not all(grant.holds(thread) for grant in grants):
            raise Missing(f"There is no session {canonical}.")
        return thread

    async def exists(self, thread_id: str) -> bool:
        """Whether anybody has a thread of this id."""
        return await self._threads.get(thread_id) is not None

    def new(self, thread_id: str | None, caller: Caller, *, metadata: Mapping[str, Any]) -> Thread:
        """A thread that is not kept yet: its first run keeps it."""
        now = datetime.now(UTC)
        return Thread(
            thread_id or str(uuid4()),
            owner=caller.id,
            created_at=now,
            updated_at=now,
            metadata=dict(metadata),
            state_updated_at=now,
            **_expiry(self._ttl, now),
        )

    async def unused(self, thread_id: str, caller: Caller, *, metadata: Mapping[str, Any]) -> Thread:
        """A new thread under an id of the caller's choice. Raises Missing if it is somebody else's already."""
        canonical = as_uuid(thread_id, "session")
        if await self._threads.get(canonical) is not None:
            raise Missing(f"There is no session {canonical}.")
        return self.new(canonical, caller, metadata=metadata)

    async def list(self, caller: Caller, *, limit: int, before: str | None) -> list[Thread]:
        """The caller's threads, the last used first. Raises Missing for a `before` that is none of them."""
        query, _ = await narrowed(self._permission, caller, ThreadQuery(limit=limit), {})
        if before is not None:
            before = (await self.granted(before, Grant(query.owner, query.allowed))).thread_id
        return await self._threads.list(owner=query.owner, allowed=query.allowed, limit=query.limit, before=before)

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
        id = UUID(as_uuid(thread_id, "thread")) if thread_id is not None else uuid4()
        grant, allowed = await self._may_create(id, caller, metadata or {}, if_exists)
        thread = Thread(
            str(id),
            owner=caller.id,
            created_at=now,
            updated_at=now,
            metadata=allowed,
            state_updated_at=now,
            **_expiry(ttl, now),
        )
        try:
            await self._threads.create(thread)
        except Conflict:
            there = await self._threads.get(thread.thread_id)
            if if_exists == "raise" or there is None or not grant.holds(there):
                raise
            return there, False
        self._expiring(ttl)
        return thread, True

    async def arriving(self, thread_id: str, caller: Caller, *, metadata: Mapping[str, Any]) -> Thread:
        """A new thread that comes from elsewhere: who brings it keeps it. Raises Forbidden."""
        _, allowed = await self._may_create(UUID(thread_id), caller, metadata, "raise")
        return self.new(thread_id, caller, metadata=allowed)

    async def _may_create(
        self, thread_id: UUID, caller: Caller, metadata: Mapping[str, Any], if_exists: str
    ) -> tuple[Grant, dict[str, Any]]:
        """The metadata that a thread is created with, if the caller may create it."""
        value: dict[str, Any] = {"thread_id": thread_id, "metadata": dict(metadata), "if_exists": if_exists}
        grant = await self._permission.ask(caller, "threads", "create", value)
        return grant, metadata_in(value)

    async def change(
        self, thread_id: str, caller: Caller, *, metadata: Mapping[str, Any], ttl: Ttl | Keep | None = KEEP
    ) -> Thread:
        """Merge metadata into the thread's, key by key; give it another time to live, or none."""
        value: dict[str, Any] = {"thread_id": UUID(as_uuid(thread_id, "session")), "metadata": dict(metadata)}
        thread = await self.granted(thread_id, await self._permission.ask(caller, "threads", "update", value))
        now = datetime.now(UTC)
        changes: dict[str, Any] = {"metadata": metadata_in(value), "updated_at": now}
        if not isinstance(ttl, Keep):
            changes |= _expiry(ttl, now)
        changed = await self._threads.change(thread.thread_id, changes)
        if changed is None:
            raise Missing(f"There is no session {thread.thread_id}.")
        self._expiring(None if isinstance(ttl, Keep) else ttl)
        return changed

    async def delete(self, thread: Thread) -> None:
        await self._threads.delete(thread.thread_id)

    def _expiring(self, ttl: Ttl | None) -> None:
        if ttl is not None:
            self.expiring.set()


async def narrowed(
    permission: Permission, caller: Caller, query: ThreadQuery, values: Mapping[str, Any]
) -> tuple[ThreadQuery, Mapping[str, Any]]:
    """A search for threads, and the values they must hold, as the caller may make it. Raises Forbidden."""
    value: dict[str, Any] = {
        "metadata": dict(query.metadata),
        "values": dict(values),
        "status": query.status,
        "limit": query.limit,
        "offset": query.offset,
    }
    grant = await permission.ask(caller, "threads", "search", value)
    wanted = {name: value[name] for name in ("status", "limit", "offset")}
    query = replace(query, owner=grant.owner, allowed=grant.allowed, metadata=metadata_in(value), **wanted)
    return query, value["values"] or {}


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
