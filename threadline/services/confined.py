"""Reads what strangers made (pages, documents) in a process of its own, with limits of time, memory and output.

A parser that hangs, eats memory or crashes on what it reads takes nobody along.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHILD = """
import sys
memory, seconds, module, function = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
sys.path.insert(0, sys.argv[5])
import importlib
work = getattr(importlib.import_module(module), function)
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except ImportError:
    pass
try:
    answer = work(sys.stdin.buffer.read())
except MemoryError:
    sys.exit(3)
except Exception as error:
    sys.stderr.write(type(error).__name__)
    sys.exit(4)
sys.stdout.buffer.write(answer)
"""


class Failed(Exception):
    """It came to nothing; the text says why, in words for a stranger."""


@dataclass(frozen=True, slots=True)
class Confined:
    """Calls `module:function`, which makes bytes of bytes, in a process of its own.

    `seconds` of time, `memory` and `output` in bytes; so many `at_once`, others wait.
    """

    entry: str
    seconds: float
    memory: int
    output: int
    gate: asyncio.Semaphore

    async def __call__(self, given: bytes) -> bytes:
        """What the function makes of it. Raises Failed."""
        async with self.gate:
            return await self._run(given)

    async def _run(self, given: bytes) -> bytes:
        module, _, function = self.entry.partition(":")
        limits = (str(self.memory), str(max(1, int(self.seconds))))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-c", CHILD, *limits, module, function, str(ROOT)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},  # none of the service's secrets
        )
        try:
            async with asyncio.timeout(self.seconds):
                answer = await self._exchange(process, given)
                code = await process.wait()
        except TimeoutError:
            raise Failed(f"it took longer than {self.seconds:g} seconds to read") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if code == 0:
            return answer
        if code == 3 or code < 0:
            raise Failed("it takes too much to read")
        raise Failed("it cannot be read")

    async def _exchange(self, process: asyncio.subprocess.Process, given: bytes) -> bytes:
        assert process.stdin is not None
        assert process.stdout is not None

        async def send(stdin: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                stdin.write(given)
                await stdin.drain()
                stdin.close()

        sending = asyncio.ensure_future(send(process.stdin))
        try:
            answer = bytearray()
            while chunk := await process.stdout.read(65_536):
                answer += chunk
                if len(answer) > self.output:
                    raise Failed("it holds too much text")
            return bytes(answer)
        finally:
            sending.cancel()
            await asyncio.wait({sending})
