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

    async def open(self, thread_id: str | None, caller: Caller) -> Thread:
        """The caller's thread, or a new one where none is named."""
        if thread_id is not None:
            return await self.check(thread_id, caller)
        now = datetime.now(UTC)
        thread = Thread(str(uuid4()), owner=caller.id, created_at=now, updated_at=now)
        await self._threads.create(thread)
        return thread

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
