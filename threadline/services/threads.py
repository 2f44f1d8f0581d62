"""Threads and whose they are: every request's session is checked here."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

from threadline.domain import ports
from threadline.domain.errors import Invalid, Missing
from threadline.domain.records import Caller, Thread


class Threads:
    """Opens threads for callers. Somebody else's thread is missing, like one that never was."""

    def __init__(self, threads: ports.Threads) -> None:
        self._threads = threads

    async def check(self, thread_id: str, caller: Caller) -> Thread:
        """The caller's thread. Raises Invalid (no UUID) or Missing."""
        canonical = as_uuid(thread_id, "session")
        thread = await self._threads.get(canonical)
        if thread is None or thread.owner != caller.id:
            raise Missing(f"There is no session {canonical}.")
        return thread

    def new(self, thread_id: str | None, caller: Caller) -> Thread:
        """A thread that is not kept yet: its first run keeps it."""
        now = datetime.now(UTC)
        return Thread(thread_id or str(uuid4()), owner=caller.id, created_at=now, updated_at=now, state_updated_at=now)

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

    async def delete(self, thread: Thread) -> None:
        await self._threads.delete(thread.thread_id)


def as_uuid(text: str, what: str) -> str:
    """The canonical spelling of a UUID. Raises Invalid."""
    try:
        return str(UUID(text))
    except ValueError:
        raise Invalid(f"The {what} id must be a UUID.") from None
