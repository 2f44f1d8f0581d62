"""The agent streaming protocol ("Protocol v2"): one thread's events on named channels, numbered across its runs.

Shapes follow `langchain_protocol`. An event's number (`seq`) is made of its run's place on the thread, its id in the
run's log and its place among the events made of that line: every subscriber sees the same numbers, with gaps where it
did not subscribe.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from threadline.domain.events import Event

CHANNELS = ("values", "updates", "messages", "tools", "custom", "lifecycle", "input", "tasks", "checkpoints")
MODES = ("values", "updates", "messages-tuple", "tools", "custom")
"""What a run started over this protocol asks its graph for, beside what every run logs. What a run that somebody else
started did not log is made from what it did."""
RUN_SPAN = 1 << 32
LINE_SPAN = 1 << 8
"""Events made of one line of the log, at most. A run's lines stay below `RUN_SPAN / LINE_SPAN`."""

ReadState = Callable[[tuple[str, ...], str], Awaitable[bytes]]

_ENDED = {"success": "completed", "interrupted": "interrupted", "cancelled": "interrupted"}
_USAGE = ("input_tokens", "output_tokens", "total_tokens", "input_token_details", "output_token_details")


@dataclass(frozen=True, slots=True)
class Subscription:
    """Which events: of which channels, below which namespaces, how deep, after which number."""

    channels: frozenset[str]
    namespaces: tuple[tuple[str, ...], ...] = ()
    depth: int | None = None
    since: int = 0

    def wants(self, channel: str, namespace: Sequence[str], name: str | None = None) -> bool:
        if channel not in self.channels and (name is None or f"{channel}:{name}" not in self.channels):
            return False
        return self.reaches(namespace)

    def reaches(self, namespace: Sequence[str]) -> bool:
        return any(
            tuple(namespace[: len(prefix)]) == prefix
            and (self.depth is None or len(namespace) - len(prefix) <= self.depth)
            for prefix in self.namespaces or ((),)
        )


class Made(NamedTuple):
    """One protocol event of a line."""

    method: str
    data: Any
    namespace: tuple[str, ...]
    name: str | None = None
    """Of a custom event: what `custom:<name>` asks for."""

    @property
    def channel(self) -> str:
        return "input" if self.method == "input.requested" else self.method


@dataclass(slots=True)
class _Block:
    """A content block that is being streamed."""

    index: int
    kind: str
    text: str = ""
    call: dict[str, Any] = field(default_factory=dict)

    def finished(self) -> dict[str, Any]:
        if self.kind == "text":
            return {"type": "text", "text": self.text}
        if self.kind == "reasoning":
            return {"type": "reasoning", "reasoning": self.text}
        try:
            args = orjson.loads(self.text or "{}")
        except orjson.JSONDecodeError:
            args = None
        if not isinstance(args, dict):
            return {**self.call, "type": "invalid_tool_call", "args": self.text, "error": "The arguments are no JSON."}
        return {**self.call, "type": "tool_call", "args": args}


@dataclass(slots=True)
class _Message:
    """A message that is being streamed; at most one of its blocks is open."""

    id: str
    namespace: tuple[str, ...]
    block: _Block | None = None
    blocks: int = 0
    usage: dict[str, Any] | None = None


