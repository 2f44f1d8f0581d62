"""A stream's response, as an ASGI server sees it: readers who leave, who stop reading, who wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from starlette.types import Message

from api.streams import EventStream

SCOPE: dict[str, Any] = {"type": "http", "method": "GET", "path": "/x"}


class Connection:
    """One client's end: takes so many messages, the head among them, and stays until it is told to leave."""

    def __init__(self, takes: int = 1000) -> None:
        self.sent: list[Message] = []
        self.takes = takes
        self.leaves = asyncio.Event()

    async def send(self, message: Message) -> None:
        if len(self.sent) == self.takes:
            await asyncio.Event().wait()
        self.sent.append(message)

    async def receive(self) -> Message:
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


class Source:
    """Frames that are let out one by one; knows how it was left."""

    def __init__(self, *frames: bytes) -> None:
        self.frames = frames
        self.more = asyncio.Event()
        self.closed = False

    async def __call__(self) -> AsyncGenerator[bytes]:
        try:
            for frame in self.frames:
                yield frame
            await self.more.wait()
        finally:
            self.closed = True


def stream(source: Source, open_streams: set[asyncio.Task[None]], *, seconds: float = 60) -> EventStream:
    return EventStream(source(), headers={}, heartbeat=b": ping\r\n\r\n", seconds=seconds, open_streams=open_streams)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def test_frames_are_sent_as_they_are_and_the_body_is_ended() -> None:
    line, source, open_streams = Connection(), Source(b"one", b"two"), set[asyncio.Task[None]]()
    source.more.set()

    await stream(source, open_streams)(SCOPE, line.receive, line.send)

    assert [message.get("body") for message in line.sent] == [None, b"one", b"two", b""]
    assert line.sent[-1]["more_body"] is False
    assert source.closed
    assert not open_streams


async def test_a_reader_that_leaves_ends_the_stream() -> None:
    line, source, open_streams = Connection(), Source(b"one"), set[asyncio.Task[None]]()
    serving = asyncio.create_task(stream(source, open_streams)(SCOPE, line.receive, line.send))
    await until(lambda: line.body == b"one")

    line.leaves.set()
    await serving

    assert source.closed
    assert line.sent[-1]["more_body"]
    assert not open_streams


async def test_a_server_that_stops_ends_the_stream() -> None:
    line, source, open_streams = Connection(), Source(b"one"), set[asyncio.Task[None]]()
    serving = asyncio.create_task(stream(source, open_streams)(SCOPE, line.receive, line.send))
    await until(lambda: line.body == b"one")

    for task in open_streams:
        task.cancel()
    await serving

    assert source.closed


async def test_comments_are_sent_while_nothing_comes() -> None:
    line, source = Connection(), Source(b"one")
    serving = asyncio.create_task(stream(source, set(), seconds=0.01)(SCOPE, line.receive, line.send))
    await until(lambda: line.body.count(b": ping\r\n\r\n") == 3)

    source.more.set()
    await serving

    assert line.body.startswith(b"one: ping")


async def test_what_goes_wrong_is_told_to_the_server() -> None:
    async def broken() -> AsyncGenerator[bytes]:
        yield b"one"
        raise LookupError("broken")

    line = Connection()
    response = EventStream(broken(), headers={}, heartbeat=b"", seconds=60, open_streams=set())
    with pytest.raises(LookupError):
        await response(SCOPE, line.receive, line.send)
