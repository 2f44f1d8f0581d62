"""Server-sent event responses over logged events."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import structlog
from fastapi.responses import Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from api.context import Context
from api.wire import chat
from threadline.domain.events import Event
from threadline.domain.records import Run

log = structlog.get_logger(__name__)

STALL_SECONDS = 30.0
"""How long a reader may take none of what is sent to it. Nothing is queued for it meanwhile: it has a position in the
log, and the few kilobytes that its connection holds."""


def run_stream(context: Context, run: Run, *, after: int = 0) -> Response:
    """A run's chat frames, those after id `after`, until its end. A reader that leaves does not stop the run."""
    headers = {"Location": f"/runs/{run.run_id}/events", "Content-Location": f"/runs/{run.run_id}"}
    return respond(context, _frames(context.runs.portions(run, after=after), context), headers=headers)


def respond(
    context: Context,
    frames: AsyncGenerator[bytes],
    *,
    headers: dict[str, str],
    heartbeat: str = "ping",
    seconds: float | None = None,
) -> Response:
    """A stream of frames, whole ones, any number of them at a time, with a comment now and then while none comes."""
    return _Stream(
        _counted(frames, context),
        ping=context.heartbeat if seconds is None else seconds,
        ping_message_factory=lambda: ServerSentEvent(comment=heartbeat),
        headers={"Cache-Control": "no-store", **headers},
        send_timeout=STALL_SECONDS,
    )


class _Stream(EventSourceResponse):
    """Lets go of a reader that has stopped reading. It can come back and go on after the last event it saw."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            log.info("reader_dropped", path=scope["path"], seconds=STALL_SECONDS)


async def _frames(portions: AsyncGenerator[Sequence[Event]], context: Context) -> AsyncGenerator[bytes]:
    asked = time.perf_counter()
    first = True
    async with aclosing(portions):
        async for portion in portions:
            encoded = b"".join([frame for event in portion if (frame := chat.encode(event)) is not None])
            if encoded and first:
                context.metrics.first_event.observe(time.perf_counter() - asked)
                first = False
            yield encoded


async def _counted(frames: AsyncGenerator[bytes], context: Context) -> AsyncGenerator[bytes]:
    with context.metrics.streams.track_inprogress():
        async with aclosing(frames):
            async for encoded in frames:
                if encoded:
                    yield encoded
