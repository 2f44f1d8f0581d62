"""Server-sent event responses over logged events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing

import structlog
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from api.context import Context
from api.encoding import encoded
from api.wire import chat
from threadline.domain.records import Run

log = structlog.get_logger(__name__)

STALL_SECONDS = 30.0
"""How long a reader may take none of what is sent to it. Nothing is queued for it meanwhile: it has a position in the
log, and the few kilobytes that its connection holds."""
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

    Lets go of a reader that has stopped reading: it can come back and go on after the last event it saw. Stands among
    `open_streams` meanwhile: who cancels what stands there ends it.
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
        self._sending_since: float | None = None
        self._sent_at = time.monotonic()
        self.init_headers({**HEADERS, **headers})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        streaming, reading = asyncio.create_task(self._stream(send)), asyncio.create_task(_until_gone(receive))
        self._open_streams.add(streaming)
        try:
            await self._attend({streaming, reading}, send)
        except TimeoutError:
            log.info("reader_dropped", path=scope["path"], seconds=STALL_SECONDS)
        finally:
            self._open_streams.discard(streaming)
            streaming.cancel()
            reading.cancel()
            await asyncio.wait({streaming, reading})
        if not streaming.cancelled():
            streaming.result()

    async def _attend(self, either: Collection[asyncio.Task[None]], send: Send) -> None:
        """Send comments until either task is done. Raises TimeoutError if nothing of what is sent is taken."""
        while True:
            since = self._sending_since
            due = self._sent_at + self._seconds if since is None else since + STALL_SECONDS
            pause = min(due - time.monotonic(), STALL_SECONDS)
            done, _ = await asyncio.wait(either, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return
            if since is not None and since == self._sending_since and time.monotonic() >= due:
                raise TimeoutError
            if since is None and self._sending_since is None and time.monotonic() >= self._sent_at + self._seconds:
                async with asyncio.timeout(STALL_SECONDS):
                    await send({"type": "http.response.body", "body": self._heartbeat, "more_body": True})
                self._sent_at = time.monotonic()

    async def _stream(self, send: Send) -> None:
        async with aclosing(self._frames) as frames:
            async for sent in frames:
                self._sending_since = time.monotonic()
                await send({"type": "http.response.body", "body": sent, "more_body": True})
                self._sent_at, self._sending_since = time.monotonic(), None
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
