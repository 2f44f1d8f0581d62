"""Weather now and in the next days, from Open-Meteo (https://open-meteo.com/en/docs), which needs no key."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from tools.contract import Arguments, Asker, Fetch, Tool, ToolFailure

DESCRIPTION = (
    "Current weather of a city or town anywhere, and the forecast of up to 7 days. "
    "`place` is its name in English or Korean, optionally with a country or region after a comma: 'Paris, Texas'."
)
CURRENT = "temperature_2m,apparent_temperature,relative_humidity_2m,wind_speed_10m,weather_code"
DAILY = "weather_code,temperature_2m_min,temperature_2m_max,precipitation_probability_max"

Shape = TypeVar("Shape", bound=BaseModel)


class WeatherArguments(Arguments):
    place: str = Field(min_length=1, max_length=100, description="Name of a city or town.")
    days: int = Field(0, ge=0, le=7, description="Days to forecast, today first. 0: only the weather now.")


class Day(BaseModel):
    date: str
    min_c: float | None
    max_c: float | None
    condition: str
    condition_code: int | None
    precipitation_probability_percent: int | None


class Weather(BaseModel):
    place: str
    country: str
    local_time: str
    temperature_c: float
    feels_like_c: float | None
    humidity_percent: int | None
    wind_kmh: float | None
    condition: str
    condition_code: int | None
    days: list[Day]
    source: str = "Open-Meteo"


def tool(fetch: Fetch, *, forecast_url: str, geocoding_url: str, timeout: float) -> Tool:
    # A call asks two services; at most one name more is tried.
    share = timeout / 3

    async def run(asked: WeatherArguments, _: Asker) -> Weather:
        place = await _find(fetch, geocoding_url, asked.place, timeout=share)
        return await _forecast(fetch, forecast_url, place, days=asked.days, timeout=share)

    return Tool("weather", DESCRIPTION, WeatherArguments, run, timeout=timeout, cacheable=True)


# What Open-Meteo sends, as far as it is used


class _Place(BaseModel):
    name: str
    latitude: float
    longitude: float
    country: str = ""
    country_code: str = ""
    admin1: str = ""


class _Places(BaseModel):
    results: list[_Place] = []


class _Current(BaseModel):
    time: str
    temperature_2m: float
    apparent_temperature: float | None = None
    relative_humidity_2m: float | None = None
    wind_speed_10m: float | None = None
    weather_code: int | None = None


class _Daily(BaseModel):
    time: list[str]
    weather_code: list[int | None]
    temperature_2m_min: list[float | None]
    temperature_2m_max: list[float | None]
    precipitation_probability_max: list[float | None]


class _Forecast(BaseModel):
    current: _Current
    daily: _Daily | None = None


async def _find(fetch: Fetch, url: str, asked: str, *, timeout: float) -> _Place:
    """The place meant: Open-Meteo lists the most populous first; what stands after a comma decides among them."""
    name, _, region = (part.strip() for part in asked.partition(","))
    language = "ko" if re.search("[가-힣]", asked) else "en"
    for candidate in _names(name):
        answer = await fetch(
            f"{url.rstrip('/')}/v1/search",
            service="the weather service",
            timeout=timeout,
            params={"name": candidate, "count": 10, "language": language, "format": "json"},
        )
        places = _read(_Places, answer).results
        if places:
            return next((place for place in places if _lies_in(place, region)), places[0])
    raise ToolFailure(f"there is no place called {asked}")


def _names(name: str) -> list[str]:
    """What to look `name` up as: a well-known Korean name by its English one first, since that finds the big city."""
    short = re.sub("(?<=..)(특별자치시|특별시|광역시|시)$", "", name)
    known = ENGLISH.get(name) or ENGLISH.get(short)
    return list(dict.fromkeys([known or name, short if known is None else name]))


def _lies_in(place: _Place, region: str) -> bool:
    region = region.casefold()
    return region != "" and (
        region == place.country_code.casefold() or region in f"{place.admin1}\n{place.country}".casefold()
    )


async def _forecast(fetch: Fetch, url: str, place: _Place, *, days: int, timeout: float) -> Weather:
    params: dict[str, str | int | float] = {
        "latitude": place.latitude,
        "longitude": place.longitude,
        "current": CURRENT,
        "timezone": "auto",
    }
    if days:
        params |= {"daily": DAILY, "forecast_days": days}
    answer = await fetch(
        f"{url.rstrip('/')}/v1/forecast", service="the weather service", timeout=timeout, params=params
    )
    forecast = _read(_Forecast, answer)
    now = forecast.current
    return Weather(
        place=place.name,
        country=place.country,
        local_time=now.time,
        temperature_c=now.temperature_2m,
        feels_like_c=now.apparent_temperature,
        humidity_percent=_whole(now.relative_humidity_2m),
        wind_kmh=now.wind_speed_10m,
        condition=_condition(now.weather_code),
        condition_code=now.weather_code,
        days=_days(forecast.daily)[:days] if forecast.daily else [],
    )


def _days(daily: _Daily) -> list[Day]:
    columns = zip(
        daily.time,
        daily.weather_code,
        daily.temperature_2m_min,
        daily.temperature_2m_max,
        daily.precipitation_probability_max,
        strict=False,
    )
    return [
        Day(
            date=date,
            min_c=low,
            max_c=high,
            condition=_condition(code),
            condition_code=code,
            precipitation_probability_percent=_whole(rain),
        )
        for date, code, low, high, rain in columns
    ]


def _read(shape: type[Shape], answer: Any) -> Shape:
    try:
        return shape.model_validate(answer)
    except ValidationError:
        raise ToolFailure("the weather service sent an answer that could not be read", retryable=True) from None


def _whole(number: float | None) -> int | None:
    return None if number is None else round(number)


def _condition(code: int | None) -> str:
    return "unknown" if code is None else CONDITIONS.get(code, "unknown")


# WMO weather interpretation codes, as listed in Open-Meteo's documentation.
CONDITIONS = {
    0: "clear sky",
    1: "mainly clear",
    2: "partly cloudy",
    3: "overcast",
    45: "fog",
    48: "freezing fog",
    51: "light drizzle",
    53: "drizzle",
    55: "dense drizzle",
    56: "light freezing drizzle",
    57: "freezing drizzle",
    61: "light rain",
    63: "rain",
    65: "heavy rain",
    66: "light freezing rain",
    67: "freezing rain",
    71: "light snow",
    73: "snow",
    75: "heavy snow",
    77: "snow grains",
    80: "light rain showers",
    81: "rain showers",
    82: "violent rain showers",
    85: "light snow showers",
    86: "snow showers",
    95: "thunderstorm",
    96: "thunderstorm with light hail",
    99: "thunderstorm with hail",
}

# Korean names of large cities, as they are looked up.
ENGLISH = {
    "서울": "Seoul",
    "부산": "Busan",
    "대구": "Daegu",
    "인천": "Incheon",
    "광주": "Gwangju",
    "대전": "Daejeon",
    "울산": "Ulsan",
    "세종": "Sejong",
    "수원": "Suwon",
    "성남": "Seongnam",
    "고양": "Goyang",
    "용인": "Yongin",
    "창원": "Changwon",
    "청주": "Cheongju",
    "천안": "Cheonan",
    "전주": "Jeonju",
    "포항": "Pohang",
    "제주": "Jeju City",
    "제주도": "Jeju City",
    "강릉": "Gangneung",
    "춘천": "Chuncheon",
    "원주": "Wonju",
    "여수": "Yeosu",
    "목포": "Mokpo",
    "경주": "Gyeongju",
    "안동": "Andong",
    "속초": "Sokcho",
    "평양": "Pyongyang",
    "도쿄": "Tokyo",
    "동경": "Tokyo",
    "오사카": "Osaka",
    "교토": "Kyoto",
    "후쿠오카": "Fukuoka",
    "삿포로": "Sapporo",
    "베이징": "Beijing",
    "북경": "Beijing",
    "상하이": "Shanghai",
    "상해": "Shanghai",
    "홍콩": "Hong Kong",
    "타이베이": "Taipei",
    "싱가포르": "Singapore",
    "방콕": "Bangkok",
    "하노이": "Hanoi",
    "호치민": "Ho Chi Minh City",
    "다낭": "Da Nang",
    "마닐라": "Manila",
    "자카르타": "Jakarta",
    "쿠알라룸푸르": "Kuala Lumpur",
    "뉴델리": "New Delhi",
    "델리": "Delhi",
    "뭄바이": "Mumbai",
    "두바이": "Dubai",
    "이스탄불": "Istanbul",
    "앙카라": "Ankara",
    "카이로": "Cairo",
    "나이로비": "Nairobi",
    "모스크바": "Moscow",
    "런던": "London",
    "파리": "Paris",
    "베를린": "Berlin",
    "뮌헨": "Munich",
    "프랑크푸르트": "Frankfurt",
    "로마": "Rome",
    "밀라노": "Milan",
    "마드리드": "Madrid",
    "바르셀로나": "Barcelona",
    "리스본": "Lisbon",
    "암스테르담": "Amsterdam",
    "브뤼셀": "Brussels",
    "빈": "Vienna",
    "비엔나": "Vienna",
    "프라하": "Prague",
    "취리히": "Zurich",
    "스톡홀름": "Stockholm",
    "오슬로": "Oslo",
    "코펜하겐": "Copenhagen",
    "헬싱키": "Helsinki",
    "아테네": "Athens",
    "뉴욕": "New York",
    "워싱턴": "Washington",
    "로스앤젤레스": "Los Angeles",
    "샌프란시스코": "San Francisco",
    "시애틀": "Seattle",
    "시카고": "Chicago",
    "보스턴": "Boston",
    "라스베이거스": "Las Vegas",
    "토론토": "Toronto",
    "밴쿠버": "Vancouver",
    "오타와": "Ottawa",
    "멕시코시티": "Mexico City",
    "상파울루": "São Paulo",
    "부에노스아이레스": "Buenos Aires",
    "시드니": "Sydney",
    "멜버른": "Melbourne",
    "캔버라": "Canberra",
    "오클랜드": "Auckland",
    "호놀룰루": "Honolulu",
    "괌": "Guam",
}
