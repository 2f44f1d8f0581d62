"""Recorded model and tool calls: the key a call is known by, and the answers that earlier runs noted under it.

A call is the same as an earlier one if all is the same that its answer depends on. Ids are not part of that: those of
messages and tool calls are new in every run.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain
from typing import Any
from uuid import uuid4

import orjson
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import ValidationError

from threadline.domain.events import Event
from threadline.domain.records import Run

MARK = "recorded"
"""What a message that comes from a recording says in its `response_metadata`."""

_CHUNK = ("additional_kwargs", "response_metadata", "tool_call_chunks", "usage_metadata", "chunk_position")
_WHOLE = ("additional_kwargs", "response_metadata", "tool_calls", "invalid_tool_calls", "usage_metadata")
_STREAMING = frozenset({"stream", "stream_options", "stream_usage"})
_BLOCK_IDS = frozenset({"id", "index", "tool_use_id", "tool_call_id", "call_id"})


# --- Keys ---------------------------------------------------------------------------------------------------------


def model_key(node: str, prompt: str | None, options: Mapping[str, Any] | None, messages: Sequence[BaseMessage]) -> str:
    """The key of a model call. `prompt` is its prompt's name and version, `options` hold the model and all that its
    answer depends on besides the messages."""
    asked = {name: value for name, value in (options or {}).items() if name not in _STREAMING}
    calls: dict[Any, int] = {}
    return _digest([node, prompt, asked, [_canonical(message, calls) for message in messages]])


def tool_key(name: str, version: str | None, args: Any) -> str:
    """The key of a tool call."""
    return _digest([name, version, args])


def _canonical(message: BaseMessage, calls: dict[Any, int]) -> list[Any]:
    """A message without ids; a tool call goes by its number in the conversation."""
    fields = message.__dict__  # a whole conversation goes through here: a field it lacks costs Pydantic microseconds
    content, extra = fields["content"], fields["additional_kwargs"]
    if not isinstance(content, str):
        content = [_without_ids(block) for block in content]
    if "tool_calls" in extra:
        extra = {name: value for name, value in extra.items() if name != "tool_calls"}
    told: list[Any] = [fields["type"].removesuffix("MessageChunk").lower(), content, fields["name"], extra]
    if asked := fields.get("tool_calls"):
        told.append([(calls.setdefault(call["id"], len(calls)), call["name"], call["args"]) for call in asked])
    if (answered := fields.get("tool_call_id")) is not None:
        told.append((calls.setdefault(answered, len(calls)), fields.get("status")))
    return told


def _without_ids(block: Any) -> Any:
    return {key: block[key] for key in block if key not in _BLOCK_IDS} if isinstance(block, dict) else block


def _digest(material: Any) -> str:
    try:
        packed = orjson.dumps(material, default=_named, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError):  # halves of a character, or numbers that orjson has no word for
        packed = json.dumps(material, default=_named, sort_keys=True, skipkeys=True).encode()
    return blake2b(packed, digest_size=16).hexdigest()


def _named(value: Any) -> Any:
    """What JSON has no word for, by what stays the same from one process to the next."""
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if schema := getattr(value, "model_json_schema", None):
        if isinstance(value, type):
            return schema()
        return value.model_dump(mode="json", warnings=False)
    kind = value if isinstance(value, type) or callable(value) else type(value)
    return f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', type(value).__qualname__)}"


# --- Answers ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Answer:
    """A model's answer that stands in for a call: as the deltas it came in, or whole. `taken` once a model gave it."""

    parts: Sequence[Mapping[str, Any]]
    taken: bool = False

    def chunks(self) -> Iterator[ChatGenerationChunk]:
        """The answer as it was streamed. Raises nothing: an empty one was never offered."""
        last = len(self.parts) - 1
        for number, part in enumerate(self.parts):
            message = _message(part, chunk=True, mark=number == last)
            yield ChatGenerationChunk(message=message)

    def result(self) -> ChatResult:
        """The answer as one message with an id of its own."""
        if len(self.parts) == 1:
            message = _message(self.parts[0], chunk=False, mark=True)
        else:
            first, *rest = (chunk.message for chunk in self.chunks())
            whole = first
            for more in rest:
                whole = whole + more
            assert isinstance(whole, AIMessageChunk)
            fields = {name: getattr(whole, name) for name in _WHOLE}
            message = AIMessage(whole.content, **fields)
        message.id = str(uuid4())
        return ChatResult(generations=[ChatGeneration(message=message)])


