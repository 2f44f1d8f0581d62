"""Searching the web and Wikipedia: services are asked in order, and the first that finds something is believed."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, Field, SecretStr

from tools.contract import Arguments, Asker, Fetch, Tool, ToolFailure

DESCRIPTION = (
    "Searches the web or an encyclopedia for facts, people, places, products and events, recent ones above all. "
    "`query` is a few keywords in English or Korean. Returns titles, addresses and short excerpts."
)
SNIPPET = 500
"""Longest excerpt, in characters."""

Hits = list[dict[str, Any]]
"""What a service found: `title`, `url`, `snippet`, still with its markup."""
Provider = Callable[[str, int], Awaitable[Hits]]
"""Takes the query and how many results to return at most. Raises ToolFailure."""


class SearchArguments(Arguments):
    query: str = Field(min_length=1, max_length=400, description="Keywords to search for.")
    limit: int = Field(5, ge=1, le=10, description="Most results to return.")


class SearchResult(BaseModel):
    title: str
    url: str
    snippet: str


class SearchResults(BaseModel):
    query: str
    provider: str
    results: list[SearchResult]


def tool(providers: Mapping[str, Provider], *, timeout: float) -> Tool:
    """`providers` by name, in the order they are to be asked."""

    async def run(asked: SearchArguments, _: Asker) -> SearchResults:
        return await _search(providers, asked.query, asked.limit)

    return Tool("search", DESCRIPTION, SearchArguments, run, timeout=timeout, cacheable=True, untrusted=True)


async def _search(providers: Mapping[str, Provider], query: str, limit: int) -> SearchResults:
    empty_handed: list[str] = []
    failures: list[ToolFailure] = []
    for name, ask in providers.items():
        try:
            found = list(_clean(await ask(query, limit)))[:limit]
        except ToolFailure as failure:
            failures.append(failure)
            continue
        if found:
            return SearchResults(query=query, provider=name, results=found)
        empty_handed.append(name)
    if empty_handed:
        return SearchResults(query=query, provider=empty_handed[-1], results=[])
    if not failures:
        raise ToolFailure("no search service is set up")
    raise ToolFailure(
        f"no search service could be used: {'; '.join(failure.message for failure in failures)}",
        retryable=any(failure.retryable for failure in failures),
    )


def _clean(hits: Iterable[Mapping[str, Any]]) -> Iterable[SearchResult]:
    """Plain text in place of markup. What is no page with a title and a web address is left out."""
    for hit in hits:
        title, url = _plain(hit.get("title")), str(hit.get("url") or "")
        if title and url.startswith(("http://", "https://")):
            yield SearchResult(title=title, url=url, snippet=_plain(hit.get("snippet")))


def _plain(text: object) -> str:
    without_tags = re.sub(r"</?[a-zA-Z][^<>]*>", "", str(text or ""))
    words = " ".join(html.unescape(without_tags).split())
    return words if len(words) <= SNIPPET else f"{words[: SNIPPET - 1].rstrip()}…"


def _language(query: str) -> str:
    return "ko" if re.search("[가-힣]", query) else "en"


def _hits(service: str, answer: Any, *path: str, url: str = "url", snippet: str) -> Hits:
    """The list at `path` in a service's answer, its fields by our names. Nothing there means nothing was found."""
    for step in path:
        if not isinstance(answer, dict):
            raise _unreadable(service)
        answer = answer.get(step)
        if answer is None:
            return []
    if not isinstance(answer, list):
        raise _unreadable(service)
    return [
        {"title": hit.get("title"), "url": hit.get(url), "snippet": hit.get(snippet)}
        for hit in answer
        if isinstance(hit, dict)
    ]


def _unreadable(service: str) -> ToolFailure:
    return ToolFailure(f"{service} sent an answer that could not be read", retryable=True)


# One function per service. Their keys travel in headers, so that no address, log line or error holds one.


def wikipedia(fetch: Fetch, *, url: str, timeout: float) -> Provider:
    """https://www.mediawiki.org/wiki/API:REST_API/Reference#Search_pages; `{language}` in `url` is the query's."""

    async def ask(query: str, limit: int) -> Hits:
        site = url.replace("{language}", _language(query)).rstrip("/")
        answer = await fetch(
            f"{site}/w/rest.php/v1/search/page",
            service="Wikipedia",
            timeout=timeout,
            params={"q": query, "limit": limit},
        )
        return [
            hit | {"url": f"{site}/wiki/{quote(hit['url'], safe='/:(),')}"}
            for hit in _hits("Wikipedia", answer, "pages", url="key", snippet="excerpt")
            if isinstance(hit["url"], str)
        ]

    return ask


def tavily(fetch: Fetch, *, url: str, key: SecretStr, timeout: float) -> Provider:
    """https://docs.tavily.com/documentation/api-reference/endpoint/search"""

    async def ask(query: str, limit: int) -> Hits:
        answer = await fetch(
            f"{url.rstrip('/')}/search",
            service="Tavily",
            timeout=timeout,
            headers={"Authorization": f"Bearer {key.get_secret_value()}"},
            body={"query": query, "max_results": limit},
        )
        return _hits("Tavily", answer, "results", snippet="content")

    return ask


def brave(fetch: Fetch, *, url: str, key: SecretStr, timeout: float) -> Provider:
    """https://api-dashboard.search.brave.com/api-reference/web/search/get"""

    async def ask(query: str, limit: int) -> Hits:
        answer = await fetch(
            f"{url.rstrip('/')}/res/v1/web/search",
            service="Brave",
            timeout=timeout,
            headers={"X-Subscription-Token": key.get_secret_value()},
            params={"q": query, "count": limit, "search_lang": _language(query)},
        )
        return _hits("Brave", answer, "web", "results", snippet="description")

    return ask


def searxng(fetch: Fetch, *, url: str, timeout: float) -> Provider:
    """https://docs.searxng.org/dev/search_api.html; the instance must allow `format=json`."""

    async def ask(query: str, limit: int) -> Hits:
        answer = await fetch(
            f"{url.rstrip('/')}/search",
            service="SearXNG",
            timeout=timeout,
            params={"q": query, "format": "json", "language": _language(query)},
        )
        return _hits("SearXNG", answer, "results", snippet="content")

    return ask


def ddgs(*, timeout: float) -> Provider:
    """Several engines' result pages, read without a key; being blocked now and then is to be expected."""

    async def ask(query: str, limit: int) -> Hits:
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.to_thread(partial(_scrape, query, limit, timeout=timeout))
        except TimeoutError:
            raise ToolFailure("ddgs did not answer in time", retryable=True) from None

    return ask


def _scrape(query: str, limit: int, *, timeout: float) -> Hits:
    # Imported here, in a thread: it takes a while and is only needed when nothing better is set up.
    from ddgs import DDGS
    from ddgs.exceptions import DDGSException

    region = "kr-kr" if _language(query) == "ko" else "us-en"
    try:
        answer = DDGS(timeout=max(1, int(timeout))).text(query, region=region, max_results=limit)
    except DDGSException as error:
        if "No results" in str(error):
            return []
        raise ToolFailure("ddgs could not be reached", retryable=True) from None
    return _hits("ddgs", answer, url="href", snippet="body")
