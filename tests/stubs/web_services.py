"""The web services the tools ask, on loopback: Open-Meteo, Wikipedia, Tavily, Brave and SearXNG.

In a test: `async with web_services() as web:`. By itself: `python -m tests.stubs.web_services --port 0` prints its base
address. Either way a fault is set with `POST /_faults {"weather": "hang"}` or `web.faults["weather"] = "hang"`.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Literal

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

KEY = "stub-key-of-tavily-and-brave"
TODAY = date(2026, 11, 22)

Service = Literal["weather", "geocoding", "wikipedia", "tavily", "brave", "searxng"]
Fault = Literal["hang", "drip", "500", "429", "401", "garbage", "wrong shape", "oversized", "redirect", "empty"]


@dataclass(frozen=True, slots=True)
class Call:
    """A request that arrived. Header names are in lower case."""

    service: Service
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: Any = None


@dataclass(slots=True)
class WebServices:
    """Where the stub listens, what it was asked, and how it is to misbehave."""

    base_url: str
    calls: list[Call] = field(default_factory=list)
    faults: dict[str, Fault] = field(default_factory=dict)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever a request arrives."""
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    """Until it is set, requests with the fault `hang` stay without an answer."""

    def asked(self, service: Service) -> list[Call]:
        return [call for call in self.calls if call.service == service]

    def urls(self) -> dict[str, str]:
        """The addresses by the name of their setting."""
        return {
            "weather_url": f"{self.base_url}/weather",
            "geocoding_url": f"{self.base_url}/geocoding",
            "wikipedia_url": f"{self.base_url}/wikipedia/{{language}}",
            "tavily_url": f"{self.base_url}/tavily",
            "brave_url": f"{self.base_url}/brave",
            "searxng_url": f"{self.base_url}/searxng",
        }


