"""Server-sent event responses over logged events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing

from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from api.context import Context
from api.encoding import encoded
from api.wire import chat
from threadline.domain.records import Run

HEADERS = {"Cache-Control": "no-store", "Connection": "keep-alive", "X-Accel-Buffering": "no"}


def run_stream(context: Context, run: Run, *, after: int = 0) -> Response:
    """A run's chat frames, those after id `after`, until its end. A reader that leaves does not stop the run."""
    headers = {"Location": f"/runs/{run.run_id}/events", "Content-Location": f"/runs/{run.run_id}"}
    return respond(context, _frames(context, run, after), headers=headers)


def respond(
    context: Context,
    frames: AsyncGenerator[bytes],
    *,
    headers: Mapping[str, str],
    heartbeat: str = "ping",
    seconds: float | None = None,
) -> Response:
    """A stream of frames, whole ones, any number of them at a time, with a comment now and then while none comes."""
    return EventStream(
        _counted(frames, context),
        headers=headers,
        heartbeat=b": %s\r\n\r\n" % heartbeat.encode(),
        seconds=context.heartbeat if seconds is None else seconds,
        open_streams=context.open_streams,
    )


class EventStream(Response):
    """Frames as they come, for as long as the client reads them.

    For a reader that has stopped reading nothing is queued: it has a position in the log. Its connection is cut after a
    while (`threadline.app.connection`), and it can come back and go on after the last event it saw. A stream stands
    among `open_streams` meanwhile: who cancels what stands there ends it.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        frames: AsyncGenerator[bytes],
        *,
        headers: Mapping[str, str],
        heartbeat: bytes,
        seconds: float,
        open_streams: set[asyncio.Task[None]],
    ) -> None:
        self.status_code = 200
        self.background = None
        self._frames = frames
        self._heartbeat = heartbeat
        self._seconds = seconds
        self._open_streams = open_streams
        self._sending = False
        self._sent_at = time.monotonic()
        self.init_headers({**HEADERS, **headers})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        streaming, reading = asyncio.create_task(self._stream(send)), asyncio.create_task(_until_gone(receive))
        self._open_streams.add(streaming)
        try:
            await self._attend({streaming, reading}, send)
        finally:
            self._open_streams.discard(streaming)
            streaming.cancel()
            reading.cancel()
            await asyncio.wait({streaming, reading})
        if not streaming.cancelled():
            streaming.result()

    async def _attend(self, either: Collection[asyncio.Task[None]], send: Send) -> None:
        """Send comments while nothing else is sent, until either task is done."""
        while True:
            pause = self._seconds if self._sending else self._sent_at + self._seconds - time.monotonic()
            done, _ = await asyncio.wait(either, timeout=max(0.0, pause), return_when=asyncio.FIRST_COMPLETED)
            if done:
                return
            if not self._sending and time.monotonic() >= self._sent_at + self._seconds:
                await send({"type": "http.response.body", "body": self._heartbeat, "more_body": True})
                self._sent_at = time.monotonic()

    async def _stream(self, send: Send) -> None:
        async with aclosing(self._frames) as frames:
            async for sent in frames:
                self._sending = True
                await send({"type": "http.response.body", "body": sent, "more_body": True})
                self._sent_at, self._sending = time.monotonic(), False
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _frames(context: Context, run: Run, after: int) -> AsyncGenerator[bytes]:
    asked = time.perf_counter()
    first = True
    async with aclosing(encoded(context.runs, run, chat.Encoder, start=after)) as portions:
        async for _, frames in portions:
            if frames and first:
                context.metrics.first_event.observe(time.perf_counter() - asked)
                first = False
            yield frames


async def _counted(frames: AsyncGenerator[bytes], context: Context) -> AsyncGenerator[bytes]:
    with context.metrics.streams.track_inprogress():
        async with aclosing(frames):
            async for some in frames:
                if some:
                    yield some
