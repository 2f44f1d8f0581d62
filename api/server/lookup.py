"""Finds what a path names, in the words of the LangGraph Server API."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from api.context import Asking, Context, Using
from threadline.domain.errors import Invalid, Missing
from threadline.domain.records import Caller, Thread
from threadline.services.threads import as_uuid


def thread_uuid(thread_id: str) -> str:
    """A thread's id in its canonical spelling. Raises Invalid."""
    try:
        return as_uuid(thread_id, "thread")
    except Invalid:
        raise Invalid("Invalid thread ID: must be a UUID") from None


async def thread_of(thread_id: str, caller: Caller, context: Context) -> Thread:
    """The caller's thread. Raises Invalid or Missing."""
    try:
        return await context.threads.check(thread_uuid(thread_id), caller)
    except Missing:
        raise Missing(f"Thread with ID {thread_id} not found") from None


async def _thread(thread_id: str, caller: Asking, context: Using) -> Thread:
    return await thread_of(thread_id, caller, context)


ThreadInPath = Annotated[Thread, Depends(_thread)]
"""The thread of a path with `{thread_id}` in it."""
