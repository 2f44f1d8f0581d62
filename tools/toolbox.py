"""The tools by name, called safely: whatever goes wrong in a tool comes out as words, never as an exception."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import structlog
from cashews import Cache
from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel, ValidationError

from threadline.services.notes import current
from tools.contract import NOBODY, Asker, Outcome, Tool, ToolFailure

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Flight:
    """A call under way and how many askers wait for it."""

    task: asyncio.Task[_Landing]
    askers: int = 0


@dataclass(frozen=True, slots=True)
class _Landing:
    """The result as JSON text, or the error."""

    result: bytes | None = None
    error: str | None = None
    cached: bool = False


class Toolbox:
    """Holds tools and the cache of their results. Belongs to one event loop."""

    def __init__(
        self,
        tools: Iterable[Tool],
        *,
        cache_size: int = 0,
        cache_ttl: float = 600,
        ask_before: Collection[str] = ("write", "run"),
    ) -> None:
        """Keep at most `cache_size` results (0: none) for `cache_ttl` seconds each.

        `ask_before` holds risks, and names of tools, whose calls a person must allow.
        """
        self._tools = {tool.name: tool for tool in tools}
        self._ask_before = frozenset(ask_before)
        self._ttl = cache_ttl
        self._flights: dict[str, _Flight] = {}
        self._cache: Cache | None = None
        if cache_size > 0:
            self._cache = Cache()
            # Expired results leave when they are next asked for or are the oldest: no sweeper task to look after.
            self._cache.setup(f"mem://?size={cache_size}&check_interval=0")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._tools)

    def specs(self) -> list[dict[str, Any]]:
        """One `{"name", "description", "parameters"}` per tool; `parameters` is the arguments' JSON schema."""
        return [
            {"name": tool.name, "description": tool.description, "parameters": _schema(tool.arguments)}
            for tool in self._tools.values()
        ]

    @staticmethod
    def asker(config: RunnableConfig) -> Asker:
        """On whose behalf a run calls: what the service says of it, never what the run was asked with."""
        known = config.get("configurable", {})
        return Asker(
            caller=str(known.get("__threadline_caller") or ""),
            session=str(known.get("thread_id") or ""),
            permissions=frozenset(known.get("langgraph_auth_permissions") or ()),
        )

    def asks(self, name: str, args: Mapping[str, Any], asker: Asker) -> bool:
        """Whether a person must allow this call first. One that cannot be made asks nobody; nor does one that is not
        made since a re-run has its answer in the recording."""
        tool = self._tools.get(name)
        if tool is None or asker.permissions & {"tools:*", f"tools:{name}"}:
            return False
        try:
            asked = tool.arguments.model_validate(args)
        except ValidationError:
            return False
        if not self._ask_before & {name, tool.risk_of(asked)}:
            return False
        notes = current()
        return notes is None or not notes.knows_tool(name, tool.version, asked.model_dump(mode="json"))

    async def call(self, name: str, args: Mapping[str, Any], asker: Asker = NOBODY) -> Outcome:
        """Call a tool for somebody. Only a cancellation is raised; every other trouble is the outcome's `error`."""
        began = time.perf_counter()

        def outcome(args: dict[str, Any], landing: _Landing, *, cached: bool = False) -> Outcome:
            result = None if landing.result is None else orjson.loads(landing.result)
            ms = round((time.perf_counter() - began) * 1000)
            return Outcome(name=name, args=args, result=result, error=landing.error, ms=ms, cached=cached)

        given = dict(args) if isinstance(args, Mapping) else {}
        tool = self._tools.get(name)
        if tool is None:
            return outcome(given, _Landing(error=f"there is no tool called {name}; there are {', '.join(self._tools)}"))
        try:
            asked = tool.arguments.model_validate(args)
        except ValidationError as error:
            return outcome(given, _Landing(error=_mend(tool, error)))

        valid = asked.model_dump(mode="json")
        notes = current()
        if notes is not None and (known := notes.known_tool(name, tool.version, valid)) is not None:
            return Outcome(name, valid, known.get("result"), known.get("error"), ms=0, recorded=True)
        landing, cached = await self._land(tool, asked, valid, asker)
        landed = outcome(valid, landing, cached=cached)
        if notes is not None:
            said = {"result": landed.result} if landed.error is None else {"error": landed.error}
            notes.note_tool(name, tool.version, valid, said)
        return landed

    async def _land(self, tool: Tool, asked: BaseModel, valid: dict[str, Any], asker: Asker) -> tuple[_Landing, bool]:
        """What the call comes to, and whether that was known already."""
        if self._cache is None or not tool.cacheable:
            return await _run(tool, asked, asker), False
        whose = {"service": "", "caller": asker.caller, "session": asker.session}[tool.scope]
        key = f"{tool.name}:{tool.version}:{whose}:{orjson.dumps(valid, option=orjson.OPT_SORT_KEYS).decode()}"
        landing, shared = await self._join(key, self._kept_or_run(self._cache, key, tool, asked, asker))
        return landing, landing.error is None and (shared or landing.cached)

    async def _join(self, key: str, call: Coroutine[Any, Any, _Landing]) -> tuple[_Landing, bool]:
        """Wait for the one call all identical askers share; the last asker to leave takes it along."""
        flight = self._flights.get(key)
        shared = flight is not None
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.create_task(call))
        else:
            call.close()
        flight.askers += 1
        try:
            return await asyncio.shield(flight.task), shared
        finally:
            flight.askers -= 1
            if self._flights.get(key) is flight and (flight.askers == 0 or flight.task.done()):
                del self._flights[key]
            if flight.askers == 0 and not flight.task.done():
                flight.task.cancel()
                await asyncio.wait({flight.task})

    async def _kept_or_run(self, cache: Cache, key: str, tool: Tool, asked: BaseModel, asker: Asker) -> _Landing:
        kept = await cache.get(key)
        if kept is not None:
            return _Landing(result=kept, cached=True)
        landing = await _run(tool, asked, asker)
        if landing.result is not None:
            await cache.set(key, landing.result, expire=self._ttl)
        return landing


