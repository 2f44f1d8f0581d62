"""A scripted OpenAI-compatible model server over real HTTP, faults included.

In a test::

    async with ModelStub() as server:
        gate = asyncio.Event()
        server.script(answer("Hel", gate, "lo"), rate_limited(1), answer("Hi", End.RESET))
        ...  # talk to server.url
        await server.received(1)
        assert server.calls[0].body["model"] == "stub-model"

Alone, for load and crash tests: `python -m tests.stubs.model_server --port 0 --tokens 50 --delay 0.02` prints its
address as one line and serves until it is told to stop.

Without a script every request gets the default reply: an intent where `response_format` asks for one, else `tokens`
words. A message of the form `use NAME {"some": "arguments"}` is answered with a call of that tool.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self

_HANGUL = re.compile(r"[가-힣]")
_USE = re.compile(r"\s*use\s+(\w+)\s*(\{.*\})?\s*$", re.DOTALL)


class End(Enum):
    """Ways for a stream to end that are not the proper one. Nothing after it is sent."""

    CLOSE = "the body ends properly, but finish_reason and [DONE] are missing"
    CUT = "the connection is closed in mid-body, as when the server is killed"
    RESET = "the connection is reset in mid-body"
    STALL = "nothing more comes, and the connection stays open"


@dataclass(frozen=True)
class ToolCall:
    """Streamed in fragments. `arguments` given as text goes out as it is, half-written if it is half-written."""

    name: str
    arguments: dict[str, Any] | str
    id: str = "call_1"


@dataclass(frozen=True)
class Finish:
    """The finish reason, instead of `stop` or `tool_calls`."""

    reason: str


@dataclass(frozen=True)
class Comment:
    """An SSE comment."""

    text: str = "OPENROUTER PROCESSING"


@dataclass(frozen=True)
class Raw:
    """Bytes put into the body as they are."""

    data: bytes


@dataclass(frozen=True)
class ErrorEvent:
    """An error inside a 200 stream: a bare error object, or OpenRouter's chunk with `error` and a finish reason."""

    code: int | str = 502
    message: str = "Provider disconnected unexpectedly"
    openrouter: bool = False


MALFORMED = Raw(b'data: {"id": "chatcmpl-1", "choices": [{"delta": {"cont\n\n')

Part = str | float | asyncio.Event | ToolCall | Finish | Comment | Raw | ErrorEvent | End
"""A str is one token; a float is a pause in seconds; an Event holds the stream until it is set."""


@dataclass(frozen=True)
class Reply:
    """What one request gets. A status other than 200 sends `body`: JSON, or HTML if it is a str."""

    parts: tuple[Part, ...] = ()
    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    usage: Mapping[str, Any] | None = None
    cost: float | None = None
    model: str | None = None


def answer(
    *parts: Part, usage: Mapping[str, Any] | None = None, cost: float | None = None, model: str | None = None
) -> Reply:
    """A streamed answer. `cost` is sent where OpenRouter would send it; `model` is the name it answers with."""
    return Reply(parts, usage=usage, cost=cost, model=model)


def intent(kind: str = "chat", *calls: ToolCall, needs_more: bool = False, language: str = "en") -> Reply:
    """The built-in agent's intent analysis, as JSON text."""
    document = {
        "kind": kind,
        "confidence": 0.9,
        "language": language,
        "tool_calls": [{"name": call.name, "args": call.arguments} for call in calls],
        "needs_more": needs_more,
    }
    return answer(json.dumps(document, ensure_ascii=False))


def refusal(status: int, message: str = "no", *, headers: Mapping[str, str] | None = None, **error: Any) -> Reply:
    """An error response in OpenAI's form; `error` adds fields such as `type` and `code`."""
    body = {"error": {"message": message, "type": "error", "code": None, **error}}
    return Reply(status=status, body=body, headers=headers or {})


def rate_limited(retry_after: float) -> Reply:
    return refusal(429, "Rate limit reached", headers={"retry-after": str(retry_after)}, code="rate_limit_exceeded")


