"""Looks at everything the service depends on and says in plain words how it stands. Shows no secret."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import httpx

from threadline import __main__ as bootstrap
from threadline import __version__
from threadline.app.client import service_url
from threadline.app.kit import agent_kit
from threadline.app.project import load_project, read_project
from threadline.app.server import listen
from threadline.app.settings import Settings, unknown_names
from threadline.domain.errors import Conflict, Invalid, ThreadlineError, Unavailable
from threadline.services.auth import is_loopback
from threadline.storage.datadir import DataDirInUse, open_data_dir
from threadline.storage.embedded import available, check_redis, embedded_redis

MODEL_SECONDS = 20.0

Verdict = Literal["ok", "note", "broken"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`note` is worth knowing; `broken` keeps the service from working as configured."""

    subject: str
    verdict: Verdict
    text: str


async def examine(settings: Settings) -> list[Finding]:
    """Every finding, in the order they are shown."""
    looks: list[tuple[str, Callable[[Settings], Awaitable[tuple[Verdict, str]]]]] = [
        ("python", _python),
        ("environment", _environment),
        ("settings", _settings),
        ("data", _data),
        ("redis", _redis),
        ("model", _model),
        ("weather", _weather),
        ("search", _search),
        ("callers", _callers),
        ("address", _address),
        ("graphs", _graphs),
    ]
    return [await _finding(subject, look, settings) for subject, look in looks]


async def _finding(
    subject: str, look: Callable[[Settings], Awaitable[tuple[Verdict, str]]], settings: Settings
) -> Finding:
    try:
        return Finding(subject, *await look(settings))
    except ThreadlineError as error:
        return Finding(subject, "broken", error.message)


async def _python(_: Settings) -> tuple[Verdict, str]:
    return "ok", f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"


async def _environment(_: Settings) -> tuple[Verdict, str]:
    if not bootstrap.runs_inside(bootstrap.ROOT) or bootstrap.read_stamp(bootstrap.ROOT) is None:
        return "ok", f"Threadline {__version__}, in {sys.prefix}"
    if bootstrap.state(bootstrap.ROOT, dev=False) == "ready":
        return "ok", f"Threadline {__version__}, in {sys.prefix}, as locked"
    return "note", "older than its lock; the next `python3 -m threadline` brings it up to date"


async def _settings(_: Settings) -> tuple[Verdict, str]:
    unknown = [f"{name} is no setting" + (f"; is {meant} meant?" if meant else "") for name, meant in unknown_names()]
    return ("note", "\n".join(unknown)) if unknown else ("ok", "every name is known")


async def _data(settings: Settings) -> tuple[Verdict, str]:
    return await asyncio.to_thread(_look_at_data, settings.data_dir.expanduser().absolute())


def _look_at_data(folder: Path) -> tuple[Verdict, str]:
    if not folder.exists():
        above = next(path for path in folder.parents if path.exists())
        if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
            return "ok", f"{folder} will be made at the first start"
        return "broken", f"{folder} cannot be made: {above} is not a folder this user may write to"
    try:
        with open_data_dir(folder):
            return "ok", f"{folder}"
    except DataDirInUse as error:
        return "ok", f"{folder}, in use by process {error.pid}"


async def _redis(settings: Settings) -> tuple[Verdict, str]:
    if settings.redis_url is not None:
        await check_redis(settings.redis_url.get_secret_value())
        return "ok", f"the one at {_place(settings.redis_url.get_secret_value())}, with JSON and Search"
    if not available():
        return "note", "no embedded Redis fits this machine and REDIS_URL is unset: live state stays in the process"
    with tempfile.TemporaryDirectory() as folder:
        async with embedded_redis(Path(folder)) as url:
            await check_redis(url)
    return "ok", "embedded, with JSON and Search"


async def _model(settings: Settings) -> tuple[Verdict, str]:
    kit = agent_kit(asyncio.get_running_loop())
    try:
        if kit.models.provider == "offline":
            return "note", "the offline model: set OPENROUTER_API_KEY, or OPENAI_BASE_URL, for a real one"
        where = _place(
            settings.openrouter_base_url if kit.models.provider == "openrouter" else settings.openai_base_url
        )
        try:
            async with asyncio.timeout(MODEL_SECONDS):
                found = await kit.models.check()
        except TimeoutError as error:
            raise Unavailable(f"The model server at {where} says nothing for {MODEL_SECONDS:.0f} seconds.") from error
    finally:
        await kit.aclose()
    names = ", ".join(found.models)
    if found.unlisted:
        return "note", f"{kit.models.provider} at {where}: {names}; it does not list {', '.join(found.unlisted)}"
    return "ok", f"{kit.models.provider} at {where}: {names}"


async def _weather(settings: Settings) -> tuple[Verdict, str]:
    return (
        "ok",
        f"{_place(settings.weather_url)}, places from {_place(settings.geocoding_url)} (no key needed, not asked)",
    )


async def _search(settings: Settings) -> tuple[Verdict, str]:
    if settings.search_providers:
        return "ok", ", ".join(settings.search_providers)
    keyed = {"tavily": settings.tavily_api_key, "brave": settings.brave_api_key, "searxng": settings.searxng_url}
    chosen = [name for name, given in keyed.items() if given]
    return "ok", f"{', '.join([*chosen, 'wikipedia', 'ddgs'])} (not asked)"


async def _callers(settings: Settings) -> tuple[Verdict, str]:
    with contextlib.suppress(Invalid):  # what is wrong with the file is said of the graphs
        if read_project(settings.config).auth is not None:
            return "ok", f"the auth of {settings.config} says who may ask"
    if settings.api_keys:
        return "ok", f"{len(settings.api_keys)} key(s) set"
    if is_loopback(settings.host):
        return "ok", "no keys set: whoever is on this machine may ask, nobody else can"
    if settings.insecure:
        return "note", f"no keys set, and --insecure: whoever reaches {settings.host} may ask"
    return "broken", f"no keys set, but the host is {settings.host}: set THREADLINE_API_KEYS, or say --insecure"


async def _address(settings: Settings) -> tuple[Verdict, str]:
    shown = f"{settings.host}:{settings.port}"
    try:
        listen(settings.host, settings.port).close()
    except Conflict:
        if await _answers(service_url(settings.host, settings.port)):
            return "ok", f"{shown}, where Threadline is running"
        raise
    return "ok", f"{shown} is free"


async def _answers(url: str) -> bool:
    """Whether a Threadline answers there."""
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=2) as http:
            return bool((await http.get(f"{url}/ok")).json()["ok"] is True)
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return False


async def _graphs(settings: Settings) -> tuple[Verdict, str]:
    project = await asyncio.to_thread(load_project, settings.config)
    project.types(settings.allowed_types)
    if project.broken:
        return "broken", "\n".join(one.reason for one in project.broken.values())
    return "ok", f"{settings.config}: {', '.join(project.graphs)}"


def _place(url: str | None) -> str:
    """An address without the secrets it may hold."""
    parts = urlsplit(url or "https://api.openai.com")
    if not parts.hostname:
        return parts.path
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{parts.port}" if parts.port else host


def lines(findings: list[Finding]) -> Iterator[str]:
    marks = {"ok": "✓", "note": "•", "broken": "✗"}
    for finding in findings:
        first, *more = finding.text.splitlines()
        yield f"  {marks[finding.verdict]} {finding.subject:<12} {first}"
        yield from (f"{'':<17}{line}" for line in more)
