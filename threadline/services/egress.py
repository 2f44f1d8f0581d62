"""Asking addresses that strangers named: each is looked up once, vetted, and connected to as it was vetted.

A name that means another address a moment later, and a redirect, so lead nowhere.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address

import httpx

from threadline.domain.egress import Blocked, Egress, Unresolved

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host. Raises OSError."""

LOOKUP_SECONDS = 5.0


async def resolve(host: str, port: int) -> Sequence[str]:
    """Ask the system, which may ask the network."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


class Guard:
    """Says where a URL leads, if one may go there."""

    def __init__(self, rules: Egress, *, resolve: Resolve = resolve) -> None:
        self._rules = rules
        self._resolve = resolve

    async def check(self, url: str) -> Sequence[str]:
        """The addresses behind what a stranger wrote. Raises Blocked."""
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            raise Blocked("not an absolute URL") from None
        return await self.vet(parsed)

    async def vet(self, url: httpx.URL) -> Sequence[str]:
        """The addresses behind a URL, all of which may be asked. Raises Blocked."""
        host = url.raw_host.decode("ascii")
        self._rules.check_url(scheme=url.scheme, host=host, credentials=bool(url.userinfo))
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                addresses = await self._resolve(host.strip("[]"), url.port or 0)
        except (OSError, UnicodeError):  # a timeout is an OSError
            raise Unresolved from None
        if not addresses:
            raise Unresolved
        self._rules.check_addresses(host, addresses)
        return addresses


class GuardedTransport(httpx.AsyncBaseTransport):
    """Sends requests to vetted addresses. The host still names itself in the `Host` header and in TLS."""

    def __init__(self, guard: Guard, inner: httpx.AsyncBaseTransport) -> None:
        self._guard = guard
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        addresses = await self._guard.vet(request.url)
        extensions = dict(request.extensions)
        if not _is_address(request.url.host):
            extensions["sni_hostname"] = request.url.raw_host.decode("ascii").rstrip(".")
        fault: httpx.TransportError = httpx.ConnectError("no address answered", request=request)
        for address in addresses:
            sent = httpx.Request(
                request.method,
                request.url.copy_with(host=address),
                headers=request.headers,
                stream=request.stream,
                extensions=extensions,
            )
            try:
                return await self._inner.handle_async_request(sent)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                fault = error
        raise fault

    async def aclose(self) -> None:
        await self._inner.aclose()


def guarded_client(
    guard: Guard, *, verify: ssl.SSLContext, timeout: float, headers: dict[str, str]
) -> httpx.AsyncClient:
    """A client that goes nowhere else. `verify` holds the certificate authorities that are trusted.

    No proxy, which would look names up itself; no connection is kept, since the next host may share the address.
    """
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=0)
    inner = httpx.AsyncHTTPTransport(verify=verify, trust_env=False, limits=limits)
    return httpx.AsyncClient(
        transport=GuardedTransport(guard, inner),
        timeout=timeout,
        headers=headers,
        follow_redirects=False,
        trust_env=False,
    )


def _is_address(host: str) -> bool:
    try:
        ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    return True
