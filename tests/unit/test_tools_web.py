"""The tools that ask web services, against stubs on loopback over real HTTP: weather, search and what can go wrong."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tests.stubs.web_services import KEY, Fault, Service, WebServices, web_services
from threadline.domain.errors import Invalid
from tools import search
from tools.catalog import Equipment, ToolConfig, build, open_toolbox
from tools.contract import Outcome, ToolFailure
from tools.toolbox import Toolbox


@pytest.fixture
async def web() -> AsyncIterator[WebServices]:
    async with web_services() as web:
        yield web


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, verify=False) as http:
        yield http


def config(web: WebServices, **changes: Any) -> ToolConfig:
    values: dict[str, Any] = {"timeout": 6, "cache_size": 100, "cache_ttl": 600, "search_providers": ("wikipedia",)}
    return ToolConfig(**(values | web.urls() | {"searxng_url": None} | changes))


def equipment(http: httpx.AsyncClient) -> Equipment:
    """What the tools that ask the network need; the others are not called here."""
    missing: Any = None
    return Equipment(
        http=http,
        public=http,
        parse_page=missing,
        refused=(),
        workspace_of=missing,
        folder_of=missing,
        run_code=missing,
    )


def opened(config: ToolConfig, *, http: httpx.AsyncClient) -> Toolbox:
    return open_toolbox(config, equipment(http))[0]


@pytest.fixture
def toolbox(web: WebServices, http: httpx.AsyncClient) -> Toolbox:
    return opened(config(web), http=http)


def result(outcome: Outcome) -> dict[str, Any]:
    assert outcome.error is None, outcome.error
    assert outcome.result is not None
    return outcome.result


def closed_port() -> str:
    """An address nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


# Weather


async def test_weather_now(toolbox: Toolbox, web: WebServices) -> None:
    assert result(await toolbox.call("weather", {"place": "Seoul"})) == {
        "place": "Seoul",
        "country": "South Korea",
        "local_time": "2026-11-22T18:00",
        "temperature_c": 7.3,
        "feels_like_c": 5.0,
        "humidity_percent": 40,
        "wind_kmh": 9.7,
        "condition": "clear sky",
        "condition_code": 0,
        "days": [],
        "source": "Open-Meteo",
    }
    (geocoding,), (forecast,) = web.asked("geocoding"), web.asked("weather")
    assert geocoding.params == {"name": "Seoul", "count": "10", "language": "en", "format": "json"}
    assert (forecast.params["latitude"], forecast.params["longitude"]) == ("37.566", "126.9784")
    assert forecast.params["timezone"] == "auto"
    assert "daily" not in forecast.params


async def test_weather_of_the_next_days(toolbox: Toolbox) -> None:
    days = result(await toolbox.call("weather", {"place": "Busan", "days": 7}))["days"]
    assert [day["date"] for day in days] == [f"2026-11-{day}" for day in range(22, 29)]
    assert days[1] == {
        "date": "2026-11-23",
        "min_c": 2.5,
        "max_c": 10.5,
        "condition": "light rain",
        "condition_code": 61,
        "precipitation_probability_percent": 10,
    }
    assert days[6]["precipitation_probability_percent"] is None


@pytest.mark.parametrize(
    ("place", "found", "country"),
    [
        ("서울", "서울특별시", "대한민국"),
        ("서울시", "서울특별시", "대한민국"),
        ("서울특별시", "서울특별시", "대한민국"),
        ("도쿄", "도쿄도", "일본"),
        ("양평", "양평", "대한민국"),  # in no table of ours: the service knows it by its Korean name
        ("seoul", "Seoul", "South Korea"),
        ("Paris", "Paris", "France"),
        ("Paris, Texas", "Paris", "United States"),
        ("Paris, US", "Paris", "United States"),
        ("Paris, Atlantis", "Paris", "France"),
    ],
)
async def test_places_in_english_and_korean(toolbox: Toolbox, place: str, found: str, country: str) -> None:
    weather = result(await toolbox.call("weather", {"place": place}))
    assert (weather["place"], weather["country"]) == (found, country)


@pytest.mark.parametrize("place", ["Atlantis", "아틀란티스", "Seoul\nignore everything", "///", "%00"])
async def test_unknown_place(toolbox: Toolbox, web: WebServices, place: str) -> None:
    outcome = await toolbox.call("weather", {"place": place})
    assert outcome.error == f"there is no place called {place}"
    assert not web.asked("weather")


FAULTS: list[tuple[Fault, str]] = [
    ("500", "the weather service answered with an error (status 500)"),
    ("429", "the weather service takes no more requests for now (status 429)"),
    ("401", "the weather service refused the request or its key (status 401)"),
    ("garbage", "the weather service sent an answer that could not be read"),
    ("wrong shape", "the weather service sent an answer that could not be read"),
    ("oversized", "the weather service sent an answer that is too large"),
    ("redirect", "the weather service answered with an error (status 302)"),
    ("hang", "the weather service did not answer in time"),
    ("drip", "the weather service did not answer in time"),
]


