"""What a run did, node by node, read from its checkpoints: for a replay whose recording is gone.

The states are told to a recorder as if the graph streamed them, so that every wire format is made of the same lines.
Times are those of the checkpoints. What only the recording held is missing: single tokens, what nodes wrote to their
stream writer (but the calls of tools, which stand in the messages), usage and cost.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import orjson
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langgraph.types import PregelTask, StateSnapshot

from threadline.domain import ports
from threadline.domain.errors import Missing
from threadline.domain.events import Event, EventType
from threadline.domain.records import ENDED, Place, Run, RunStatus, Thread
from threadline.services import invocation
from threadline.services.graphs import Graph, Graphs
from threadline.services.payload import text_of
from threadline.services.recorder import Recorder

DELETED = "What was to be played next has been deleted meanwhile."
Namespace = tuple[str, ...]
Word = Literal["success", "interrupted", "cancelled", "error", "timeout"]
_WORDS: dict[RunStatus, Word] = {"error": "error", "timeout": "timeout", "interrupted": "cancelled"}


class Rebuild:
    """Reads the states of a thread one after the other, through the graph that alone knows what came next."""

    def __init__(self, *, graphs: Graphs, lineage: ports.Lineage) -> None:
        self._graphs = graphs
        self._lineage = lineage

    def unknown(self, thread: Thread, run_id: str, *, position: int) -> Run:
        """A stand-in for a run that checkpoints name and no record knows: a deleted one, or that of a copied thread.

        Raises Missing for the thread's graph.
        """
        graph_id = self._graphs.id_of(thread)
        return Run(run_id, thread.thread_id, graph_id, run_id, "pending", {}, thread.created_at, position=position)

    async def events(self, thread: Thread, run: Run, *, beside: Collection[str]) -> list[Event]:
        """The lines of the run as far as its checkpoints tell; those `beside` the line are left out.

        A run without any is told of by its first and last line alone. Raises Missing if its graph is gone, or nothing
        is left of the run.
        """
        found = await self._lineage.places(thread.thread_id, run_id=run.run_id)
        if not found and run.status not in ENDED:
            raise Missing(DELETED)
        kept = [place for place in found if place.checkpoint_id not in beside]
        telling = _Telling(run, whole=len(kept) == len(found))
        telling.begin(thread.thread_id)
        if kept:
            async with self._graphs.of_run(run, invocation.config_of(run, callbacks=[])) as graph:
                await self._walk(graph, thread, telling, (), kept)
        if telling.whole:
            telling.end()
        return telling.events

    async def _walk(self, graph: Graph, thread: Thread, telling: _Telling, ns: Namespace, places: list[Place]) -> None:
        """One namespace's steps, each with the tasks that came after it."""
        first = await _snapshot(graph, thread, ns, places[0].checkpoint_id)
        before = await _left_off(graph, thread, ns, first, places[0].parent_id)
        if before is not None:
            await self._tasks(graph, thread, telling, ns, before, until=first.created_at, resumed=True)
        current, rest = first, places[1:]
        while True:
            telling.checkpoint(ns, current)
            following = await _snapshot(graph, thread, ns, rest[0].checkpoint_id) if rest else None
            if following is None:
                break
            await self._tasks(graph, thread, telling, ns, current, until=following.created_at)
            current, rest = following, rest[1:]
        if telling.whole:
            await self._tasks(graph, thread, telling, ns, current, until=None)
        if not ns:
            telling.last = current

    async def _tasks(
        self,
        graph: Graph,
        thread: Thread,
        telling: _Telling,
        ns: Namespace,
        after: StateSnapshot,
        *,
        until: str | None,
        resumed: bool = False,
    ) -> None:
        """The tasks of one step. `resumed`: another run began them, and asked; this one had the answer."""
        telling.knows(after)
        tasks = [task for task in after.tasks if task.name != "__start__"]
        if resumed:
            tasks = [task for task in tasks if task.interrupts] or tasks
        elif until is None:
            tasks = [task for task in tasks if telling.began(task)]
        for task in tasks:
            telling.start(ns, task, after)
        for task in tasks:
            nested = _namespace(task)
            if nested is not None:
                places = await self._lineage.places(thread.thread_id, ns="|".join(nested), run_id=telling.run.run_id)
                if places:
                    await self._walk(graph, thread, telling, nested, list(places))
        telling.pass_to(until)
        for task in tasks:
            telling.finish(ns, task, after, asks=until is None)


