"""Tools' results put into words, in English and Korean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from threadline.services.models.offline_conversation import Call, Conversation, Language, Plan, Result, Tool
from threadline.services.models.offline_weather import WEEKDAYS, day_of

Row = Mapping[str, Any]

_TOOL_NAMES: dict[Tool, dict[Language, str]] = {
    "calculator": {"en": "calculator", "ko": "계산기"},
    "weather": {"en": "weather", "ko": "날씨"},
    "search": {"en": "search", "ko": "검색"},
}


def answer(plan: Plan, conversation: Conversation, missing: Sequence[Tool]) -> str:
    """One paragraph per result, in order, then one for each tool that was needed and is not there."""
    language = conversation.language
    paragraphs = [_told(result, plan, language) for result in conversation.results]
    paragraphs += [_missing(tool, language) for tool in missing]
    return "\n\n".join(paragraphs)


def _told(result: Result, plan: Plan, language: Language) -> str:
    if result.failed:
        return _failure(result, language)
    if isinstance(result.data, dict):
        try:
            if result.kind == "calculator" and "result" in result.data:
                return _calculation(result.data, str(result.args.get("expression", "")), language)
            if result.kind == "weather" and "temperature_c" in result.data:
                return _weather(result, plan, language)
            if result.kind == "search" and isinstance(result.data.get("results"), list):
                return _search(result.data, language)
        except (KeyError, TypeError, ValueError, AttributeError):
            pass  # a tool of another make: its own words will do
    return _other(result, language)


def _missing(tool: Tool, language: Language) -> str:
    name = _TOOL_NAMES[tool][language]
    if language == "ko":
        return (
            f"여기에는 {name} 도구가 없어서 이 부분은 답할 수 없어요. 오프라인 모델은 도구가 있어야 답을 "
            f"찾을 수 있어요."
        )
    return (
        f"I would need a {name} tool for that, and there is none here. I'm the offline model and know nothing by heart."
    )


def _failure(result: Result, language: Language) -> str:
    reason = str(result.data).strip().rstrip(".") or "no reason was given"
    subject = next((str(value) for value in result.args.values() if isinstance(value, str)), "")
    if language == "ko":
        name = _TOOL_NAMES[result.kind]["ko"] if result.kind else result.name
        return f"{name} 도구가 실패했어요{f' ({subject})' if subject else ''}. 이유: {reason}."
    name = _TOOL_NAMES[result.kind]["en"] if result.kind else result.name
    return f"The {name} tool failed{f' for “{subject}”' if subject else ''}: {reason}."


def _other(result: Result, language: Language) -> str:
    text = (
        result.data
        if isinstance(result.data, str)
        else ", ".join(f"{key}: {value}" for key, value in result.data.items())
    )
    return f"{result.name} 도구의 답이에요: {text}" if language == "ko" else f"The {result.name} tool says: {text}"


# --- Sums ---------------------------------------------------------------------------------------------------------

_LONG_NUMBER = re.compile(r"(-?)(\d{5,30})(\.\d+)?")
_SHOWN_UNITS: dict[Language, dict[str, str]] = {
    "en": {"foot": "feet", "inch": "inches", "pyeong": "pyeong"}
    | {unit: f"{unit}s" for unit in ("mile", "yard", "pound", "ounce", "acre", "hectare", "gallon", "cup", "tonne")}
    | {unit: f"{unit}s" for unit in ("second", "minute", "hour", "day", "week")},
    "ko": {"foot": "피트", "inch": "인치", "pyeong": "평", "mile": "마일", "yard": "야드", "pound": "파운드"}
    | {"ounce": "온스", "acre": "에이커", "hectare": "헥타르", "gallon": "갤런", "cup": "컵", "tonne": "톤"}
    | {"second": "초", "minute": "분", "hour": "시간", "day": "일", "week": "주"},
}
_SIGNS = {"kilometer": "km", "meter": "m", "centimeter": "cm", "millimeter": "mm", "kilogram": "kg", "gram": "g"}
_UNIT_WORD = re.compile(r"degree[ _]Celsius|degree[ _]Fahrenheit|[a-z]+", re.IGNORECASE)
_UNIT_GAP = re.compile(r" (?=°)|(?<=\d) (?=[가-힣])")
_PERCENTAGE = re.compile(r"(\S+)% of (\S+)")
_OPERATORS = ((" ** ", "^"), ("**", "^"), (" * ", " × "), ("*", "×"), (" / ", " ÷ "))


def _calculation(data: Row, asked: str, language: Language) -> str:
    """The sum and its result as it is, with the digits grouped beside it where there are many."""
    result, unit = str(data["result"]), _units(str(data.get("unit") or ""), language)
    long = _LONG_NUMBER.fullmatch(result)
    grouped = f" ({long[1]}{int(long[2]):,}{long[3] or ''})" if long else ""
    gap = "" if not unit or unit.startswith("°") or language == "ko" else " "
    figure = f"{result}{grouped}{gap}{unit}"
    source, converts, _ = str(data.get("expression", "")).strip().partition(" to ")
    if percentage := _PERCENTAGE.fullmatch(asked):
        source = f"{percentage[2]}의 {percentage[1]}%" if language == "ko" else asked
    else:
        source = _units(source, language) if converts else _operators(source)
    if language == "ko":
        return f"{source} = {figure}{_be(unit or result)}." if source else f"답은 {figure}{_be(unit or result)}."
    return f"{source} = {figure}" if source else f"The result is {figure}."


def _units(text: str, language: Language) -> str:
    """Units as people write them: km, °C, miles, 평."""
    return _UNIT_GAP.sub("", _UNIT_WORD.sub(lambda word: _unit(word[0], language), text))


def _unit(word: str, language: Language) -> str:
    if word.lower().startswith("degree"):
        return "°C" if word[-1] == "s" else "°F"
    return _SIGNS.get(word) or _SHOWN_UNITS[language].get(word, word)


def _operators(text: str) -> str:
    for sign, shown in _OPERATORS:
        text = text.replace(sign, shown)
    return text


# --- Weather ------------------------------------------------------------------------------------------------------

_CONDITIONS: dict[int, tuple[str, str]] = {
    0: ("맑음", "맑아요"),
    1: ("대체로 맑음", "대체로 맑아요"),
    2: ("구름 조금", "구름이 조금 있어요"),
    3: ("흐림", "흐려요"),
    45: ("안개", "안개가 꼈어요"),
    48: ("서리 안개", "서리 안개가 꼈어요"),
    51: ("약한 이슬비", "약한 이슬비가 내려요"),
    53: ("이슬비", "이슬비가 내려요"),
    55: ("강한 이슬비", "강한 이슬비가 내려요"),
    56: ("약한 어는 이슬비", "약한 어는 이슬비가 내려요"),
    57: ("어는 이슬비", "어는 이슬비가 내려요"),
    61: ("약한 비", "약한 비가 와요"),
    63: ("비", "비가 와요"),
    65: ("강한 비", "강한 비가 와요"),
    66: ("약한 어는 비", "약한 어는 비가 와요"),
    67: ("어는 비", "어는 비가 와요"),
    71: ("약한 눈", "눈이 조금 와요"),
    73: ("눈", "눈이 와요"),
    75: ("많은 눈", "눈이 많이 와요"),
    77: ("싸락눈", "싸락눈이 와요"),
    80: ("약한 소나기", "약한 소나기가 내려요"),
    81: ("소나기", "소나기가 내려요"),
    82: ("강한 소나기", "강한 소나기가 내려요"),
    85: ("약한 소낙눈", "약한 소낙눈이 내려요"),
    86: ("소낙눈", "소낙눈이 내려요"),
    95: ("뇌우", "뇌우가 쳐요"),
    96: ("우박을 동반한 뇌우", "우박을 동반한 뇌우가 쳐요"),
    99: ("강한 우박을 동반한 뇌우", "강한 우박을 동반한 뇌우가 쳐요"),
}
"""WMO weather interpretation codes: as a label, and as a sentence."""

_KOREAN_WEEKDAYS = "월화수목금토일"
_KOREAN_DAYS = {"today": "오늘", "tomorrow": "내일", "after": "모레"}
_ENGLISH_DAYS = {"today": "Today", "tomorrow": "Tomorrow", "after": "The day after tomorrow"}


def _weather(result: Result, plan: Plan, language: Language) -> str:
    data = result.data
    assert isinstance(data, dict)
    asked = next((value for value in result.args.values() if isinstance(value, str)), "")
    call = next((call for call in plan.calls if call.tool == "weather" and call.args["place"] == asked), None)
    count = result.args.get("days")
    day = call.day if call else day_of(count if isinstance(count, int) else 0)
    place = asked if language == "ko" and re.search("[가-힣]", asked) else str(data.get("place") or asked)
    now = _now_korean(place, data) if language == "ko" else _now_english(place, data)
    rows = _rows_of(day, data)
    if not rows:
        return now
    if len(rows) == 1:
        forecast = _day_sentence(place, day, rows[0], call=call, language=language)
        return f"{forecast}\n{now}"
    head = f"{place} 예보예요." if language == "ko" else f"Forecast for {place}:"
    return "\n".join([now, head, *(f"- {_day_line(row, language)}" for row in rows)])


def _rows_of(day: str, data: Row) -> list[Row]:
    """The days of the forecast that were asked for; local time says which day is today."""
    rows: list[Row] = [row for row in data.get("days") or [] if isinstance(row, dict)]
    if day == "now" or not rows:
        return []
    today = date.fromisoformat(str(data.get("local_time") or rows[0]["date"])[:10])
    ahead = {"today": 0, "tomorrow": 1, "after": 2}
    if day in ahead:
        wanted = (today + timedelta(days=ahead[day])).isoformat()
        return [row for row in rows if row["date"] == wanted]
    if day in WEEKDAYS:
        return [row for row in rows if _weekday(row) == WEEKDAYS.index(day)][:1]
    if day == "weekend":
        return [row for row in rows if _weekday(row) >= 5]
    return rows


def _weekday(row: Row) -> int:
    return date.fromisoformat(row["date"]).weekday()


def _now_english(place: str, data: Row) -> str:
    country = data.get("country")
    parts = [
        f"{data['temperature_c']} °C",
        f"feels like {data['feels_like_c']} °C" if data.get("feels_like_c") is not None else "",
        str(data.get("condition") or ""),
        f"humidity {data['humidity_percent']}%" if data.get("humidity_percent") is not None else "",
        f"wind {data['wind_kmh']} km/h" if data.get("wind_kmh") is not None else "",
    ]
    notes = [
        f"local time {_time(data)}" if _time(data) else "",
        f"source: {data['source']}" if data.get("source") else "",
    ]
    where = f"{place}, {country}" if country and country != place else place
    return f"{where} now: {', '.join(filter(None, parts))}.{_in_brackets(notes)}"


def _now_korean(place: str, data: Row) -> str:
    feels = f"(체감 {data['feels_like_c']}°C)" if data.get("feels_like_c") is not None else ""
    condition = _CONDITIONS.get(data.get("condition_code", -1), ("", ""))[1] or f"{data.get('condition', '')}"
    more = [
        f"습도는 {data['humidity_percent']}%" if data.get("humidity_percent") is not None else "",
        f"바람은 시속 {data['wind_kmh']}km" if data.get("wind_kmh") is not None else "",
    ]
    rest = ", ".join(filter(None, more))
    notes = [f"현지 시각 {_time(data)}" if _time(data) else "", f"출처: {data['source']}" if data.get("source") else ""]
    return (
        f"{place}{_topic(place)} 지금 {data['temperature_c']}°C{feels}{'이고 ' + condition if condition else '예요'}."
        f"{f' {rest}예요.' if rest else ''}{_in_brackets(notes)}"
    )


def _in_brackets(notes: Sequence[str]) -> str:
    kept = ", ".join(filter(None, notes))
    return f" ({kept})" if kept else ""


def _time(data: Row) -> str:
    return str(data.get("local_time") or "")[11:16]


def _day_sentence(place: str, day: str, row: Row, *, call: Call | None, language: Language) -> str:
    rain = row.get("precipitation_probability_percent")
    asked_rain = call is not None and call.rain and isinstance(rain, int)
    if language == "ko":
        when = _KOREAN_DAYS.get(day, f"{_KOREAN_WEEKDAYS[_weekday(row)]}요일")
        label = _CONDITIONS.get(row.get("condition_code", -1), (str(row.get("condition", "")), ""))[0]
        first = f"{_likely_korean(rain)} " if asked_rain else ""
        return (
            f"{first}{place}의 {when}({row['date']}) 예보는 {label}, "
            f"{_range(row, language)}{_chance(rain, language)}예요."
        )
    when = _ENGLISH_DAYS.get(day, day.capitalize())
    first = f"{_likely_english(rain)} " if asked_rain else ""
    return (
        f"{first}{when} in {place} ({row['date']}): {row.get('condition', '')}, "
        f"{_range(row, language)}{_chance(rain, language)}."
    )


def _day_line(row: Row, language: Language) -> str:
    rain = row.get("precipitation_probability_percent")
    if language == "ko":
        label = _CONDITIONS.get(row.get("condition_code", -1), (str(row.get("condition", "")), ""))[0]
        return (
            f"{row['date']}({_KOREAN_WEEKDAYS[_weekday(row)]}): {label}, "
            f"{_range(row, language)}{_chance(rain, language)}"
        )
    name = WEEKDAYS[_weekday(row)].capitalize()
    return f"{name} {row['date']}: {row.get('condition', '')}, {_range(row, language)}{_chance(rain, language)}"


def _range(row: Row, language: Language) -> str:
    low, high = (value if value is not None else "?" for value in (row.get("min_c"), row.get("max_c")))
    return f"{low}~{high}°C" if language == "ko" else f"{low} to {high} °C"


def _chance(rain: int | None, language: Language) -> str:
    if rain is None:
        return ""
    return f", 강수 확률 {rain}%" if language == "ko" else f", {rain}% chance of rain or snow"


def _likely_english(rain: Any) -> str:
    return "Probably yes." if rain >= 60 else "Perhaps." if rain >= 30 else "Probably not."


def _likely_korean(rain: Any) -> str:
    return "올 것 같아요." if rain >= 60 else "올 수도 있어요." if rain >= 30 else "안 올 것 같아요."


# --- Search -------------------------------------------------------------------------------------------------------


def _search(data: Row, language: Language) -> str:
    query, provider = str(data.get("query", "")), str(data.get("provider", ""))
    found = [row for row in data["results"] if isinstance(row, dict)]
    if not found:
        return f"“{query}” 검색 결과가 없어요." if language == "ko" else f"The search for “{query}” found nothing."
    source = f" ({provider})" if provider else ""
    head = f"“{query}” 검색 결과예요{source}:" if language == "ko" else f"Here is what I found for “{query}”{source}:"
    return "\n".join([head, *(f"{index}. {_hit(row)}" for index, row in enumerate(found, 1))])


def _hit(row: Row) -> str:
    title = " ".join(str(row.get("title") or row.get("url") or "").split()).replace("[", "(").replace("]", ")")
    snippet = " ".join(str(row.get("snippet") or "").split())
    snippet = snippet if len(snippet) <= 240 else f"{snippet[:239].rstrip()}…"
    link = f"[{title}]({row['url']})" if row.get("url") else title
    return f"{link}: {snippet}" if snippet else link


# --- Korean endings -----------------------------------------------------------------------------------------------


def _closed(word: str) -> bool:
    """Whether the word, read aloud in Korean, ends in a consonant."""
    last = word.rstrip(".%) ")[-1:].lower()
    if "가" <= last <= "힣":
        return (ord(last) - ord("가")) % 28 != 0
    return last in "013678lmn" if last else False


def _topic(word: str) -> str:
    return "은" if _closed(word) else "는"


def _be(word: str) -> str:
    return "이에요" if _closed(word) else "예요"
