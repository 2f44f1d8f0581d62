"""The stream of the LangGraph Server API (v1): frames for the stream modes a client asked for.

An encoder reads a run's log from its start, whatever part of it its client wants, since a frame may say again what
earlier lines said: accumulated messages, a message's metadata. A frame's id is its event's id and its place among the
frames of that event, so it does not depend on who reads.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from langchain_core.messages import AIMessageChunk, message_chunk_to_message

from threadline.domain.events import Event
from threadline.services.results import error_of, with_interrupts

ReadState = Callable[[tuple[str, ...], str], Awaitable[bytes]]
"""The JSON of a graph's state, given its namespace and a checkpoint's id."""

_PLAIN: dict[str, Any] = {"content": "", "additional_kwargs": {}, "response_metadata": {}, "type": "", "name": None}
_AI: dict[str, Any] = {"id": None, "tool_calls": [], "invalid_tool_calls": [], "usage_metadata": None}
_FIELDS: dict[str, dict[str, Any]] = {
    "ai": {**_PLAIN, **_AI},
    "AIMessageChunk": {**_PLAIN, **_AI, "tool_call_chunks": [], "chunk_position": None},
    "tool": {**_PLAIN, "id": None, "tool_call_id": None, "artifact": None, "status": "success"},
}
"""A message's fields in LangChain's order; the log leaves empty ones out."""


class Encoder:
    """One reader's stream of one run.

    `asked` are the modes the run was started with, `modes` those this reader wants. What the run did not log, because
    nobody had asked, is made from what it did. `prefix` stands before every id.
    """

    def __init__(
        self,
        *,
        modes: Collection[str],
        asked: Collection[str],
        state: ReadState,
        thread_id: str,
        subgraphs: bool = False,
        ids: bool = False,
        prefix: str = "",
        after: tuple[int, int] = (0, -1),
    ) -> None:
        self._modes = frozenset(modes)
        self._asked = frozenset(asked)
        self._state = state
        self._thread_id = thread_id
        self._subgraphs = subgraphs
        self._ids = ids
        self._prefix = prefix.encode()
        self._after = after
        self._metadata: dict[str | None, orjson.Fragment] = {}
        self._said: dict[str | None, AIMessageChunk] = {}

    async def encode(self, event: Event) -> bytes:
        """The frames of an event, one after the other; empty if it has none."""
        if event.ns and not self._subgraphs:
            return b""
        place = "".join(f"|{part}" for part in event.ns)
        if event.type == "messages":  # nearly all are, and they wait for nothing
            frames = self._messages(event.data["message"], event.data["metadata"])
        else:
            frames = iter([frame async for frame in self._frames(event)])
        encoded: list[bytes] = []
        for slot, name, data in frames:
            if (event.id, slot) > self._after:
                # Accumulated messages are one list, whichever graph they come from.
                whose = "" if name.startswith("messages/") else place
                encoded.append(self._encode(name + whose, data, event.id, slot))
        return b"".join(encoded)

    async def _frames(self, event: Event) -> AsyncIterator[tuple[int, str, bytes]]:
        """`(slot, event name, JSON)` of each frame of an event; a slot belongs to one kind of frame."""
        modes, data = self._modes, event.data
        match event.type:
            case "custom" | "updates" | "events" | "tools" if event.type in modes:
                yield 0, event.type, orjson.dumps(data)
            case "tasks":
                for frame in self._task(event):
                    yield frame
            case "values" if "values" in modes:
                yield 0, "values", await self._values(event)
            case "checkpoints":
                async for frame in self._checkpoint(event):
                    yield frame
            case "run":
                yield 0, "metadata", orjson.dumps({"run_id": data["run_id"], "attempt": data["attempt"]})
            case "end" if data["error"] is not None:
                yield 0, "error", orjson.dumps(error_of(data["error"]))

    def _messages(self, brief: dict[str, Any], metadata: Any) -> Iterator[tuple[int, str, bytes]]:
        id: str | None = brief["id"]
        if metadata is not None:
            self._metadata[id] = orjson.Fragment(orjson.dumps(metadata))
        described = self._metadata.get(id, orjson.Fragment(b"{}"))
        if "messages-tuple" in self._modes:
            yield 0, "messages", orjson.dumps((whole(brief), described))
        if "messages" not in self._modes:
            return
        if metadata is not None:
            yield 1, "messages/metadata", orjson.dumps({id or "": {"metadata": described}})
        if brief["type"] != "AIMessageChunk":
            yield 2, "messages/complete", orjson.dumps([whole(brief)])
            return
        chunk = AIMessageChunk(**{key: value for key, value in brief.items() if key != "type"})
        said = self._said.get(id)
        self._said[id] = said = chunk if said is None else said + chunk
        yield 2, "messages/partial", orjson.dumps([message_chunk_to_message(said).model_dump()])

    def _task(self, event: Event) -> Iterator[tuple[int, str, bytes]]:
        data, over = event.data, "result" in event.data
        if over:
            payload = {key: data[key] for key in ("id", "name", "error", "result", "interrupts")}
        else:
            payload = {key: data.get(key) for key in ("id", "name", "input", "triggers", "metadata")}
        if "tasks" in self._modes:
            yield 0, "tasks", orjson.dumps(payload)
        if "debug" in self._modes:
            yield 1, "debug", _debug(event, "task_result" if over else "task", data["step"], payload)
        if over and "updates" in self._modes and "updates" not in self._asked and data["error"] is None:
            waits = data["interrupts"]
            update = {"__interrupt__": waits} if waits else {data["name"]: data["result"] or None}
            yield 2, "updates", orjson.dumps(update)

    async def _checkpoint(self, event: Event) -> AsyncIterator[tuple[int, str, bytes]]:
        data = event.data
        if self._modes & {"checkpoints", "debug"} and "tasks" in data:
            payload = {
                "config": self._config(event.ns, data["checkpoint_id"]),
                "parent_config": data["parent_id"] and self._config(event.ns, data["parent_id"]),
                "values": data["values"] if "values" in data else await self._fragment(event),
                "metadata": data["metadata"],
                "next": data["next"],
                "tasks": data["tasks"],
            }
            if "checkpoints" in self._modes:
                yield 0, "checkpoints", orjson.dumps(payload)
            if "debug" in self._modes:
                places = {
                    "checkpoint": payload["config"]["configurable"],
                    "parent_checkpoint": payload["parent_config"] and payload["parent_config"]["configurable"],
                    "tasks": [_debugged(task) for task in data["tasks"]],
                }
                yield 1, "debug", _debug(event, "checkpoint", data["step"], {**payload, **places})
        if "values" in self._modes and "values" not in self._asked and data["source"] != "input":
            yield 2, "values", await self._state(event.ns, data["checkpoint_id"])

    async def _values(self, event: Event) -> bytes:
        data = event.data
        values = (
            orjson.dumps(data["values"]) if "values" in data else await self._state(event.ns, data["checkpoint_id"])
        )
        return with_interrupts(values, data["interrupts"])

    async def _fragment(self, event: Event) -> orjson.Fragment:
        return orjson.Fragment(await self._state(event.ns, event.data["checkpoint_id"]))

    def _config(self, ns: tuple[str, ...], checkpoint_id: str) -> dict[str, Any]:
        ids = {"thread_id": self._thread_id, "checkpoint_ns": "|".join(ns), "checkpoint_id": checkpoint_id}
        return {"configurable": ids}

    def _encode(self, name: str, data: bytes, id: int, slot: int) -> bytes:
        if self._ids:
            return b"event: %s\r\ndata: %s\r\nid: %s%d-%d\r\n\r\n" % (name.encode(), data, self._prefix, id, slot)
        return b"event: %s\r\ndata: %s\r\n\r\n" % (name.encode(), data)


def error_frame(error: Mapping[str, str]) -> bytes:
    """An `error` frame for what went wrong outside a run."""
    return b"event: error\r\ndata: %s\r\n\r\n" % orjson.dumps(error)


def whole(brief: Mapping[str, Any]) -> dict[str, Any]:
    """A logged message with all its fields."""
    return {**_FIELDS.get(brief["type"], {**_PLAIN, "id": None}), **brief}


def _debugged(task: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's task as debug frames have it: the state of a subgraph by its checkpoint."""
    nested = task.get("state")
    if not isinstance(nested, Mapping) or "configurable" not in nested:
        return dict(task)
    return {**{key: value for key, value in task.items() if key != "state"}, "checkpoint": nested["configurable"]}


def _debug(event: Event, type: str, step: int, payload: dict[str, Any]) -> bytes:
    at = datetime.fromtimestamp(event.at, UTC).isoformat()
    return orjson.dumps({"step": step, "timestamp": at, "type": type, "payload": payload})
