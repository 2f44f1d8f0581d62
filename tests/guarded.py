"""The project whose handlers keep what they are asked, and requests to a service that serves it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from tests.service import ROOT

PROJECTS = ROOT / "tests" / "projects"


@dataclass(frozen=True)
class Question:
    """What a handler was asked."""

    what: str
    value: dict[str, Any]


@dataclass
class Guarded:
    """A copy of the project, which keeps what it was asked beside its code."""

    folder: Path
    _numbers: count[int] = field(default_factory=lambda: count(1))

    @property
    def config(self) -> Path:
        return self.folder / "langgraph.json"

    def asked(self, number: str) -> list[Question]:
        """What was asked for one request."""
        lines = self._lines("asked.jsonl")
        return [Question(line["what"], line["value"]) for line in lines if line["asked"] == number]

    def opened(self) -> list[dict[str, Any]]:
        """What the graph `told` has been opened for since this was asked last."""
        lines = self._lines("opened.jsonl")
        (self.folder / "opened.jsonl").unlink(missing_ok=True)
        return lines

    def headers(self, who: str, *, deny: str = "") -> dict[str, str]:
        return {"authorization": who, "x-deny": deny, "x-asked": str(next(self._numbers))}

    def _lines(self, name: str) -> list[dict[str, Any]]:
        file = self.folder / name
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def guarded(folder: Path) -> Guarded:
    """A copy of the project in a new folder."""
    shutil.copytree(PROJECTS / "guarded", folder, ignore=shutil.ignore_patterns("__pycache__", "*.jsonl"))
    shutil.copy(PROJECTS / "server" / "graphs.py", folder)
    return Guarded(folder)


@dataclass
class Answer:
    """A response, and what was asked for it."""

    status: int
    body: Any
    headers: httpx.Headers
    asked: list[Question]

    @property
    def what(self) -> set[str]:
        return {question.what for question in self.asked}


async def ask(
    http: httpx.AsyncClient,
    project: Guarded,
    who: str,
    method: str,
    path: str,
    body: Any = None,
    *,
    deny: str = "",
    endless: bool = False,
) -> Answer:
    """One request of somebody, refused `deny` by the handlers. Of an `endless` stream, only the head is read. A body is
    sent as JSON, unless it is bytes; one that is no text is given back as such."""
    headers = {**project.headers(who, deny=deny), "connection": "close"}  # `langgraph dev` closes it where it fails
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    request = http.build_request(method, path, headers=headers, **sent)
    response = await http.send(request, stream=True)
    try:
        answered = b"" if endless and response.status_code == 200 else await response.aread()
    finally:
        await response.aclose()
    return Answer(response.status_code, _read(answered), response.headers, project.asked(headers["x-asked"]))


def _read(answered: bytes) -> Any:
    """JSON, or the text that is none, or what is no text either."""
    try:
        text = answered.decode()
    except UnicodeDecodeError:
        return answered
    try:
        return json.loads(text)
    except ValueError:
        return text
