"""Server-sent event responses over logged events."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

from fastapi.responses import Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from api.context import Context
from api.wire import chat
from threadline.domain.events import Event
from threadline.domain.records import Run

WRITE_BYTES = 131072
"""About how much is written to a reader together. A reader that stops reading holds no more than this and a frame."""


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
    return EventSourceResponse(
        _counted(frames, context),
        ping=context.heartbeat if seconds is None else seconds,
        ping_message_factory=lambda: ServerSentEvent(comment=heartbeat),
        headers={"Cache-Control": "no-store", **headers},
    )


async def written(events: Sequence[Event], encode: Callable[[Event], Awaitable[bytes]]) -> AsyncGenerator[bytes]:
    """The frames of events that are there at the same time, together as far as that is not much."""
    gathered, size = list[bytes](), 0
    for event in events:
        encoded = await encode(event)
        gathered.append(encoded)
        size += len(encoded)
        if size >= WRITE_BYTES:
            yield b"".join(gathered)
            gathered, size = [], 0
    yield b"".join(gathered)


async def _frames(portions: AsyncGenerator[Sequence[Event]], context: Context) -> AsyncGenerator[bytes]:
    asked = time.perf_counter()
    first = True
    async with aclosing(portions):
        async for portion in portions:
            async for encoded in written(portion, _chat_frame):
                if encoded and first:
                    context.metrics.first_event.observe(time.perf_counter() - asked)
                    first = False
                yield encoded


async def _chat_frame(event: Event) -> bytes:
    return chat.encode(event) or b""


async def _counted(frames: AsyncGenerator[bytes], context: Context) -> AsyncGenerator[bytes]:
    with context.metrics.streams.track_inprogress():
        async with aclosing(frames):
            async for encoded in frames:
                if encoded:
                    yield encoded
