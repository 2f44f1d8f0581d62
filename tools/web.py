"""Reads one web page for the model: its text, without menus and advertisements."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

import httpx
import orjson
from pydantic import BaseModel, Field

from tools.contract import Arguments, Asker, Tool, ToolFailure

DESCRIPTION = (
    "Read a web page by its address, as found by search or given by the user. Returns the title and the text of the "
    "page. Long pages come in parts: `start` is the first character of the next part. Not for files and videos."
)
MAX_BYTES = 3_000_000
PART = 12_000
"""Characters of a page that one call gives."""
_PLAIN = ("text/plain", "text/markdown", "application/json", "text/csv")
_PAGES = ("text/html", "application/xhtml+xml", "")
_CHARSET = re.compile(r"charset=[\"']?([\w-]{1,40})", re.IGNORECASE)


class WebArguments(Arguments):
    url: str = Field(min_length=1, max_length=2000, description="Address of the page, with http:// or https://.")
    start: int = Field(0, ge=0, le=10_000_000, description="First character to return.")


class WebPage(BaseModel):
    url: str
    """Where the page was in the end, after redirects."""
    title: str
    site: str | None
    date: str | None
    text: str
    characters: int
    more: bool


Parse = Callable[[bytes], Awaitable[bytes]]
"""JSON `{title, text, date, site}` of an HTML page. Raises an exception whose text says why not."""


def tool(http: httpx.AsyncClient, *, parse: Parse, refused: tuple[type[Exception], ...], timeout: float) -> Tool:
    """`http` must go to public addresses only; it raises `refused` where one is not, and so does `parse`."""

    async def run(asked: WebArguments, _: Asker) -> WebPage:
        try:
            async with asyncio.timeout(0.9 * timeout):
                url, kind, content = await _load(http, asked.url)
                found = await _read(kind, content, parse)
        except TimeoutError:
            raise ToolFailure("the page did not answer in time", retryable=True) from None
        except httpx.TooManyRedirects:
            raise ToolFailure("the page sends from one address to the next without end") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError):
            raise ToolFailure("the page could not be reached", retryable=True) from None
        except refused as error:
            raise ToolFailure(f"the page cannot be read: {error}") from None
        text = found["text"]
        part = text[asked.start : asked.start + PART]
        return WebPage(
            url=url,
            title=found["title"],
            site=found["site"],
            date=found["date"],
            text=part,
            characters=len(text),
            more=asked.start + PART < len(text),
        )

    return Tool("web", DESCRIPTION, WebArguments, run, timeout=timeout, cacheable=True, untrusted=True)


async def _load(http: httpx.AsyncClient, url: str) -> tuple[str, str, bytes]:
    """The last address, the media type with its charset and the body. Nothing packed is taken: it could be a bomb."""
    headers = {"Accept": "text/html,text/plain;q=0.8", "Accept-Encoding": "identity", "Accept-Language": "ko,en;q=0.8"}
    async with http.stream("GET", url, headers=headers, follow_redirects=True) as response:
        if response.status_code >= 400:
            raise ToolFailure(f"the page answered with status {response.status_code}")
        if response.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            raise ToolFailure("the page comes packed, which is not accepted")
        kind = response.headers.get("content-type", "").lower()
        if kind.partition(";")[0].strip() not in (*_PLAIN, *_PAGES):
            raise ToolFailure(f"the address holds no page but {kind.partition(';')[0][:60] or 'something else'}")
        content = bytearray()
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > MAX_BYTES:
                raise ToolFailure(f"the page is larger than {MAX_BYTES // 1_000_000} MB")
        return str(response.url), kind, bytes(content)


async def _read(kind: str, content: bytes, parse: Parse) -> dict[str, str]:
    media = kind.partition(";")[0].strip()
    if media in _PLAIN:
        return {"title": "", "text": _decoded(kind, content), "date": None, "site": None}  # type: ignore[dict-item]
    found: dict[str, str] = orjson.loads(await parse(content))
    return found


def _decoded(kind: str, content: bytes) -> str:
    """The text in the encoding that is named, or that it is in: servers lie."""
    named = _CHARSET.search(kind)
    for encoding in ("utf-8-sig", *([named[1]] if named else ()), "cp949"):
        try:
            return content.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    return content.decode("utf-8", errors="replace")
