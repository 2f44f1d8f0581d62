"""Writes a graph's stream parts to a run's log and keeps what the end of the run needs to know."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage, convert_to_messages
from langgraph.types import StreamMode, StreamPart

from threadline.domain.errors import ThreadlineError
from threadline.domain.events import Event, EventType
from threadline.services.notes import Notes, as_event
from threadline.services.payload import delta, is_delta, jsonable, text_of

STREAM_MODES: tuple[StreamMode, ...] = ("messages", "tasks", "custom", "checkpoints", "updates")
"""What a graph is asked to stream. Everything else a reader may want is derived from these; of `updates`, only those of
tasks that did not run are used, since their ends are in no `tasks` part."""

_PRIVATE_METADATA = ("__", "langgraph_auth_", "langgraph_request_id")


def graph_modes(wanted: Collection[str]) -> list[StreamMode]:
    """What to ask a graph for so that a log can serve `wanted`, a client's stream modes."""
    modes: list[Any] = [*STREAM_MODES]
    modes += [mode for mode in ("values", "tools") if mode in wanted]
    return modes


class Write(Protocol):
    """Appends to the run's log."""

    def __call__(self, type: EventType, data: Any, *, ns: tuple[str, ...]) -> Event: ...


class Keep(Protocol):
    """Keeps the state as of a checkpoint at hand for readers, as JSON, while the run goes on."""

    def __call__(self, ns: tuple[str, ...], checkpoint_id: str, values: bytes) -> None: ...


@dataclass(slots=True)
class _Task:
    name: str
    step: int
    ns: tuple[str, ...]
    started: float


@dataclass(slots=True)
class _Held:
    """A state that waits for the id of its checkpoint."""

    values: Any
    interrupts: Any


