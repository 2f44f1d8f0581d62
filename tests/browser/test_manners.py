"""How the page looks, listens and speaks: sizes, colours, keyboard, screen readers, keys, other servers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import SHOTS
from tests.browser.talk import ask, ended, last, say, texts_of
from tests.service import process

pytestmark = pytest.mark.asyncio(loop_scope="session")

PANELS = ("graph", "timeline", "events")


@pytest.mark.parametrize("locale", ["en-US", "ko-KR"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
async def test_it_fits_the_window(open_page, base_url, width, dark, locale):
    page = await open_page(base_url, width=width, dark=dark, locale=locale)
    name = f"{width}-{'dark' if dark else 'light'}-{locale[:2]}"
    await expect(page.locator(".prompt")).to_have_count(4)
    await shoot(page, f"{name}-empty")
    await page.click(".prompt >> nth=0")
    await ended(page)
    await expect(last(page, ".to-checkpoint")).to_be_visible()
    await shoot(page, f"{name}-chat")
    if width == 390:
        await page.click("#open-sidebar")
        await expect(page.locator(".sessions a >> nth=0")).to_be_in_viewport()
        await expect(page.locator("#sidebar")).to_have_css("transform", "none")
        await shoot(page, f"{name}-sessions")
        await page.keyboard.press("Escape")
        await expect(page.locator("#sidebar")).not_to_be_in_viewport()
    for panel in PANELS:
        if width == 390 and await page.locator("#close-panel").count():
            await page.click("#close-panel")
        if await page.locator("#panel").get_attribute("data-panel") != panel if width > 390 else True:
            await page.click(f"#toggle-{panel}")
        await expect(page.locator("#panel .toolbar").first).to_be_visible()
        await shoot(page, f"{name}-{panel}")


async def shoot(page: Page, name: str) -> None:
    SHOTS.mkdir(exist_ok=True)
    await page.screenshot(path=SHOTS / f"{name}.png")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_axe_finds_nothing(open_page, scripted_url, base_url, workshop: Path, dark):
    axe = (workshop / "node_modules" / "axe-core" / "axe.min.js").read_text()
    page = await open_page(base_url, dark=dark, still=True)

    async def check(view: str) -> None:
        await page.evaluate(f"{axe}; undefined")
        found = await page.evaluate("axe.run(document, { resultTypes: ['violations'] }).then((all) => all.violations)")
        assert [(view, one["id"], one["nodes"][0]["html"][:160]) for one in found] == []

    await expect(page.locator(".prompt")).to_have_count(4)
    await check("empty")
    await ask(page, "What is (15+27)*3?")
    await last(page, ".regenerate").click()
    await expect(last(page, ".switcher")).to_be_visible()
    for panel in PANELS:
        if await page.locator("#panel").get_attribute("data-panel") != panel:
            await page.click(f"#toggle-{panel}")
        await expect(page.locator("#panel .toolbar").first).to_be_visible()
        if panel == "timeline":
            for view in ("changes", "state", "messages"):
                await page.click(f"[data-view={view}]")
                await check(f"timeline {view}")
        await check(panel)
    for opener in ("#open-inbox", "#open-assistants"):
        await page.click(opener)
        await expect(page.locator("dialog .dialog-head")).to_be_visible()
        await check(opener)
        await page.keyboard.press("Escape")
    await page.keyboard.press("Control+k")
    await check("palette")
    await page.goto(scripted_url)
    await say(page, "approve a mail")
    await expect(last(page, ".approval")).to_be_visible()
    await check("approval")
    await page.click("#new-chat")
    await ask(page, "markup")
    await expect(last(page, ".hljs-built_in")).to_be_visible()
    await check("markdown")
    await page.keyboard.press("Escape")
    await ask(page, f"please fail, {'dark' if dark else 'light'}")
    await check("error")


async def test_colours_and_type_are_chosen_and_kept(open_page, base_url):
    page = await open_page(base_url)
    await page.click("[data-theme-choice=dark]")
    await expect(page.locator("body")).to_have_css("background-color", "rgb(18, 22, 21)")
    await page.reload()
    await expect(page.locator("body")).to_have_css("background-color", "rgb(18, 22, 21)")
    await page.click("[data-theme-choice=light]")
    await expect(page.locator("body")).to_have_css("background-color", "rgb(246, 247, 246)")
    await page.keyboard.press("Control+k")
    await page.keyboard.type("larger")
    await page.keyboard.press("Enter")
    await expect(page.locator("html")).to_have_css("font-size", "16px")


async def test_everything_goes_by_keyboard(open_page, base_url):
    page = await open_page(base_url)
    await ask(page, "What is (15+27)*3?")
    await page.locator("#composer").blur()
    await page.keyboard.press("?")
    await expect(page.locator(".keys-list")).to_contain_text("This list")
    await page.keyboard.press("Escape")
    await expect(page.locator("dialog")).to_have_count(0)
    for key, panel in (("t", "timeline"), ("e", "events"), ("g", "graph")):
        await page.keyboard.press(key)
        await expect(page.locator("#panel")).to_have_attribute("data-panel", panel)
    await page.keyboard.press("/")
    await expect(page.locator("#composer")).to_be_focused()
    await page.keyboard.type("?")
    await expect(page.locator("#composer")).to_have_value("?")  # a letter is a letter where one writes
    await page.keyboard.press("Control+k")
    await page.keyboard.type("new chat")
    await page.keyboard.press("Enter")
    await expect(page.locator(".prompt")).to_have_count(4)
    await page.keyboard.press("Control+k")
    await page.keyboard.type("(15+27)")
    await page.keyboard.press("Enter")
    await expect(texts_of(page).first).to_contain_text("(15+27)")


async def test_everything_to_press_has_a_name(open_page, base_url):
    page = await open_page(base_url)
    await ask(page, "What is (15+27)*3?")
    for panel in PANELS:
        if await page.locator("#panel").get_attribute("data-panel") != panel:
            await page.click(f"#toggle-{panel}")
        await expect(page.locator("#panel .toolbar").first).to_be_visible()
        nameless = await page.evaluate(
            """() => [...document.querySelectorAll('button, a, input, textarea, select, meter')]
              .filter((node) => !(node.getAttribute('aria-label') || node.textContent.trim() || node.labels?.length))
              .map((node) => node.outerHTML)"""
        )
        assert nameless == []


async def test_the_key_is_asked_for_once_and_kept_for_the_tab(open_page, tmp_path):
    async with process(tmp_path / "data", THREADLINE_API_KEYS="let-me-in") as (service, _):
        page = await open_page(service.url)
        dialog = page.locator("dialog")
        await expect(dialog).to_have_count(1)
        await dialog.locator("input").fill("wrong")
        await dialog.locator("input").press("Enter")
        await expect(dialog).to_contain_text("not accepted")
        await dialog.locator("input").fill("let-me-in")
        await dialog.locator("input").press("Enter")
        await expect(dialog).to_have_count(0)
        await ask(page, "What is (15+27)*3?")
        await page.reload()
        await expect(last(page, ".answer")).to_contain_text("126")
        await expect(dialog).to_have_count(0)
        assert "let-me-in" not in await page.evaluate("JSON.stringify(localStorage)")
        await page.keyboard.press("e")
        await page.click("#new-chat")
        await ask(page, "count")
        await page.click("#copy-curl")
        await expect(page.locator("#toast")).to_be_visible()
        command = await page.evaluate("navigator.clipboard.readText()")
        assert "$API_KEY" in command
        assert "let-me-in" not in command
    page.watch.allow("401")


# Other servers


async def test_the_page_speaks_to_another_server(open_page, base_url, scripted_url):
    page = await open_page(f"{base_url}/?apiUrl={scripted_url}")
    await expect(page.locator(".elsewhere")).to_contain_text(scripted_url.removeprefix("http://"))
    await ask(page, "hello over there")
    await expect(last(page, ".answer")).to_contain_text("You said hello over there")
    await page.click("#toggle-timeline")
    await expect(page.locator(".detail-title")).to_contain_text("answer")


async def test_a_server_on_another_machine_is_asked_only_when_a_person_says_so(open_page, base_url):
    page = await open_page(f"{base_url}/?apiUrl=https://example.com")
    await expect(page.locator("h1")).to_have_text("Connect to example.com?")
    await expect(page.get_by_role("button", name="Connect")).to_be_visible()


async def test_a_server_that_is_not_threadline_is_enough(open_page, scripted_url):
    """Without any route of our own: as against any other server of the LangGraph API."""
    page = await open_page("about:blank")
    own: list[str] = []
    page.on("request", lambda request: re.search(r"/(sessions|chat)\b", request.url) and own.append(request.url))
    info = {"status": 200, "content_type": "application/json", "body": json.dumps({"version": "0.4.0"})}
    await page.route("**/info", lambda route: route.fulfill(**info))
    await page.goto(scripted_url)
    await ask(page, "one")
    await ask(page, "two")
    await last(page, ".regenerate").click()
    await expect(last(page, ".reply-foot .switcher")).to_contain_text("2 / 2")
    await page.click("#toggle-timeline")
    await expect(page.locator(".detail .switch")).to_be_visible()
    await page.keyboard.press("ArrowLeft")
    await expect(page.locator(".detail-title")).to_contain_text("plan")
    await expect(page.get_by_role("button", name="Replay from here")).to_have_count(0)
    await expect(page.locator(".sessions a[aria-current]")).to_contain_text("one")
    await page.reload()
    await expect(texts_of(page)).to_have_text(["one", "two"])
    assert own == []