def _message(part: Mapping[str, Any], *, chunk: bool, mark: bool) -> AIMessage:
    """One line of a log as a message; its id stays behind, since one answer may stand in for two calls."""
    whole = part["type"] != "AIMessageChunk"
    fields = {name: part[name] for name in (_WHOLE if whole else _CHUNK) if part.get(name)}
    if mark:
        fields["response_metadata"] = {**fields.get("response_metadata", {}), MARK: True}
    content = part.get("content") or ""
    if not chunk:
        return AIMessage(content, **fields)
    if whole:
        calls = [*fields.pop("tool_calls", ()), *fields.pop("invalid_tool_calls", ())]
        fields |= {"tool_call_chunks": [_call_chunk(call, n) for n, call in enumerate(calls)], "chunk_position": "last"}
    return AIMessageChunk(content=content, **fields)


def _call_chunk(call: Mapping[str, Any], index: int) -> dict[str, Any]:
    args = call["args"] if isinstance(call["args"], str) else json.dumps(call["args"], ensure_ascii=False)
    return {"name": call["name"], "args": args, "id": call["id"], "index": index, "type": "tool_call_chunk"}


_OFFERED: ContextVar[Answer | None] = ContextVar("offered", default=None)


def offer(answer: Answer | None) -> None:
    """Lay an answer ready for the model call that begins in this context, or see that none lies there."""
    _OFFERED.set(answer)


def taken() -> Answer | None:
    """The answer that lies ready for the model call of this context, once. None means: ask the model."""
    answer = _OFFERED.get()
    if answer is None or answer.taken:
        return None
    answer.taken = True
    return answer


# --- Recordings ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Recording:
    """What runs noted, by key. Each answer is given once, in the order it came; then the last one again.

    `typed` are answers somebody wrote by hand, by node; each is given once, to that node's next call.
    """

    models: dict[str, deque[Sequence[Mapping[str, Any]]]] = field(default_factory=dict)
    tools: dict[str, deque[Mapping[str, Any]]] = field(default_factory=dict)
    typed: dict[str, deque[Mapping[str, Any]]] = field(default_factory=dict)

    def model(self, key: str, node: str) -> Answer | None:
        """The answer to a model call of `node`, whose name is a path where graphs are within graphs."""
        for name in (node, node.rpartition("/")[2]):
            if written := self.typed.get(name):
                return Answer([written.popleft()])
        parts = _next(self.models.get(key))
        return Answer(parts) if parts else None

    def has_tool(self, key: str) -> bool:
        """Whether a tool call was noted."""
        return bool(self.tools.get(key))

    def tool(self, key: str) -> Mapping[str, Any] | None:
        """What a tool call came to, as it was noted."""
        found: Mapping[str, Any] | None = _next(self.tools.get(key))
        return found


def _next(answers: deque[Any] | None) -> Any:
    if not answers:
        return None
    return answers.popleft() if len(answers) > 1 else answers[0]


async def read(
    runs: Iterable[str],
    events: Callable[[str], AsyncIterable[Event]],
    *,
    after: str | None = None,
    models: bool = True,
    tools: bool = True,
) -> Recording:
    """The recording of some runs, in their order. Calls made before the checkpoint `after` come last of their run."""
    recording = Recording()
    for run_id in runs:
        earlier: list[Mapping[str, Any]] = []
        later: list[Mapping[str, Any]] = []
        streamed: dict[str, list[Mapping[str, Any]]] = {}
        async for event in events(run_id):
            if event.type == "calls":
                later.append(event.data)
            elif event.type == "messages" and models:
                streamed.setdefault(event.data["message"]["id"], []).append(event.data["message"])
            elif event.type == "checkpoints" and event.data["checkpoint_id"] == after and not event.ns:
                earlier, later = later, []
        for call in chain(later, earlier):
            if call["kind"] == "tool" and tools:
                recording.tools.setdefault(call["key"], deque()).append(call)
            elif call["kind"] == "model" and models:
                parts = [call["answer"]] if "answer" in call else streamed.get(call.get("message_id") or "")
                if parts and _is_answer(parts):
                    recording.models.setdefault(call["key"], deque()).append(parts)
    return recording


def _is_answer(parts: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a message can be made of it: a log may be that of an imported file."""
    try:
        Answer(parts).result()
    except (ValidationError, TypeError, ValueError, AttributeError, KeyError):
        return False
    return True


async def of_run(run: Run, events: Callable[[str], AsyncIterable[Event]]) -> Recording | None:
    """What a re-run answers from, as it was asked to; None for any other run."""
    source, changes = run.kwargs.get("recording"), run.kwargs.get("changes") or {}
    if source is None:
        return None
    found = await read(
        source["run_ids"],
        events,
        after=source["after"],
        models=changes.get("models") != "live",
        tools=changes.get("tools") != "live",
    )
    found.typed = {node: deque(written) for node, written in (changes.get("answers") or {}).items()}
    return found
