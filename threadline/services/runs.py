"""Runs: the one way in for every protocol, and the one way to follow and cancel."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

from langchain_core.messages import convert_to_messages

from threadline.domain import ports
from threadline.domain.errors import Conflict, Missing
from threadline.domain.events import Event
from threadline.domain.records import ENDED, Assistant, Caller, MultitaskStrategy, Run, RunStatus, Thread
from threadline.services.checkpoints import Checkpoints
from threadline.services.gates import Gates
from threadline.services.payload import jsonable, text_of
from threadline.services.permission import Permission, configurable
from threadline.services.runner import CancelAction, RunLog, Runner
from threadline.services.sessions import Sessions
from threadline.services.threads import Threads, as_uuid

TITLE_CHARS = 80
BUSY = "Thread is already running a task. Wait for it to finish or choose a different multitask strategy."


@dataclass(frozen=True, slots=True)
class Resume:
    interrupt_id: str
    value: Any


@dataclass(frozen=True, slots=True)
class StartRun:
    """What to run.

    In the words of a chat: a message, the answer to an interrupt, or a checkpoint to execute again from. In the words
    of a graph: `call`, with the keys that `threadline.services.invocation` lists. `strategy` says what becomes of a
    run that is going on already (None: as the settings have it), `create` whether an unknown thread is made.
    """

    caller: Caller
    thread_id: str | None = None
    message: str | None = None
    resume: Resume | None = None
    checkpoint_id: str | None = None
    call: dict[str, Any] | None = None
    assistant: Assistant | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    strategy: MultitaskStrategy | None = None
    create: bool = False


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
        assistant_id: Callable[[str], str],
        permission: Permission,
        busy: Literal["enqueue", "reject"],
        gates: Gates,
    ) -> None:
        self._threads = threads
        self._sessions = sessions
        self._checkpoints = checkpoints
        self._runs = runs
        self._log = log
        self._runner = runner
        self._graph_id = graph_id
        self._assistant_id = assistant_id
        self._permission = permission
        self._busy = busy
        self._gates = gates

    async def start(self, request: StartRun) -> Run:
        """Save a pending run and hand it to the runner.

        Raises Invalid, Missing, or Conflict: the session is busy (where that is refused), asks nothing of that id, or
        has nothing to execute after the checkpoint.
        """
        if request.thread_id is None:
            return await self._start(self._threads.new(None, request.caller), request, new=True)
        async with self._gates.of(as_uuid(request.thread_id, "session")):
            try:
                thread, new = await self._threads.check(request.thread_id, request.caller), False
            except Missing:
                if not request.create:
                    raise
                thread, new = await self._threads.unused(request.thread_id, request.caller), True
            return await self._start(thread, request, new=new)

    async def recover(self) -> int:
        """Take up what an earlier process left unfinished; to be called once, before the first request."""
        unfinished = await self._runs.list(status=("pending", "running"))
        for run in unfinished:
            attempt = run.attempt + (run.status == "running")
            await self._log.reopen(run.run_id, attempt=attempt)
            self._runner.submit(replace(run, attempt=attempt, status="pending"), delay=_delay(run))
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

    def portions(self, run: Run, *, after: int = 0) -> AsyncGenerator[Sequence[Event]]:
        """The same events, with those together that are there at the same time."""
        return self._log.portions(run.run_id, after=after)

    def on_thread(self, thread_id: str, *, after: int = 0) -> AsyncGenerator[Run]:
        """The runs that begin on a thread, in order, those after place `after`; those to come too. It never ends."""
        return self._runner.begun(thread_id, after=after)

    async def newest(self, thread: Thread) -> Run | None:
        """The run that began last on a thread."""
        begun = await self._runs.begun(thread.thread_id, after=thread.begun - 1)
        return begun[-1] if begun else None

    async def cancel(self, run: Run, action: CancelAction = "interrupt") -> None:
        """Ask a run to stop, and the model call it waits for. Raises Conflict if it has ended."""
        if run.status in ENDED:
            raise Conflict("The run has already ended.")
        self._runner.cancel(run, action)

    async def of_thread(
        self, thread: Thread, *, status: RunStatus | None = None, limit: int = 10, offset: int = 0
    ) -> Sequence[Run]:
        """The thread's runs, newest first."""
        return await self._runs.page(thread.thread_id, status=status, limit=limit, offset=offset)

    async def unfinished(self, caller: Caller, status: Collection[RunStatus]) -> Sequence[Run]:
        """What waits or goes on of the caller's."""
        return await self._runs.unfinished(caller.id, status)

    def position(self, run: Run) -> int:
        """The id of the last event a run that is going on has written."""
        return self._log.position(run.run_id)

    async def ended(self, run: Run) -> None:
        """Wait until a run has ended and the history says so."""
        async for _ in self._log.follow(run.run_id, after=self._log.position(run.run_id)):
            pass

    async def delete(self, run: Run) -> None:
        """Delete a run that has ended: its row, its log and its turn; its checkpoints stay. Raises Conflict."""
        if run.status not in ENDED:
            raise Conflict("The run has not ended. Cancel it first.")
        await self._runs.delete(run.run_id)
        await self._sessions.forget(run.thread_id)

    async def delete_thread(self, thread_id: str, caller: Caller) -> None:
        """Delete every trace of a thread; what still runs on it is cancelled first."""
        async with self._gates.of(as_uuid(thread_id, "session")):
            thread = await self._threads.check(thread_id, caller)
            await self._stop(thread)
            await self._runner.idle(thread.thread_id)
            await self._sessions.delete(thread.thread_id)
            await self._log.discard([run.run_id for run in await self._runs.list(thread_id=thread.thread_id)])
            await self._checkpoints.delete(thread)
            await self._threads.delete(thread)

    async def _start(self, thread: Thread, request: StartRun, *, new: bool) -> Run:
        await self._make_room(thread, request)
        run_id = str(uuid4())
        turn_id, kwargs = run_id, dict[str, Any]()
        if request.call is not None:
            kwargs = {**request.call, "message": _question(request.call.get("input"))}
            if "resume" in (request.call.get("command") or {}) and thread.status == "interrupted":
                turn_id = await self._last_turn(thread) or run_id
        elif request.message is not None:
            kwargs["message"] = request.message
        elif request.resume is not None:
            turn_id = await self._waiting_turn(thread, request.resume)
            kwargs["command"] = {"resume": {request.resume.interrupt_id: request.resume.value}}
        elif request.checkpoint_id is not None:
            kwargs["message"] = await self._checkpoints.question(thread, request.checkpoint_id)
            kwargs["checkpoint"] = {"checkpoint_id": request.checkpoint_id}
            kwargs["rerun_of"] = request.checkpoint_id
        kwargs["scope"] = self._permission.scope(request.caller, "store")
        if user := configurable(request.caller):
            kwargs["user"] = jsonable(user)
        if request.caller.headers:
            kwargs["headers"] = dict(request.caller.headers)
        graph_id = request.assistant.graph_id if request.assistant else self._graph_id
        now = datetime.now(UTC)
        run = Run(
            run_id,
            thread.thread_id,
            graph_id,
            turn_id,
            "pending",
            kwargs,
            now,
            assistant_id=request.assistant.assistant_id if request.assistant else self._assistant_id(graph_id),
            metadata=request.metadata,
            multitask_strategy=request.strategy or self._busy,
            updated_at=now,
        )
        delay = _delay(run)
        # A run that begins at once is kept as one that runs: that spares a write.
        kept = run if delay or self._runner.busy(thread.thread_id) else replace(run, status="running")
        self._log.open(run_id)  # before anybody can hear of the run
        try:
            await self._runs.create(kept, title=_title(kwargs.get("message")), thread=thread if new else None)
        except BaseException:
            self._log.drop(run_id)
            raise
        self._runner.submit(kept, delay=delay)
        return run

    async def _make_room(self, thread: Thread, request: StartRun) -> None:
        """Do with what is going on on the thread as the strategy says. Raises Conflict."""
        strategy = request.strategy or self._busy
        if strategy == "enqueue" or not self._runner.busy(thread.thread_id):
            return
        if strategy == "reject":
            raise Conflict("The session is busy with another message." if request.call is None else BUSY)
        await self._stop(thread, strategy)

    async def _stop(self, thread: Thread, action: CancelAction = "interrupt") -> None:
        """Cancel what waits and what goes on on the thread, the newest first, so that none begins in between."""
        for run in reversed(await self._runs.list(thread_id=thread.thread_id, status=("pending", "running"))):
            self._runner.cancel(run, action)

    async def _waiting_turn(self, thread: Thread, resume: Resume) -> str:
        """The turn that asks what `resume` answers. Raises Conflict."""
        snapshot = await self._checkpoints.latest(thread)
        if resume.interrupt_id not in {interrupt.id for interrupt in snapshot.interrupts}:
            raise Conflict("The session is not waiting for an answer to this interrupt.")
        turn = await self._last_turn(thread)
        if turn is None:
            raise Conflict("The session is not waiting for an answer to this interrupt.")
        return turn

    async def _last_turn(self, thread: Thread) -> str | None:
        last = await self._runs.page(thread.thread_id, limit=1)
        return last[0].turn_id if last else None


def _delay(run: Run) -> float:
    """Seconds until a run is due."""
    after: float = run.kwargs.get("after_seconds") or 0
    return max(0.0, (run.created_at - datetime.now(UTC)).total_seconds() + after) if after else 0.0


def _question(given: Any) -> str | None:
    """What a graph's input asks, if it asks in messages: the text of the last one of a person."""
    messages = given.get("messages") if isinstance(given, Mapping) else None
    if not messages:
        return None
    try:
        known = convert_to_messages(messages if isinstance(messages, list) else [messages])
    except (ValueError, TypeError, KeyError, NotImplementedError):
        return None
    return next((text_of(message) for message in reversed(known) if message.type == "human"), None)


def _title(message: str | None) -> str | None:
    return " ".join(message.split())[:TITLE_CHARS] if message else None
