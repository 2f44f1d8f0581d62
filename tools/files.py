"""The session's workspace: list, read, write, search and delete files."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

from pydantic import BaseModel, Field, model_validator

from threadline.domain.errors import ThreadlineError
from tools.contract import Arguments, Asker, Risk, Tool, ToolFailure

DESCRIPTION = (
    "Work with the files of this session's workspace. `operation` is list, read, write, search or delete; `path` is a "
    "relative path such as notes/today.md. write needs `content` and replaces the whole file. search looks for the "
    "text `query` in all files, or in those under `path`. Long files are read in parts: `start` is the first line."
)
MAX_LINES = 400
"""Lines that one read gives."""
MAX_LINE = 2000
"""Characters of a line that are shown."""
MAX_HITS = 50

Operation = Literal["list", "read", "write", "search", "delete"]


class FilesArguments(Arguments):
    operation: Operation = Field(description="What to do.")
    path: str = Field("", max_length=1000, description="File, or folder for list and search. Relative.")
    content: str | None = Field(None, max_length=5_000_000, description="What to write.")
    query: str | None = Field(None, min_length=1, max_length=200, description="Text to search for, in any case.")
    start: int = Field(1, ge=1, le=10_000_000, description="First line to read.")

    @model_validator(mode="after")
    def _complete(self) -> FilesArguments:
        needs = {"read": ("path",), "delete": ("path",), "write": ("path", "content"), "search": ("query",)}
        for name in needs.get(self.operation, ()):
            if getattr(self, name) in (None, "" if name == "path" else None):
                raise ValueError(f"{self.operation} needs {name}")
        return self


class File(BaseModel):
    path: str
    size: int


class Hit(BaseModel):
    path: str
    line: int
    text: str


class FilesResult(BaseModel):
    """`files` answers list, write and delete; `text` read; `hits` search. `more` says that there is more than shown."""

    files: list[File] | None = None
    text: str | None = None
    lines: int | None = None
    hits: list[Hit] | None = None
    more: bool = False


class Entry(Protocol):
    @property
    def path(self) -> str: ...
    @property
    def size(self) -> int: ...


class Workspace(Protocol):
    """A session's files; its calls block. See `threadline.services.workspace`."""

    def list(self, under: str = "") -> Sequence[Entry]: ...
    def read(self, path: str) -> bytes: ...
    def write(self, path: str, content: bytes) -> Entry: ...
    def delete(self, path: str) -> None: ...


class WorkspaceOf(Protocol):
    """The workspace of whoever asks. Raises ThreadlineError where there is none."""

    def __call__(self, asker: Asker) -> Workspace: ...


def tool(workspace_of: WorkspaceOf, *, timeout: float) -> Tool:
    """The tool over the sessions' workspaces. What writes or deletes asks first."""

    async def run(asked: FilesArguments, asker: Asker) -> FilesResult:
        try:
            return await asyncio.to_thread(_done, workspace_of(asker), asked)
        except ThreadlineError as error:
            raise ToolFailure(error.message) from None

    return Tool("files", DESCRIPTION, FilesArguments, run, timeout=timeout, risk=risk, scope="session", untrusted=True)


def risk(asked: FilesArguments) -> Risk:
    return "write" if asked.operation in ("write", "delete") else "read"


def _done(workspace: Workspace, asked: FilesArguments) -> FilesResult:
    match asked.operation:
        case "list":
            found = workspace.list(asked.path)
            return FilesResult(files=[_file(entry) for entry in found[:MAX_LINES]], more=len(found) > MAX_LINES)
        case "read":
            return _read(workspace, asked)
        case "write":
            return FilesResult(files=[_file(workspace.write(asked.path, (asked.content or "").encode()))])
        case "delete":
            workspace.delete(asked.path)
            return FilesResult(files=[])
        case "search":
            hits = list(_hits(workspace, asked))
            return FilesResult(hits=hits[:MAX_HITS], more=len(hits) > MAX_HITS)


def _read(workspace: Workspace, asked: FilesArguments) -> FilesResult:
    lines = _text(workspace, asked.path).splitlines()
    shown = [line[:MAX_LINE] for line in lines[asked.start - 1 : asked.start - 1 + MAX_LINES]]
    return FilesResult(text="\n".join(shown), lines=len(lines), more=asked.start - 1 + MAX_LINES < len(lines))


def _hits(workspace: Workspace, asked: FilesArguments) -> Iterator[Hit]:
    """Lines that hold the text, one more than is shown at most. Files that are no text are passed over."""
    wanted, found = (asked.query or "").casefold(), 0
    for entry in workspace.list(asked.path):
        try:
            lines = _text(workspace, entry.path).splitlines()
        except (ToolFailure, ThreadlineError):
            continue
        for number, line in enumerate(lines, 1):
            if wanted in line.casefold():
                yield Hit(path=entry.path, line=number, text=line[:MAX_LINE])
                found += 1
                if found > MAX_HITS:
                    return


def _text(workspace: Workspace, path: str) -> str:
    content = workspace.read(path)
    if b"\0" in content[:8192]:
        raise ToolFailure(f"{path} is no text file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    try:
        return content.decode("cp949")  # what Korean Windows programs write
    except UnicodeDecodeError:
        raise ToolFailure(f"{path} is no text file in UTF-8 or CP949") from None


def _file(entry: Entry) -> File:
    return File(path=entry.path, size=entry.size)
