"""What must hold after a crash, judged by all that was heard before it.

A turn is **acknowledged** when `ainvoke(..., durability="sync")` has returned. A step is **finished** when a
`put_writes` that carries its mark has returned, or a `put` of a checkpoint that holds it: from then on the saver has
promised it. A step that was done but not yet promised may be done again; one that is finished never.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from tests.crash.lives import Event
from tests.crash.talk import INNER, LOOKS, STEPS, Mark, conversation, place, question, reply
from threadline.storage import open_saver

INSIDE, BETWEEN, BEHIND, ELSEWHERE = (
    "inside a node",
    "between put_writes and put",
    "between history and Redis",
    "elsewhere",
)


@dataclass
class Talk:
    """What was heard of one thread."""

    acknowledged: set[int] = field(default_factory=set)
    sent: int = 0
    stored: int = 0
    """How many of the turns that were sent a put has promised to keep."""
    read: int = 0
    """How many turns the last reader saw."""
    finished: dict[tuple[int, str], str] = field(default_factory=dict)
    inside: set[str] = field(default_factory=set)
    stage: str = ELSEWHERE
    newest: str | None = None
    """The checkpoint that history has as the newest."""

    @property
    def where(self) -> str:
        """What it was doing when it was last heard of."""
        return INSIDE if self.inside else self.stage

    @property
    def half_done(self) -> bool:
        """Whether some of the steps side by side are finished and some are not."""
        turn = self.sent - 1
        return 0 < sum((turn, step) in self.finished for step in LOOKS) < len(LOOKS)


@dataclass
class Judge:
    faults: list[str] = field(default_factory=list)
    talks: dict[str, Talk] = field(default_factory=dict)
    hits: int = 0
    heard: Counter[str] = field(default_factory=Counter)

    def begin(self) -> None:
        """A new life begins: nobody is inside anything."""
        self.hits = 0
        for talk in self.talks.values():
            talk.inside.clear()
            talk.stage = ELSEWHERE

    def hear(self, event: Event) -> None:
        self.heard[event.what] += 1
        if not event.thread:
            return
        talk = self.of(event.thread)
        match event.what:
            case "turn":
                if event.more["number"] != talk.sent:
                    self.blame(event.thread, f"turn {talk.sent} should come, {event.more['number']} did")
                talk.sent = event.more["number"] + 1
            case "found":
                if event.more["checkpoint_id"] != talk.newest:
                    self.blame(event.thread, f"{event.more['checkpoint_id']} was found, the newest is {talk.newest}")
            case "enter":
                self._entered(event.thread, talk, event.marks)
            case "leave":
                talk.inside.difference_update(event.marks)
            case "writing":
                talk.stage = BETWEEN
            case "written":
                self._finished(talk, event.marks)
            case "kept":
                talk.stage = BEHIND
            case "put":
                self._finished(talk, event.marks)
                talk.stage, talk.stored = ELSEWHERE, talk.sent
            case "acknowledged":
                talk.acknowledged.add(event.more["number"])
                talk.sent = max(talk.sent, event.more["number"] + 1)
                if event.more["reply"] != reply(event.thread, event.more["number"]):
                    self.blame(event.thread, f"turn {event.more['number']} was answered {event.more['reply']!r}")
            case "read":
                self.hits, talk.read = event.more["hits"], event.more["turns"]
                if event.more["turns"] != talk.sent or event.more["waits"]:
                    self.blame(event.thread, f"after turn {talk.sent - 1} an older state was read: {event.more}")
            case "failed":
                self.blame(event.thread, f"a turn failed: {event.more['error']}")

    def of(self, thread: str) -> Talk:
        return self.talks.setdefault(thread, Talk())

    def blame(self, thread: str, fault: str) -> None:
        self.faults.append(f"{thread}: {fault}")

    async def look(self, file: Path, threads: Iterable[str], *, all_over: bool = False) -> None:
        """Open the file with our saver and the stock one. `all_over`: no turn may be cut off.

        Redis is left out, and so left as it is: the next life says what it found through it.
        """
        with closing(sqlite3.connect(file)) as connection:
            if (told := connection.execute("PRAGMA integrity_check").fetchall()) != [("ok",)]:
                self.faults.append(f"integrity_check: {told}")
        async with (
            open_saver(history=f"sqlite:///{file}", live=None) as ours,
            AsyncSqliteSaver.from_conn_string(str(file)) as stock,
        ):
            our_graph, stock_graph = conversation(ours), conversation(stock)
            for thread in threads:
                state, other = [await graph.aget_state(place(thread)) for graph in (our_graph, stock_graph)]
                if (state.values, state.next, state.config) != (other.values, other.next, other.config):
                    self.blame(thread, "the stock saver sees another state")
                if await ours.aget_tuple(place(thread)) != await stock.aget_tuple(place(thread)):
                    self.blame(thread, "the stock saver reads another checkpoint")
                self._right(thread, state, all_over=all_over)

    def _entered(self, thread: str, talk: Talk, marks: Iterable[str]) -> None:
        for mark in map(Mark.read, marks):
            if done := talk.finished.get((mark.turn, mark.step)):
                self.blame(thread, f"{done!r} was finished, and runs again as {str(mark)!r}")
            talk.inside.add(str(mark))

    def _finished(self, talk: Talk, marks: Iterable[str]) -> None:
        for mark in map(Mark.read, marks):
            talk.finished.setdefault((mark.turn, mark.step), str(mark))

    def _right(self, thread: str, state: Any, *, all_over: bool) -> None:
        """Every acknowledged turn is there, whole, as it was finished, and once."""
        talk = self.of(thread)
        messages = [(message.id, message.content) for message in state.values.get("messages", [])]
        done, begun = len(messages) // 2, (len(messages) + 1) // 2
        waits = [task.name for task in state.tasks]  # all of the step, those whose writes are kept as well
        if "__start__" in waits and begun == talk.sent - 1:
            begun = talk.sent  # the input is kept, but was not taken up yet
        if begun > done and not waits:
            self.blame(thread, f"turn {done} has no answer and nobody will give one")
        if all_over and waits:
            self.blame(thread, f"turn {done} is still cut off, at {waits}")
        if lost := [turn for turn in talk.acknowledged if turn >= done]:
            self.blame(thread, f"acknowledged turns {lost} are lost, there are {done}")
        if not talk.stored <= begun <= talk.sent:
            self.blame(thread, f"{talk.sent} turns were sent and {talk.stored} stored, {begun} are there")
        if messages != [pair for turn in range(begun) for pair in _messages(thread, turn)][: len(messages)]:
            self.blame(thread, f"messages are {messages}")
        for name, steps in (("steps", STEPS), ("inner", INNER)):
            self._right_steps(thread, name, steps, marks=state.values.get(name, []), done=done)
        talk.newest = state.config["configurable"].get("checkpoint_id")
        talk.sent = begun  # what was cut off before it was kept is sent again

    def _right_steps(self, thread: str, name: str, steps: tuple[str, ...], *, marks: list[str], done: int) -> None:
        """Each step of the turns that are done is there, once and in order; of the one cut off those that were done."""
        found = [(mark.turn, mark.step) for mark in map(Mark.read, marks)]
        whole = [(turn, step) for turn in range(done) for step in steps]
        begun = found[len(whole) :]
        if found[: len(whole)] != whole or begun != [(done, step) for step in steps if (done, step) in begun]:
            self.blame(thread, f"{name} of {done} turns are {found}")
        # The subgraph's steps reach the conversation when it is done; until then they are in its own checkpoints.
        promised = {
            mark
            for (turn, step), mark in self.of(thread).finished.items()
            if step in steps and (turn < done or name == "steps")
        }
        if missing := promised.difference(marks):
            self.blame(thread, f"{sorted(missing)} were finished, but history has {marks}")


def _messages(thread: str, turn: int) -> list[tuple[str, str]]:
    [asked] = question(thread, turn)["messages"]
    return [(asked.id, asked.content), (f"a{turn}", reply(thread, turn))]
