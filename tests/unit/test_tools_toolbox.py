"""The toolbox: whatever goes wrong in a tool comes out as words, and what was asked before comes from the cache."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from pydantic import BaseModel, Field
from structlog.testing import capture_logs

from tools.contract import Arguments, Asker, Outcome, Scope, Tool, ToolFailure
from tools.toolbox import Toolbox


class Word(Arguments):
    word: str = Field(min_length=1, max_length=20)
    times: int = Field(1, ge=1, le=3)


class Shout(BaseModel):
    shout: str


class Shouter:
    """A tool that counts its calls and does as told before it answers."""

    def __init__(self, before: Callable[[Word], Awaitable[None]] | None = None) -> None:
        self.calls = 0
        self.called = asyncio.Event()
        self.cancelled = 0
        self.before = before

    async def __call__(self, asked: Word, _: Asker) -> Shout:
        self.calls += 1
        self.called.set()
        try:
            if self.before:
                await self.before(asked)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return Shout(shout=asked.word.upper() * asked.times)


def box(
    shouter: Callable[[Word, Asker], Awaitable[BaseModel]],
    *,
    size: int = 10,
    ttl: float = 600,
    cacheable: bool = True,
    timeout: float = 10,
    version: str = "1",
    scope: Scope = "service",
) -> Toolbox:
    tool = Tool(
        "shout", "Says it louder.", Word, shouter, timeout=timeout, version=version, cacheable=cacheable, scope=scope
    )
    return Toolbox([tool], cache_size=size, cache_ttl=ttl)


# Calling


async def test_a_call_comes_to_an_outcome() -> None:
    outcome = await box(Shouter()).call("shout", {"word": " hey "})
    assert outcome == Outcome("shout", {"word": "hey", "times": 1}, {"shout": "HEY"}, None, outcome.ms, cached=False)
    assert outcome.ms >= 0


def test_specs_are_compact() -> None:
    assert box(Shouter()).specs() == [
        {
            "name": "shout",
            "description": "Says it louder.",
            "parameters": {
                "type": "object",
                "properties": {
                    "word": {"type": "string", "minLength": 1, "maxLength": 20},
                    "times": {"type": "integer", "default": 1, "minimum": 1, "maximum": 3},
                },
                "required": ["word"],
                "additionalProperties": False,
            },
        }
    ]


async def test_an_unknown_tool_is_named_with_those_there_are() -> None:
    outcome = await box(Shouter()).call("whisper", {"word": "hey"})
    assert (outcome.result, outcome.args) == (None, {"word": "hey"})
    assert outcome.error == "there is no tool called whisper; there are shout"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({}, "argument 'word' is missing. shout takes: word, times (optional)"),
        ({"word": "a", "volume": 11}, "there is no argument 'volume'"),
        ({"word": "a", "times": 9}, "argument 'times': input should be less than or equal to 3"),
        ({"word": "a", "times": "often"}, "argument 'times': input should be a valid integer"),
        ({"word": 5}, "argument 'word': input should be a valid string"),
        (
            {"word": "secret" * 9, "times": 0},
            "argument 'word': string should have at most 20 characters; argument 'times'",
        ),
        ({"word": "\ud800"}, "argument 'word'"),
        (["hey"], "the arguments must be a JSON object"),
        (None, "the arguments must be a JSON object"),
    ],
)
async def test_wrong_arguments_are_explained_and_never_run(args: dict[str, object], words: str) -> None:
    shouter = Shouter()
    outcome = await box(shouter).call("shout", args)
    assert outcome.result is None
    assert words in str(outcome.error)
    assert "secret" not in str(outcome.error)
    assert shouter.calls == 0


async def test_a_failure_is_told_in_the_tools_own_words() -> None:
    async def fail(_: Word) -> None:
        raise ToolFailure("the megaphone is empty", retryable=True)

    with capture_logs() as logs:
        outcome = await box(Shouter(fail)).call("shout", {"word": "hey"})
    assert (outcome.result, outcome.error) == (None, "the megaphone is empty")
    assert logs == []


async def test_an_unexpected_failure_is_logged_once_without_what_was_asked() -> None:
    async def fail(asked: Word) -> None:
        raise KeyError(asked.word)

    with capture_logs() as logs:
        outcome = await box(Shouter(fail)).call("shout", {"word": "secret"})
    assert (outcome.result, outcome.error) == (None, "the tool failed unexpectedly")
    assert [(line["event"], line["tool"], line["error"]) for line in logs] == [("tool_failed", "shout", "KeyError")]
    assert logs[0]["where"].startswith("test_tools_toolbox.py:")
    assert "secret" not in str(logs)


async def test_a_result_that_is_no_text_is_an_unexpected_failure() -> None:
    async def broken(_: Word) -> BaseModel:
        return Shout.model_construct(shout="\ud800")

    outcome = await box(broken).call("shout", {"word": "hey"})
    assert outcome.error == "the tool failed unexpectedly"


@pytest.mark.parametrize("cacheable", [True, False])
async def test_a_tool_that_takes_too_long_is_stopped(cacheable: bool) -> None:
    async def forever(_: Word) -> None:
        await asyncio.Event().wait()

    shouter = Shouter(forever)
    outcome = await box(shouter, timeout=0.05, cacheable=cacheable).call("shout", {"word": "hey"})
    assert outcome.error == "shout took longer than 0.05 seconds and was stopped"
    assert outcome.ms >= 50
    assert shouter.cancelled == 1


# The cache


async def test_a_second_asker_is_answered_from_the_cache() -> None:
    shouter = Shouter()
    toolbox = box(shouter)
    first = await toolbox.call("shout", {"word": "hey", "times": 2})
    assert first.result is not None
    first.result["shout"] = "changed by its owner"
    second = await toolbox.call("shout", {"times": 2, "word": "hey"})
    assert (first.cached, second.cached) == (False, True)
    assert second.result == {"shout": "HEYHEY"}
    assert shouter.calls == 1


async def test_other_arguments_and_another_version_are_other_results() -> None:
    shouter = Shouter()
    toolbox = box(shouter)
    assert not (await toolbox.call("shout", {"word": "a"})).cached
    assert not (await toolbox.call("shout", {"word": "b"})).cached
    newer = box(shouter, version="2")
    newer._cache = toolbox._cache  # the same store, as if it outlived the update
    assert not (await newer.call("shout", {"word": "a"})).cached
    assert shouter.calls == 3


async def test_fifty_identical_askers_cause_one_call() -> None:
    let_go = asyncio.Event()

    async def wait(_: Word) -> None:
        await let_go.wait()

    shouter = Shouter(wait)
    toolbox = box(shouter)
    askers = [asyncio.create_task(toolbox.call("shout", {"word": "hey"})) for _ in range(50)]
    await asyncio.wait_for(shouter.called.wait(), 5)
    let_go.set()
    outcomes = await asyncio.gather(*askers)
    assert shouter.calls == 1
    assert all(outcome.result == {"shout": "HEY"} for outcome in outcomes)
    assert sum(not outcome.cached for outcome in outcomes) == 1


async def test_fifty_identical_askers_share_a_failure_and_the_next_one_tries_again() -> None:
    healthy = False

    async def maybe(_: Word) -> None:
        await asyncio.sleep(0)
        if not healthy:
            raise ToolFailure("not now")

    shouter = Shouter(maybe)
    toolbox = box(shouter)
    outcomes = await asyncio.gather(*(toolbox.call("shout", {"word": "hey"}) for _ in range(50)))
    assert {(outcome.error, outcome.cached) for outcome in outcomes} == {("not now", False)}
    assert shouter.calls == 1
    healthy = True
    again = await toolbox.call("shout", {"word": "hey"})
    assert (again.result, again.cached) == ({"shout": "HEY"}, False)
    assert shouter.calls == 2


async def test_results_grow_old() -> None:
    shouter = Shouter()
    toolbox = box(shouter, ttl=0.2)
    began = time.monotonic()
    assert not (await toolbox.call("shout", {"word": "hey"})).cached
    assert (await toolbox.call("shout", {"word": "hey"})).cached
    while (await toolbox.call("shout", {"word": "hey"})).cached:
        assert time.monotonic() - began < 5
        await asyncio.sleep(0.01)
    assert time.monotonic() - began >= 0.2
    assert shouter.calls == 2


async def test_the_result_not_asked_for_longest_makes_room() -> None:
    toolbox = box(Shouter(), size=2)

    async def cached(word: str) -> bool:
        return (await toolbox.call("shout", {"word": word})).cached

    assert [await cached(word) for word in "ab"] == [False, False]
    assert await cached("a")
    assert not await cached("c")  # b goes
    assert [await cached(word) for word in "acb"] == [True, True, False]
    assert toolbox._cache is not None
    assert await toolbox._cache.get_keys_count() == 2


@pytest.mark.parametrize(("size", "cacheable"), [(0, True), (10, False)])
async def test_without_a_cache_every_call_is_made(size: int, cacheable: bool) -> None:
    shouter = Shouter()
    toolbox = box(shouter, size=size, cacheable=cacheable)
    outcomes = await asyncio.gather(*(toolbox.call("shout", {"word": "hey"}) for _ in range(5)))
    assert not any(outcome.cached for outcome in outcomes)
    assert shouter.calls == 5


# Leaving


async def test_a_cancelled_asker_does_not_take_the_others_along() -> None:
    let_go = asyncio.Event()

    async def wait(_: Word) -> None:
        await let_go.wait()

    shouter = Shouter(wait)
    toolbox = box(shouter)
    first, second = (asyncio.create_task(toolbox.call("shout", {"word": "hey"})) for _ in range(2))
    await asyncio.wait_for(shouter.called.wait(), 5)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    let_go.set()
    assert (await second).result == {"shout": "HEY"}
    assert (shouter.calls, shouter.cancelled) == (1, 0)


@pytest.mark.parametrize("cacheable", [True, False])
async def test_the_last_asker_to_leave_takes_the_call_along(cacheable: bool) -> None:
    async def forever(_: Word) -> None:
        await asyncio.Event().wait()

    shouter = Shouter(forever)
    toolbox = box(shouter, cacheable=cacheable)
    askers = [asyncio.create_task(toolbox.call("shout", {"word": "hey"})) for _ in range(2)]
    await asyncio.wait_for(shouter.called.wait(), 5)
    for asker in askers:
        asker.cancel()
    for asker in askers:
        with pytest.raises(asyncio.CancelledError):
            await asker
    assert shouter.cancelled == shouter.calls
    assert not toolbox._flights
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_who_asks_while_an_abandoned_call_ends_gets_a_call_of_its_own() -> None:
    ending = asyncio.Event()

    async def linger(_: Word) -> None:
        if shouter.calls > 1:
            return
        try:
            await asyncio.Event().wait()
        finally:
            await ending.wait()

    shouter = Shouter(linger)
    toolbox = box(shouter)
    leaver = asyncio.create_task(toolbox.call("shout", {"word": "hey"}))
    await asyncio.wait_for(shouter.called.wait(), 5)
    leaver.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    newcomer = await toolbox.call("shout", {"word": "hey"})
    assert newcomer.result == {"shout": "HEY"}
    ending.set()
    with pytest.raises(asyncio.CancelledError):
        await leaver


# Whose it is


@pytest.mark.parametrize(("scope", "calls"), [("service", 1), ("caller", 2), ("session", 3)])
async def test_a_result_is_kept_for_those_it_is_for(scope: Scope, calls: int) -> None:
    shouter = Shouter()
    toolbox = box(shouter, scope=scope)

    for asker in (Asker("kim", "1"), Asker("kim", "2"), Asker("lee", "3"), Asker("kim", "1")):
        assert (await toolbox.call("shout", {"word": "hey"}, asker)).error is None

    assert shouter.calls == calls


def test_what_changes_something_is_never_kept() -> None:
    with pytest.raises(ValueError, match="only what reads can be cached"):
        Tool("shout", "", Word, Shouter(), timeout=1, risk="write", cacheable=True)
