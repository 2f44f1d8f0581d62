"""The gate every request passes: how large it may be, who asks, how often. Plain ASGI, so streams pass unbuffered."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from langgraph_sdk.auth.exceptions import HTTPException as Refusal
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import of_error, problem, refusal
from threadline.domain.errors import ThreadlineError
from threadline.domain.headers import HeaderChoice
from threadline.services.auth import LOCAL, Keys, is_loopback
from threadline.services.limits import RateLimit
from threadline.services.permission import Permission

OPEN = ("/ok", "/ready", "/", "/favicon.ico")
"""Paths that need no key and count against no limit; so do those under `/static/`."""
INFO = "/info"
"""Open as well where the project says who asks. It tells those more whom the project knows."""


class Gate:
    """Sets `request.state.caller`: by API key, or by the project's own authentication. `metrics_public` opens
    /metrics too.

    Unless `any_host`, a request must name this machine as its host: a web page whose name was made to point here by
    its owner (DNS rebinding) is turned away. `larger` are the paths whose bodies have a limit of their own.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Keys,
        permission: Permission,
        rate_limit: RateLimit | None,
        max_body_bytes: int,
        metrics_public: bool,
        any_host: bool,
        larger: Mapping[str, int] | None = None,
        told: HeaderChoice | None = None,
    ) -> None:
        """`told`: the headers that go with the caller, for graphs to see."""
        self._app = app
        self._keys = keys
        self._permission = permission
        self._rate_limit = rate_limit
        self._max_body_bytes = max_body_bytes
        self._any_host = any_host
        self._larger = larger or {}
        self._told = told
        self._open = (*OPEN, "/metrics") if metrics_public else OPEN

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        most = self._larger.get(scope["path"], self._max_body_bytes)
        if int(headers.get("content-length") or 0) > most:
            await problem(413, _too_large(most), kind="invalid")(scope, receive, send)
            return
        if not self._any_host and not is_loopback(_host(headers)):
            words = "Without API keys the service answers only to localhost, 127.0.0.1 and [::1]."
            await problem(421, words, kind="denied")(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["caller"] = LOCAL
        allowance: dict[str, str] = {}
        path: str = scope["path"]
        introduced = path == INFO and self._permission.authenticates
        opened = path in self._open or path.startswith("/static/") or scope["method"] == "OPTIONS"
        guarded = not (opened or introduced)
        receive = _measured(receive, most)
        try:
            if self._permission.authenticates:
                if guarded or (introduced and not opened):
                    request = Replayed(scope, receive)
                    receive = request.replay
                    state["caller"] = await self._permission.caller(await request.given(self._permission.wants))
            else:
                key = _shown(headers)
                if guarded or key:
                    state["caller"] = self._keys.caller(key)
        except ThreadlineError as error:
            if guarded:
                await of_error(error)(scope, receive, send)
                return
        except (HTTPException, Refusal) as error:
            if guarded:
                await refusal(error)(scope, receive, send)
                return
        if guarded and self._rate_limit is not None:
            taken = await self._rate_limit.take(state["caller"])
            allowance = taken.headers()
            if not taken.allowed:
                told = {**allowance, "Retry-After": str(taken.reset)}
                words = f"Too many requests: {taken.limit} in {taken.window} seconds are allowed."
                await problem(429, words, kind="limited", headers=told)(scope, receive, send)
                return
        closed = self._keys.required or self._permission.authenticates
        state["known"] = not closed or state["caller"] is not LOCAL
        if self._told is not None:
            state["caller"] = replace(state["caller"], headers=self._told.of(headers.items()))

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(allowance)
            await send(message)

        await self._app(scope, receive, answer)


class Replayed:
    """A request that may be read before the application reads it: `replay` gives it everything once more."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._scope = scope
        self._receive = receive
        self._read: list[Message] = []
        self._again = 0

    async def given(self, wants: Collection[str]) -> dict[str, Any]:
        """What a project's authenticate handler may ask for, by name. Only what it wants is made."""
        request = Request(self._scope, self._recorded)
        made: dict[str, Callable[[], Any]] = {
            "request": lambda: request,
            "scope": lambda: self._scope,
            "path": lambda: request.url.path,
            "method": lambda: request.method,
            "path_params": lambda: request.path_params,
            "query_params": lambda: request.query_params,
            "headers": lambda: dict(self._scope["headers"]),
            "authorization": lambda: request.headers.get("authorization"),
        }
        given = {name: make() for name, make in made.items() if name in wants}
        if "body" in wants:
            given["body"] = await _parsed(request)
        return given

    async def _recorded(self) -> Message:
        message = await self._receive()
        self._read.append(message)
        return message

    async def replay(self) -> Message:
        if self._again < len(self._read):
            self._again += 1
            return self._read[self._again - 1]
        return await self._receive()


def _measured(receive: Receive, most: int) -> Receive:
    """`receive` for bodies that do not say how long they are."""
    seen = 0

    async def measured() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise HTTPException(413, _too_large(most))
        return message

    return measured


def _too_large(most: int) -> str:
    return f"The body is larger than {most} bytes."


async def _parsed(request: Request) -> Any:
    """The JSON of a body; None where there is none."""
    try:
        return json.loads(await request.body() or b"null")
    except (ValueError, RecursionError):
        return None


def _host(headers: Headers) -> str:
    """The host a request was meant for, without its port."""
    host = headers.get("host", "")
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _shown(headers: Headers) -> str | None:
    """The key in `Authorization: Bearer …` or `x-api-key`."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" and key.strip() else headers.get("x-api-key")
