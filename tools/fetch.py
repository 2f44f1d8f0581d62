"""Asking a web service for JSON, within a time and a size, and saying in plain words why it did not work."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

import httpx
import orjson

from threadline import __version__
from tools.contract import Fetch, ToolFailure

MAX_BYTES = 2_000_000
USER_AGENT = f"Threadline/{__version__} (self-hosted agent service)"


def over(http: httpx.AsyncClient) -> Fetch:
    """A `Fetch` that uses `http`. Redirects are not followed."""
    return partial(_fetch, http)


async def _fetch(
    http: httpx.AsyncClient,
    url: str,
    *,
    service: str,
    timeout: float,
    params: Mapping[str, str | int | float] | None = None,
    headers: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
) -> Any:
    accept = {"Accept": "application/json", **(headers or {})}
    content = await load(http, url, service=service, timeout=timeout, headers=accept, json=body, params=params)
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        raise ToolFailure(f"{service} sent an answer that could not be read", retryable=True) from None


async def load(
    http: httpx.AsyncClient,
    url: str,
    *,
    service: str,
    timeout: float,
    headers: Mapping[str, str] | None = None,
    json: Mapping[str, Any] | None = None,
    **request: Any,
) -> bytes:
    """The bytes behind `url`; `json`, if given, is posted. Raises `ToolFailure` in words that name `service`."""
    try:
        async with asyncio.timeout(timeout):
            status, content = await _exchange(
                http,
                "GET" if json is None else "POST",
                url,
                headers={"User-Agent": USER_AGENT, **(headers or {})},
                json=json,
                timeout=timeout,
                **request,
            )
    except (TimeoutError, httpx.TimeoutException):
        raise ToolFailure(f"{service} did not answer in time", retryable=True) from None
    except (httpx.HTTPError, httpx.InvalidURL):
        raise ToolFailure(f"{service} could not be reached", retryable=True) from None
    if not 200 <= status < 300:
        raise _refused(service, status)
    if content is None:
        raise ToolFailure(f"{service} sent an answer that is too large")
    return content


async def _exchange(http: httpx.AsyncClient, method: str, url: str, **request: Any) -> tuple[int, bytes | None]:
    """The status and the body; None for a body that is too large. The rest of such a body is never read."""
    async with http.stream(method, url, follow_redirects=False, **request) as response:
        content = bytearray()
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > MAX_BYTES:
                return response.status_code, None
        return response.status_code, bytes(content)


def _refused(service: str, status: int) -> ToolFailure:
    if status == 429:
        return ToolFailure(f"{service} takes no more requests for now (status 429)", retryable=True)
    if status in (401, 403):
        return ToolFailure(f"{service} refused the request or its key (status {status})")
    return ToolFailure(f"{service} answered with an error (status {status})", retryable=status >= 500)
