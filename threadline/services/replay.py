"""Recorded replay: a session's logged events again, along one branch, without a model or a tool."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterable

from threadline.domain import ports
from threadline.domain.events import Event
from threadline.domain.records import Caller, Thread
from threadline.services.checkpoints import Branch, Checkpoints


class Replay:
    """Plays back what runs logged. Writes nothing."""

    def __init__(self, *, checkpoints: Checkpoints, log: ports.EventLog) -> None:
        self._checkpoints = checkpoints
        self._log = log

    async def plan(self, thread: Thread, caller: Caller, checkpoint_id: str | None) -> Branch:
        """What to play: the branch through the checkpoint. Raises Missing. None plays the whole session."""
        return await self._checkpoints.branch(thread, caller, checkpoint_id)

    async def play(self, branch: Branch, checkpoint_id: str | None) -> AsyncGenerator[tuple[str, Event]]:
        """`(run_id, event)` of everything on the branch after the checkpoint, up to the branch's head."""
        ids = [place.checkpoint_id for place in branch.line]
        start = ids.index(checkpoint_id) if checkpoint_id is not None else 0
        for run_id in dict.fromkeys(place.run_id for place in branch.line[start:] if place.run_id):
            events = [event async for event in self._log.follow(run_id)]
            for event in _on_branch(events, branch, after=checkpoint_id):
                yield run_id, event


def _on_branch(events: list[Event], branch: Branch, *, after: str | None) -> Iterable[Event]:
    """A run's events between the checkpoint `after`, if the run made it, and the point where the run left the line.

    A checkpoint that retention has taken was on the line as far as anybody knows.
    """
    begin, end = 0, len(events)
    for index, event in enumerate(events):
        if event.type != "checkpoints" or event.ns:
            continue
        if event.data["checkpoint_id"] == after:
            begin = index + 1
            if not event.data["next"]:  # the run's work was done here
                return
        elif event.data["checkpoint_id"] in branch.beside:
            end = _last_on_line(events[:index], branch.beside)
            break
    if begin >= end:
        return
    yield from (event for event in events[:begin] if event.type == "run")
    yield from events[begin:end]


def _last_on_line(events: list[Event], beside: Collection[str]) -> int:
    """The index after the last checkpoint that is on the line."""
    marks = [i for i, e in enumerate(events) if e.type == "checkpoints" and e.data["checkpoint_id"] not in beside]
    return marks[-1] + 1 if marks else 0
