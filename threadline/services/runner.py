"""Executes runs: those of one thread one after the other, all threads at once."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, Protocol
from uuid import UUID

import structlog
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import GraphRecursionError
from langgraph.types import StateSnapshot, StreamPart

from threadline.domain import ports
from threadline.domain.errors import ThreadlineError
from threadline.domain.events import Event
from threadline.domain.records import Delivery, Run, RunStatus, ThreadStatus, Turn
from threadline.services import edits, invocation
from threadline.services.graphs import Graph, Graphs
from threadline.services.metrics import Metrics
from threadline.services.models.usage import UsageMeter
from threadline.services.notes import Notes, noting
from threadline.services.recorder import Recorder, graph_modes
from threadline.services.recording import of_run
from threadline.services.sessions import Sessions
from threadline.services.turns import joined, unique

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 5
"""A run that was cut off this often is not taken up again: it may be what brings the service down."""


CancelAction = Literal["interrupt", "rollback"]
"""What becomes of a run that is cancelled: it stays, as far as it came, or it is as if it had never been."""


class RunLog(ports.EventLog, Protocol):
    """The event log as its one writer sees it."""

    def open(self, run_id: str) -> None: ...

    def drop(self, run_id: str) -> None: ...

    async def reopen(self, run_id: str, *, attempt: int) -> list[Event]: ...

    def events(self, run_id: str) -> list[Event]: ...

    def position(self, run_id: str) -> int: ...

    def keep_values(self, run_id: str, ns: tuple[str, ...], checkpoint_id: str, values: bytes) -> None: ...

    def draft_end(self, run_id: str, data: Any) -> Event: ...

    async def close(self, run_id: str, end: Event) -> None: ...

    async def discard(self, run_ids: Collection[str]) -> None: ...


class Tells(Protocol):
    """Tells whom a run named that it has ended."""

    async def prepare(self, run: Run, events: Sequence[Event], *, undone: bool) -> Delivery | None:
        """What is to be told, to be kept with the run's end. Raises nothing."""
        ...

    async def keep(self, delivery: Delivery) -> None:
        """Keep it alone, of a run that is not kept."""
        ...

    def send(self, delivery: Delivery) -> None:
        """Tell what is kept by now."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: `status` for the history, `word` for readers, `error` as `{kind, message, retryable}`."""

    status: RunStatus
    word: str
    error: dict[str, Any] | None = None


SUCCESS = Outcome("success", "success")
WAITING = Outcome("success", "interrupted")
CANCELLED = Outcome("interrupted", "cancelled")


class RunTimeout(ThreadlineError):
    kind = "timeout"
    retryable = True


class CutOff(ThreadlineError):
    kind = "cut_off"


