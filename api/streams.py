"""Server-sent event responses over logged events."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from sse_starlette import EventSourceResponse, ServerSentEvent

from api.context import Context
from api.wire import chat
from threadline.domain.events import Event
from threadline.domain.records import Run


def run_stream(context: Context, run: Run, *, after: int = 0) -> EventSourceResponse:
    """A run's chat frames, those after id `after`, until its end. A reader that leaves does not stop the run."""
    headers = {"Location": f"/runs/{run.run_id}/events", "Content-Location": f"/runs/{run.run_id}"}
    return respond(context, _frames(context.runs.follow(run, after=after), context), headers=headers)


def respond(context: Context, frames: AsyncGenerator[bytes], *, headers: dict[str, str]) -> EventSourceResponse:
    return EventSourceResponse(
        _counted(frames, context),
        ping=context.heartbeat,
        ping_message_factory=lambda: ServerSentEvent(comment="ping"),
        headers={"Cache-Control": "no-store", **headers},
    )


async def _frames(events: AsyncGenerator[Event], context: Context) -> AsyncGenerator[bytes]:
    asked = time.perf_counter()
    first = True
    async with aclosing(events):
        async for event in events:
            encoded = chat.encode(event)
            if encoded is None:
                continue
            if first:
                context.metrics.first_event.observe(time.perf_counter() - asked)
                first = False
            yield encoded


async def _counted(frames: AsyncGenerator[bytes], context: Context) -> AsyncGenerator[bytes]:
    with context.metrics.streams.track_inprogress():
        async with aclosing(frames):
            async for encoded in frames:
                yield encoded
