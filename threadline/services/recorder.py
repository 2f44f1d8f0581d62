"""Writes a graph's stream parts to a run's log and keeps what the end of the run needs to know."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage, convert_to_messages
from langgraph.types import StreamMode, StreamPart

from threadline.domain.errors import ThreadlineError
from threadline.domain.events import Event, EventType
from threadline.services.payload import delta, is_delta, jsonable, text_of

STREAM_MODES: tuple[StreamMode, ...] = ("messages", "tasks", "custom", "checkpoints", "updates")
"""What a graph is asked to stream. Everything else a reader may want is derived from these; of `updates`, only those of
tasks that did not run are used, since their ends are in no `tasks` part."""

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
    tools: list[str] = field(default_factory=list)
    interrupts: list[dict[str, Any]] = field(default_factory=list)
    failed_node: str | None = None
    last_node: str | None = None
    _streamed: dict[str | None, str] = field(default_factory=dict)
    _steps: dict[tuple[str, ...], int] = field(default_factory=dict)
    _tasks: dict[str, _Task] = field(default_factory=dict)
    _metadata: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The answer, or as much of it as was streamed before the run broke off."""
        return text_of(self.message) if self.message else next(reversed(self._streamed.values()), "")

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
            case "updates" if (data.get("__metadata__") or {}).get("cached"):
                return self._kept_result(ns, data)
        return None

    def restore(self, values: Any, checkpoint_id: str) -> None:
        """Take over from the state what an earlier attempt did before a crash, which its log may have lost."""
        self.checkpoint_id = checkpoint_id
        self._results(values)

    def close_tasks(self, reason: str) -> None:
        """Mark every task that is still open as failed, so that a stream closes what it opened."""
        for task_id, task in reversed(list(self._tasks.items())):
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
        said = delta(message)
        before = self._streamed.pop(message.id, "") if is_delta(message) else ""
        self._streamed[message.id] = before + text_of(said)  # and is thereby the last one
        return self.write("messages", {"message": said, "metadata": brief}, ns=ns)

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
