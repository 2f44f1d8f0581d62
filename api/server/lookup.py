"""Finds what a path names, in the words of the LangGraph Server API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Depends

from api.context import Asking, Context, Using
from threadline.domain.errors import Invalid, Missing
from threadline.domain.records import Caller, Thread
from threadline.services.threads import Access, as_uuid


def thread_uuid(thread_id: str) -> str:
    """A thread's id in its canonical spelling. Raises Invalid."""
    try:
        return as_uuid(thread_id, "thread")
    except Invalid:
        raise Invalid("Invalid thread ID: must be a UUID") from None


@contextmanager
def thread_named(thread_id: str) -> Iterator[None]:
    """Says which thread is missing."""
    try:
        yield
    except Missing as error:
        if not error.message.startswith("There is no session"):
            raise
        raise Missing(f"Thread with ID {thread_id} not found") from None


async def thread_of(thread_id: str, caller: Caller, context: Context, action: Access) -> Thread:
    """The thread, if the caller may do this with it. Raises Invalid, Missing or Forbidden."""
    with thread_named(thread_id):
        return await context.threads.check(thread_uuid(thread_id), caller, action)


async def _to_read(thread_id: str, caller: Asking, context: Using) -> Thread:
    return await thread_of(thread_id, caller, context, "read")


async def _to_update(thread_id: str, caller: Asking, context: Using) -> Thread:
    return await thread_of(thread_id, caller, context, "update")


ThreadToRead = Annotated[Thread, Depends(_to_read)]
"""The thread of a path with `{thread_id}` in it, which the caller may read."""
ThreadToUpdate = Annotated[Thread, Depends(_to_update)]
"""The same, which the caller may change."""