class Encoder:
    """One run's lines as protocol events. `position` is the run's place on its thread."""

    def __init__(
        self,
        subscription: Subscription,
        *,
        run_id: str,
        graph_id: str,
        position: int,
        asked: Collection[str],
        state: ReadState,
    ) -> None:
        self._subscription = subscription
        self._asked = frozenset(asked)
        self._run_id = run_id
        self._graph_id = graph_id
        self._base = position * RUN_SPAN
        self._state = state
        self._open: dict[str, _Message] = {}
        self._subgraphs: dict[tuple[str, ...], str] = {}
        self._tasks: dict[str, tuple[str, ...]] = {}

    async def encode(self, event: Event) -> bytes:
        """The frames of a line, one after the other; empty if it has none that is wanted."""
        wanted = self._subscription
        encoded: list[bytes] = []
        place = self._base + event.id * LINE_SPAN
        for offset, made in enumerate(self._made(event)):
            seq = place + min(offset, LINE_SPAN - 1)
            if seq <= wanted.since or not wanted.wants(made.channel, made.namespace, made.name):
                continue
            data = await self._values(event) if made.method == "values" else made.data
            encoded.append(self._encode(made, data, event, seq))
        return b"".join(encoded)

    def _encode(self, made: Made, data: Any, event: Event, seq: int) -> bytes:
        params = {"namespace": made.namespace, "timestamp": round(event.at * 1000), "data": data}
        envelope = {
            "type": "event",
            "event_id": f"{self._run_id}:{seq - self._base}",
            "seq": seq,
            "method": made.method,
            "params": params,
        }
        return b"event: %s\r\ndata: %s\r\nid: %d\r\n\r\n" % (made.method.encode(), orjson.dumps(envelope), seq)

    def _made(self, event: Event) -> Iterator[Made]:
        ns, data = event.ns, event.data
        if ns and ns not in self._subgraphs:
            yield from self._subgraph(ns)
        match event.type:
            case "run" if data["attempt"] == 1:
                yield Made("lifecycle", {"event": "running", "graph_name": self._graph_id}, ())
            case "messages":
                yield from self._message(ns, data["message"])
            case "values":
                yield Made("values", None, ns)
            case "updates":
                for node, values in data.items():
                    if node != "__interrupt__":
                        yield Made("updates", {"node": node, "values": values or {}}, ns)
            case "custom":
                name = data.get("name") if isinstance(data, dict) else None
                named = {"name": name} if isinstance(name, str) else {}
                yield Made("custom", {**named, "payload": data}, ns, name if isinstance(name, str) else None)
            case "tools":
                yield Made("tools", data, ns)
            case "tasks":
                yield from self._task(event)
            case "checkpoints":
                brief = {"id": data["checkpoint_id"], "step": data["step"], "source": data["source"]}
                parent = {"parent_id": data["parent_id"]} if data["parent_id"] else {}
                yield Made("checkpoints", {**brief, **parent}, ns)
                if "values" not in self._asked and data["source"] != "input":
                    yield Made("values", None, ns)
            case "interrupt":
                yield Made("input.requested", {"interrupt_id": data["id"], "payload": data["value"]}, ns)
            case "end":
                yield from self._end(data)

    def _subgraph(self, ns: tuple[str, ...]) -> Iterator[Made]:
        """A namespace is heard of for the first time: a subgraph has started."""
        for depth in range(1, len(ns) + 1):
            place = ns[:depth]
            if place in self._subgraphs:
                continue
            name, _, task_id = place[-1].partition(":")
            self._subgraphs[place] = name
            self._tasks[task_id] = place
            started = {"event": "started", "namespace": place, "graph_name": name, "trigger_call_id": task_id}
            yield Made("lifecycle", started, place)

    def _task(self, event: Event) -> Iterator[Made]:
        data, ns = event.data, event.ns
        if "result" not in data:
            yield Made("tasks", {key: data[key] for key in ("id", "name", "input", "triggers") if key in data}, ns)
            return
        yield from self._close_messages(ns)
        yield Made("tasks", {key: data[key] for key in ("id", "name", "error", "result", "interrupts")}, ns)
        if "updates" not in self._asked and not data["error"] and not data["interrupts"]:
            yield Made("updates", {"node": data["name"], "values": data["result"]}, ns)
        place = self._tasks.pop(data["id"], None)
        if place is not None:
            how = "failed" if data["error"] else "interrupted" if data["interrupts"] else "completed"
            told = {"error": data["error"]} if data["error"] else {}
            yield Made("lifecycle", {"event": how, "graph_name": self._subgraphs[place], **told}, place)

    def _end(self, data: Mapping[str, Any]) -> Iterator[Made]:
        for message in list(self._open.values()):
            yield from self._close(message)
        ended = {"event": _ENDED.get(data["status"], "failed"), "graph_name": self._graph_id}
        yield Made("lifecycle", {**ended, **({"error": data["error"]["message"]} if data["error"] else {})}, ())

    # Messages

    def _message(self, ns: tuple[str, ...], brief: Mapping[str, Any]) -> Iterator[Made]:
        if brief["type"] not in ("ai", "AIMessageChunk"):  # what is said to the agent stands in the values
            return
        id = brief["id"] or ""
        message = self._open.get(id)
        if message is None:
            message = self._open[id] = _Message(id, ns)
            yield Made("messages", {"event": "message-start", "role": "ai", "id": id}, ns)
        for kind, text, call in _parts(brief):
            yield from self._add(message, kind, text, call)
        if brief.get("usage_metadata"):
            message.usage = {key: brief["usage_metadata"][key] for key in _USAGE if key in brief["usage_metadata"]}
        if brief["type"] == "ai" or brief.get("chunk_position") == "last":
            yield from self._close(message)

    def _add(self, message: _Message, kind: str, text: str, call: Mapping[str, Any] | None) -> Iterator[Made]:
        block = message.block
        another = call is not None and call.get("id") is not None and block is not None and bool(block.call)
        if block is None or block.kind != kind or another:
            yield from self._close_block(message)
            block = message.block = _Block(message.blocks, kind)
            message.blocks += 1
            begun: dict[str, Any] = {"type": "text", "text": ""}
            if kind == "reasoning":
                begun = {"type": "reasoning", "reasoning": ""}
            elif call is not None:
                block.call = {"id": call.get("id"), "name": call.get("name")}
                begun = {"type": "tool_call_chunk", **block.call, "args": "", "index": block.index}
            yield self._said(message, {"event": "content-block-start", "index": block.index, "content": begun})
        if not text:
            return
        block.text += text
        delta = {"text": ("text-delta", "text"), "reasoning": ("reasoning-delta", "reasoning")}
        type_, key = delta.get(kind, ("tool-call-delta", "args"))
        added = {"type": type_, key: text}
        yield self._said(message, {"event": "content-block-delta", "index": block.index, "delta": added})

    def _close_block(self, message: _Message) -> Iterator[Made]:
        if message.block is not None:
            done = {"index": message.block.index, "content": message.block.finished()}
            yield self._said(message, {"event": "content-block-finish", **done})
            message.block = None

    def _close(self, message: _Message) -> Iterator[Made]:
        yield from self._close_block(message)
        usage = {"usage": message.usage} if message.usage else {}
        yield self._said(message, {"event": "message-finish", **usage})
        del self._open[message.id]

    def _close_messages(self, ns: tuple[str, ...]) -> Iterator[Made]:
        """A task's end closes what its models left open."""
        for message in [message for message in self._open.values() if message.namespace == ns]:
            yield from self._close(message)

    def _said(self, message: _Message, data: dict[str, Any]) -> Made:
        return Made("messages", data, message.namespace)

    # States

    async def _values(self, event: Event) -> Any:
        data = event.data
        if "values" in data:
            return trimmed(data["values"])
        return trimmed(orjson.loads(await self._state(event.ns, data["checkpoint_id"])))