@dataclass(slots=True)
class _Telling:
    """Tells a recorder what checkpoints say, at their times, and keeps the lines it writes. `whole`: to its end."""

    run: Run
    whole: bool
    events: list[Event] = field(default_factory=list)
    at: float = 0.0
    last: StateSnapshot | None = None
    asked: bool = False
    recorder: Recorder = field(init=False)
    _seen: set[str | None] = field(default_factory=set)
    _calls: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.at = self.run.created_at.timestamp()
        self.recorder = Recorder(
            self._write,
            wanted=invocation.wanted(self.run) - {"events", "tools"},
            saved=True,
            clock=lambda: self.at,
        )

    def begin(self, thread_id: str) -> None:
        run = self.run
        ids = {name: getattr(run, name) for name in ("run_id", "graph_id", "assistant_id")}
        self._write("run", {**ids, "thread_id": thread_id, "attempt": 1, "rebuilt": "checkpoints"}, ns=())

    def knows(self, snapshot: StateSnapshot) -> None:
        """What was said before is not said again."""
        for message in _messages(snapshot.values):
            self._seen.add(message.id)
            self._note_calls(message)

    def began(self, task: PregelTask) -> bool:
        """Whether a task the run left open had begun: one that waits to be let through has not."""
        told = bool(task.interrupts or task.error or task.result is not None)
        return told or self.run.status not in ("success", "pending")

    def pass_to(self, time: str | None) -> None:
        if time is not None:
            self.at = max(self.at, datetime.fromisoformat(time).timestamp())
        elif self.run.ended_at is not None:
            self.at = max(self.at, self.run.ended_at.timestamp())

    def checkpoint(self, ns: Namespace, snapshot: StateSnapshot) -> None:
        self.pass_to(snapshot.created_at)
        metadata = snapshot.metadata or {}
        waiting: list[dict[str, Any]] = [
            {"id": task.id, "name": task.name, "interrupts": [], "state": None} for task in snapshot.tasks
        ]
        if "values" in self.recorder.wanted and metadata.get("source") != "input":
            self._told(ns, "values", snapshot.values)
        state = {"config": snapshot.config, "parent_config": snapshot.parent_config, "values": snapshot.values}
        self._told(
            ns,
            "checkpoints",
            {**state, "metadata": metadata, "next": [task.name for task in snapshot.tasks], "tasks": waiting},
        )

    def start(self, ns: Namespace, task: PregelTask, after: StateSnapshot) -> None:
        self.pass_to(after.created_at)
        self._told(ns, "tasks", {"id": task.id, "name": task.name, "triggers": (), "input": None})

    def finish(self, ns: Namespace, task: PregelTask, after: StateSnapshot, *, asks: bool) -> None:
        asking = task.interrupts if asks else ()
        if task.result is None and not task.error and not asking:
            return  # it was cut off: how the run ended says the rest
        self.asked = self.asked or (bool(asking) and not ns)
        result: Any = task.result if not asking else {}
        for message in _messages(result):
            self._say(ns, task, after, message)
        end = {"id": task.id, "name": task.name, "result": result if result is not None else {}}
        self._told(ns, "tasks", {**end, "error": task.error, "interrupts": asking})
        if "updates" in self.recorder.wanted and not asking and not task.error:
            self._told(ns, "updates", {task.name: result})

    def end(self) -> None:
        run, recorder, last = self.run, self.recorder, self.last
        self.pass_to(None)
        waits = self.asked or bool(last is not None and last.tasks and not recorder.failed_node)
        word: Word = _WORDS.get(run.status, "interrupted" if waits else "success")
        error = run.error and {key: run.error.get(key) for key in ("kind", "message", "retryable", "type")}
        if run.status == "pending" and recorder.failed_node:  # nobody knows of this run how it ended
            word, message = "error", f"The node {recorder.failed_node} failed."
            error = {"kind": "internal", "message": message, "retryable": True}
        recorder.close_tasks(word)
        if word == "success":
            if recorder.message is None and last is not None:  # the steps that said it are gone, what was said is not
                recorder.restore(last.values, last.config["configurable"]["checkpoint_id"])
            recorder.close_message()
        told = {"status": word, "error": error, "usage": None, "cost": None, "checkpoint_id": recorder.checkpoint_id}
        took = round((self.at - self.events[0].at) * 1000)
        self._write("end", {**told, "ms": took}, ns=())

    def _say(self, ns: Namespace, task: PregelTask, after: StateSnapshot, message: BaseMessage) -> None:
        """What a node says in messages, and the tools it called by them."""
        self._note_calls(message)
        if message.type == "human" or (message.id in self._seen and message.id is not None):
            return
        self._seen.add(message.id)
        step = (after.metadata or {}).get("step", 0) + 1
        metadata = {"run_id": self.run.run_id, "langgraph_node": task.name, "langgraph_step": step}
        if isinstance(message, ToolMessage):
            self._tool(ns, message)
        self._told(ns, "messages", (message, metadata))

    def _tool(self, ns: Namespace, message: ToolMessage) -> None:
        call = self._calls.get(message.tool_call_id, {})
        brief = {"type": "tool", "id": message.tool_call_id, "name": message.name or call.get("name") or "tool"}
        args = call.get("args", {})
        self._told(ns, "custom", {**brief, "status": "started", "args": args})
        outcome: dict[str, Any] = {"status": "finished", "result": _result(message)}
        if message.status == "error":
            outcome = {"status": "failed", "error": text_of(message)}
        self._told(ns, "custom", {**brief, "args": args, "ms": None, "cached": False, **outcome})

    def _note_calls(self, message: BaseMessage) -> None:
        if isinstance(message, AIMessage):
            self._calls.update({call["id"]: call for call in message.tool_calls if call["id"]})

    def _told(self, ns: Namespace, type: str, data: Any) -> None:
        self.recorder.record({"type": type, "ns": ns, "data": data})  # type: ignore[arg-type,misc]

    def _write(self, type: EventType, data: Any, *, ns: Namespace) -> Event:
        event = Event(len(self.events) + 1, type, ns, data, self.at)
        self.events.append(event)
        return event