class Runner:
    """Takes runs whose log is open and ends each one exactly once: history first, then the last event."""

    def __init__(
        self,
        *,
        graphs: Graphs,
        runs: ports.Runs,
        turns: ports.Turns,
        log: RunLog,
        sessions: Sessions,
        metrics: Metrics,
        timeout: float,
        saver: BaseCheckpointSaver[Any],
        threads: ports.Threads,
        webhooks: Tells,
    ) -> None:
        self._graphs = graphs
        self._saver = saver
        self._threads = threads
        self._webhooks = webhooks
        self._runs = runs
        self._turns = turns
        self._log = log
        self._sessions = sessions
        self._metrics = metrics
        self._timeout = timeout
        self._lanes: dict[str, deque[Run]] = {}
        self._streams: dict[str, asyncio.Task[None]] = {}
        self._cancelled: dict[str, CancelAction] = {}
        self._delayed: dict[str, tuple[Run, asyncio.TimerHandle]] = {}
        self._work: dict[str, set[asyncio.Task[None]]] = {}
        self._waiting: dict[str, set[asyncio.Event]] = {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Work until left. A run that is going on then stays `running` in the history and goes on at the next start."""
        try:
            yield
        finally:
            tasks = [task for work in self._work.values() for task in work]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def busy(self, thread_id: str) -> bool:
        return thread_id in self._lanes or any(run.thread_id == thread_id for run, _ in self._delayed.values())

    def submit(self, run: Run, *, delay: float = 0) -> None:
        """Queue a run behind those of its thread, `delay` seconds from now."""
        if delay > 0:
            timer = asyncio.get_running_loop().call_later(delay, self._due, run)
            self._delayed[run.run_id] = (run, timer)
            return
        lane = self._lanes.get(run.thread_id)
        if lane is not None:
            lane.append(run)
            return
        self._lanes[run.thread_id] = deque([run])
        self._spawn(run.thread_id, self._drain(run.thread_id))

    def _due(self, run: Run) -> None:
        del self._delayed[run.run_id]
        self.submit(run)

    def cancel(self, run: Run, action: CancelAction = "interrupt") -> None:
        """Stop a run, with the model call it waits for; one that has not begun ends at once."""
        self._cancelled[run.run_id] = action
        stream = self._streams.get(run.run_id)
        if stream is not None:
            stream.cancel()
            return
        lane = self._lanes.get(run.thread_id, deque())
        waiting = next((queued for queued in list(lane)[1:] if queued.run_id == run.run_id), None)
        if waiting is not None:
            lane.remove(waiting)
        elif run.run_id in self._delayed:
            waiting, timer = self._delayed.pop(run.run_id)
            timer.cancel()
        if waiting is not None:
            self._spawn(run.thread_id, self._drop(waiting))
        elif not lane or lane[0].run_id != run.run_id:
            del self._cancelled[run.run_id]

    async def begun(self, thread_id: str, *, after: int = 0) -> AsyncGenerator[Run]:
        """The thread's runs with a place above `after`, in order; those to come too. It never ends."""
        waiter = asyncio.Event()
        waiting = self._waiting.setdefault(thread_id, set())
        waiting.add(waiter)
        try:
            while True:
                waiter.clear()
                for run in await self._runs.begun(thread_id, after=after):
                    after = run.position
                    yield run
                await waiter.wait()
        finally:
            waiting.discard(waiter)
            if not waiting and self._waiting.get(thread_id) is waiting:
                del self._waiting[thread_id]

    def _wake(self, thread_id: str) -> None:
        for waiter in self._waiting.get(thread_id, ()):
            waiter.set()

    async def idle(self, thread_id: str) -> None:
        """Wait until nothing runs or waits on the thread."""
        while work := self._work.get(thread_id):
            await asyncio.wait(work)

    def _spawn(self, thread_id: str, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        work = self._work.setdefault(thread_id, set())
        work.add(task)

        def done(task: asyncio.Task[None]) -> None:
            work.discard(task)
            if not work and self._work.get(thread_id) is work:
                del self._work[thread_id]

        task.add_done_callback(done)

    async def _drain(self, thread_id: str) -> None:
        lane = self._lanes[thread_id]
        while lane:
            await self._job(lane[0])
            lane.popleft()
        del self._lanes[thread_id]

    async def _drop(self, run: Run) -> None:
        """End a run that never began."""
        try:
            notes = Notes()
            await self._finish(run, self._recorder(run, notes), notes, CANCELLED, ms=0)
        finally:
            self._cancelled.pop(run.run_id, None)

    async def _job(self, run: Run) -> None:
        """One run from its first event to its last; nothing it does may hurt another run."""
        started = time.perf_counter()
        notes = Notes()
        recorder = self._recorder(run, notes)
        if run.attempt > 1:
            notes.lost()
        try:
            await self._begin(run, recorder)
            outcome = await self._execute(run, recorder, notes)
            await self._finish(run, recorder, notes, outcome, ms=_ms_since(started))
        except Exception:
            # The history could not be written. Readers are told; the run is taken up again at the next start.
            log.exception("run_not_kept", run_id=run.run_id, thread_id=run.thread_id)
            error = {"kind": "unavailable", "message": "The run could not be kept in the history.", "retryable": True}
            end = {"status": "error", "error": error, "usage": None, "cost": None, "checkpoint_id": None}
            await self._log.close(run.run_id, self._log.draft_end(run.run_id, {**end, "ms": _ms_since(started)}))
        finally:
            self._cancelled.pop(run.run_id, None)

    async def _begin(self, run: Run, recorder: Recorder) -> None:
        if run.status != "running":
            await self._runs.start(run)
        ids = {name: getattr(run, name) for name in ("run_id", "thread_id", "graph_id", "assistant_id", "attempt")}
        self._log.append(run.run_id, "run", ids)
        self._wake(run.thread_id)
        await self._sessions.begin(run)

    async def _execute(self, run: Run, recorder: Recorder, notes: Notes) -> Outcome:
        """Stream the graph in a task of its own, so that cancelling it is not mistaken for the service stopping."""
        if run.attempt > MAX_ATTEMPTS:
            return _failure(run, CutOff("The run was cut off too often and is not taken up again."), None)
        if run.run_id in self._cancelled:
            return CANCELLED
        stream = asyncio.create_task(self._stream(run, recorder, notes))
        self._streams[run.run_id] = stream
        try:
            await asyncio.wait({stream})
        except asyncio.CancelledError:
            stream.cancel()
            await asyncio.wait({stream})
            raise
        finally:
            del self._streams[run.run_id]
        if stream.cancelled():
            return CANCELLED
        error = stream.exception()
        if error is None:
            return WAITING if recorder.interrupts or recorder.halted else SUCCESS
        return _failure(run, error, recorder.failed_node)

    async def _stream(self, run: Run, recorder: Recorder, notes: Notes) -> None:
        config = invocation.config_of(run, callbacks=[notes])
        notes.recording = await of_run(run, self._log.follow)
        async with self._graphs.of_run(run, config, "threads.create_run") as opened:
            graph = notes.fitted(opened)
            left_off = await _left_off(graph, run) if run.attempt > 1 else None
            if left_off is not None:
                recorder.restore(left_off.values, left_off.config["configurable"]["checkpoint_id"])
                if not left_off.tasks:  # `next` leaves out those that are done, though their step is not
                    return
            else:
                config["configurable"].update(await edits.place(graph, run, config))
            parts = _parts(graph, None if left_off else invocation.given(run), config, run, recorder)
            try:
                async with noting(notes), asyncio.timeout(self._timeout) as deadline:
                    async for part in parts:
                        if notes.waiting and part["type"] == "checkpoints":
                            recorder.calls(notes)
                        event = recorder.record(part)
                        if event is not None and event.type == "custom":
                            await self._sessions.note(run.thread_id, event)
            except TimeoutError as error:
                if deadline.expired():
                    raise RunTimeout(f"The run took longer than {self._timeout:g} s.") from error
                raise

    async def _finish(self, run: Run, recorder: Recorder, meter: Notes, outcome: Outcome, *, ms: int) -> None:
        recorder.calls(meter)
        recorder.close_tasks(outcome.word)
        if outcome is SUCCESS:
            recorder.close_message()
        end = self._log.draft_end(
            run.run_id,
            {
                "status": outcome.word,
                "error": outcome.error,
                "usage": _usage(run, meter),
                "cost": meter.cost,
                "checkpoint_id": recorder.checkpoint_id,
                "ms": ms,
            },
        )
        ended = datetime.now(UTC)
        final = replace(run, status=outcome.status, ended_at=ended, updated_at=ended, error=outcome.error)
        events = [*self._log.events(run.run_id), end]
        undone = self._cancelled.get(run.run_id) == "rollback"
        delivery = await self._webhooks.prepare(final, events, undone=undone)
        if run.kwargs.get("temporary") or undone:
            if delivery is not None:
                await self._webhooks.keep(delivery)
            await self._forget(run)
            self._metrics.run_ended(outcome.word, seconds=ms / 1000, tokens=None, cost=meter.cost)
            await self._show_end(run, end, delivery)
            return
        earlier = await self._turns.get(run.thread_id, run.turn_id) if run.turn_id != run.run_id else None
        turn = joined(earlier, _turn(run, recorder, meter, outcome, ended))
        await self._runs.finish(
            final,
            turn=turn,
            log=events,
            leaves=_leaves(outcome, recorder),
            interrupts=recorder.waiting,
            delivery=delivery,
        )
        await self._sessions.complete(turn, recorder.last_node)
        self._metrics.run_ended(outcome.word, seconds=ms / 1000, tokens=turn.tokens_used, cost=turn.cost)
        await self._show_end(run, end, delivery)
        log.info("run_ended", run_id=run.run_id, thread_id=run.thread_id, status=outcome.word, ms=ms)

    async def _show_end(self, run: Run, end: Event, delivery: Delivery | None) -> None:
        """The history knows of the end: now everybody may."""
        if delivery is not None:
            self._webhooks.send(delivery)
        await self._log.close(run.run_id, end)

    async def _forget(self, run: Run) -> None:
        """Undo a run that is rolled back, or all of a temporary run's thread."""
        if run.kwargs.get("temporary"):
            await self._saver.adelete_thread(run.thread_id)
            await self._threads.delete(run.thread_id)
            return
        await self._saver.adelete_for_runs([run.run_id])
        await self._runs.delete(run.run_id)
        await self._sessions.forget(run.thread_id)

    def _recorder(self, run: Run, notes: Notes) -> Recorder:
        return Recorder(
            partial(self._log.append, run.run_id),
            keep=partial(self._log.keep_values, run.run_id),
            wanted=invocation.wanted(run),
            saved=invocation.saved(run),
            played=notes.played,
        )


async def _parts(
    graph: Graph, given: Any, config: RunnableConfig, run: Run, recorder: Recorder
) -> AsyncIterator[StreamPart[Any, Any]]:
    """What the graph streams. Where a client asked for `events`, they are logged on the way."""
    modes, options = graph_modes(recorder.wanted), invocation.options(run)
    if "events" not in recorder.wanted:
        async for part in graph.astream(given, config, stream_mode=modes, version="v2", **options):
            yield part
        return
    config["run_id"] = UUID(run.run_id)
    events = graph.astream_events(given, config, version="v2", stream_mode=modes, **options)
    async for event in events:
        chunk = event["data"].get("chunk")
        if event["event"] == "on_chain_stream" and event["run_id"] == run.run_id and isinstance(chunk, tuple):
            ns, mode, data = chunk if len(chunk) == 3 else ((), *chunk)
            yield {"type": mode, "ns": ns, "data": data}  # as `version="v2"` does
            continue
        recorder.note(event)


def _leaves(outcome: Outcome, recorder: Recorder) -> ThreadStatus | None:
    """What the run makes of its thread; None if it never began."""
    if outcome.error is not None:
        return "error"
    if recorder.checkpoint_id is None:
        return None
    return "interrupted" if outcome is WAITING or recorder.next else "idle"


async def _left_off(graph: Graph, run: Run) -> StateSnapshot | None:
    """Where an earlier attempt of the run stopped; None if it left no checkpoint.

    It was done if the snapshot has no tasks. `next` would not tell: it leaves out tasks that have written already,
    and a crash may come between a last task's writes and the checkpoint that takes them up.
    """
    snapshot = await graph.aget_state({"configurable": {"thread_id": run.thread_id}})
    return snapshot if (snapshot.metadata or {}).get("run_id") == run.run_id else None


def _failure(run: Run, error: BaseException, node: str | None) -> Outcome:
    if isinstance(error, ThreadlineError):
        status: RunStatus = "timeout" if isinstance(error, RunTimeout) else "error"
        told = {"kind": error.kind, "message": error.message, "retryable": error.retryable}
        log.warning("run_failed", run_id=run.run_id, kind=error.kind, node=node)
        return Outcome(status, status, told)
    if isinstance(error, GraphRecursionError):
        told = {"kind": "recursion_limit", "message": "The graph took too many steps.", "retryable": False}
        return Outcome("error", "error", {**told, "type": "GraphRecursionError"})
    log.error("run_failed", run_id=run.run_id, kind="internal", node=node, exc_info=error)
    where = f"The node {node}" if node else "The graph"
    told = {"kind": "internal", "message": f"{where} failed.", "retryable": True}
    return Outcome("error", "error", {**told, "type": type(error).__name__})


def _turn(run: Run, recorder: Recorder, meter: UsageMeter, outcome: Outcome, ended: datetime) -> Turn:
    extra: dict[str, Any] = {
        "turn_id": run.turn_id,
        "run_ids": [run.run_id],
        "status": outcome.word,
        "ended_at": ended.isoformat(),
        "checkpoint_id": recorder.checkpoint_id,
    }
    if outcome.error is not None:
        extra["error"] = outcome.error
    extra |= {key: run.kwargs[key] for key in ("rerun_of", "changes") if run.kwargs.get(key)}
    usage = meter.usage()
    return Turn(
        session_id=run.thread_id,
        user_message=run.kwargs.get("message"),
        assistant_message=recorder.text or None,
        tools_used=unique(recorder.tools),
        model_used=meter.model,
        tokens_used=usage["total_tokens"] if usage else None,
        cost=meter.cost,
        created_at=run.created_at,
        extra_metadata=extra,
    )


def _usage(run: Run, meter: UsageMeter) -> dict[str, int | None]:
    usage = meter.usage()
    return {**usage, "recorded_calls": meter.recorded_calls} if "rerun_of" in run.kwargs else usage


def _ms_since(started: float) -> int:
    return round((time.perf_counter() - started) * 1000)
