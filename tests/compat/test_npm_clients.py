"""The clients of npm: the JavaScript SDK in Node.js, and the React hooks in Chromium from an origin of their own."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse
from playwright.async_api import Error, Page, async_playwright, expect

from tests.browser.conftest import ARGUMENTS, CHROMIUM, served
from tests.compat.conftest import PROJECT
from tests.conftest import Start
from tests.service import ROOT, Client

NPM = ROOT / "tests" / "compat" / "npm"
UNREACHED = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ECONNRESET", "ERR_SOCKET_TIMEOUT")
TOKENS = "tok0 tok1 tok2 tok3 tok4 "
PAGE = '<!doctype html><meta charset="utf-8"><div id="root"></div><script src="/page.js"></script>'

pytestmark = pytest.mark.timeout(180)


async def output_of(*command: str, cwd: Path, seconds: float) -> tuple[int, str]:
    """What a command returned and printed; it is ended when its time is up."""
    child = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdin=asyncio.subprocess.DEVNULL, stdout=-1, stderr=asyncio.subprocess.STDOUT
    )
    try:
        printed, _ = await asyncio.wait_for(child.communicate(), seconds)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return child.returncode or 0, printed.decode()


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clients as the lock file has them, installed outside of the repository, and the page as one script."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: the clients of npm are not tried")
    folder = tmp_path_factory.mktemp("npm") / "clients"
    shutil.copytree(NPM, folder, ignore=shutil.ignore_patterns("node_modules"))
    install = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
    status, printed = asyncio.run(output_of(*install, cwd=folder, seconds=120))
    if status and any(reason in printed for reason in UNREACHED):
        pytest.skip("the npm registry cannot be reached: the clients of npm are not tried")
    assert status == 0, printed
    return folder


async def test_the_javascript_sdk(server: Client, modules: Path) -> None:
    url = str(server.http.base_url).rstrip("/")
    status, printed = await output_of("node", "client.mjs", url, cwd=modules, seconds=60)

    assert status == 0, printed
    seen: dict[str, Any] = json.loads(printed)
    assert seen == {
        "assistant": "agent",
        "nodes": ["__start__", "agent", "tools", "ask", "__end__"],
        "schema": ["messages"],
        "created": True,
        "nodesRun": ["agent", "tools", "agent", "ask"],
        "answer": TOKENS,
        "custom": {"progress": "thinking"},
        "joined": True,
        "state": 4,
        "history": 3,
        "found": [True],
        "waited": TOKENS,
        "cancelled": "interrupted",
        "error": "ValueError: The node agent failed.",
        "item": {"value": 1},
        "cron": "0 0 1 1 *",
        "streamed": [TOKENS],
        "output": 2,
    }


@pytest.fixture
def origin(modules: Path) -> Iterator[str]:
    """Where the React page is served from."""
    app = FastAPI()
    app.get("/")(lambda: HTMLResponse(PAGE))
    app.get("/page.js")(lambda: FileResponse(modules / "page.js"))
    with served(app) as url:
        yield url


async def test_the_react_hook(start: Start, modules: Path, origin: str) -> None:
    bundle = ("page.jsx", "--bundle", "--jsx=automatic", "--outfile=page.js", '--define:process.env.NODE_ENV="test"')
    status, printed = await output_of("node_modules/.bin/esbuild", *bundle, cwd=modules, seconds=60)
    assert status == 0, printed
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: the React hook is not tried")
    async with start(config=PROJECT, cors_origins=(origin,)) as service, async_playwright() as playwright:
        try:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        except Error as error:
            pytest.skip(f"Chromium does not start: {error.message.splitlines()[0]}")
        page = await browser.new_page()
        page.set_default_timeout(15_000)
        failed: list[str] = []
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.on("requestfailed", lambda request: failed.append(f"{request.url} {request.failure}"))
        await page.goto(f"{origin}/?service={str(service.http.base_url).rstrip('/')}")

        await say(page, "hi")
        await expect(page.locator("li.ai")).to_have_text(["tok0 tok1 tok2 tok3 tok4"])
        await expect(page.locator("main")).to_have_attribute("data-loading", "false")
        await say(page, "approve")
        await expect(page.locator("#approve")).to_have_text('{"question":"ok?","for":"approve"}')
        await page.click("#approve")
        await expect(page.locator("li.ai").last).to_have_text("approved: yes")
        await expect(page.locator("li.human")).to_have_text(["hi", "approve"])
        await expect(page.locator("#error")).to_have_count(0)
        assert not [failure for failure in failed if "ERR_ABORTED" not in failure], failed
        await browser.close()


async def say(page: Page, text: str) -> None:
    await page.fill("input", text)
    await page.click("#send")


def test_the_lock_file_names_no_place_to_fetch_from() -> None:
    lock = (NPM / "package-lock.json").read_text(encoding="utf-8")
    assert not re.search(r'"resolved"|registry', lock)
