"""What a tool is, how it fails, and what a call of it comes to: the one module every tool reads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict


class Arguments(BaseModel):
    """Base of a tool's arguments: a name the tool does not know is an error the model can mend."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


@dataclass(frozen=True, slots=True)
class Tool:
    """One thing the agent can do. `run` takes validated `arguments`; it returns the result or raises `ToolFailure`."""

    name: str
    description: str
    """For the model, in English."""
    arguments: type[BaseModel]
    run: Callable[[Any], Awaitable[BaseModel]]
    timeout: float
    """Seconds a call may take."""
    version: str = "1"
    """Part of the cache key: raise it when the same arguments come to mean another result."""
    cacheable: bool = False


class ToolFailure(Exception):
    """The tool could not do it. The message is in plain words, for the model and for strangers."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call came to: either `result` or `error` is set. `args` and `result` are plain JSON.

    `cached`: an equal call was made not long ago; `recorded`: a re-run found it in its recording.
    """

    name: str
    args: dict[str, Any]
    result: dict[str, Any] | None
    error: str | None
    ms: int
    cached: bool = False
    recorded: bool = False


class Fetch(Protocol):
    """Asks a web service for JSON."""

    async def __call__(
        self,
        url: str,
        *,
        service: str,
        timeout: float,
        params: Mapping[str, str | int | float] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        """The JSON behind `url`; `body`, if given, is posted. Raises `ToolFailure` in words that name `service`."""
        ...
