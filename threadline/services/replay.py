"""Recorded replay: what runs logged, once more, without a model or a tool. Reads, and writes nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from threadline.domain import ports
from threadline.domain.errors import Conflict, Missing
from threadline.domain.events import Event
from threadline.domain.records import ENDED, Course, Run, RunStatus, Thread
from threadline.services.pace import Clock
from threadline.services.rebuild import Rebuild

GOES_ON: tuple[RunStatus, ...] = ("running", "pending")
GOING = "The run is still going on. Follow it at /runs/{}/events; once it has ended it can be replayed."


@dataclass(frozen=True, slots=True)
class Line:
    """The runs to play, in order, by id: a few words for each, however much they logged.

    `cuts` holds, of a run that the line leaves, its checkpoints beside the line. `checkpoint_id` is where to start.
    """

    thread: Thread
    runs: tuple[str, ...]
    cuts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    checkpoint_id: str | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """One run's events as far as they are played.

    Those up to the id `after` are not: encoders may have to know them.
    """

    run: Run
    events: Sequence[Event]
    after: int = 0

    @property
    def opening(self) -> list[Event]:
        """What a reader is shown first where the run is not played from its start: that it is this run."""
        return [event for event in self.events if event.type == "run" and event.id <= self.after]

    @property
    def rebuilt(self) -> bool:
        """Whether the log is gone, and this was read from checkpoints."""
        return "rebuilt" in self.events[0].data


class Replay:
    """Finds what to play, and gives it run by run: no more than one run is ever held."""

    def __init__(
        self,
        *,
        lineage: ports.Lineage,
        threads: ports.Threads,
        runs: ports.Runs,
        log: ports.EventLog,
        rebuild: Rebuild,
        clock: Clock | None = None,
    ) -> None:
        self._lineage = lineage
        self._threads = threads
        self._runs = runs
        self._log = log
        self._rebuild = rebuild
        self.clock = clock or Clock()

    async def of_session(self, thread: Thread, *, checkpoint_id: str | None = None, again: bool = False) -> Line:
        """The line through a checkpoint to the newest that descends from it, as far as it comes after it; without one
        the whole line the session stands on.

        A run of which no checkpoint is left was on the line as far as anybody knows. Raises Missing, or Conflict while
        a run is going on, unless this goes on with a replay that has begun: `again`.
        """
        going = await self._runs.list(thread_id=thread.thread_id, status=GOES_ON)
        for run in [] if again else going:
            if not run.kwargs.get("after_seconds"):  # one that waits for its time may do so for a year
                raise Conflict(GOING.format(run.run_id))
        course = await self._lineage.course(thread.thread_id, through=checkpoint_id)
        if course is None:
            raise Missing(
                f"This session has no checkpoint {checkpoint_id}: it is another session's, or retention has taken it."
            )
        order = _merged(course, await self._runs.order(thread.thread_id), whole=checkpoint_id is None)
        if going:
            order = [run_id for run_id in order if all(run_id != run.run_id for run in going)]
        cuts = {run_id: ids for run_id, ids in course.beside.items() if run_id in course.runs}
        return Line(thread, tuple(order), cuts, checkpoint_id)

    def of_run(self, run: Run, thread: Thread) -> Line:
        """One run, whole. Raises Conflict while it is going on."""
        if run.status not in ENDED:
            raise Conflict(GOING.format(run.run_id))
        return Line(thread, (run.run_id,))

    async def recordings(self, line: Line, *, first: int = 0) -> AsyncGenerator[Recording]:
        """What is to be played, from the run at index `first` on."""
        for run_id in line.runs[first:]:
            recording = await self.recording(line, run_id)
            if recording is not None:
                yield recording

    async def recording(self, line: Line, run_id: str) -> Recording | None:
        """What is played of one run of the line; None if nothing is."""
        run = await self._runs.get(run_id)
        if run is None or not await self._is_of(line.thread, run):
            run = self._rebuild.unknown(line.thread, run_id, position=line.runs.index(run_id) + 1)
        beside = line.cuts.get(run_id, frozenset())
        events = [event async for event in self._log.follow(run_id)] if run.status in ENDED else []
        if not events:
            events = await self._rebuild.events(line.thread, run, beside=beside)
        return _played(run, events, beside, after=line.checkpoint_id)

    async def _is_of(self, thread: Thread, run: Run) -> bool:
        """Whether a run that a thread's checkpoints name may be shown: its own, or that of the thread it is a copy of.

        Checkpoints can be written by their owner, so what they name proves nothing.
        """
        if run.thread_id == thread.thread_id:
            return True
        other = await self._threads.get(run.thread_id)
        return other is not None and other.owner == thread.owner


def _merged(course: Course, begun: Sequence[str], *, whole: bool) -> list[str]:
    """The runs of the line from its start, and in their places those that began and have no checkpoint (any more)."""
    if course.runs == tuple(begun) and not course.start:  # nearly always; a long session is spared the copies
        return list(course.runs)
    rank = {run_id: index for index, run_id in enumerate(begun)}
    known = {*course.runs, *course.beside}
    before = [rank[run_id] + 1 for run_id in course.runs[: course.start] if run_id in rank]
    order: list[str] = []
    done = max(before, default=0)
    for run_id in course.runs[course.start :]:
        if run_id in rank:
            if not whole and not order:  # what began before it is not what came after the checkpoint
                done = max(done, rank[run_id])
            order += [one for one in begun[done : rank[run_id]] if one not in known]
            done = max(done, rank[run_id] + 1)
        order.append(run_id)
    return order + [one for one in begun[done:] if one not in known]


def _played(run: Run, events: list[Event], beside: Collection[str], *, after: str | None) -> Recording | None:
    """A run's events between the checkpoint `after`, if the run made it, and the point where it left the line."""
    begin, end = 0, len(events)
    for index, event in enumerate(events):
        if event.type != "checkpoints" or event.ns:
            continue
        if event.data["checkpoint_id"] == after:
            begin = index + 1
            if not event.data["next"]:  # the run's work was done here
                return None
        elif event.data["checkpoint_id"] in beside:
            end = _last_on_line(events[:index], beside)
            break
    if begin >= end:
        return None
    return Recording(run, events[:end], events[begin - 1].id if begin else 0)


def _last_on_line(events: list[Event], beside: Collection[str]) -> int:
    """The index after the last checkpoint that is on the line."""
    marks = [i for i, e in enumerate(events) if e.type == "checkpoints" and e.data["checkpoint_id"] not in beside]
    return marks[-1] + 1 if marks else 0
