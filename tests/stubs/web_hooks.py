"""A receiver of webhooks on loopback: keeps what arrives and answers as it is told."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.stubs.certificates import Pair


@dataclass(frozen=True, slots=True)
class Delivery:
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class Receiver:
    """`statuses` are the answers in turn, 200 after the last; a 3xx leads to `/elsewhere`. Over TLS, `names` are those
    that clients asked for."""

    port: int
    statuses: list[int] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def got(self, count: int = 1) -> Sequence[Delivery]:
        """The deliveries, once there are so many."""
        async with asyncio.timeout(20), self.arrived:
            await self.arrived.wait_for(lambda: len(self.deliveries) >= count)
        return self.deliveries

    async def receive(self, request: Request) -> Response:
        body = await request.body()
        async with self.arrived:
            self.deliveries.append(Delivery(request.url.path, dict(request.headers), body))
            self.arrived.notify_all()
        status = self.statuses.pop(0) if self.statuses else 200
        return Response(status_code=status, headers={"Location": "/elsewhere"} if 300 <= status < 400 else None)


@asynccontextmanager
async def receiver(*statuses: int, tls: Pair | None = None, port: int = 0) -> AsyncIterator[Receiver]:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    stub = Receiver(listener.getsockname()[1], list(statuses))
    app = Starlette(routes=[Route("/{path:path}", stub.receive, methods=["GET", "POST"])])
    files = {"ssl_certfile": str(tls.certificate), "ssl_keyfile": str(tls.key)} if tls is not None else {}
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, **files)  # type: ignore[arg-type]
    config.load()
    if config.ssl is not None:
        config.ssl.sni_callback = lambda line, name, context: stub.names.append(name)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield stub
    finally:
        server.should_exit = True
        await serving
        listener.close()
