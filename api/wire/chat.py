"""The chat stream: one frame, at most, for each logged event, under the event's own id."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from threadline.domain.events import Event, is_intent_part, is_tool_part


class Frame(NamedTuple):
    """One server-sent event."""

    event: str
    data: dict[str, Any]

    def encode(self, id: int | None, *, prefix: bytes = b"") -> bytes:
        place = b"" if id is None else b"id: %s%d\r\n" % (prefix, id)
        return b"%sevent: %s\r\ndata: %s\r\n\r\n" % (place, self.event.encode(), orjson.dumps(self.data))


def frame(event: Event) -> Frame | None:
    """What a chat client is shown of an event; None for what only other formats show."""
    data = event.data
    match event.type:
        case "run":
            ids = {"session_id": data["thread_id"], "run_id": data["run_id"]}
            return Frame("session", {**ids, "rebuilt": data["rebuilt"]} if "rebuilt" in data else ids)
        case "tasks":
            return _node(event)
        case "custom":
            return _custom(data)
        case "messages":
            return _token(data["message"])
        case "interrupt" | "message":
            return Frame(event.type, data)
        case "end" if data["error"] is not None:
            return Frame("error", {key: data["error"][key] for key in ("kind", "message", "retryable")})
        case "end":
            return Frame("done", {key: data[key] for key in ("status", "usage", "cost", "checkpoint_id", "ms")})
    return None


class Encoder:
    """One run's lines as chat frames. `prefix` stands before every id."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix.encode()

    @property
    def like(self) -> Hashable:
        return "chat", self._prefix

    async def frames(self, event: Event, *, shown: bool = True) -> Sequence[tuple[tuple[int, ...], bytes]]:
        """The event's frame, if it has one, with the event's id."""
        made = frame(event) if shown else None
        return [((event.id,), made.encode(event.id, prefix=self._prefix))] if made is not None else ()


def error_frame(error: Mapping[str, Any]) -> bytes:
    """An `error` frame for what went wrong outside a run: it belongs to no event, so it has no id."""
    return Frame("error", {key: error[key] for key in ("kind", "message", "retryable")}).encode(None)


REPLAY_DONE = Frame("replay_done", {}).encode(None)


def _node(event: Event) -> Frame | None:
    task = event.data
    if task.get("interrupts"):  # it waits; the interrupt's own frame says so
        return None
    status = "started" if "result" not in task else "failed" if task["error"] else "finished"
    shown = {"node": task["name"], "status": status, "step": task["step"], "ms": task.get("ms")}
    if task.get("recorded"):
        shown["recorded"] = True
    if event.ns:
        shown["path"] = [part.partition(":")[0] for part in event.ns]
    return Frame("node", shown)


def _token(message: dict[str, Any]) -> Frame | None:
    """What the agent says, as it says it; a tool's answer stands in its tool frame."""
    text = _text(message["content"]) if message["type"] in ("ai", "AIMessageChunk") else ""
    return Frame("token", {"text": text}) if text else None


def _custom(data: Any) -> Frame | None:
    """`intent` and `tool` parts; what else a node writes is not for chat."""
    if is_intent_part(data) or is_tool_part(data):
        return Frame(data["type"], {key: value for key, value in data.items() if key != "type"})
    return None


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(block.get("text") or "" for block in content if isinstance(block, dict))
