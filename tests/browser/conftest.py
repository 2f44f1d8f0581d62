"""A real Chromium, and the services the page is tried against.

Everything runs against the real service: with the built-in agent and the offline model, or with a project whose graphs
do what that agent never does (`tests/projects/page`).
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio
import uvicorn
from fastapi import FastAPI
from playwright.async_api import Browser, Error, Page, async_playwright

from tests.browser.workshop import installed
from tests.service import ROOT, process

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]
SHOTS = Path(__file__).parents[2] / "test-artifacts"


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Serve an application on a port the system picks, in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    ready = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready.set()

    server = Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    assert ready.wait(10), "the stub did not start"
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def real_service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The service as `threadline up` starts it, with the offline model, in a process of its own."""
    # Its tokens come one after the other, as a real model's do.
    async with process(tmp_path_factory.mktemp("page") / "data", THREADLINE_OFFLINE_DELAY="0.02") as (service, _):
        yield service.url


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def scripted_url(real_service: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The service with the graphs of `tests/projects/page`. The page of the other one may ask it."""
    config = ROOT / "tests" / "projects" / "page" / "langgraph.json"
    settings = {"THREADLINE_CONFIG": str(config), "THREADLINE_CORS_ORIGINS": real_service}
    async with process(tmp_path_factory.mktemp("scripted") / "data", **settings) as (service, _):
        yield service.url


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's source with its tools."""
    return installed(tmp_path_factory.mktemp("page-source"))


@pytest.fixture
def base_url(request: pytest.FixtureRequest) -> str:
    """The service under test: the real one, unless the variable names another."""
    given = os.environ.get("THREADLINE_TEST_URL")
    return given.rstrip("/") if given else str(request.getfixturevalue("real_service"))


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: the page is not tried in a browser")
    async with async_playwright() as playwright:
        try:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        except Error as error:
            pytest.skip(f"Chromium does not start: {error.message.splitlines()[0]}")
        yield browser
        await browser.close()


class Watch:
    """What a page did that it should not: errors on its console, requests that leave the machine."""

    def __init__(self, page: Page) -> None:
        self.errors: list[str] = []
        self.outside: list[str] = []
        page.on("console", lambda message: message.type in ("error", "warning") and self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: local(request.url) or self.outside.append(request.url))

    def allow(self, text: str) -> None:
        """Forget the errors a test brings about on purpose."""
        self.errors = [error for error in self.errors if text not in error]


def local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "http://localhost:"))


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(browser: Browser) -> AsyncIterator[Callable[..., object]]:
    """Open the page in a fresh browser profile; at the end no error may be left, nor a request to anywhere else."""
    watched: list[tuple[Page, Watch]] = []

    async def open_page(
        url: str,
        *,
        width: int = 1280,
        dark: bool = False,
        locale: str = "en-US",
        script: str = "",
        still: bool = False,
    ) -> Page:
        context = await browser.new_context(
            viewport={"width": width, "height": 844 if width < 600 else 800},
            color_scheme="dark" if dark else "light",
            locale=locale,
            reduced_motion="reduce" if still else "no-preference",
            permissions=["clipboard-read", "clipboard-write"],
        )
        context.set_default_timeout(10_000)
        page = await context.new_page()
        if script:
            await page.add_init_script(script)
        watch = Watch(page)
        watched.append((page, watch))
        page.watch = watch
        await page.goto(url)
        return page

    yield open_page
    for page, watch in watched:
        await page.context.close()
        assert watch.errors == []
        assert watch.outside == []
