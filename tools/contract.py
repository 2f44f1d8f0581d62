"""What a tool is, how it fails, and what a call of it comes to: the one module every tool reads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict


class Arguments(BaseModel):
    """Base of a tool's arguments: a name the tool does not know is an error the model can mend."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


Risk = Literal["read", "write", "run"]
"""What a call can do: nothing but read, change something that stays, or run what nobody has read."""
Scope = Literal["service", "caller", "session"]
"""Whose a result is: the same for all, or only for one caller, or only in one session."""


@dataclass(frozen=True, slots=True)
class Asker:
    """On whose behalf a tool is called. All is empty where nobody is known, as in a graph run by itself."""

    caller: str = ""
    session: str = ""
    permissions: frozenset[str] = frozenset()
    """`tools:NAME` and `tools:*` spare a caller being asked before NAME, or any tool, does what stays done."""


NOBODY = Asker()


@dataclass(frozen=True, slots=True)
class Tool:
    """One thing the agent can do.

    `run` takes validated `arguments` and for whom; it returns the result or raises `ToolFailure`.
    """

    name: str
    description: str
    """For the model, in English."""
    arguments: type[BaseModel]
    run: Callable[[Any, Asker], Awaitable[BaseModel]]
    timeout: float
    """Seconds a call may take."""
    version: str = "1"
    """Part of the cache key: raise it when the same arguments come to mean another result."""
    cacheable: bool = False
    """Whether a result may be given again to who asks the same. Only what reads may say so."""
    risk: Risk | Callable[[Any], Risk] = "read"
    """What a call can do, for all calls or by its validated arguments."""
    scope: Scope = "service"
    untrusted: bool = False
    """Whether the result holds words of strangers, which the model must not take for orders."""

    def risk_of(self, arguments: BaseModel) -> Risk:
        """What this very call can do."""
        return self.risk(arguments) if callable(self.risk) else self.risk

    def __post_init__(self) -> None:
        if self.cacheable and self.risk != "read":
            raise ValueError(f"{self.name}: only what reads can be cached")


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