def html(status: int) -> Reply:
    """What a proxy in front of a dead server sends."""
    return Reply(status=status, body=f"<html><h1>{status}</h1><hr>nginx</html>")


def overflow(server: str = "openai") -> Reply:
    """The conversation is too long, in the words of `openai`, `llama.cpp` or `openrouter`."""
    if server == "llama.cpp":
        message = "the request exceeds the available context size, try increasing it"
        return refusal(400, message, type="exceed_context_size_error", code=400, n_prompt_tokens=9000, n_ctx=4096)
    if server == "openrouter":
        return refusal(400, "This endpoint's maximum context length is 8192 tokens. You requested 9000.", code=400)
    message = "This model's maximum context length is 8192 tokens. Your messages resulted in 9000 tokens."
    return refusal(400, message, type="invalid_request_error", param="messages", code="context_length_exceeded")


@dataclass
class Call:
    """One chat request. `disconnected` is set when the client left before the reply was complete, `done` at its end."""

    body: dict[str, Any]
    headers: dict[str, str]
    at: float
    sent: int = 0
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def last_message(self) -> dict[str, Any]:
        messages = self.body.get("messages") or [{}]
        return dict(messages[-1])

    @property
    def wants_intent(self) -> bool:
        wanted = self.body.get("response_format") or {}
        return bool((wanted.get("json_schema") or {}).get("name") == "intent")


