"""Whether a stranger's event has what the readers of logs rely on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from langchain_core.messages import AIMessageChunk
from pydantic import ValidationError

from threadline.domain.events import EventType

TYPES: frozenset[str] = frozenset(get_args(EventType))
_PLAIN = {"type", "id", "content"}
_WORD = (str,)
_MAYBE = (str, type(None))
_NUMBER = (int, float)

Fields = Mapping[str, tuple[type, ...]]

FIELDS: dict[str, Fields] = {
    "run": {"run_id": _WORD, "thread_id": _WORD, "graph_id": _WORD, "assistant_id": _MAYBE, "attempt": (int,)},
    "messages": {"message": (dict,), "metadata": (dict, type(None))},
    "checkpoints": {"checkpoint_id": _WORD, "parent_id": _MAYBE, "step": (int,), "source": _WORD, "next": (list,)},
    "values": {"interrupts": (list, type(None))},
    "updates": {},
    "tools": {},
    "events": {"event": _WORD, "data": (dict,)},
    "calls": {"kind": _WORD, "node": _WORD, "key": _WORD},
    "interrupt": {"id": _WORD, "value": (object,)},
    "message": {"type": _WORD, "content": (str, list)},
    "end": {
        "status": _WORD,
        "error": (dict, type(None)),
        "usage": (dict, type(None)),
        "cost": (*_NUMBER, type(None)),
        "checkpoint_id": _MAYBE,
        "ms": _NUMBER,
    },
}
"""What `data` must have, by type; a type that is not here may hold anything."""
TASK: Fields = {"id": _WORD, "name": _WORD, "step": (int,)}
TASK_START: Fields = {**TASK, "triggers": (list,)}
TASK_END: Fields = {**TASK, "result": (object,), "error": _MAYBE, "interrupts": (list,), "ms": _NUMBER}
ERROR: Fields = {"kind": _WORD, "message": _WORD, "retryable": (bool,)}
MESSAGE: Fields = {"type": _WORD, "id": _MAYBE, "content": (str, list)}
CUSTOM: dict[str, Fields] = {
    "intent": {"kind": _WORD},
    "tool": {"name": _WORD, "status": _WORD},
}


def fits(type: str, data: Any) -> bool:
    """Whether an event of this type may hold this."""
    if type not in TYPES:
        return False
    if type == "custom":
        kind = data.get("type") if isinstance(data, dict) else None
        return not isinstance(kind, str) or _has(data, CUSTOM.get(kind, {}))
    if type == "tasks":
        return isinstance(data, dict) and _has(data, TASK_END if "result" in data else TASK_START)
    if type in FIELDS and not (isinstance(data, dict) and _has(data, FIELDS[type])):
        return False
    match type:
        case "messages":
            return _message(data["message"])
        case "values":
            return "values" in data or isinstance(data.get("checkpoint_id"), str)
        case "checkpoints" if "tasks" in data:
            return isinstance(data["tasks"], list) and all(isinstance(task, dict) for task in data["tasks"])
        case "end":
            return data["error"] is None or _has(data["error"], ERROR)
    return True


def _message(message: dict[str, Any]) -> bool:
    if not _has(message, MESSAGE):
        return False
    content = message["content"]
    if isinstance(content, list) and not all(isinstance(block, str | dict) for block in content):
        return False
    usage = message.get("usage_metadata")
    if not isinstance(usage, dict | None):
        return False
    if message["type"] != "AIMessageChunk" or not message.keys() - _PLAIN:
        return True
    try:
        AIMessageChunk(**{key: value for key, value in message.items() if key != "type"})
    except (ValidationError, TypeError, ValueError, AttributeError, KeyError):
        return False
    return True


def _has(data: Mapping[str, Any], fields: Fields) -> bool:
    return all(name in data and _is(data[name], kinds) for name, kinds in fields.items())


def _is(value: Any, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in kinds or object in kinds
    return isinstance(value, kinds)
