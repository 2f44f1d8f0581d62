"""A client's connection, which is cut if the client stops taking what is sent to it."""

from __future__ import annotations

import asyncio
from typing import cast

import structlog
from uvicorn.protocols.http.auto import AutoHTTPProtocol

log = structlog.get_logger(__name__)


class Patient(asyncio.Protocol):
    """Part of a protocol of Uvicorn's. While what was sent waits to be taken nothing more is asked of the application,
    so such a client costs the little that waits; it may ask again for what it missed.

    Closing would not do: a connection is closed once all that was sent to it has been taken.
    """

    stall_seconds: float

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._line = cast(asyncio.Transport, transport)  # uvloop's is one, and of no class of asyncio's
        self._timer: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait()

    def resume_writing(self) -> None:
        self._stop_waiting()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        left = self._line.get_write_buffer_size()
        self._timer = asyncio.get_running_loop().call_later(self.stall_seconds, self._look, left)

    def _look(self, before: int) -> None:
        if self._line.get_write_buffer_size() < before:
            self._wait()
            return
        log.info("reader_dropped", seconds=self.stall_seconds)
        self._line.abort()

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def connections(stall_seconds: float) -> type[asyncio.Protocol]:
    """The protocol that Uvicorn would choose, cut off when its client has taken nothing for so long."""
    return type("Connection", (Patient, AutoHTTPProtocol), {"stall_seconds": stall_seconds})