@dataclass(slots=True)
class Recorder:
    """One run's recorder. `write` appends to the log; `clock` is in seconds and only its differences matter.

    `wanted` are the stream modes a client asked for: what only they need is logged too. `saved` is whether the run's
    checkpoints can be read later; where they cannot, states are logged whole. `played` tells whether all that a task
    asked was answered from a recording.
    """

    write: Write
    keep: Keep | None = None
    wanted: frozenset[str] = frozenset()
    saved: bool = True
    clock: Callable[[], float] = time.perf_counter
    played: Callable[[str], bool] = lambda task_id: False
    checkpoint_id: str | None = None
    message: dict[str, Any] | None = None
    tools: list[str] = field(default_factory=list)
    interrupts: list[dict[str, Any]] = field(default_factory=list)
    waiting: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    halted: bool = False
    next: list[str] = field(default_factory=list)
    failed_node: str | None = None
    last_node: str | None = None
    _streamed: dict[str | None, str] = field(default_factory=dict)
    _steps: dict[tuple[str, ...], int] = field(default_factory=dict)
    _tasks: dict[str, _Task] = field(default_factory=dict)
    _described: set[str | None] = field(default_factory=set)
    _held: dict[tuple[str, ...], _Held] = field(default_factory=dict)
    _last: dict[tuple[str, ...], tuple[str, bytes]] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The answer, or as much of it as was streamed before the run broke off."""
        return text_of(self.message) if self.message else next(reversed(self._streamed.values()), "")

    def record(self, part: StreamPart[Any, Any]) -> Event | None:
        """Log one stream part; what says nothing new gives None."""
        ns = part["ns"]
        data: Any = part["data"]
        kind: str = part["type"]
        if kind != "checkpoints" and ns in self._held:
            self._release(ns, None)
        match kind:
            case "messages":
                return self._message(ns, *data)
            case "tasks":
                return self._task_end(ns, data) if "result" in data else self._task_start(ns, data)
            case "custom":
                return self.write("custom", jsonable(data), ns=ns)
            case "checkpoints":
                return self._checkpoint(ns, data)
            case "updates":
                return self._updates(ns, data)
            case "values":
                self._hold(ns, data, part.get("interrupts"))
            case "tools":
                return self.write("tools", jsonable(data), ns=ns)
        return None

    def note(self, event: Mapping[str, Any]) -> Event:
        """Log an `astream_events` object."""
        return self.write("events", jsonable(event), ns=())

    def calls(self, notes: Notes) -> None:
        """Log the calls that were noted. Called before a checkpoint: the messages they streamed are logged then."""
        for note in notes.take():
            self.write("calls", as_event(note, self._described), ns=())

    def restore(self, values: Any, checkpoint_id: str) -> None:
        """Take over from the state what an earlier attempt did before a crash, which its log may have lost."""
        self.checkpoint_id = checkpoint_id
        self._results(values)

    def close_tasks(self, reason: str) -> None:
        """Mark every task that is still open as failed, so that a stream closes what it opened."""
        for ns in list(self._held):
            self._release(ns, None)
        for task_id, task in reversed(list(self._tasks.items())):
            self._end(task.ns, {"id": task_id, "name": task.name, "result": {}, "error": reason, "interrupts": []})

    def close_message(self) -> None:
        """Log the final message, if there is one."""
        if self.message is not None:
            self.write("message", self.message, ns=())

    def _message(self, ns: tuple[str, ...], message: BaseMessage, metadata: Mapping[str, Any]) -> Event | None:
        said = delta(message)
        if isinstance(message, AIMessage):
            before = self._streamed.pop(message.id, "") if is_delta(message) else ""
            self._streamed[message.id] = before + text_of(said)  # and is thereby the last one
        described = None
        if message.id not in self._described:
            self._described.add(message.id)
            described = {key: jsonable(metadata[key]) for key in metadata if not key.startswith(_PRIVATE_METADATA)}
        return self.write("messages", {"message": said, "metadata": described}, ns=ns)

    def _updates(self, ns: tuple[str, ...], data: Any) -> Event | None:
        if not isinstance(data, Mapping):
            return None
        cached = (data.get("__metadata__") or {}).get("cached")
        event = self._kept_result(ns, data) if cached else None
        if "__interrupt__" in data and not ns:
            self.halted = True
        if "updates" in self.wanted:
            shown = {key: value for key, value in data.items() if key != "__metadata__"}
            self.write("updates", jsonable(shown), ns=ns)
        return event

    def _hold(self, ns: tuple[str, ...], data: Any, interrupts: Any) -> None:
        """Hold a state until its checkpoint is named, which is the next thing its graph streams."""
        shown = data
        if isinstance(data, Mapping) and "__interrupt__" in data:
            interrupts = data["__interrupt__"]
            shown = {key: value for key, value in data.items() if key != "__interrupt__"}
        self._held[ns] = _Held(shown, jsonable(interrupts) if interrupts else None)

    def _release(self, ns: tuple[str, ...], checkpoint_id: str | None) -> None:
        """Log the held state: by its checkpoint's id, or whole where no checkpoint holds it."""
        held = self._held.pop(ns)
        state = jsonable(held.values)
        if self.saved:
            packed = orjson.dumps(state)
            last_id, last = self._last.get(ns, (None, b""))
            if checkpoint_id is None and packed == last:  # nothing was added before the graph stopped to ask
                checkpoint_id = last_id
            if checkpoint_id is not None:
                self._last[ns] = (checkpoint_id, packed)
                if self.keep is not None:
                    self.keep(ns, checkpoint_id, packed)
                self.write("values", {"checkpoint_id": checkpoint_id, "interrupts": held.interrupts}, ns=ns)
                return
        self.write("values", {"values": state, "interrupts": held.interrupts}, ns=ns)

    def _task_start(self, ns: tuple[str, ...], data: Mapping[str, Any]) -> Event:
        task = self._tasks[data["id"]] = _Task(data["name"], self._steps.get(ns, 0) + 1, ns, self.clock())
        start = {"id": data["id"], "name": task.name, "step": task.step, "triggers": list(data["triggers"])}
        if "tasks" in self.wanted:
            start["input"] = jsonable(data["input"])
            start["metadata"] = jsonable(data.get("metadata"))
        return self.write("tasks", start, ns=ns)

    def _task_end(self, ns: tuple[str, ...], data: Mapping[str, Any]) -> Event:
        event = self._end(ns, data)
        if not ns:
            self._results(data["result"])
            self.last_node = data["name"]
            self.failed_node = data["name"] if data["error"] else self.failed_node
        known = {interrupt["id"] for interrupt in self.interrupts}
        for interrupt in jsonable(data["interrupts"]):
            brief = {"id": interrupt["id"], "value": interrupt["value"]}
            if not ns:
                self.waiting.setdefault(data["id"], []).append(brief)
            if interrupt["id"] not in known:
                self.interrupts.append(brief)
                self.write("interrupt", brief, ns=ns)
        return event

    def _kept_result(self, ns: tuple[str, ...], data: Mapping[str, Any]) -> Event | None:
        """The end of a task that was not executed: its result came from a cache, or from before an interrupt."""
        for name, result in data.items():
            for task_id, task in self._tasks.items():
                if task.name == name and task.ns == ns:
                    kept = result if isinstance(result, Mapping) else {}
                    return self._task_end(
                        ns, {"id": task_id, "name": name, "result": kept, "error": None, "interrupts": ()}
                    )
        return None

    def _end(self, ns: tuple[str, ...], data: Mapping[str, Any]) -> Event:
        task = self._tasks.pop(data["id"], None) or _Task(data["name"], self._steps.get(ns, 0) + 1, ns, self.clock())
        end = {
            "id": data["id"],
            "name": task.name,
            "step": task.step,
            "result": jsonable(data["result"]),
            "error": _kind(data["error"]),
            "interrupts": jsonable(data["interrupts"]),
            "ms": round((self.clock() - task.started) * 1000),
        }
        if self.played(data["id"]):
            end["recorded"] = True
        return self.write("tasks", end, ns=ns)

    def _checkpoint(self, ns: tuple[str, ...], data: Mapping[str, Any]) -> Event | None:
        parent = data["parent_config"]
        checkpoint_id = data["config"]["configurable"]["checkpoint_id"]
        step = data["metadata"]["step"]
        if ns in self._held:
            self._release(ns, checkpoint_id)
        self._steps[ns] = step
        known = not ns and checkpoint_id == self.checkpoint_id
        if not ns:
            self.checkpoint_id = checkpoint_id
            self.next = list(data["next"])
        if known and "checkpoints" not in self.wanted:  # a resumed run shows again the checkpoint it starts from
            return None
        brief = {
            "checkpoint_id": checkpoint_id,
            "parent_id": parent and parent["configurable"]["checkpoint_id"],
            "step": step,
            "source": data["metadata"]["source"],
            "next": list(data["next"]),
        }
        if "checkpoints" in self.wanted:
            brief["metadata"] = jsonable(data["metadata"])
            brief["tasks"] = jsonable(data["tasks"])
            if not self.saved:
                brief["values"] = jsonable(data["values"])
            elif self.keep is not None:
                self.keep(ns, checkpoint_id, orjson.dumps(jsonable(data["values"])))
        return self.write("checkpoints", brief, ns=ns)

    def _results(self, result: Any) -> None:
        """Note the tools that answered and the last message that is an answer."""
        for message in _new_messages(result):
            if isinstance(message, ToolMessage):
                self.tools.append(message.name or "tool")
            elif isinstance(message, AIMessage) and not message.tool_calls:
                self.message = jsonable(message)


def _new_messages(result: Any) -> list[BaseMessage]:
    """The messages of a node's result, but not what was said before, with which a subgraph's result begins."""
    given: Any = result.get("messages") if isinstance(result, Mapping) else None
    messages: list[BaseMessage] = []
    for item in given if isinstance(given, list) else [given]:
        try:
            (message,) = convert_to_messages([item])
        except (ValueError, TypeError, KeyError, NotImplementedError):  # what the graph's reducer may know, we do not
            continue
        messages = [] if message.type == "human" else [*messages, message]
    return messages


def _kind(error: Any) -> str | None:
    """What kind of error it is; its text may hold secrets."""
    if error is None:
        return None
    if isinstance(error, ThreadlineError):
        return error.kind
    return type(error).__name__ if isinstance(error, BaseException) else str(error).partition("(")[0] or "error"
