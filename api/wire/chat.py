"""The chat stream: one frame, at most, for each logged event, under the event's own id."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from threadline.domain.events import Event, is_intent_part, is_tool_part


class Frame(NamedTuple):
    """One server-sent event."""

    event: str
    data: dict[str, Any]

    def encode(self, id: int) -> bytes:
        return b"id: %d\r\nevent: %s\r\ndata: %s\r\n\r\n" % (id, self.event.encode(), orjson.dumps(self.data))


def frame(event: Event) -> Frame | None:
    """What a chat client is shown of an event; None for what only other formats show."""
    data = event.data
    match event.type:
        case "run":
            return Frame("session", {"session_id": data["thread_id"], "run_id": data["run_id"]})
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


def encode(event: Event) -> bytes | None:
    """The frame of an event as bytes: the same for every reader."""
    shown = frame(event)
    return shown.encode(event.id) if shown else None


def encode_replayed(event: Event, *, run_id: str, id: int) -> bytes | None:
    """The frame as part of a replay: a stream with ids of its own, each frame naming the one it repeats."""
    shown = frame(event)
    return shown and Frame(shown.event, {**shown.data, "run_id": run_id, "source_id": event.id}).encode(id)


def encode_replay_done(id: int) -> bytes:
    return Frame("replay_done", {}).encode(id)


def _node(event: Event) -> Frame | None:
    task = event.data
    if task.get("interrupts"):  # it waits; the interrupt's own frame says so
        return None
    status = "started" if "result" not in task else "failed" if task["error"] else "finished"
    shown = {"node": task["name"], "status": status, "step": task["step"], "ms": task.get("ms")}
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
