"""Runs: the one way in for every protocol, and the one way to follow and cancel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

from langchain_core.messages import convert_to_messages

from threadline.domain import ports
from threadline.domain.errors import Conflict, Missing
from threadline.domain.events import Event
from threadline.domain.records import ENDED, Assistant, Caller, MultitaskStrategy, Run, RunStatus, Thread
from threadline.services.checkpoints import Checkpoints
from threadline.services.payload import jsonable, text_of
from threadline.services.permission import Grant, Permission, configurable, metadata_in
from threadline.services.runner import CancelAction, RunLog, Runner
from threadline.services.sessions import Sessions
from threadline.services.threads import Threads, as_uuid

TITLE_CHARS = 80
UNENDED: tuple[RunStatus, ...] = ("pending", "running")
BUSY = "Thread is already running a task. Wait for it to finish or choose a different multitask strategy."


@dataclass(frozen=True, slots=True)
class Resume:
    interrupt_id: str
    value: Any


@dataclass(frozen=True, slots=True)
class StartRun:
    """What to run.

    In the words of a chat: a message, or the answer to an interrupt. In the words of a graph: `call`, with the keys
    that `threadline.services.invocation` lists. `like` is a run whose graph and assistant this one has too. `strategy`
    says what becomes of a run that is going on already (None: as the settings have it), `create` whether an unknown
    thread is made, `shown` whether the caller is to read what comes of it.
    """

    caller: Caller
    thread_id: str | None = None
    message: str | None = None
    resume: Resume | None = None
    call: dict[str, Any] | None = None
    assistant: Assistant | None = None
    like: Run | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    strategy: MultitaskStrategy | None = None
    create: bool = False
    shown: bool = False


@dataclass(frozen=True, slots=True)
class _Allowed:
    """A run that may be started on threads of these grants, as an auth handler left it."""

    request: StartRun
    run_id: str
    new_thread_id: str
    grants: tuple[Grant, ...]
    metadata: dict[str, Any]
    strategy: MultitaskStrategy
    kwargs: dict[str, Any]


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
        forgotten: Callable[[str], None] = lambda thread_id: None,
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
        self._forgotten = forgotten
        self._gates: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def start(self, request: StartRun) -> Run:
        """Save a pending run and hand it to the runner.

        Raises Invalid, Missing, Forbidden, or Conflict: the session is busy (where that is refused), or asks nothing of
        that id.
        """
        [run] = await self.start_all([request])
        return run

    async def start_all(self, requests: Sequence[StartRun]) -> list[Run]:
        """Start many runs; none where the caller may not start one of them."""
        return [await self._opened(allowed) for allowed in [await self._allow(request) for request in requests]]

    async def recover(self) -> int:
        """Take up what an earlier process left unfinished; to be called once, before the first request."""
        unfinished = await self._runs.list(status=UNENDED)
        for run in unfinished:
            attempt = run.attempt + (run.status == "running")
            await self._log.reopen(run.run_id, attempt=attempt)
            self._runner.submit(replace(run, attempt=attempt, status="pending"), delay=_delay(run))
        return len(unfinished)

    def busy(self, thread_id: str) -> bool:
        """Whether a run is going on or waits on the thread."""
        return self._runner.busy(thread_id)

    async def check(
        self, run_id: str, caller: Caller, action: Literal["read", "delete"], *, thread_id: str | None = None
    ) -> Run:
        """The run, of the thread if one is named, if the caller may do this with it. Raises Invalid (no UUID), Missing
        or Forbidden."""
        canonical = as_uuid(run_id, "run")
        if thread_id is None:
            return await self._of_nowhere(canonical, caller, action)
        thread = await self._threads.check(thread_id, caller, action, run_id=UUID(canonical))
        return await self._on(thread, canonical)

    async def _of_nowhere(self, run_id: str, caller: Caller, action: Literal["read", "delete"]) -> Run:
        run = await self._runs.get(run_id)
        if run is None:
            raise _no_run(run_id)
        try:
            await self._threads.check(run.thread_id, caller, action, run_id=UUID(run_id))
        except Missing:
            raise _no_run(run_id) from None
        return run

    async def _on(self, thread: Thread, run_id: str) -> Run:
        run = await self._runs.get(as_uuid(run_id, "run"))
        if run is None or run.thread_id != thread.thread_id:
            raise _no_run(run_id)
        return run

    async def to_cancel(self, run_id: str, caller: Caller, action: CancelAction) -> Run:
        """A run that the caller may cancel, whichever thread it is on. Raises Invalid, Missing or Forbidden."""
        run = await self._runs.get(as_uuid(run_id, "run"))
        if run is None:
            raise _no_run(run_id)
        try:
            await self.to_cancel_on(run.thread_id, [run_id], caller, action)
        except Missing:
            raise _no_run(run_id) from None
        return run

    async def to_cancel_on(
        self, thread_id: str, run_ids: Sequence[str], caller: Caller, action: CancelAction
    ) -> Sequence[Run]:
        """Runs on a thread that the caller may cancel. Raises Invalid, Missing or Forbidden."""
        ids = [UUID(as_uuid(run_id, "run")) for run_id in run_ids]
        told = {"run_ids": ids, "status": None}
        thread = await self._threads.check(thread_id, caller, "update", action=action, metadata=told)
        return [await self._on(thread, str(id)) for id in ids]

    async def to_cancel_all(
        self, status: Literal["pending", "running", "all"], caller: Caller, action: CancelAction
    ) -> Sequence[Run]:
        """What waits or goes on that the caller may cancel. Raises Forbidden."""
        told = {"run_ids": None, "status": status}
        value = {"thread_id": None, "action": action, "metadata": told}
        grant = await self._permission.ask(caller, "threads", "update", value)
        statuses = UNENDED if status == "all" else (status,)
        return await self._runs.unfinished(grant.owner, statuses, allowed=grant.allowed)

    def follow(self, run: Run, *, after: int = 0) -> AsyncGenerator[Event]:
        """The run's events after `after`, until its end."""
        return self._log.follow(run.run_id, after=after)

    def portions(self, run: Run, *, after: int = 0) -> AsyncGenerator[Sequence[Event]]:
        """The same events, with those together that are there at the same time."""
        return self._log.portions(run.run_id, after=after)

    def shared(self, run: Run) -> dict[Hashable, Any] | None:
        """What those who read a run share among them while it goes on; None once it has ended."""
        return self._log.shared(run.run_id)

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
        self, thread: Thread, caller: Caller, *, status: RunStatus | None = None, limit: int = 10, offset: int = 0
    ) -> Sequence[Run]:
        """The thread's runs, newest first."""
        await self._threads.check(thread.thread_id, caller, "search", metadata={})
        return await self._runs.page(thread.thread_id, status=status, limit=limit, offset=offset)

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
        """Delete every trace of a thread; what still runs on it is cancelled first. Raises Invalid, Missing or
        Forbidden."""
        await self.remove(await self._threads.check(thread_id, caller, "delete"))

    async def remove(self, thread: Thread) -> None:
        """Delete a thread that may be deleted. Raises Missing where it is gone already."""
        async with self.gate(thread.thread_id):
            if not await self._threads.exists(thread.thread_id):
                raise Missing(f"There is no session {thread.thread_id}.")
            await self._stop(thread)
            await self._runner.idle(thread.thread_id)
            await self._sessions.delete(thread.thread_id)
            await self._log.discard([run.run_id for run in await self._runs.list(thread_id=thread.thread_id)])
            await self._checkpoints.delete(thread)
            await self._threads.delete(thread)
            await asyncio.to_thread(self._forgotten, thread.thread_id)

    async def _allow(self, request: StartRun) -> _Allowed:
        """Ask whether the caller may start the run, and read what comes of it. Raises Invalid or Forbidden."""
        run_id, new_thread_id = uuid4(), uuid4()
        thread_id = UUID(as_uuid(request.thread_id, "session")) if request.thread_id is not None else None
        shown = request.call if request.call is not None else _as_call(request, run_id)
        strategy = request.strategy or self._busy
        value: dict[str, Any] = {
            "thread_id": thread_id,
            "assistant_id": UUID(self._assistant_id_of(request)),
            "run_id": run_id,
            "status": "pending",
            "metadata": dict(request.metadata),
            "prevent_insert_if_inflight": strategy == "reject",
            "multitask_strategy": strategy,
            "if_not_exists": "create" if request.create or thread_id is None else "reject",
            "after_seconds": shown.get("after_seconds", 0),
            "kwargs": shown,
        }
        grants = [await self._permission.ask(request.caller, "threads", "create_run", value)]
        if request.shown:
            ids = {"thread_id": thread_id or new_thread_id, "run_id": run_id}
            grants.append(await self._permission.ask(request.caller, "threads", "read", ids))
        kwargs = value["kwargs"]
        if request.call is None:  # said in the words of a chat: only what a handler changed is a graph's
            kwargs = {name: kwargs[name] for name, said in _as_call(request, run_id).items() if kwargs[name] != said}
        if value["after_seconds"]:
            kwargs = {**kwargs, "after_seconds": value["after_seconds"]}
        return _Allowed(
            request,
            run_id=str(run_id),
            new_thread_id=str(new_thread_id),
            grants=tuple(grants),
            metadata=metadata_in(value),
            strategy=value["multitask_strategy"],
            kwargs=kwargs,
        )

    async def _opened(self, allowed: _Allowed) -> Run:
        """Start a run that may be started, on its thread."""
        request = allowed.request
        if request.thread_id is None:
            thread = self._threads.new(allowed.new_thread_id, request.caller, metadata=allowed.metadata)
            return await self._start(thread, allowed, new=True)
        async with self.gate(request.thread_id):
            try:
                thread, new = await self._threads.granted(request.thread_id, *allowed.grants), False
            except Missing:
                if not request.create:
                    raise
                unused = self._threads.unused(request.thread_id, request.caller, metadata=allowed.metadata)
                thread, new = await unused, True
            return await self._start(thread, allowed, new=new)

    async def _start(self, thread: Thread, allowed: _Allowed, *, new: bool) -> Run:
        request, run_id, assistant = allowed.request, allowed.run_id, allowed.request.assistant
        await self._make_room(thread, allowed)
        turn_id, kwargs = run_id, dict(allowed.kwargs)
        if request.call is not None:
            kwargs["message"] = _question(kwargs.get("input")) or kwargs.get("message")
            if "resume" in (kwargs.get("command") or {}) and thread.status == "interrupted":
                turn_id = await self._last_turn(thread) or run_id
        elif request.message is not None:
            kwargs["message"] = _question(kwargs["input"]) if "input" in kwargs else request.message
        elif request.resume is not None:
            turn_id = await self._waiting_turn(thread, request.resume, request.caller)
            kwargs.setdefault("command", {"resume": {request.resume.interrupt_id: request.resume.value}})
        kwargs["scope"] = self._permission.scope(request.caller)
        kwargs["caller"] = request.caller.id
        if user := configurable(request.caller):
            kwargs["user"] = jsonable(user)
        own = self._graph_id if new else self._checkpoints.graph_id_of(thread)
        like = request.assistant or request.like
        graph_id = like.graph_id if like else own
        now = datetime.now(UTC)
        run = Run(
            run_id,
            thread.thread_id,
            graph_id,
            turn_id,
            "pending",
            kwargs,
            now,
            assistant_id=like.assistant_id if like else self._assistant_id(graph_id),
            metadata=_metadata(allowed.metadata, assistant),
            multitask_strategy=allowed.strategy,
            updated_at=now,
        )
        delay = _delay(run)
        # A run that begins at once is kept as one that runs: that spares a write.
        kept = run if delay or self._runner.busy(thread.thread_id) else replace(run, status="running")
        self._log.open(run_id)  # before anybody can hear of the run
        try:
            await self._runs.create(
                kept,
                title=_title(kwargs.get("message")),
                thread=thread if new else None,
                config=assistant.config if assistant else thread.config if request.like else None,
            )
        except BaseException:
            self._log.drop(run_id)
            raise
        self._runner.submit(kept, delay=delay)
        return run

    def _assistant_id_of(self, request: StartRun) -> str:
        like = request.assistant or request.like
        return like.assistant_id if like and like.assistant_id else self._assistant_id(self._graph_id)

    async def _make_room(self, thread: Thread, allowed: _Allowed) -> None:
        """Do with what is going on on the thread as the strategy says. Raises Conflict, or Forbidden where the caller
        may not cancel it."""
        strategy = allowed.strategy
        if strategy == "enqueue" or not self._runner.busy(thread.thread_id):
            return
        if strategy == "reject":
            raise Conflict("The session is busy with another message." if _of_a_chat(allowed.request) else BUSY)
        going = [UUID(run.run_id) for run in await self._runs.list(thread_id=thread.thread_id, status=UNENDED)]
        if not going:  # what there was has just ended
            return
        told = {"run_ids": going, "status": None}
        await self._threads.check(thread.thread_id, allowed.request.caller, "update", action=strategy, metadata=told)
        await self._stop(thread, strategy)

    async def _stop(self, thread: Thread, action: CancelAction = "interrupt") -> None:
        """Cancel what waits and what goes on on the thread, the newest first, so that none begins in between."""
        for run in reversed(await self._runs.list(thread_id=thread.thread_id, status=UNENDED)):
            self._runner.cancel(run, action)

    async def _waiting_turn(self, thread: Thread, resume: Resume, caller: Caller) -> str:
        """The turn that asks what `resume` answers. Raises Conflict."""
        snapshot = await self._checkpoints.latest(thread, caller)
        if resume.interrupt_id not in {interrupt.id for interrupt in snapshot.interrupts}:
            raise Conflict("The session is not waiting for an answer to this interrupt.")
        # Not the last one that ran, where somebody has gone back to another branch.
        asked_by = (snapshot.metadata or {}).get("run_id")
        run = await self._runs.get(asked_by) if isinstance(asked_by, str) else None
        if run is not None and run.thread_id == thread.thread_id:
            return run.turn_id
        turn = await self._last_turn(thread)
        if turn is None:
            raise Conflict("The session is not waiting for an answer to this interrupt.")
        return turn

    async def _last_turn(self, thread: Thread) -> str | None:
        last = await self._runs.page(thread.thread_id, limit=1)
        return last[0].turn_id if last else None

    def gate(self, thread_id: str) -> asyncio.Lock:
        """One lock a thread between starting a run on it, deleting it and changing where it goes on."""
        return self._gates.setdefault(thread_id.lower(), asyncio.Lock())


def _as_call(request: StartRun, run_id: UUID) -> dict[str, Any]:
    """What a chat asks for, in the words of a graph."""
    command, given = None, None
    if request.resume is not None:
        command = {"resume": {request.resume.interrupt_id: request.resume.value}}
    else:
        given = {"messages": [{"role": "user", "content": request.message, "id": str(run_id)}]}
    return {"input": given, "command": command, "config": {"configurable": {}}, "context": {}}


def _metadata(given: dict[str, Any], assistant: Assistant | None) -> dict[str, Any]:
    """A run's metadata: its assistant's under its own."""
    if assistant is None:
        return given
    ids = {"graph_id": assistant.graph_id, "assistant_id": assistant.assistant_id}
    return {**assistant.metadata, **given, **ids}


def _no_run(run_id: str) -> Missing:
    return Missing(f"There is no run {run_id}.")


def _of_a_chat(request: StartRun) -> bool:
    return request.call is None or "rerun_of" in request.call


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