async def _snapshot(graph: Graph, thread: Thread, ns: Namespace, checkpoint_id: str) -> StateSnapshot:
    place = {"thread_id": thread.thread_id, "checkpoint_ns": "|".join(ns), "checkpoint_id": checkpoint_id}
    found: StateSnapshot = await graph.aget_state({"configurable": place})
    if found.created_at is None:
        raise Missing(DELETED)
    return found


async def _left_off(
    graph: Graph, thread: Thread, ns: Namespace, first: StateSnapshot, parent_id: str | None
) -> StateSnapshot | None:
    """The step whose tasks the run took up, if it began with them and the step is still there."""
    metadata = first.metadata or {}
    if metadata.get("source") != "loop" or parent_id is None:
        return None
    try:
        before = await _snapshot(graph, thread, ns, parent_id)
    except Missing:
        return None
    step = (before.metadata or {}).get("step")
    return before if step is not None and metadata.get("step") == step + 1 else None


def _namespace(task: PregelTask) -> Namespace | None:
    """Where a task's subgraph keeps its checkpoints, if it is one."""
    state = task.state
    if not isinstance(state, Mapping):
        return None
    return tuple(str(state["configurable"]["checkpoint_ns"]).split("|"))


def _messages(values: Any) -> list[BaseMessage]:
    """The messages in a state or in what a task wrote."""
    found: list[BaseMessage] = []
    for value in values.values() if isinstance(values, Mapping) else ():
        found += [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, BaseMessage)]
    return found


def _result(message: ToolMessage) -> Any:
    if message.artifact is not None:
        return message.artifact
    try:
        return orjson.loads(text_of(message))
    except orjson.JSONDecodeError:
        return text_of(message)
