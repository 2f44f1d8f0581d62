"""News: the newest of the feeds the operator has chosen, and of Hacker News."""

from __future__ import annotations

import asyncio
import calendar
import html
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import feedparser
from pydantic import BaseModel, Field

from tools.contract import Arguments, Asker, Fetch, Tool, ToolFailure

DESCRIPTION = (
    "News headlines, newest first, with links. Sources: {sources}. `topic` is a few keywords in English or Korean and "
    "may be left out for the latest; `source` names one source."
)
MAX_SUMMARY = 400
HACKER_NEWS = "Hacker News"

Download = Callable[[str], Awaitable[bytes]]
"""The bytes of a feed. Raises ToolFailure."""
Source = Callable[[str], Awaitable[list["Headline"]]]
"""A topic's headlines, or all where it is empty. Raises ToolFailure."""


class NewsArguments(Arguments):
    topic: str = Field("", max_length=200, description="Keywords; empty for the latest.")
    source: str | None = Field(None, max_length=100, description="One of the sources; leave out for all.")
    limit: int = Field(8, ge=1, le=20, description="Most headlines to return.")


class Headline(BaseModel):
    title: str
    url: str
    source: str
    published: str | None
    """ISO 8601, UTC."""
    summary: str


class News(BaseModel):
    topic: str
    headlines: list[Headline]
    unavailable: list[str]
    """Sources that did not answer."""


def tool(sources: Mapping[str, Source], *, timeout: float) -> Tool:
    """`sources` by name; all are asked at once, and one that fails does not take the others along."""

    async def run(asked: NewsArguments, _: Asker) -> News:
        chosen = {name: ask for name, ask in sources.items() if asked.source in (None, name)}
        if not chosen:
            raise ToolFailure(f"there is no source called {asked.source}; there are: {', '.join(sources)}")
        found = await asyncio.gather(*(_asked(ask, asked.topic, 0.9 * timeout) for ask in chosen.values()))
        failed = [name for name, headlines in zip(chosen, found, strict=True) if isinstance(headlines, ToolFailure)]
        if len(failed) == len(chosen):
            raise ToolFailure(f"no news source could be used: {', '.join(failed)}", retryable=True)
        headlines = [one for given in found if not isinstance(given, ToolFailure) for one in given]
        headlines.sort(key=lambda headline: headline.published or "", reverse=True)
        return News(topic=asked.topic, headlines=headlines[: asked.limit], unavailable=failed)

    described = DESCRIPTION.format(sources=", ".join(sources))
    return Tool("news", described, NewsArguments, run, timeout=timeout, cacheable=True, untrusted=True)


async def _asked(ask: Source, topic: str, seconds: float) -> list[Headline] | ToolFailure:
    try:
        async with asyncio.timeout(seconds):
            return await ask(topic)
    except TimeoutError:
        return ToolFailure("it did not answer in time", retryable=True)
    except ToolFailure as failure:
        return failure


def feed(download: Download, *, name: str, url: str) -> Source:
    """An RSS or Atom feed. Its entries are searched here: feeds know no topics."""

    async def ask(topic: str) -> list[Headline]:
        parsed = await asyncio.to_thread(feedparser.parse, await download(url))
        if parsed.bozo and not parsed.entries:
            raise ToolFailure(f"{name} sent no feed that could be read")
        headlines = [headline for entry in parsed.entries if (headline := _headline(entry, name)) is not None]
        words = topic.casefold().split()
        return [one for one in headlines if all(word in f"{one.title} {one.summary}".casefold() for word in words)]

    return ask


def hacker_news(fetch: Fetch, *, url: str, timeout: float) -> Source:
    """Hacker News by the search of Algolia (https://hn.algolia.com/api)."""

    async def ask(topic: str) -> list[Headline]:
        params: dict[str, str | int | float] = {"tags": "story" if topic else "front_page", "hitsPerPage": 20}
        if topic:
            params["query"] = topic
        answer = await fetch(
            f"{url}/api/v1/{'search_by_date' if topic else 'search'}",
            service=HACKER_NEWS,
            timeout=timeout,
            params=params,
        )
        hits = answer.get("hits") if isinstance(answer, dict) else None
        if not isinstance(hits, list):
            raise ToolFailure(f"{HACKER_NEWS} sent an answer that could not be read", retryable=True)
        return [headline for hit in hits if (headline := _story(hit)) is not None]

    return ask


def _headline(entry: dict[str, Any], source: str) -> Headline | None:
    title, url = _text(entry.get("title")), str(entry.get("link") or "")
    if not title or not url.startswith(("http://", "https://")):
        return None
    # Asked the plain way: feedparser's own would warn of a date that is missing.
    when = dict.get(entry, "published_parsed") or dict.get(entry, "updated_parsed")
    published = datetime.fromtimestamp(calendar.timegm(when), UTC).isoformat() if when else None
    return Headline(title=title, url=url, source=source, published=published, summary=_text(entry.get("summary")))


def _story(hit: Any) -> Headline | None:
    if not isinstance(hit, dict) or not isinstance(hit.get("title"), str):
        return None
    number = str(hit.get("objectID") or "")
    url = hit.get("url") or f"https://news.ycombinator.com/item?id={number}"
    if not str(url).startswith(("http://", "https://")):
        return None
    points, comments = hit.get("points"), hit.get("num_comments")
    about = f"{points} points, {comments} comments" if isinstance(points, int) and isinstance(comments, int) else ""
    when = hit.get("created_at_i")
    published = datetime.fromtimestamp(when, UTC).isoformat() if isinstance(when, int) and 0 < when < 2**33 else None
    return Headline(title=_text(hit["title"]), url=str(url), source=HACKER_NEWS, published=published, summary=about)


def _text(markup: Any) -> str:
    """Markup as words."""
    bare = re.sub(r"<[^<>]{0,1000}>", " ", html.unescape(str(markup or "")))
    return " ".join(bare.split())[:MAX_SUMMARY]


def named_feeds(feeds: Sequence[str]) -> dict[str, str]:
    """`Name=https://…` or a bare address, which is called after its host. Raises ValueError."""
    named: dict[str, str] = {}
    for given in feeds:
        name, equals, url = given.partition("=")
        if not equals or "/" in name:
            name, url = given.partition("://")[2].partition("/")[0], given
        if not url.strip().startswith(("http://", "https://")) or not name.strip():
            raise ValueError(f"{given!r} is no feed: write Name=https://…")
        named[name.strip()] = url.strip()
    return named
