"""Runs: the one way in for every protocol, and the one way to follow and cancel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4
from weakref import WeakValueDictionary

from threadline.domain import ports
from threadline.domain.errors import Conflict, Missing
from threadline.domain.events import Event
from threadline.domain.records import ENDED, Caller, Run, Thread
from threadline.services.checkpoints import Checkpoints
from threadline.services.runner import RunLog, Runner
from threadline.services.sessions import Sessions
from threadline.services.threads import Threads, as_uuid

TITLE_CHARS = 80


@dataclass(frozen=True, slots=True)
class Resume:
    interrupt_id: str
    value: Any


@dataclass(frozen=True, slots=True)
class StartRun:
    """What to run: a message, the answer to an interrupt, or a checkpoint to execute again from."""

    caller: Caller
    thread_id: str | None = None
    message: str | None = None
    resume: Resume | None = None
    checkpoint_id: str | None = None


class Runs:
    """Starts, follows and cancels runs."""

    def __init__(
        self,
        *,
        threads: Threads,
        sessions: Sessions,
        checkpoints: Checkpoints,
        runs: ports.Runs,
        log: RunLog,
        runner: Runner,
        graph_id: str,
        busy: Literal["enqueue", "reject"],
    ) -> None:
        self._threads = threads
        self._sessions = sessions
        self._checkpoints = checkpoints
        self._runs = runs
        self._log = log
        self._runner = runner
        self._graph_id = graph_id
        self._busy = busy
        self._gates: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def start(self, request: StartRun) -> Run:
        """Save a pending run and hand it to the runner.

        Raises Invalid, Missing, or Conflict: the session is busy (where that is refused), asks nothing of that id, or
        has nothing to execute after the checkpoint.
        """
        if request.thread_id is None:
            return await self._start(await self._threads.open(None, request.caller), request)
        async with self._gate(request.thread_id):
            return await self._start(await self._threads.check(request.thread_id, request.caller), request)

    async def recover(self) -> int:
        """Take up what an earlier process left unfinished; to be called once, before the first request."""
        unfinished = await self._runs.list(status=("pending", "running"))
        for run in unfinished:
            attempt = run.attempt + (run.status == "running")
            await self._log.reopen(run.run_id, attempt=attempt)
            self._runner.submit(replace(run, attempt=attempt))
        return len(unfinished)

    def busy(self, thread_id: str) -> bool:
        """Whether a run is going on or waits on the thread."""
        return self._runner.busy(thread_id)

    async def check(self, run_id: str, caller: Caller) -> Run:
        """The caller's run. Raises Invalid (no UUID) or Missing."""
        run = await self._runs.get(as_uuid(run_id, "run"))
        if run is None:
            raise Missing(f"There is no run {run_id}.")
        try:
            await self._threads.check(run.thread_id, caller)
        except Missing:
            raise Missing(f"There is no run {run_id}.") from None
        return run

    def follow(self, run: Run, *, after: int = 0) -> AsyncGenerator[Event]:
        """The run's events after `after`, until its end."""
        return self._log.follow(run.run_id, after=after)

    async def cancel(self, run: Run) -> None:
        """Ask a run to stop, and the model call it waits for. Raises Conflict if it has ended."""
        if run.status in ENDED:
            raise Conflict("The run has already ended.")
        self._runner.cancel(run)

    async def delete_thread(self, thread_id: str, caller: Caller) -> None:
        """Delete every trace of a thread; what still runs on it is cancelled first."""
        async with self._gate(thread_id):
            thread = await self._threads.check(thread_id, caller)
            for run in reversed(await self._runs.list(thread_id=thread.thread_id, status=("pending", "running"))):
                self._runner.cancel(run)
            await self._runner.idle(thread.thread_id)
            await self._sessions.delete(thread.thread_id)
            await self._log.discard([run.run_id for run in await self._runs.list(thread_id=thread.thread_id)])
            await self._checkpoints.delete(thread)
            await self._threads.delete(thread)

    async def _start(self, thread: Thread, request: StartRun) -> Run:
        if self._busy == "reject" and self._runner.busy(thread.thread_id):
            raise Conflict("The session is busy with another message.")
        run_id = str(uuid4())
        turn_id, kwargs = run_id, dict[str, Any]()
        if request.message is not None:
            kwargs["message"] = request.message
        elif request.resume is not None:
            turn_id = await self._waiting_turn(thread, request.resume)
            kwargs["resume"] = asdict(request.resume)
        elif request.checkpoint_id is not None:
            kwargs["message"] = await self._checkpoints.question(thread, request.checkpoint_id)
            kwargs["checkpoint_id"] = request.checkpoint_id
        run = Run(run_id, thread.thread_id, self._graph_id, turn_id, "pending", kwargs, datetime.now(UTC))
        await self._runs.create(run, title=_title(request.message))
        self._log.open(run_id)
        self._runner.submit(run)
        return run

    async def _waiting_turn(self, thread: Thread, resume: Resume) -> str:
        """The turn that asks what `resume` answers. Raises Conflict."""
        snapshot = await self._checkpoints.latest(thread)
        if resume.interrupt_id not in {interrupt.id for interrupt in snapshot.interrupts}:
            raise Conflict("The session is not waiting for an answer to this interrupt.")
        asking = await self._runs.list(thread_id=thread.thread_id)
        return asking[-1].turn_id

    def _gate(self, thread_id: str) -> asyncio.Lock:
        """One lock a thread between starting a run on it and deleting it."""
        return self._gates.setdefault(thread_id.lower(), asyncio.Lock())


def _title(message: str | None) -> str | None:
    return " ".join(message.split())[:TITLE_CHARS] if message else None
