"""The only list of the agent's tools. To add one, write its file and add its line to `_makers`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from threadline.domain.errors import Invalid
from tools import (
    arithmetic,
    calculator,
    code,
    fetch,
    files,
    news,
    numerals,
    search,
    sql,
    sql_postgres,
    sql_sqlite,
    toolbox,
    units,
    weather,
    web,
)
from tools.contract import Fetch, Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolConfig:
    """What the tools need to know. Times in seconds; the cache's size is in results, 0 turns it off."""

    timeout: float
    cache_size: int
    cache_ttl: float
    weather_url: str
    geocoding_url: str
    wikipedia_url: str
    tavily_url: str
    brave_url: str
    searxng_url: str | None = None
    tavily_api_key: SecretStr | None = None
    brave_api_key: SecretStr | None = None
    search_providers: tuple[str, ...] = ()
    """In order of preference; empty: those that are set up, then wikipedia, then ddgs."""
    hacker_news_url: str = "https://hn.algolia.com"
    news_feeds: tuple[str, ...] = ()
    """`Name=https://…`, or addresses alone."""
    sql_url: SecretStr | None = None
    """`sqlite:///PATH` or `postgresql://…`."""
    sql_seconds: float = 5
    enabled: tuple[str, ...] = ()
    """Tools that are offered; empty: all that are set up."""
    ask_before: tuple[str, ...] = ("write", "run")
    """Risks, and names of tools, whose calls a person must allow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """What the tools work with; its owner opens and closes it. See `threadline.app.wiring`."""

    http: httpx.AsyncClient
    public: httpx.AsyncClient
    """Goes to public addresses only."""
    parse_page: web.Parse
    refused: tuple[type[Exception], ...]
    """What `public` and `parse_page` raise where something is not to be read."""
    workspace_of: files.WorkspaceOf
    folder_of: code.FolderOf
    run_code: code.RunCode


@dataclass(frozen=True, slots=True)
class Listed:
    """A tool by name: there, or why it is not."""

    name: str
    tool: Tool | None
    reason: str | None = None


def build(config: ToolConfig, equipment: Equipment) -> list[Listed]:
    """Every tool there is, in order. Raises Invalid for what is set up wrongly."""
    makers = _makers(config, equipment)
    for name in config.enabled:
        if name not in makers:
            raise Invalid(f"there is no tool called {name}; there are: {', '.join(makers)}")
    return [_listed(name, make, config.enabled) for name, make in makers.items()]


def _makers(config: ToolConfig, equipment: Equipment) -> dict[str, Callable[[], Tool | str]]:
    """How each tool is made; one that is not set up gives the reason instead."""
    ask, timeout = fetch.over(equipment.http), config.timeout
    return {
        "calculator": lambda: calculator.tool(
            to_digits=numerals.to_digits, evaluate=arithmetic.evaluate, convert=units.convert, timeout=timeout
        ),
        "weather": lambda: weather.tool(
            ask, forecast_url=config.weather_url, geocoding_url=config.geocoding_url, timeout=timeout
        ),
        "search": lambda: search.tool(_providers(config, ask), timeout=timeout),
        "news": lambda: news.tool(_sources(config, equipment, ask), timeout=timeout),
        "web": lambda: web.tool(
            equipment.public, parse=equipment.parse_page, refused=equipment.refused, timeout=timeout
        ),
        "sql": lambda: (
            sql.tool(_database(config.sql_url, seconds=config.sql_seconds), timeout=timeout)
            if config.sql_url is not None
            else "no database is set: THREADLINE_SQL_URL"
        ),
        "files": lambda: files.tool(equipment.workspace_of, timeout=timeout),
        "code": lambda: code.tool(equipment.run_code, folder_of=equipment.folder_of, timeout=timeout),
    }


def _listed(name: str, make: Callable[[], Tool | str], enabled: Collection[str]) -> Listed:
    if enabled and name not in enabled:
        return Listed(name, None, "it is switched off: THREADLINE_TOOLS does not name it")
    made = make()
    return Listed(name, None, made) if isinstance(made, str) else Listed(name, made)


def open_toolbox(config: ToolConfig, equipment: Equipment) -> tuple[toolbox.Toolbox, list[dict[str, Any]]]:
    """A toolbox for one event loop, and what there is to say of every tool. Nothing is asked of the network."""
    listed = build(config, equipment)
    box = toolbox.Toolbox(
        [one.tool for one in listed if one.tool is not None],
        cache_size=config.cache_size,
        cache_ttl=config.cache_ttl,
        ask_before=config.ask_before,
    )
    return box, [_described(one, config) for one in listed]


def _described(listed: Listed, config: ToolConfig) -> dict[str, Any]:
    """`{name, enabled, reason, description, risk, asks, cached}`; null where the tool is not there."""
    tool = listed.tool
    if tool is None:
        unknown = dict.fromkeys(("description", "risk", "asks", "cached"))
        return {"name": listed.name, "enabled": False, "reason": listed.reason, **unknown}
    risk = "write" if callable(tool.risk) else tool.risk
    return {
        "name": tool.name,
        "enabled": True,
        "reason": None,
        "description": tool.description,
        "risk": risk,
        "asks": bool({risk, tool.name} & set(config.ask_before)),
        "cached": tool.cacheable and config.cache_size > 0,
    }


def _database(url: SecretStr, *, seconds: float) -> sql.Database:
    given = url.get_secret_value()
    if given.startswith(("postgresql://", "postgres://")):
        return sql_postgres.PostgresDatabase(url, seconds=seconds)
    scheme, _, path = given.partition(":///")
    if scheme != "sqlite" or not path:
        raise Invalid("THREADLINE_SQL_URL: it must look like sqlite:///path/to/file.db or postgresql://…")
    return sql_sqlite.SqliteDatabase(Path(path).absolute(), seconds=seconds)


def _sources(config: ToolConfig, equipment: Equipment, ask: Fetch) -> dict[str, news.Source]:
    """The feeds that are set, by name, and Hacker News."""

    async def download(url: str) -> bytes:
        return await fetch.load(equipment.http, url, service="the feed", timeout=config.timeout)

    try:
        feeds = news.named_feeds(config.news_feeds)
    except ValueError as error:
        raise Invalid(f"THREADLINE_NEWS_FEEDS: {error}") from None
    sources = {name: news.feed(download, name=name, url=url) for name, url in feeds.items()}
    hacker_news = news.hacker_news(ask, url=config.hacker_news_url, timeout=config.timeout)
    return {**sources, news.HACKER_NEWS: hacker_news}


def _providers(config: ToolConfig, ask: Fetch) -> dict[str, search.Provider]:
    """The search services to ask, each with an equal share of the time a call may take."""
    ready = {"wikipedia", "ddgs"}
    if config.tavily_api_key:
        ready.add("tavily")
    if config.brave_api_key:
        ready.add("brave")
    if config.searxng_url:
        ready.add("searxng")
    order = ("tavily", "brave", "searxng", "wikipedia", "ddgs")
    names = config.search_providers or tuple(name for name in order if name in ready)
    for name in names:
        if name not in order:
            raise Invalid(f"there is no search provider called {name}; there are: {', '.join(order)}")
        if name not in ready:
            raise Invalid(f"search provider {name} needs its key or address to be set")

    # A little is kept back, so that the tool can still say which service was too slow.
    share = 0.9 * config.timeout / len(names)

    def provider(name: str) -> search.Provider:
        match name:
            case "tavily" if config.tavily_api_key:
                return search.tavily(ask, url=config.tavily_url, key=config.tavily_api_key, timeout=share)
            case "brave" if config.brave_api_key:
                return search.brave(ask, url=config.brave_url, key=config.brave_api_key, timeout=share)
            case "searxng" if config.searxng_url:
                return search.searxng(ask, url=config.searxng_url, timeout=share)
            case "ddgs":
                return search.ddgs(timeout=share)
            case _:
                return search.wikipedia(ask, url=config.wikipedia_url, timeout=share)

    return {name: provider(name) for name in names}
