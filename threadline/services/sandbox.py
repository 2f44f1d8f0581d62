"""Runs Python that nobody has vetted, in worker processes that know no operating system.

The interpreter is Monty: a subset of Python without import of anything but a few harmless modules, without network,
processes and files save the folder it is given to read. Every run has limits of time, memory and output.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from pydantic_monty import (
    AsyncMonty,
    MontyCrashedError,
    MontyError,
    MontyRuntimeError,
    MontySyntaxError,
    MountDir,
)

MAX_OUTPUT = 20_000
"""Characters of what is printed, and of the value, that are kept."""
RUNS_PER_WORKER = 100
GRACE = 1.0
"""Seconds beyond its limit after which a worker that does not stop by itself is killed."""
FOLDER = "/workspace"
"""Where the code sees the folder it may read."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of the code: what it printed, the value of its last expression, and why it broke off, if it did."""

    printed: str
    value: str | None = None
    error: str | None = None
    cut: bool = False
    """Whether more was printed than is kept."""


class Sandbox:
    """A pool of workers, started with the first run. Belongs to one event loop."""

    def __init__(self, *, seconds: float, memory: int, workers: int = 2) -> None:
        """Each run may take `seconds` and `memory` bytes; so many `workers` run at a time, others wait their turn."""
        self._seconds = seconds
        self._memory = memory
        self._workers = workers
        self._pool: AsyncMonty | None = None
        self._opening = asyncio.Lock()

    async def run(self, code: str, *, folder: Path | None = None) -> Ran:
        """Run the code; `folder` is all it can see of the machine, to read only. Its own failures are in the answer."""
        output = _Output()
        pool = await self._opened()
        mount = MountDir(host_path=folder, virtual_path=FOLDER, mode="read-only") if folder is not None else None
        try:
            checkout = pool.checkout(
                limits={"max_feed_duration_secs": self._seconds, "max_memory": self._memory},
                os_policy={"sleep": "zero"},
            )
            async with checkout as session:
                value = await session.feed_run(code, print_callback=output.take, mount=mount)
        except MontySyntaxError as error:
            return output.ran(error=f"SyntaxError: {error}")
        except MontyRuntimeError as error:
            if output.cut:
                return output.ran(error="it printed too much and was stopped")
            return output.ran(error=_plain(error, seconds=self._seconds, memory=self._memory))
        except MontyCrashedError:
            return output.ran(error="it was stopped: it took more than it may")
        except (MontyError, ValueError) as error:  # a value that cannot leave the sandbox
            return output.ran(error=f"{type(error).__name__}: {error}"[:500])
        finally:
            if mount is not None:
                mount.close()
        return output.ran(value=None if value is None else repr(value)[:MAX_OUTPUT])

    async def aclose(self) -> None:
        """End the workers."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.__aexit__(None, None, None)

    async def _opened(self) -> AsyncMonty:
        async with self._opening:
            if self._pool is None:
                pool = AsyncMonty(
                    min_processes=1,
                    max_processes=self._workers,
                    request_timeout=self._seconds + 2 * GRACE,
                    max_checkouts_per_worker=RUNS_PER_WORKER,
                    feed_duration_limit_grace=GRACE,
                )
                self._pool = await pool.__aenter__()
            return self._pool


class _TooMuch(Exception):
    """More was printed than anybody will read."""


class _Output:
    """Gathers what is printed, up to a limit."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._left = MAX_OUTPUT
        self.cut = False

    def take(self, stream: str, text: str) -> None:
        self._parts.append(text[: self._left])
        self._left -= len(text)
        if self._left < 0:
            self.cut = True
            raise _TooMuch

    def ran(self, *, value: str | None = None, error: str | None = None) -> Ran:
        return Ran("".join(self._parts), value, error, self.cut)


def _plain(error: MontyRuntimeError, *, seconds: float, memory: int) -> str:
    """The error in words, without the figures of this machine."""
    text = str(error)
    if text.startswith("TimeoutError: feed time limit"):
        return f"it took longer than {seconds:g} seconds and was stopped"
    if text.startswith("MemoryError: memory limit"):
        return f"it took more than {memory // 1_000_000} MB of memory and was stopped"
    return text[:500]
