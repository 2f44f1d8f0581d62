"""The web application, and the process that serves it."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline

from api import branches, chat, compare, ops, page, problems, replay, runs, sessions, share, tools
from api.context import Context, Surface
from api.gate import Gate
from api.prefix import Prefix
from api.server import assistants, crons, protocol, store, threads
from api.server import runs as server_runs
from threadline import __version__
from threadline.app.connection import connections
from threadline.app.logs import configure
from threadline.app.project import read_project
from threadline.app.settings import Settings, unknown_names
from threadline.app.wiring import open_services
from threadline.domain.errors import Conflict, Denied
from threadline.services.auth import is_loopback

log = structlog.get_logger(__name__)

SERVER = {
    "assistants": (assistants,),
    "threads": (threads,),
    "runs": (crons, server_runs, protocol),
    "store": (store,),
}
"""The LangGraph Server API by resource: a project may have some of them left out."""
EXPOSED = (
    "Location",
    "Content-Location",
    "X-Pagination-Total",
    "X-Pagination-Next",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
)
"""Headers a page may read: where its run is, to come back to it, and how much more there is."""
UNSENT_BYTES = 128 * 1024
"""What the system holds for a connection beside what is on its way. It would hold megabytes for a client that reads
nothing, and of a slow one nobody would see for seconds that it reads."""
STOP_SECONDS = 3
"""How long open requests may take to end when the service stops."""


def create_app(context: Context, settings: Settings) -> FastAPI:
    """The application over services that are already open."""
    told = "meta" not in context.surface.disabled
    described: dict[str, Any] = {"title": "Threadline", "version": __version__, "redoc_url": None}
    app = FastAPIOffline(**described) if told else FastAPI(**described, openapi_url=None)
    app.state.context = context
    served = [module for name, modules in SERVER.items() if name not in context.surface.disabled for module in modules]
    for module in (chat, share, sessions, runs, replay, branches, compare, tools, *served, ops):
        app.include_router(module.router)
    if told:
        app.include_router(ops.meta)
    if context.surface.app is not None:
        app.router.default = context.surface.app
    page.install(app)
    problems.install(app)
    app.add_middleware(
        Gate,
        keys=context.keys,
        permission=context.permission,
        rate_limit=context.rate_limit,
        max_body_bytes=settings.max_body_bytes,
        metrics_public=settings.metrics_public,
        any_host=context.keys.required or context.permission.authenticates or settings.insecure,
        told=context.surface.headers,
        larger={share.IMPORT: max(settings.max_import_bytes, settings.max_body_bytes)},
    )
    if settings.cors_origins or context.surface.cors:
        app.add_middleware(CORSMiddleware, **_cors(settings, context.surface))
    if context.surface.prefix is not None:
        app.add_middleware(Prefix, prefix=context.surface.prefix)
    return app


def _cors(settings: Settings, surface: Surface) -> dict[str, Any]:
    """What the settings and the project allow to pages of other origins, together."""
    project = dict(surface.cors or {"allow_methods": ["*"], "allow_headers": ["*"]})
    return {
        **project,
        # A page of the internet asks first whether it may reach into a private network.
        "allow_private_network": True,
        "allow_origins": [*settings.cors_origins, *project.get("allow_origins", [])],
        "expose_headers": [*EXPOSED, *project.get("expose_headers", [])],
    }


async def run(settings: Settings) -> None:
    """Serve until told to stop. Raises ThreadlineError with words for who starts the service."""
    if _exposed(settings) and read_project(settings.config).auth is None:
        raise _without_keys(settings)
    listener = listen(settings.host, settings.port)
    with listener:
        async with open_services(settings) as context:
            if _exposed(settings) and not context.permission.authenticates:
                raise _without_keys(settings)
            server = Server(create_app(context, settings), stall_seconds=settings.stall_timeout)
            _spare_the_collector()
            print(f"Threadline is ready: http://{_shown_address(listener)}", flush=True)
            await server.serve(sockets=[listener])


def serve(settings: Settings) -> None:
    """Serve in the foreground; Ctrl-C or SIGTERM stops cleanly."""
    configure(level=settings.log_level, format=settings.log_format)
    for name, meant in unknown_names():
        log.warning("unknown_setting", name=name, meant=meant)
    # Before the server listens to signals and after, SIGTERM unwinds as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run(settings))


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where there is one: a turn then takes a sixth less of the CPU. It does not run on Windows."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class Server(uvicorn.Server):
    """Uvicorn, told all it needs to know about the app; stops by `should_exit`."""

    def __init__(self, app: FastAPI, *, stall_seconds: float) -> None:
        self._app = app
        super().__init__(
            uvicorn.Config(
                app,
                http=connections(stall_seconds),
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Streams are open for as long as their readers stay: they end first."""
        context: Context = self._app.state.context
        for stream in context.open_streams:
            stream.cancel()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn sends itself once more the signal that stopped it. That would end us before the services close."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def listen(host: str, port: int) -> socket.socket:
    """A bound socket, taken before anything else starts. Raises Conflict if the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named asyncio sets TCP_NODELAY; else a frame waits up to 40 ms until the last is acknowledged.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise Conflict(
            f"Cannot listen on {host}:{port}: {error.strerror}. Is another service there? Choose one with --port."
        ) from error
    return listener


def _spare_the_collector() -> None:
    """Take all that start-up made out of the garbage collector's sight, and have it come less often.

    What start-up made stays for good, and going through it stopped every chat for a fifth of a second whenever a full
    collection came. At Python's own pace the collector took a sixth of a turn's CPU; at this one a collection of the
    young takes some 4 ms and memory stays the same.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 10)


def _shown_address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _exposed(settings: Settings) -> bool:
    """Whether strangers reach the service without a key, and nobody said that they may."""
    return not (settings.api_keys or settings.insecure or is_loopback(settings.host))


def _without_keys(settings: Settings) -> Denied:
    return Denied(
        f"Without THREADLINE_API_KEYS anybody who reaches {settings.host} could use this service. "
        "Set keys, or say --insecure if that is what you want."
    )