@asynccontextmanager
async def web_services(port: int = 0) -> AsyncIterator[WebServices]:
    with socket.create_server(("127.0.0.1", port)) as listener:
        web = WebServices(f"http://127.0.0.1:{listener.getsockname()[1]}")
        config = uvicorn.Config(_app(web), log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield web
        finally:
            web.hold.set()
            server.should_exit = True
            await serving


def _app(web: WebServices) -> Starlette:
    def route(path: str, service: Service, answer: Any, method: str = "GET") -> Route:
        async def endpoint(request: Request) -> Response:
            body = await request.json() if method == "POST" else None
            web.calls.append(Call(service, request.url.path, dict(request.query_params), dict(request.headers), body))
            web.arrived.set()
            if fault := web.faults.get(service):
                return await _misbehave(web, fault)
            return answer(request, body)  # type: ignore[no-any-return]

        return Route(path, endpoint, methods=[method])

    async def faults(request: Request) -> Response:
        web.faults.clear()
        web.faults.update(await request.json())
        return JSONResponse(web.faults)

    return Starlette(
        routes=[
            route("/geocoding/v1/search", "geocoding", _geocoding),
            route("/weather/v1/forecast", "weather", _forecast),
            route("/wikipedia/{language}/w/rest.php/v1/search/page", "wikipedia", _wikipedia),
            route("/tavily/search", "tavily", _tavily, "POST"),
            route("/brave/res/v1/web/search", "brave", _brave),
            route("/searxng/search", "searxng", _searxng),
            Route("/_faults", faults, methods=["POST"]),
        ]
    )


async def _misbehave(web: WebServices, fault: Fault) -> Response:
    async def drip() -> AsyncIterator[bytes]:
        while not web.hold.is_set():
            yield b" "
            await asyncio.sleep(0.01)

    async def flood() -> AsyncIterator[bytes]:
        yield b'{"results": "'
        for _ in range(4000):
            yield b"x" * 1000
        yield b'"}'

    match fault:
        case "hang":
            await web.hold.wait()
            return JSONResponse({})
        case "drip":
            return StreamingResponse(drip(), media_type="application/json")
        case "oversized":
            return StreamingResponse(flood(), media_type="application/json")
        case "garbage":
            return Response('{"results": [', media_type="application/json")
        case "wrong shape":
            return JSONResponse(["nothing", "of", "the", "kind"])
        case "empty":
            return JSONResponse({})
        case "redirect":
            return RedirectResponse("/_elsewhere", status_code=302)
        case _:
            return JSONResponse({"reason": "on purpose"}, status_code=int(fault))


# Open-Meteo


def _place(
    name: str, korean: str, where: tuple[str, str, str, str], at: tuple[float, float], zone: str
) -> dict[str, Any]:
    country, country_ko, code, admin = where
    return {
        "en": {"name": name, "country": country},
        "ko": {"name": korean, "country": country_ko},
        "rest": {"latitude": at[0], "longitude": at[1], "country_code": code, "admin1": admin, "timezone": zone},
    }


PLACES = (
    _place("Seoul", "서울특별시", ("South Korea", "대한민국", "KR", "Seoul"), (37.566, 126.9784), "Asia/Seoul"),
    _place("Busan", "부산", ("South Korea", "대한민국", "KR", "Busan"), (35.1017, 129.03), "Asia/Seoul"),
    _place(
        "Gyeongju", "경주", ("South Korea", "대한민국", "KR", "Gyeongsangbuk-do"), (35.8428, 129.2117), "Asia/Seoul"
    ),
    _place("Paris", "파리", ("France", "프랑스", "FR", "Île-de-France"), (48.8534, 2.3488), "Europe/Paris"),
    _place("Paris", "패리스", ("United States", "미국", "US", "Texas"), (33.6609, -95.5555), "America/Chicago"),
    _place("Tokyo", "도쿄도", ("Japan", "일본", "JP", "Tokyo"), (35.6895, 139.6917), "Asia/Tokyo"),
    _place("Yangpyeong", "양평", ("South Korea", "대한민국", "KR", "Gyeonggi-do"), (37.489, 127.49), "Asia/Seoul"),
)


def _geocoding(request: Request, _: Any) -> Response:
    name, language = request.query_params["name"].casefold(), request.query_params.get("language", "en")
    found = [
        {"id": index, **place["rest"], **place["ko" if language == "ko" else "en"]}
        for index, place in enumerate(PLACES)
        if name in (place["en"]["name"].casefold(), place["ko"]["name"])
    ]
    count = int(request.query_params.get("count", 10))
    # The real one leaves `results` out when there are none.
    return JSONResponse({"results": found[:count], "generationtime_ms": 0.7} if found else {"generationtime_ms": 0.3})


def _forecast(request: Request, _: Any) -> Response:
    asked = request.query_params
    latitude = float(asked["latitude"])
    known = {
        "temperature_2m": 7.3,
        "apparent_temperature": 5.0,
        "relative_humidity_2m": 40,
        "wind_speed_10m": 9.7,
        "weather_code": 0,
    }
    answer: dict[str, Any] = {
        "latitude": latitude,
        "longitude": float(asked["longitude"]),
        "current": {"time": f"{TODAY}T18:00", "interval": 900}
        | {name: known[name] for name in asked["current"].split(",")},
    }
    if "daily" in asked:
        days = range(int(asked.get("forecast_days", 7)))
        columns: dict[str, list[Any]] = {
            "weather_code": [61 for _ in days],
            "temperature_2m_min": [1.5 + day for day in days],
            "temperature_2m_max": [9.5 + day for day in days],
            "precipitation_probability_max": [None if day == 6 else 10 * day for day in days],
        }
        answer["daily"] = {"time": [str(TODAY + timedelta(days=day)) for day in days]} | {
            name: columns[name] for name in asked["daily"].split(",")
        }
    return JSONResponse(answer)


# Search services: each knows the same few pages and finds those whose text holds a word of the query.

PAGES = {
    "en": (
        ("LangGraph", "<b>LangGraph</b> is a library for building stateful agents &amp; workflows."),
        ("Redis", 'Redis is an <span class="searchmatch">in-memory</span> key&ndash;value database; 3 &lt; 5.'),
        ("Redis Stack", "Redis with search and JSON modules."),
        ("C++ (language)", "C++ is a programming language."),
    ),
    "ko": (
        ("세종대왕", '<span class="searchmatch">세종대왕</span>은 조선의 제4대 국왕이다. 한글을 창제하였다.'),
        ("한글", "한글은 조선 세종이 1443년에 창제한 문자이다."),
    ),
}


def _find(query: str, language: str, limit: int) -> list[tuple[str, str]]:
    words = query.casefold().split()
    pages = PAGES.get(language, ())
    return [page for page in pages if any(word in " ".join(page).casefold() for word in words)][:limit]


def _language(query: str) -> str:
    return "ko" if any("가" <= character <= "힣" for character in query) else "en"


def _wikipedia(request: Request, _: Any) -> Response:
    asked = request.query_params
    found = _find(asked["q"], request.path_params["language"], int(asked["limit"]))
    pages = [
        {"id": index, "key": title.replace(" ", "_"), "title": title, "excerpt": text, "description": None}
        for index, (title, text) in enumerate(found)
    ]
    return JSONResponse({"pages": pages})


def _tavily(request: Request, body: Any) -> Response:
    if request.headers.get("authorization") != f"Bearer {KEY}":
        return JSONResponse({"detail": {"error": "Unauthorized"}}, status_code=401)
    found = _find(body["query"], _language(body["query"]), body["max_results"])
    results = [
        {"title": title, "url": f"https://tavily.example/{title}", "content": text, "score": 0.9}
        for title, text in found
    ]
    return JSONResponse({"query": body["query"], "results": results, "response_time": 0.1})


def _brave(request: Request, _: Any) -> Response:
    asked = request.query_params
    if request.headers.get("x-subscription-token") != KEY:
        return JSONResponse({"type": "ErrorResponse"}, status_code=401)
    found = _find(asked["q"], _language(asked["q"]), int(asked["count"]))
    results = [{"title": title, "url": f"https://brave.example/{title}", "description": text} for title, text in found]
    # The real one leaves `web` out when there are none.
    return JSONResponse({"type": "search"} | ({"web": {"results": results}} if results else {}))


def _searxng(request: Request, _: Any) -> Response:
    asked = request.query_params
    if asked.get("format") != "json":
        return Response("<html></html>", media_type="text/html")
    found = _find(asked["q"], _language(asked["q"]), 100)
    results = [{"title": title, "url": f"https://searxng.example/{title}", "content": text} for title, text in found]
    return JSONResponse({"query": asked["q"], "results": results})


async def _serve(port: int) -> None:
    async with web_services(port) as web:
        print(web.base_url, flush=True)
        await web.hold.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Stub web services for the tools, on loopback.")
    parser.add_argument("--port", type=int, default=0, help="0: the system picks one")
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args().port))
