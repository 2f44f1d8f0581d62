"""Requests to one server and what it answered, kept so that two servers' answers can be compared."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

HEADERS = (
    "content-location",
    "location",
    "content-type",
    "cache-control",
    "x-accel-buffering",
    "x-pagination-total",
    "x-pagination-next",
    "access-control-allow-origin",
    "access-control-allow-private-network",
)
"""The headers clients read."""
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True)
class SentEvent:
    """A frame of a stream."""

    event: str
    data: Any
    id: str | None
    fields: tuple[str, ...]
    """The names of its lines in their order."""


@dataclass(frozen=True)
class Exchange:
    """One request and its answer."""

    name: str
    route: str
    """Method and path, with `{}` for ids."""
    status: int
    headers: dict[str, str]
    body: Any
    """The JSON, or the text that is none, or the frames of a stream."""


@dataclass
class Asked:
    """Asks a server and keeps what it said."""

    http: httpx.AsyncClient
    exchanges: list[Exchange] = field(default_factory=list)

    async def __call__(self, name: str, method: str, path: str, body: Any = None, **request: Any) -> Any:
        """The JSON body, or the frames, of the answer."""
        if body is not None:
            request["json"] = body
        response = await self.http.request(method, path, **request)
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            answer: Any = sent_events(response.text)
        else:
            answer = _json(response.text)
        self._keep(name, response, answer)
        return answer

    async def until(
        self, name: str, method: str, path: str, body: Any, last: Callable[[SentEvent], bool], **request: Any
    ) -> list[SentEvent]:
        """The frames of a stream up to the one that is `last`; the reader leaves there."""
        seen: list[SentEvent] = []
        async with self.http.stream(method, path, json=body, **request) as response:
            lines: list[str] = []
            async for line in response.aiter_lines():
                lines.append(line)
                if line == "":
                    seen += sent_events("\r\n".join(lines) + "\r\n")
                    lines = []
                    if seen and last(seen[-1]):
                        break
        self._keep(name, response, seen)
        return seen

    async def heartbeat(self, name: str, method: str, path: str, body: Any = None) -> None:
        """What keeps a stream open while nothing comes: its first comment; of an answer that is no stream, what it
        begins with. The reader leaves there."""
        async with self.http.stream(method, path, json=body) as response:
            text = ""
            async for part in response.aiter_text():
                text += part
                comment = re.search(r"^:.*?\r?\n\r?\n", text, re.MULTILINE | re.DOTALL)
                if comment or (text and not response.headers["content-type"].startswith("text/event-stream")):
                    break
        self._keep(name, response, comment.group() if comment else text)

    def _keep(self, name: str, response: httpx.Response, answer: Any) -> None:
        told = {header: response.headers[header] for header in HEADERS if header in response.headers}
        route = f"{response.request.method} {UUID.sub('{}', response.request.url.path)}"
        self.exchanges.append(Exchange(name, route, response.status_code, told, answer))


def sent_events(text: str) -> list[SentEvent]:
    """The frames of a stream, without its comments."""
    frames = []
    for block in re.split(r"\r?\n\r?\n", text):
        lines = [line.partition(":") for line in re.split(r"\r?\n", block) if line and not line.startswith(":")]
        if lines:
            fields = {name: value.removeprefix(" ") for name, _, value in lines}
            data = _json(fields.get("data", ""))
            frames.append(SentEvent(fields.get("event", ""), data, fields.get("id"), tuple(fields)))
    return frames


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