@pytest.mark.parametrize("service", ["geocoding", "weather"])
@pytest.mark.parametrize(("fault", "words"), FAULTS, ids=[fault for fault, _ in FAULTS])
async def test_weather_faults(
    web: WebServices, http: httpx.AsyncClient, service: Service, fault: Fault, words: str
) -> None:
    toolbox = opened(config(web, timeout=0.9), http=http)
    web.faults[service] = fault
    outcome = await toolbox.call("weather", {"place": "Seoul"})
    assert (outcome.result, outcome.error) == (None, words)
    assert outcome.ms < 900

    web.faults.clear()
    assert not (await toolbox.call("weather", {"place": "Seoul"})).cached, "an error must not be kept"


async def test_weather_service_that_is_not_there(web: WebServices, http: httpx.AsyncClient) -> None:
    toolbox = opened(config(web, geocoding_url=closed_port()), http=http)
    outcome = await toolbox.call("weather", {"place": "Seoul"})
    assert outcome.error == "the weather service could not be reached"


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "nonsense", "http://[", "http://127.0.0.1:1"])
async def test_a_wrong_address_is_a_service_out_of_reach(web: WebServices, http: httpx.AsyncClient, url: str) -> None:
    outcome = await opened(config(web, geocoding_url=url), http=http).call("weather", {"place": "Seoul"})
    assert outcome.error == "the weather service could not be reached"


async def test_forecast_without_current_values(toolbox: Toolbox, web: WebServices) -> None:
    web.faults["weather"] = "empty"
    outcome = await toolbox.call("weather", {"place": "Seoul"})
    assert outcome.error == "the weather service sent an answer that could not be read"


async def test_fifty_callers_ask_the_weather_service_once(toolbox: Toolbox, web: WebServices) -> None:
    outcomes = await asyncio.gather(*(toolbox.call("weather", {"place": "Seoul"}) for _ in range(50)))
    assert (len(web.asked("geocoding")), len(web.asked("weather"))) == (1, 1)
    assert len({json.dumps(result(outcome), sort_keys=True) for outcome in outcomes}) == 1
    assert (await toolbox.call("weather", {"place": "Seoul"})).cached
    assert len(web.calls) == 2


async def test_a_cancelled_call_lets_go_of_its_connection(
    toolbox: Toolbox, web: WebServices, http: httpx.AsyncClient
) -> None:
    web.faults["geocoding"] = "hang"
    call = asyncio.create_task(toolbox.call("weather", {"place": "Seoul"}))
    await asyncio.wait_for(web.arrived.wait(), 5)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    web.faults.clear()
    assert result(await toolbox.call("weather", {"place": "Seoul"}))["place"] == "Seoul"


# Search


async def test_wikipedia_in_english(toolbox: Toolbox, web: WebServices) -> None:
    assert result(await toolbox.call("search", {"query": "redis"})) == {
        "query": "redis",
        "provider": "wikipedia",
        "results": [
            {
                "title": "Redis",
                "url": f"{web.base_url}/wikipedia/en/wiki/Redis",
                "snippet": "Redis is an in-memory key–value database; 3 < 5.",
            },
            {
                "title": "Redis Stack",
                "url": f"{web.base_url}/wikipedia/en/wiki/Redis_Stack",
                "snippet": "Redis with search and JSON modules.",
            },
        ],
    }
    (call,) = web.calls
    assert call.headers["user-agent"].startswith("Threadline/")


async def test_wikipedia_in_korean(toolbox: Toolbox, web: WebServices) -> None:
    found = result(await toolbox.call("search", {"query": "세종대왕", "limit": 1}))["results"]
    assert found == [
        {
            "title": "세종대왕",
            "url": f"{web.base_url}/wikipedia/ko/wiki/%EC%84%B8%EC%A2%85%EB%8C%80%EC%99%95",
            "snippet": "세종대왕은 조선의 제4대 국왕이다. 한글을 창제하였다.",
        }
    ]
    assert web.calls[0].params == {"q": "세종대왕", "limit": "1"}


async def test_titles_are_quoted_in_addresses(toolbox: Toolbox) -> None:
    (page,) = result(await toolbox.call("search", {"query": "C++"}))["results"]
    assert page["url"].endswith("/wiki/C%2B%2B_(language)")


async def test_nothing_found_is_a_result(toolbox: Toolbox) -> None:
    found = result(await toolbox.call("search", {"query": "zzzz"}))
    assert found == {"query": "zzzz", "provider": "wikipedia", "results": []}


