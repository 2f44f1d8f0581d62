"""The only list of the agent's tools. To add one, write its file and add its line to `build`."""

from __future__ import annotations

from dataclasses import dataclass

import httpx
from pydantic import SecretStr

from threadline.domain.errors import Invalid
from tools import arithmetic, calculator, fetch, numerals, search, toolbox, units, weather
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


def build(config: ToolConfig, *, http: httpx.AsyncClient) -> list[Tool]:
    """Every tool, asking the network through `http`. Raises Invalid for a search provider that is not set up."""
    ask = fetch.over(http)
    return [
        calculator.tool(
            to_digits=numerals.to_digits,
            evaluate=arithmetic.evaluate,
            convert=units.convert,
            timeout=config.timeout,
        ),
        weather.tool(ask, forecast_url=config.weather_url, geocoding_url=config.geocoding_url, timeout=config.timeout),
        search.tool(_providers(config, ask), timeout=config.timeout),
    ]


def open_toolbox(config: ToolConfig, *, http: httpx.AsyncClient) -> toolbox.Toolbox:
    """A toolbox for one event loop. Nothing is asked of the network, and there is nothing to close."""
    return toolbox.Toolbox(build(config, http=http), cache_size=config.cache_size, cache_ttl=config.cache_ttl)


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
