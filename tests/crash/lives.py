"""The parent's side of the crash tests: starts lives, hears what they tell, and ends them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.crash.child import Order
from tests.service import CLEAN, ROOT

PATIENCE = 60.0
"""Seconds a life may say nothing."""


@dataclass(frozen=True, slots=True)
class Event:
    what: str
    thread: str
    more: dict[str, Any]

    @property
    def marks(self) -> list[str]:
        return self.more.get("marks", [])


@dataclass
class Lives:
    """A fork server: one life at a time, each a process of its own, forked from one that has imported everything."""

    errors: Path
    pid: int | None = None
    """Of the life that goes on."""
    _rest: bytes = b""
    _lines: list[bytes] = field(default_factory=list)

    def __enter__(self) -> Self:
        with self.errors.open("ab") as errors:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.crash.child"],
                cwd=ROOT,
                env={**CLEAN, "OPENBLAS_NUM_THREADS": "1"},  # numpy's own threads would not outlive a fork
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
            )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self.kill()
        self._server.stdin.close()
        self._server.stdout.close()
        self._server.wait(PATIENCE)

    def begin(self, order: Order) -> Iterator[Event]:
        """All that happens in a life, until it has ended."""
        assert self.pid is None, "one life at a time"
        assert self._server.stdin is not None
        self._server.stdin.write(order.line())
        while True:
            event = Event(*json.loads(self._line()))
            if event.what == "born":
                self.pid = event.more["pid"]
            elif event.what == "ended":
                self.pid = None
            yield event
            if self.pid is None:
                return

    def kill(self) -> None:
        if self.pid is not None:
            with suppress(ProcessLookupError):  # it has ended by itself, and that is still to be read
                os.kill(self.pid, signal.SIGKILL)

    def _line(self) -> bytes:
        """The next line, or a failure that says what the child had to say."""
        assert self._server.stdout is not None
        pipe, deadline = self._server.stdout.fileno(), time.monotonic() + PATIENCE
        while not self._lines:
            ready, _, _ = select.select([pipe], [], [], max(0, deadline - time.monotonic()))
            read = os.read(pipe, 65536) if ready else b""
            if not read:
                self.kill()
                raise AssertionError(f"nothing is heard of the child any more: {self.errors.read_text()[-2000:]}")
            *lines, self._rest = (self._rest + read).split(b"\n")
            self._lines.extend(lines)
        return self._lines.pop(0)