class ModelStub:
    """Listens on a loopback port that the system picks, unless `port` says which.

    `models` is what GET /models lists; `key`, if set, is required; `formats` False refuses `response_format`;
    `tokens`, `delay` and `first_delay` (seconds) shape default replies; `reply`, a function of the call, replaces them.
    `open` and `most_open` count the replies under way, now and at most so far; `listings` counts GET /models.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        models: tuple[str, ...] = ("stub-model",),
        key: str | None = None,
        formats: bool = True,
        tokens: int = 20,
        delay: float = 0,
        first_delay: float = 0,
        cost: float | None = None,
        reply: Callable[[Call], Reply] | None = None,
    ) -> None:
        self.port = port
        self.models = models
        self.key = key
        self.formats = formats
        self.tokens = tokens
        self.delay = delay
        self.first_delay = first_delay
        self.cost = cost
        self.reply = reply
        self.calls: list[Call] = []
        self.listings = 0
        self.open = 0
        self.most_open = 0
        self._scripts: dict[str | None, deque[Reply]] = {}
        self._arrival = asyncio.Event()
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    @property
    def url(self) -> str:
        """The base address, such as `OPENAI_BASE_URL` wants it."""
        return f"http://127.0.0.1:{self.port}/v1"

    def script(self, *replies: Reply, model: str | None = None) -> None:
        """Queue replies; those for a `model` are used before those for any."""
        self._scripts.setdefault(model, deque()).extend(replies)

    def forget(self) -> None:
        """Be as if nothing had been asked or scripted yet."""
        self.calls.clear()
        self._scripts.clear()

    async def received(self, count: int, *, within: float = 5) -> list[Call]:
        """The calls, once there are `count` of them."""
        async with asyncio.timeout(within):
            while len(self.calls) < count:
                self._arrival.clear()
                await self._arrival.wait()
        return self.calls

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self._connections):
            connection.abort()
        await self._server.wait_closed()

    def route(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[Reply, Call | None]:
        if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
            return refusal(401, f"Incorrect API key provided: {headers.get('authorization')}"), None
        if (method, path) == ("GET", "/v1/models"):
            self.listings += 1
            listed = [{"id": name, "object": "model", "created": 0, "owned_by": "stub"} for name in self.models]
            return Reply(body={"object": "list", "data": listed}), None
        if (method, path) == ("GET", "/v1/key"):
            return Reply(body={"data": {"label": "stub"}}), None
        if (method, path) != ("POST", "/v1/chat/completions"):
            return refusal(404, f"no {path}"), None
        call = Call(json.loads(body), headers, time.monotonic())
        self.calls.append(call)
        self._arrival.set()
        return self._choose(call), call

    def _choose(self, call: Call) -> Reply:
        for model in (call.body.get("model"), None):
            if queue := self._scripts.get(model):
                return queue.popleft()
        if not self.formats and "response_format" in call.body:
            return refusal(400, "'response_format' of type 'json_schema' is not supported", param="response_format")
        return self.reply(call) if self.reply else self.default(call)

    def default(self, call: Call) -> Reply:
        text = str(call.last_message.get("content") or "") if call.last_message.get("role") == "user" else ""
        language = "ko" if _HANGUL.search(text) else "en"
        use = _USE.match(text)
        asked = ToolCall(use[1], json.loads(use[2] or "{}")) if use else None
        if call.wants_intent:
            return intent("tool", asked, language=language) if asked else intent("chat", language=language)
        if asked and call.body.get("tools"):
            return answer(asked, cost=self.cost)
        words: list[Part] = [self.first_delay] if self.first_delay else []
        for number in range(self.tokens):
            words += [f"word{number} ", self.delay] if self.delay else [f"word{number} "]
        return answer(*words, cost=self.cost)


class _Connection(asyncio.Protocol):
    """One client: HTTP/1.1 with keep-alive, one request at a time."""

    def __init__(self, server: ModelStub) -> None:
        self.server = server
        self.buffer = b""
        self.call: Call | None = None
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server._connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.server._connections.discard(self)
        if self.task is not None and not self.task.done():
            if self.call is not None:
                self.call.disconnected.set()
            self.task.cancel()

    def abort(self) -> None:
        """Reset the connection."""
        linger = struct.pack("ii", 1, 0)
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self._next()

    def _next(self) -> None:
        head, separator, rest = self.buffer.partition(b"\r\n\r\n")
        if self.task is not None or not separator:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        body, self.buffer = rest[:length], rest[length:]
        method, target, _ = first.split(" ")
        reply, self.call = self.server.route(method, target.partition("?")[0], headers, body)
        self.task = asyncio.get_running_loop().create_task(self._respond(reply, self.call))

    async def _respond(self, reply: Reply, call: Call | None) -> None:
        self.server.open += 1
        self.server.most_open = max(self.server.most_open, self.server.open)
        try:
            if reply.status != 200 or call is None:
                self._whole(reply)
            elif call.body.get("stream"):
                await self._stream(reply, call)
            else:
                await self._collected(reply, call)
        finally:
            self.server.open -= 1
            if call is not None:
                call.done.set()
        self.task = None
        self._next()

    def _whole(self, reply: Reply) -> None:
        is_page = isinstance(reply.body, str)
        body = reply.body.encode() if is_page else json.dumps(reply.body).encode()
        self._head(reply, "text/html" if is_page else "application/json", f"content-length: {len(body)}")
        self.transport.write(body)

    def _head(self, reply: Reply, kind: str, framing: str) -> None:
        extra = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
        head = f"HTTP/1.1 {reply.status} Stub\r\ncontent-type: {kind}\r\n{framing}\r\n{extra}\r\n"
        self.transport.write(head.encode("latin-1"))

    def _chunk(self, data: bytes) -> None:
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _data(self, document: Any) -> None:
        self._chunk(b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n")

    async def _stream(self, reply: Reply, call: Call) -> None:
        self._head(reply, "text/event-stream", "transfer-encoding: chunked")
        shell = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": reply.model or call.body.get("model"),
        }

        def delta(delta: dict[str, Any], finish: str | None = None) -> None:
            self._data({**shell, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

        delta({"role": "assistant", "content": ""})
        for part in reply.parts:
            match part:
                case asyncio.Event():
                    await part.wait()
                case float() | int():
                    await asyncio.sleep(part)
                case str():
                    delta({"content": part})
                    call.sent += 1
                    await asyncio.sleep(0)
                case ToolCall():
                    for fragment in _fragments(part, _index(reply, part)):
                        delta({"tool_calls": [fragment]})
                case Comment():
                    self._chunk(f": {part.text}\n\n".encode())
                case Raw():
                    self._chunk(part.data)
                case ErrorEvent():
                    error = {"code": part.code, "message": part.message}
                    end = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
                    self._data({**shell, "error": error, "choices": [end]} if part.openrouter else {"error": error})
                case End():
                    await self._end(part)
                    return
        delta({}, _finish(reply))
        if (call.body.get("stream_options") or {}).get("include_usage"):
            self._data({**shell, "choices": [], "usage": _usage(reply, call)})
        self._chunk(b"data: [DONE]\n\n")
        self.transport.write(b"0\r\n\r\n")

    async def _end(self, end: End) -> None:
        match end:
            case End.CLOSE:
                self.transport.write(b"0\r\n\r\n")
            case End.CUT:
                self.transport.close()
            case End.RESET:
                self.abort()
            case End.STALL:
                await asyncio.Event().wait()

    async def _collected(self, reply: Reply, call: Call) -> None:
        text = "".join(part for part in reply.parts if isinstance(part, str))
        for part in reply.parts:
            if isinstance(part, asyncio.Event):
                await part.wait()
            elif isinstance(part, float | int):
                await asyncio.sleep(part)
            elif isinstance(part, End):
                await self._end(End.CUT if part is End.CLOSE else part)
                return
        calls = [part for part in reply.parts if isinstance(part, ToolCall)]
        message = {"role": "assistant", "content": text or None}
        if calls:
            message["tool_calls"] = [_whole_call(call) for call in calls]  # type: ignore[assignment]
        body = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": reply.model or call.body.get("model"),
            "choices": [{"index": 0, "message": message, "finish_reason": _finish(reply)}],
            "usage": _usage(reply, call),
        }
        self._whole(Reply(body=body))


def _index(reply: Reply, call: ToolCall) -> int:
    return next(n for n, part in enumerate(p for p in reply.parts if isinstance(p, ToolCall)) if part is call)


def _arguments(call: ToolCall) -> str:
    return call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments, ensure_ascii=False)


def _fragments(call: ToolCall, index: int) -> Iterator[dict[str, Any]]:
    """As servers send them: index, id, name and the first character at first, then index and a bit more each."""
    text = _arguments(call)
    opening = {"name": call.name, "arguments": text[:1]}
    yield {"index": index, "id": call.id, "type": "function", "function": opening}
    for start in range(1, len(text), 8):
        yield {"index": index, "function": {"arguments": text[start : start + 8]}}


def _whole_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _arguments(call)}}


def _finish(reply: Reply) -> str:
    for part in reply.parts:
        if isinstance(part, Finish):
            return part.reason
    return "tool_calls" if any(isinstance(part, ToolCall) for part in reply.parts) else "stop"


def _usage(reply: Reply, call: Call) -> dict[str, Any]:
    asked = sum(len(str(message.get("content") or "").split()) for message in call.body.get("messages", []))
    said = sum(isinstance(part, str | ToolCall) for part in reply.parts)
    usage = dict(reply.usage or {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said})
    if reply.cost is not None and (call.body.get("usage") or {}).get("include"):
        usage["cost"] = reply.cost
    return usage


async def _main() -> None:
    parser = argparse.ArgumentParser(description="A scripted model server on loopback.")
    parser.add_argument("--port", type=int, default=0, help="0 lets the system pick")
    parser.add_argument("--tokens", type=int, default=20, help="words per answer")
    parser.add_argument("--delay", type=float, default=0, help="seconds after each word")
    parser.add_argument("--first-delay", type=float, default=0, help="seconds before the first word")
    parser.add_argument("--cost", type=float, default=None, help="US dollars per answer, as OpenRouter states them")
    parser.add_argument("--model", action="append", help="a name to list; may be repeated")
    options = parser.parse_args()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = ModelStub(
        port=options.port,
        tokens=options.tokens,
        delay=options.delay,
        first_delay=options.first_delay,
        cost=options.cost,
        models=tuple(options.model or ("stub-model",)),
    )
    async with server:
        print(server.url, flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(_main())
