"""Writes a graph's stream parts to a run's log and keeps what the end of the run needs to know."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langgraph.types import StreamMode, StreamPart

from threadline.domain.events import Event, EventType
from threadline.services.payload import delta, is_delta, jsonable, text_of

STREAM_MODES: tuple[StreamMode, ...] = ("messages", "tasks", "custom", "checkpoints")
"""What a graph is asked to stream. Everything else a reader may want is derived from these."""

_MESSAGE_METADATA = (
    "langgraph_node",
    "langgraph_step",
    "langgraph_triggers",
    "langgraph_path",
    "langgraph_checkpoint_ns",
)

class Write(Protocol):
    """Appends to the run's log."""

    def __call__(self, type: EventType, data: Any, *, ns: tuple[str, ...]) -> Event: ...


@dataclass(slots=True)
class _Task:
    name: str
    step: int
    ns: tuple[str, ...]
    started: float


@dataclass(slots=True)
class Recorder:
    """One run's recorder. `write` appends to the log; `clock` is in seconds and only its differences matter."""

    write: Write
    clock: Callable[[], float] = time.perf_counter
    checkpoint_id: str | None = None
    message: dict[str, Any] | None = None
    partial: str = ""
    tools: list[str] = field(default_factory=list)
    interrupts: list[dict[str, Any]] = field(default_factory=list)
    failed_node: str | None = None
    last_node: str | None = None
    _streaming: str | None = None
    _steps: dict[tuple[str, ...], int] = field(default_factory=dict)
    _tasks: dict[str, _Task] = field(default_factory=dict)
    _metadata: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The answer, or as much of it as was streamed before the run broke off."""
        return text_of(self.message) if self.message else self.partial

    def record(self, part: StreamPart[Any, Any]) -> Event | None:
        """Log one stream part; what says nothing new gives None."""
        ns = part["ns"]
        data: Any = part["data"]
        match part["type"]:
            case "messages":
                return self._message(ns, *data)
            case "tasks":
                return self._task_end(ns, data) if "result" in data else self._task_start(ns, data)
            case "custom":
                return self.write("custom", jsonable(data), ns=ns)
            case "checkpoints":
                return self._checkpoint(ns, data)
        return None

    def restore(self, events: Iterable[Event]) -> None:
        """Take over what an earlier attempt logged before a crash."""
        for event in events:
            if event.type == "checkpoints" and not event.ns:
                self.checkpoint_id = event.data["checkpoint_id"]
            elif event.type == "tasks" and "result" in event.data and not event.ns:
                self._results(event.data["result"])

    def close_tasks(self, reason: str) -> None:
        """Mark every task that is still open as failed, so that a stream closes what it opened."""
        for task_id, task in list(self._tasks.items()):
            self._end(task.ns, {"id": task_id, "name": task.name, "result": {}, "error": reason, "interrupts": []})

    def close_message(self) -> None:
        """Log the final message, if there is one."""
        if self.message is not None:
            self.write("message", self.message, ns=())

    def _message(self, ns: tuple[str, ...], message: BaseMessage, metadata: Mapping[str, Any]) -> Event | None:
        if not isinstance(message, AIMessage):  # tool and human messages stand in their task's result
            return None
        place = metadata.get("langgraph_checkpoint_ns", "")
        brief = self._metadata.get(place)
        if brief is None:
            brief = self._metadata[place] = {key: jsonable(metadata.get(key)) for key in _MESSAGE_METADATA}
        if not ns:
            if message.id != self._streaming:
                self._streaming, self.partial = message.id, ""
            self.partial = self.partial + text_of(message) if is_delta(message) else text_of(message)
        return self.write("messages", {"message": delta(message), "metadata": brief}, ns=ns)

    def _task_start(self, ns: tuple[str, ...], data: Mapping[str, Any]) -> Event:
        task = self._tasks[data["id"]] = _Task(data["name"], self._steps.get(ns, 0) + 1, ns, self.clock())
        start = {"id": data["id"], "name": task.name, "step": task.step, "triggers": list(data["triggers"])}
        return self.write("tasks", start, ns=ns)

    def _task_end(self, ns: tuple[str, ...], data: Mapping[str, Any]) -> Event:
        event = self._end(ns, data)
        if not ns:
            self._results(data["result"])
            self.last_node = data["name"]
            self.failed_node = data["name"] if data["error"] else self.failed_node
        known = {interrupt["id"] for interrupt in self.interrupts}
        for interrupt in jsonable(data["interrupts"]):
            if interrupt["id"] not in known:
                brief = {"id": interrupt["id"], "value": interrupt["value"]}
                self.interrupts.append(brief)
                self.write("interrupt", brief, ns=ns)
        return event

    def _end(self, ns: tuple[str, ...], data: Mapping[str, Any]) -> Event:
        task = self._tasks.pop(data["id"], None) or _Task(data["name"], self._steps.get(ns, 0) + 1, ns, self.clock())
        end = {
            "id": data["id"],
            "name": task.name,
            "step": task.step,
            "result": jsonable(data["result"]),
            "error": data["error"] and str(data["error"]).partition("(")[0],  # the kind; its text may hold secrets
            "interrupts": jsonable(data["interrupts"]),
            "ms": round((self.clock() - task.started) * 1000),
        }
        return self.write("tasks", end, ns=ns)

    def _checkpoint(self, ns: tuple[str, ...], data: Mapping[str, Any]) -> Event | None:
        parent = data["parent_config"]
        checkpoint_id = data["config"]["configurable"]["checkpoint_id"]
        step = data["metadata"]["step"]
        self._steps[ns] = step
        if not ns:
            if checkpoint_id == self.checkpoint_id:  # a resumed run shows again the checkpoint it starts from
                return None
            self.checkpoint_id = checkpoint_id
        brief = {
            "checkpoint_id": checkpoint_id,
            "parent_id": parent and parent["configurable"]["checkpoint_id"],
            "step": step,
            "source": data["metadata"]["source"],
            "next": list(data["next"]),
        }
        return self.write("checkpoints", brief, ns=ns)

    def _results(self, result: Any) -> None:
        """Note the tools that answered and the last message that is an answer."""
        messages = result.get("messages") if isinstance(result, Mapping) else None
        for message in messages if isinstance(messages, list | tuple) else [messages]:
            if isinstance(message, BaseMessage):
                whole = jsonable(message)
            elif isinstance(message, Mapping) and "type" in message:
                whole = dict(message)
            else:
                continue
            if whole["type"] == ToolMessage.model_fields["type"].default:
                self.tools.append(whole.get("name") or "tool")
            elif whole["type"] == "ai" and not whole.get("tool_calls"):
                self.message = whole
