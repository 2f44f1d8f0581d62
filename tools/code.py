"""Runs a piece of Python in a sandbox and tells what it printed, what it came to, and why it failed."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, Field

from tools.contract import Arguments, Asker, Tool, ToolFailure

LONGEST = 20_000

DESCRIPTION = (
    "Run Python code in a sandbox for calculations, statistics, text and data processing. It is a subset of Python 3: "
    "print() and the value of the last expression come back; json, re, math, datetime, random and a few more modules "
    "can be imported; no network, no packages, no classes with inheritance, no generators. Files of the session's "
    "workspace can be read under /workspace."
)


class CodeArguments(Arguments):
    code: str = Field(min_length=1, max_length=LONGEST, description="Python source. End with an expression or print().")


class CodeResult(BaseModel):
    printed: str
    value: str | None
    error: str | None


class Ran(Protocol):
    """What a sandbox says of a run. See `threadline.services.sandbox`."""

    @property
    def printed(self) -> str: ...
    @property
    def value(self) -> str | None: ...
    @property
    def error(self) -> str | None: ...


class RunCode(Protocol):
    """Runs code that may read `folder` and nothing else."""

    async def __call__(self, code: str, *, folder: Path | None = None) -> Ran: ...


class FolderOf(Protocol):
    """The workspace of a session, if it has one."""

    def __call__(self, asker: Asker) -> Path | None: ...


def tool(run_code: RunCode, *, folder_of: FolderOf, timeout: float) -> Tool:
    """The tool over a sandbox. Code that fails is a result, so that what it had printed is not lost."""

    async def run(arguments: CodeArguments, asker: Asker) -> CodeResult:
        if "\0" in arguments.code:
            raise ToolFailure("the code holds a null byte")
        ran = await run_code(arguments.code, folder=folder_of(asker))
        return CodeResult(printed=ran.printed, value=ran.value, error=ran.error)

    return Tool(
        name="code",
        description=DESCRIPTION,
        arguments=CodeArguments,
        run=run,
        timeout=timeout,
        risk="run",
        scope="session",
    )