@pytest.mark.parametrize("provider", ["tavily", "brave", "searxng"])
@pytest.mark.parametrize(("query", "title"), [("langgraph", "LangGraph"), ("한글", "세종대왕")])
async def test_other_providers(
    web: WebServices, http: httpx.AsyncClient, provider: str, query: str, title: str
) -> None:
    key = SecretStr(KEY)
    changes = web.urls() | {"tavily_api_key": key, "brave_api_key": key, "search_providers": (provider,)}
    toolbox = opened(config(web, **changes), http=http)
    found = result(await toolbox.call("search", {"query": query, "limit": 1}))
    assert found["provider"] == provider
    (hit,) = found["results"]
    assert hit["title"] == title
    assert hit["url"].startswith(f"https://{provider}.example/")
    assert "<" not in hit["snippet"]
    assert "&amp;" not in hit["snippet"]
    assert result(await toolbox.call("search", {"query": "zzzz"}))["results"] == []


async def test_the_first_provider_with_results_wins(web: WebServices, http: httpx.AsyncClient) -> None:
    providers = ("tavily", "searxng", "wikipedia")
    changes = web.urls() | {"tavily_api_key": SecretStr(KEY), "search_providers": providers}
    toolbox = opened(config(web, cache_size=0, **changes), http=http)

    async def provider(query: str) -> str:
        return str(result(await toolbox.call("search", {"query": query}))["provider"])

    assert await provider("redis") == "tavily"
    web.faults["tavily"] = "500"
    assert await provider("redis") == "searxng"
    web.faults["searxng"] = "empty"
    assert await provider("redis") == "wikipedia"
    assert await provider("zzzz") == "wikipedia"
    web.faults["wikipedia"] = "garbage"
    assert result(await toolbox.call("search", {"query": "redis"})) == {
        "query": "redis",
        "provider": "searxng",
        "results": [],
    }


async def test_a_hanging_provider_leaves_time_for_the_next(web: WebServices, http: httpx.AsyncClient) -> None:
    changes = web.urls() | {"search_providers": ("searxng", "wikipedia")}
    toolbox = opened(config(web, timeout=1, **changes), http=http)
    web.faults["searxng"] = "hang"
    outcome = await toolbox.call("search", {"query": "redis"})
    assert result(outcome)["provider"] == "wikipedia"
    assert 450 <= outcome.ms < 1000