def seq_after(position: int) -> int:
    """The greatest number an event of a run at this place can have."""
    return (position + 1) * RUN_SPAN - 1


def position_of(seq: int) -> int:
    return seq // RUN_SPAN


def trimmed(state: Any) -> Any:
    """A state whose messages are without their empty fields."""
    if isinstance(state, list):
        return [trimmed(item) for item in state]
    if not isinstance(state, dict):
        return state
    if {"type", "content", "additional_kwargs"} <= state.keys():
        return {
            key: value
            for key, value in state.items()
            if key in ("type", "content", "id") or (value is not None and value != {} and value != [])
        }
    return {key: trimmed(value) for key, value in state.items()}


def _parts(brief: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any] | None]]:
    """`(kind, text, call)` of what a message or a part of one says."""
    content = brief["content"]
    if isinstance(content, str):
        if content:
            yield "text", content, None
    else:
        for block in content:
            if isinstance(block, str):
                yield "text", block, None
            elif block.get("type") == "text":
                yield "text", block.get("text") or "", None
            elif block.get("type") == "reasoning":
                yield "reasoning", block.get("reasoning") or "", None
    if brief["type"] == "AIMessageChunk":
        for chunk in brief.get("tool_call_chunks") or ():
            yield "tool_call", chunk.get("args") or "", chunk
    else:
        for call in brief.get("tool_calls") or ():
            yield "tool_call", orjson.dumps(call.get("args") or {}).decode(), call