async def _run(tool: Tool, asked: BaseModel, asker: Asker) -> _Landing:
    try:
        async with asyncio.timeout(tool.timeout):
            result = await tool.run(asked, asker)
        return _Landing(result=orjson.dumps(result.model_dump(mode="json")))
    except TimeoutError:
        return _Landing(error=f"{tool.name} took longer than {tool.timeout:g} seconds and was stopped")
    except ToolFailure as failure:
        return _Landing(error=failure.message)
    except Exception as error:
        log.error("tool_failed", tool=tool.name, error=type(error).__name__, where=_where(error))
        return _Landing(error="the tool failed unexpectedly")


def _where(error: BaseException) -> str:
    """File and line that raised: all of a traceback that surely holds no argument."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


def _mend(tool: Tool, error: ValidationError) -> str:
    """Which arguments are wrong and why, in words a model can use to call again."""
    reasons = []
    for trouble in error.errors(include_url=False, include_context=False, include_input=False):
        where = ".".join(str(part) for part in trouble["loc"])
        match trouble["type"]:
            case "missing":
                reasons.append(f"argument '{where}' is missing")
            case "extra_forbidden":
                reasons.append(f"there is no argument '{where}'")
            case "model_type":
                reasons.append("the arguments must be a JSON object")
            case _:
                reasons.append(f"argument '{where}': {trouble['msg'][:1].lower()}{trouble['msg'][1:]}")
    wanted = ", ".join(
        field if info.is_required() else f"{field} (optional)" for field, info in tool.arguments.model_fields.items()
    )
    return f"{'; '.join(reasons)}. {tool.name} takes: {wanted}"


def _schema(arguments: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema without the titles pydantic makes up and without the model's own docstring."""
    schema = arguments.model_json_schema()
    schema.pop("title", None)
    schema.pop("description", None)
    for field in schema["properties"].values():
        field.pop("title", None)
    return schema