async def test_all_providers_failing_are_named_and_no_key_is_told(
    web: WebServices, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    wrong = SecretStr("a-secret-nobody-may-see")
    changes = web.urls() | {
        "tavily_api_key": wrong,
        "brave_api_key": wrong,
        "searxng_url": closed_port(),
        "search_providers": ("tavily", "brave", "searxng", "wikipedia"),
    }
    web.faults["wikipedia"] = "wrong shape"
    settings = config(web, **changes)
    outcome = await opened(settings, http=http).call("search", {"query": "redis"})
    assert outcome.error == (
        "no search service could be used: "
        "Tavily refused the request or its key (status 401); "
        "Brave refused the request or its key (status 401); "
        "SearXNG could not be reached; "
        "Wikipedia sent an answer that could not be read"
    )
    assert len(web.asked("tavily")) == len(web.asked("brave")) == 1
    assert wrong.get_secret_value() not in f"{outcome} {settings} {caplog.text}"


@pytest.mark.parametrize(
    ("fault", "words"),
    [(fault, words.replace("the weather service", "Wikipedia")) for fault, words in FAULTS],
    ids=[fault for fault, _ in FAULTS],
)
async def test_search_faults(web: WebServices, http: httpx.AsyncClient, fault: Fault, words: str) -> None:
    toolbox = opened(config(web, timeout=0.3), http=http)
    web.faults["wikipedia"] = fault
    outcome = await toolbox.call("search", {"query": "redis"})
    assert outcome.error == f"no search service could be used: {words}"
    web.faults.clear()
    assert not (await toolbox.call("search", {"query": "redis"})).cached


async def test_what_is_found_is_plain_text_of_bounded_length() -> None:
    async def provider(query: str, limit: int) -> search.Hits:
        return [
            {
                "title": "<em>One</em>&nbsp;two",
                "url": "https://a.example",
                "snippet": "a < b <br/>&lt;b&gt; " + "x" * 900,
            },
            {"title": "Script", "url": "javascript:alert(1)", "snippet": ""},
            {"title": "", "url": "https://b.example", "snippet": "no title"},
            {"title": "No address", "url": None, "snippet": None},
            {"title": "Bare", "url": "http://c.example", "snippet": None},
        ]

    toolbox = Toolbox([search.tool({"fake": provider}, timeout=5)])
    one, bare = result(await toolbox.call("search", {"query": "x"}))["results"]
    assert one["title"] == "One two"
    assert one["snippet"].startswith("a < b <b> xxx")
    assert len(one["snippet"]) == 500
    assert bare == {"title": "Bare", "url": "http://c.example", "snippet": ""}


class FakeEngines:
    """In the place of the ddgs library: nothing here may reach the internet."""

    answer: Any = ()
    release = threading.Event()

    def __init__(self, **options: Any) -> None:
        assert options["timeout"] >= 1

    def text(self, query: str, **options: Any) -> list[dict[str, Any]]:
        assert options == {"region": "kr-kr" if query == "한글" else "us-en", "max_results": 5}
        if self.answer == "hang":
            self.release.wait(10)
            return []
        if isinstance(self.answer, Exception):
            raise self.answer
        return list(self.answer)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> type[FakeEngines]:
    monkeypatch.setattr("ddgs.DDGS", FakeEngines)
    FakeEngines.release.clear()
    return FakeEngines


async def test_ddgs(engines: type[FakeEngines]) -> None:
    from ddgs.exceptions import DDGSException

    ask = search.ddgs(timeout=5)
    engines.answer = [{"title": "T", "href": "https://t.example", "body": "B"}]
    assert await ask("한글", 5) == [{"title": "T", "url": "https://t.example", "snippet": "B"}]
    engines.answer = DDGSException("No results found.")
    assert await ask("redis", 5) == []
    engines.answer = DDGSException("202 Ratelimit https://secret.example")
    with pytest.raises(ToolFailure, match=r"^ddgs could not be reached$"):
        await ask("redis", 5)


async def test_ddgs_that_hangs_blocks_nobody(engines: type[FakeEngines]) -> None:
    engines.answer = "hang"
    began = time.monotonic()
    try:
        with pytest.raises(ToolFailure, match=r"^ddgs did not answer in time$"):
            await search.ddgs(timeout=0.1)("redis", 5)
        assert time.monotonic() - began < 5
    finally:
        engines.release.set()


# The catalog


def test_catalog_lists_the_tools_without_asking_anyone(web: WebServices, http: httpx.AsyncClient) -> None:
    listed = build(config(web), equipment(http))
    assert [one.name for one in listed] == ["calculator", "weather", "search", "news", "web", "sql", "files", "code"]
    assert [one.reason for one in listed if one.tool is None] == ["no database is set: THREADLINE_SQL_URL"]
    assert all(one.tool.timeout == 6 for one in listed if one.tool is not None)
    assert not web.calls
    specs = opened(config(web), http=http).specs()
    assert len(json.dumps(specs)) < 7000
    assert specs[1]["parameters"]["required"] == ["place"]


def test_tools_are_switched_on_by_name(web: WebServices, http: httpx.AsyncClient) -> None:
    listed = build(config(web, enabled=("code", "weather")), equipment(http))
    assert [one.name for one in listed if one.tool is not None] == ["weather", "code"]
    assert {one.reason for one in listed if one.tool is None} == {
        "it is switched off: THREADLINE_TOOLS does not name it"
    }
    with pytest.raises(Invalid, match="no tool called wether"):
        build(config(web, enabled=("wether",)), equipment(http))


@pytest.mark.parametrize(
    ("providers", "words"),
    [(("altavista",), "no search provider called altavista"), (("wikipedia", "tavily"), "tavily needs its key")],
)
async def test_search_providers_must_be_known_and_set_up(
    web: WebServices, http: httpx.AsyncClient, providers: tuple[str, ...], words: str
) -> None:
    with pytest.raises(Invalid, match=words):
        build(config(web, search_providers=providers), equipment(http))


async def test_providers_that_are_set_up_come_first_by_default(
    web: WebServices, http: httpx.AsyncClient, engines: type[FakeEngines]
) -> None:
    engines.answer = ()
    changes = web.urls() | {"search_providers": (), "brave_api_key": SecretStr(KEY)}
    found = result(await opened(config(web, **changes), http=http).call("search", {"query": "zzzz"}))
    assert [call.service for call in web.calls] == ["brave", "searxng", "wikipedia"]
    assert found["provider"] == "ddgs"


# The stub by itself


def test_the_stub_runs_as_a_program() -> None:
    program = [sys.executable, "-m", "tests.stubs.web_services", "--port", "0"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            with httpx.Client(base_url=url, trust_env=False) as http:
                place = http.get("/geocoding/v1/search", params={"name": "서울특별시", "language": "ko"})
                assert place.json()["results"][0]["country"] == "대한민국"
                http.post("/_faults", json={"geocoding": "500"})
                assert http.get("/geocoding/v1/search", params={"name": "Seoul"}).status_code == 500
        finally:
            process.terminate()
    assert process.returncode is not None
