"""What a person does at the page, in the words of the tests."""

from __future__ import annotations

from playwright.async_api import Locator, Page, expect


async def say(page: Page, text: str) -> None:
    await page.fill("#composer", text)
    await page.press("#composer", "Enter")


async def ended(page: Page) -> None:
    """Wait for the end of what runs: the last answer has its foot, and nothing can be stopped."""
    await expect(page.locator("#stop")).to_have_count(0)
    await expect(page.locator(".doing, .answer[aria-busy=true]")).to_have_count(0)
    await expect(last(page, ".reply-foot")).to_be_visible()


async def ask(page: Page, text: str) -> None:
    """Say something and wait for the answer."""
    turns = await page.locator(".turn").count()
    await say(page, text)
    await expect(page.locator(".turn")).to_have_count(turns + 1)
    await ended(page)
    await expect(last(page, ".to-checkpoint")).to_be_visible()  # its checkpoints have been read


async def until(page: Page, condition: str) -> None:
    await page.evaluate(
        f"new Promise((met) => {{ const look = () => ({condition} ? met() : requestAnimationFrame(look)); look(); }})"
    )


def last(page: Page, inside: str) -> Locator:
    return page.locator(f".turn:last-child {inside}")


def texts_of(page: Page) -> Locator:
    return page.locator(".said p")
