"""The offline model: what it understands, what it says, and that it streams and calls tools as a real model does."""

from __future__ import annotations

import json
import time
import unicodedata
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph

from threadline.services.models.offline import OfflineModel, reply_to
from threadline.services.models.offline_arithmetic import embedded, expression

Messages = list[BaseMessage]
Calls = list[tuple[str, dict[str, Any]]]


def intent_format(*names: str) -> dict[str, Any]:
    calls = [{"type": "object", "properties": {"name": {"const": name}, "args": {"type": "object"}}} for name in names]
    schema = {"type": "object", "properties": {"tool_calls": {"type": "array", "items": {"anyOf": calls}}}}
    return {"type": "json_schema", "json_schema": {"name": "intent", "schema": schema}}


ALL = intent_format("calculator", "weather", "search")


def intent(question: str, before: Sequence[BaseMessage] = (), *, form: dict[str, Any] = ALL) -> dict[str, Any]:
    return read_intent([*before, HumanMessage(question)], form=form)


def read_intent(messages: Messages, *, form: dict[str, Any] = ALL) -> dict[str, Any]:
    reply = OfflineModel().invoke(messages, response_format=form)
    found: dict[str, Any] = json.loads(reply.text)
    assert set(found) == {"kind", "confidence", "language", "tool_calls", "needs_more"}
    assert 0 <= found["confidence"] <= 1
    return found


def calls_of(found: dict[str, Any]) -> Calls:
    return [(call["name"], call["args"]) for call in found["tool_calls"]]


def calc(text: str) -> tuple[str, dict[str, Any]]:
    return "calculator", {"expression": text}


def sky(place: str, days: int = 0) -> tuple[str, dict[str, Any]]:
    return "weather", {"place": place, "days": days}


def find(query: str) -> tuple[str, dict[str, Any]]:
    return "search", {"query": query}


def turn(question: str, *done: tuple[tuple[str, dict[str, Any]], dict[str, Any] | str]) -> Messages:
    """A question, the calls made for it and their results; a result that is a text is a failure."""
    ids = [f"{question}-{index}" for index in range(len(done))]
    calls = [
        {"name": name, "args": args, "id": id_, "type": "tool_call"}
        for id_, ((name, args), _) in zip(ids, done, strict=True)
    ]
    messages: Messages = [HumanMessage(question), AIMessage("", tool_calls=calls)]
    for id_, ((name, _), result) in zip(ids, done, strict=True):
        failed = isinstance(result, str)
        content = result if isinstance(result, str) else json.dumps(result)
        messages.append(ToolMessage(content, name=name, tool_call_id=id_, status="error" if failed else "success"))
    return messages


def said(*messages: BaseMessage) -> str:
    return OfflineModel().invoke(list(messages)).text


def weather_result(place: str, country: str, *, temperature: float = 7.3, days: int = 0) -> dict[str, Any]:
    return {
        "place": place,
        "country": country,
        "local_time": "2026-11-22T18:00",
        "temperature_c": temperature,
        "feels_like_c": 5.1,
        "humidity_percent": 40,
        "wind_kmh": 9.7,
        "condition": "clear sky",
        "condition_code": 0,
        "days": [
            {
                "date": f"2026-11-{22 + ahead}",
                "min_c": 1.5 + ahead,
                "max_c": 9.5 + ahead,
                "condition": "slight rain",
                "condition_code": 61,
                "precipitation_probability_percent": 5 + 10 * ahead,
            }
            for ahead in range(days)
        ],
        "source": "Open-Meteo",
    }


def sum_result(expression: str, result: str, unit: str | None = None) -> dict[str, Any]:
    return {"expression": expression, "result": result, "unit": unit}


SEOUL = turn("서울 날씨", (sky("서울"), weather_result("서울", "대한민국")))
WARM = turn("What is (15+27)*3?", (calc("(15+27)*3"), sum_result("(15 + 27) * 3", "126")))
CONVERTED = turn("5 km in miles", (calc("5 km to mile"), sum_result("5 kilometer to mile", "3.1", "mile")))
FOUND = turn("who is Ada Lovelace?", (find("Ada Lovelace"), {"query": "Ada Lovelace", "provider": "x", "results": []}))


# --- What a message asks for --------------------------------------------------------------------------------------

SUMS = {
    "What is (15+27)*3?": "(15+27)*3",
    "what's twelve times seven plus 2": "12*7+2",
    "15% of 200": "15% of 200",
    "how much is 20% of 350?": "20% of 350",
    "십오 더하기 이십칠 곱하기 3은?": "15+27*3",
    "(15+27)*3도 계산해줘": "(15+27)*3",
    "삼백만 나누기 4": "3000000/4",
    "3만5천 더하기 2": "35000+2",
    "2억 5천만 나누기 5": "250000000/5",
    "1,234*2": "1234*2",
    "12 + 7 =": "12+7",
    "3 x 4": "3*4",
    "7×8은 얼마야?": "7*8",
    "what is 2^10?": "2**10",
    "5² + 1": "5**2+1",
    "one hundred and five plus 2": "105+2",
    "twenty-seven minus nine": "27-9",
    "two point five million times 2": "2500000*2",
    "please add 5 and 7": "5+7",
    "subtract 3 from 10": "10-3",
    "the average of 1, 2 and 3": "(1+2+3)/3",
    "square root of 144": "sqrt(144)",
    "16의 제곱근은?": "sqrt(16)",
    "200의 15%는?": "15% of 200",
    "10만원의 20%는 얼마야?": "20% of 100000",
    "20% off 50": "50*(1-20/100)",
    "200 + 10%": "200*(1+10/100)",
    "3에 5를 더하고 2를 곱하면?": "(3+5)*2",
    "10을 4로 나눠줘": "10/4",
    "5와 7의 합은?": "5+7",
    "둘 더하기 셋은?": "2+3",
    "50 곱하기 2 해줘": "50*2",
    "-5 + 3": "-5+3",
    "5 km in miles": "5 km to mile",
    "how many feet are there in 2 meters?": "2 m to foot",
    "how many pounds is 70 kg?": "70 kg to pound",
    "convert 100 fahrenheit to celsius": "100 degF to degC",
    "-40°C in °F": "-40 degC to degF",
    "30평은 몇 제곱미터야?": "30평 to m**2",
    "5킬로미터는 몇 마일이야?": "5 km to mile",
    "5킬로는 몇 파운드야?": "5 kg to pound",
    "화씨 100도는 섭씨로 몇 도야?": "100 degF to degC",
    "20도는 화씨로 몇 도야?": "20 degC to degF",
    "10파운드를 킬로그램으로 바꿔줘": "10 pound to kg",
    "Could you please calculate the value of (15+27)*3 for my homework?": "(15+27)*3",
}


@pytest.mark.parametrize(("question", "wanted"), SUMS.items())
def test_a_sum_goes_to_the_calculator(question: str, wanted: str) -> None:
    found = intent(question)
    assert (found["kind"], calls_of(found), found["needs_more"]) == ("tool", [calc(wanted)], False)


WEATHER: dict[str, list[tuple[str, int]]] = {
    "What's the weather in Seoul?": [("Seoul", 0)],
    "서울 날씨 알려줘": [("서울", 0)],
    "부산 내일 비 와?": [("부산", 2)],
    "will it rain in Paris tomorrow": [("Paris", 2)],
    "weather this week in Tokyo": [("Tokyo", 7)],
    "what's the weather like in new york today?": [("New York", 1)],
    "Seoul weather": [("Seoul", 0)],
    "weather in Paris, Texas": [("Paris, Texas", 0)],
    "weather in New York, London, and Paris": [("New York", 0), ("London", 0), ("Paris", 0)],
    "Is it going to snow in Oslo on Friday?": [("Oslo", 7)],
    "What's Tokyo's forecast for the next 3 days?": [("Tokyo", 3)],
    "Do I need an umbrella in London the day after tomorrow?": [("London", 3)],
    "Which is warmer, Seoul or Busan?": [("Seoul", 0), ("Busan", 0)],
    "What's the weather in Seoul? And in Busan?": [("Seoul", 0), ("Busan", 0)],
    "weather today in Seoul and tomorrow in Busan": [("Seoul", 1), ("Busan", 2)],
    "weather in london uk": [("London, UK", 0)],
    "weather in Los Angeles, CA": [("Los Angeles, CA", 0)],
    "What's the weather in St. Louis?": [("St. Louis", 0)],
    "서울날씨 알려줘": [("서울", 0)],
    "내일 서울의 날씨는 어때?": [("서울", 2)],
    "서울이랑 부산 날씨": [("서울", 0), ("부산", 0)],
    "서울과 대전의 내일 날씨를 알려줘": [("서울", 2), ("대전", 2)],
    "제주도는 비 와?": [("제주도", 1)],
    "여의도 날씨": [("여의도", 0)],
    "하와이 날씨 어때?": [("하와이", 0)],
    "오타와 날씨": [("오타와", 0)],
    "춘천이랑 홍천 날씨": [("춘천", 0), ("홍천", 0)],
    "이번 주말 강릉 날씨 어때?": [("강릉", 7)],
    "뉴욕 모레 날씨": [("뉴욕", 3)],
    "서울은 지금 몇 도야?": [("서울", 0)],
    "서울이랑 부산 중 어디가 더 따뜻해?": [("서울", 0), ("부산", 0)],
    "서울 날씨 알려줘. 부산은?": [("서울", 0), ("부산", 0)],
}


@pytest.mark.parametrize(("question", "places"), WEATHER.items())
def test_weather_goes_to_the_weather_tool(question: str, places: list[tuple[str, int]]) -> None:
    assert calls_of(intent(question)) == [sky(place, days) for place, days in places]


SEARCHES = {
    "search for LangGraph": "LangGraph",
    "Please search for “cats and dogs”": "cats and dogs",
    "search the web for best pizza in New York": "best pizza in New York",
    "who is Ada Lovelace?": "Ada Lovelace",
    "what is LangGraph?": "LangGraph",
    "what is C++?": "C++",
    "What is the capital of France?": "capital of France",
    "What is the difference between TCP and UDP?": "difference between TCP and UDP",
    "What is the temperature of the sun?": "temperature of the sun",
    "what is a weather balloon?": "weather balloon",
    "tell me about the Eiffel Tower": "Eiffel Tower",
    "Who won the 2018 World Cup?": "Who won the 2018 World Cup",
    "LangGraph에 대해 검색해줘": "LangGraph",
    "LangGraph가 뭐야?": "LangGraph",
    "LangGraph이 뭐야?": "LangGraph",
    "파이썬이란?": "파이썬",
    "세종대왕은 누구야?": "세종대왕",
    "한국의 수도는 어디야?": "한국의 수도",
    "김치찌개 끓이는 법 검색": "김치찌개 끓이는 법",
    "비트코인 가격 찾아줘": "비트코인 가격",
    "양자컴퓨터에 대해 설명해줘": "양자컴퓨터",
    "한글은 누가 만들었어?": "한글은 누가 만들었어",
    "서울에서 부산까지 거리는?": "서울에서 부산까지 거리",
}


@pytest.mark.parametrize(("question", "query"), SEARCHES.items())
def test_a_question_of_knowledge_is_searched(question: str, query: str) -> None:
    assert calls_of(intent(question)) == [find(query)]


SEVERAL: dict[str, Calls] = {
    "서울 날씨 알려주고 (15+27)*3도 계산해줘": [sky("서울"), calc("(15+27)*3")],
    "weather in Seoul and Busan, and 15% of 80": [sky("Seoul"), sky("Busan"), calc("15% of 80")],
    "search for LangGraph and tell me the weather in Seoul": [find("LangGraph"), sky("Seoul")],
    "LangGraph 검색하고 서울 날씨도 알려줘": [find("LangGraph"), sky("서울")],
    "What's (2+3)*4 and what's the weather like in Busan tomorrow?": [calc("(2+3)*4"), sky("Busan", 2)],
    "what is 10 km in miles and 5 kg in pounds?": [calc("10 km to mile"), calc("5 kg to pound")],
    "제주도 날씨랑 30평은 몇 제곱미터인지 알려줘": [sky("제주도"), calc("30평 to m**2")],
    "부산 날씨 어때? 그리고 3*7은?": [sky("부산"), calc("3*7")],
    "(15+27)*3 and then times 2": [calc("(15+27)*3"), calc("((15+27)*3)*2")],
    "Hi! My name is Minji. What's the weather in Seoul?": [sky("Seoul")],
}


@pytest.mark.parametrize(("question", "wanted"), SEVERAL.items())
def test_one_message_may_ask_for_several_things(question: str, wanted: Calls) -> None:
    assert calls_of(intent(question)) == wanted


KINDS = {
    "hi": "greeting",
    "Hello, how are you?": "greeting",
    "good morning!": "greeting",
    "안녕": "greeting",
    "안녕하세요!": "greeting",
    "what can you do?": "help",
    "hi, can you help me?": "help",
    "who are you?": "help",
    "뭘 할 수 있어?": "help",
    "도움말": "help",
    "넌 누구야?": "help",
    "Thank you so much!": "chat",
    "고마워": "chat",
    "bye": "chat",
    "잘 가": "chat",
    "ok": "chat",
    "my name is Minji": "chat",
    "내 이름은 민지야": "chat",
    "what time is it?": "chat",
    "지금 몇 시야?": "chat",
    "what's the weather?": "chat",
    "날씨 알려줘": "chat",
    "times 2?": "chat",
    "tell me a joke": "unknown",
    "심심해": "unknown",
}


@pytest.mark.parametrize(("question", "kind"), KINDS.items())
def test_small_talk_needs_no_tool(question: str, kind: str) -> None:
    found = intent(question)
    assert (found["kind"], found["tool_calls"]) == (kind, [])


NOTHING_TO_DO = (
    "what is 5?",
    "what is it?",
    "이거 뭐야?",
    "5 apples",
    "C++",
    "Python 3.12 vs 3.11",
    "2026-11-22",
    "The meeting is on 2026-11-22 at 10:30-11:30",
    "11/22/2026",
    "010-1234-5678",
    "555-1234",
    "Call me at 010-1234-5678 please",
    "123-45-6789",
    "192.168.0.1",
    "v1.2.3-4",
    "https://example.com/a-b?c=1+2",
    "f(x) = x^2 + 1",
    "5-10 people came",
    "I ran 5 km today",
    "The weather is nice today",
    "날씨가 좋네",
    "오늘 날씨가 좋아서 산책했어",
    "write a poem about the weather in Seoul",
    "I feel under the weather",
    "눈이 아파",
    "사과 3개 먹었어",
    "why did you say that?",
    "왜 그랬어?",
    "부산은?",
    "and in Busan?",
    "...",
    "😀",
    "",
)


@pytest.mark.parametrize("text", NOTHING_TO_DO)
def test_it_does_not_misfire(text: str) -> None:
    found = intent(text)
    assert found["tool_calls"] == []
    assert found["kind"] in {"unknown", "chat"}


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What's the weather in Seoul?", "en"),
        ("weather in 서울", "en"),
        ("서울 날씨 알려줘", "ko"),
        ("LangGraph가 뭐야?", "ko"),
        ("LangGraph checkpointer란?", "ko"),
        ("OpenAI API 키란?", "ko"),
        ("my name is 민지", "en"),
        ("3+4", "en"),
    ],
)
def test_the_language_is_the_messages(text: str, language: str) -> None:
    assert intent(text)["language"] == language


def test_content_may_be_a_list_of_blocks() -> None:
    blocks = HumanMessage([{"type": "text", "text": "what is"}, {"type": "text", "text": "6*7?"}])
    split = HumanMessage([{"type": "text", "text": "what is 6*7?"}, {"type": "image_url", "image_url": {"url": "x"}}])
    assert calls_of(read_intent([blocks])) == calls_of(read_intent([split])) == [calc("6*7")]


def test_decomposed_korean_is_understood() -> None:
    assert calls_of(intent(unicodedata.normalize("NFD", "서울 날씨 알려줘"))) == [sky("서울")]


def test_half_a_surrogate_pair_does_no_harm() -> None:
    json.dumps(intent("search for \ud800cats"), ensure_ascii=False).encode()


SCRAPS = (
    "서울 부산은 날씨 내일 알려주고 계산해줘 그거 3만5천 더하기 이 뭐야 곱하기 화씨 도 몇 제곱미터 "
    "and in what is weather Seoul times 2 % ( ) - , ? . 5 km to search for my name was tomorrow it a"
)


@given(st.one_of(st.text(max_size=200), st.lists(st.sampled_from(SCRAPS.split()), max_size=20).map(" ".join)))
@settings(max_examples=300, deadline=None)
def test_any_text_gets_an_intent_and_an_answer(text: str) -> None:
    found = intent(text, SEOUL)
    assert found["kind"] in {"tool", "chat", "greeting", "help", "unknown"}
    for name, args in calls_of(found):
        assert name in {"calculator", "weather", "search"}
        assert all(value != "" for value in args.values())
        assert not any("{" in str(value) for value in args.values() if name == "calculator")
    assert said(*SEOUL, HumanMessage(text)).strip()


# --- Follow-ups ---------------------------------------------------------------------------------------------------

FOLLOW_UPS: list[tuple[Messages, str, Calls]] = [
    (SEOUL, "and in Busan?", [sky("Busan")]),
    (SEOUL, "What about Tokyo and Osaka?", [sky("Tokyo"), sky("Osaka")]),
    (SEOUL, "what about tomorrow?", [sky("서울", 2)]),
    (SEOUL, "and tomorrow in Busan?", [sky("Busan", 2)]),
    (SEOUL, "부산은?", [sky("부산")]),
    (SEOUL, "그럼 부산은 어때?", [sky("부산")]),
    (SEOUL, "부산도 알려줘", [sky("부산")]),
    (SEOUL, "부산이랑 대구는?", [sky("부산"), sky("대구")]),
    (SEOUL, "내일은?", [sky("서울", 2)]),
    (SEOUL, "이번 주는?", [sky("서울", 7)]),
    (SEOUL, "내일 비 와?", [sky("서울", 2)]),
    (SEOUL, "고마워. 부산은?", [sky("부산")]),
    (SEOUL, "그거 화씨로", [calc("7.3 degC to degF")]),
    (SEOUL, "plus 10", [calc("7.3+10")]),
    (SEOUL, "why?", []),
    (SEOUL, "뭐라고?", []),
    (WARM, "times 2?", [calc("126*2")]),
    (WARM, "그거 곱하기 2", [calc("126*2")]),
    (WARM, "and 20% of it?", [calc("20% of 126")]),
    (WARM, "거기에 10 더해줘", [calc("126+10")]),
    (WARM, "divide that by 3", [calc("126/3")]),
    (WARM, "그 결과에서 26을 빼줘", [calc("126-26")]),
    (WARM, "and in Busan?", []),
    (CONVERTED, "in km?", [calc("3.1 mile to km")]),
    (FOUND, "and what about Grace Hopper?", [find("Grace Hopper")]),
    ([*SEOUL, *WARM], "내일은?", [sky("서울", 2)]),
]


@pytest.mark.parametrize(("before", "question", "wanted"), FOLLOW_UPS)
def test_a_follow_up_leans_on_what_came_before(before: Messages, question: str, wanted: Calls) -> None:
    assert calls_of(intent(question, [*before, AIMessage("…")])) == wanted


def test_a_negative_figure_is_put_in_brackets() -> None:
    before = turn("3-10", (calc("3-10"), sum_result("3 - 10", "-7")))
    assert calls_of(intent("times 2", before)) == [calc("(-7)*2")]


def test_follow_ups_work_from_the_words_alone() -> None:
    before: Messages = [HumanMessage("weather in Seoul"), AIMessage("Fine."), HumanMessage("and in Busan?")]
    assert calls_of(intent("tomorrow?", [*before, AIMessage("Fine too.")])) == [sky("Busan", 2)]


@pytest.mark.parametrize(
    ("asked", "reply", "place"), [("날씨 알려줘", "서울이요", "서울"), ("the weather?", "Busan", "Busan")]
)
def test_the_city_may_come_after_being_asked_for(asked: str, reply: str, place: str) -> None:
    before: Messages = [HumanMessage(asked), AIMessage(said(HumanMessage(asked)))]
    assert calls_of(intent(reply, before)) == [sky(place)]


def test_where_the_asker_lives_is_the_place_of_the_weather() -> None:
    assert calls_of(intent("날씨 어때?", [HumanMessage("나는 부산에 살아"), AIMessage("네")])) == [sky("부산")]


# --- Steps of one turn --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "place", "wanted"),
    [
        ("서울 기온에 10 더해줘", "서울", "7.3+10"),
        ("add 10 to the temperature in Seoul", "Seoul", "7.3+10"),
        ("temperature in Seoul in fahrenheit", "Seoul", "7.3 degC to degF"),
        ("서울 기온을 화씨로 바꿔줘", "서울", "7.3 degC to degF"),
        ("서울 날씨 알려주고 거기에 10 더해줘", "서울", "7.3+10"),
    ],
)
def test_a_sum_on_a_temperature_waits_for_the_weather(question: str, place: str, wanted: str) -> None:
    first = intent(question)
    assert (calls_of(first), first["needs_more"]) == ([sky(place)], True)

    asked = turn(question, (sky(place), weather_result("Seoul", "South Korea")))
    second = read_intent(asked)
    assert (second["kind"], calls_of(second), second["needs_more"]) == ("tool", [calc(wanted)], False)

    both = (sky(place), weather_result("Seoul", "South Korea")), (calc(wanted), sum_result(wanted, "17.3"))
    assert calls_of(read_intent(turn(question, *both))) == []


def test_the_difference_of_two_temperatures() -> None:
    question = "서울과 부산의 기온 차이는?"
    assert calls_of(intent(question)) == [sky("서울"), sky("부산")]
    results = (
        (sky("서울"), weather_result("서울", "대한민국", temperature=7.3)),
        (sky("부산"), weather_result("부산", "대한민국", temperature=-1.5)),
    )
    assert calls_of(read_intent(turn(question, *results))) == [calc("7.3-(-1.5)")]


def test_no_further_call_once_the_weather_has_failed() -> None:
    failed = turn("서울 기온에 10 더해줘", (sky("서울"), "the weather service is away"))
    found = read_intent(failed)
    assert (found["kind"], found["tool_calls"], found["needs_more"]) == ("tool", [], False)


def test_no_further_calls_once_results_are_there() -> None:
    found = read_intent(WARM)
    assert (found["kind"], found["tool_calls"], found["needs_more"]) == ("tool", [], False)


def test_only_tools_of_the_schema_are_called() -> None:
    only_sums = intent_format("calculator")
    assert intent("서울 날씨", form=only_sums)["kind"] == "chat"
    found = intent("서울 날씨 알려주고 (15+27)*3도 계산해줘", form=only_sums)
    assert (found["kind"], calls_of(found)) == ("tool", [calc("(15+27)*3")])
    waits = intent("서울 기온에 10 더해줘", form=intent_format("weather"))
    assert (calls_of(waits), waits["needs_more"]) == ([sky("서울")], False)


# --- Answers ------------------------------------------------------------------------------------------------------

ANSWERS: list[tuple[Messages, list[str]]] = [
    (WARM, ["126"]),
    (turn("(15+27)*3은?", (calc("(15+27)*3"), sum_result("(15 + 27) * 3", "126"))), ["126이에요"]),
    (turn("삼백만 나누기 4", (calc("3000000/4"), sum_result("3000000 / 4", "750000"))), ["750000", "750,000"]),
    (
        turn("5 km in miles", (calc("5 km to mile"), sum_result("5 kilometer to mile", "3.10685596118667", "mile"))),
        ["5 km = 3.10685596118667 miles"],
    ),
    (
        turn("30평은 몇 제곱미터야?", (calc("30평 to m**2"), sum_result("30 pyeong to meter²", "99.17", "meter²"))),
        ["30평 = 99.17m²예요"],
    ),
    (turn("200의 15%는?", (calc("15% of 200"), sum_result("15 / 100 * 200", "30"))), ["200의 15% = 30이에요"]),
    (
        turn("weather in Seoul", (sky("Seoul"), weather_result("Seoul", "South Korea"))),
        ["Seoul, South Korea", "7.3 °C", "clear sky", "40%", "9.7 km/h", "18:00", "Open-Meteo"],
    ),
    (SEOUL, ["서울은 지금 7.3°C", "맑아요", "40%", "9.7km"]),
    (
        turn("will it rain in Paris tomorrow", (sky("Paris", 2), weather_result("Paris", "France", days=2))),
        ["Probably not.", "Tomorrow in Paris (2026-11-23)", "15%", "2.5 to 10.5 °C"],
    ),
    (
        turn("부산 내일 비 와?", (sky("부산", 2), weather_result("Busan", "South Korea", days=2))),
        ["안 올 것 같아요", "부산의 내일(2026-11-23)", "약한 비", "강수 확률 15%"],
    ),
    (
        turn("weather this week in Tokyo", (sky("Tokyo", 7), weather_result("Tokyo", "Japan", days=7))),
        ["Sunday 2026-11-22", "Saturday 2026-11-28"],
    ),
    (
        turn("서울 금요일 날씨", (sky("서울", 7), weather_result("서울", "대한민국", days=7))),
        ["금요일(2026-11-27)"],
    ),
    (
        turn(
            "LangGraph에 대해 검색해줘",
            (
                find("LangGraph"),
                {
                    "query": "LangGraph",
                    "provider": "w",
                    "results": [{"title": "A", "url": "https://a.org", "snippet": "s"}],
                },
            ),
        ),
        ["검색 결과예요", "[A](https://a.org): s"],
    ),
    (FOUND, ["The search for “Ada Lovelace” found nothing."]),
    (
        turn(
            "weather in Atlantis and 2+2",
            (sky("Atlantis"), "there is no place called Atlantis"),
            (calc("2+2"), sum_result("2 + 2", "4")),
        ),
        ["The weather tool failed", "there is no place called Atlantis", "2 + 2 = 4"],
    ),
    (
        turn("0으로 나눠봐", (calc("1/0"), "division by zero has no result")),
        ["계산기 도구가 실패했어요", "division by zero"],
    ),
    (
        turn("2+2하고 서울 날씨", (calc("2+2"), sum_result("2 + 2", "4"))),
        ["2 + 2 = 4", "날씨 도구가 없어서"],
    ),
    ([HumanMessage("what is 2+2?")], ["need a calculator tool"]),
    ([HumanMessage("hi")], ["offline model"]),
    ([HumanMessage("안녕")], ["오프라인 모델"]),
    ([HumanMessage("what can you do?")], ["offline model", "OPENROUTER_API_KEY", "OPENAI_BASE_URL"]),
    ([HumanMessage("tell me a joke")], ["offline model", "OPENROUTER_API_KEY", "OPENAI_BASE_URL"]),
    ([HumanMessage("심심해")], ["오프라인 모델", "OPENROUTER_API_KEY", "OPENAI_BASE_URL"]),
    ([HumanMessage("고마워")], ["천만에요"]),
    ([HumanMessage("날씨 알려줘")], ["어느 도시"]),
    ([SystemMessage("no human yet")], ["offline model"]),
    (
        turn("what's up there", (("lookup_star", {"name": "Vega"}), {"magnitude": 0.03})),
        ["lookup_star", "magnitude: 0.03"],
    ),
]


@pytest.mark.parametrize(("messages", "parts"), ANSWERS)
def test_the_answer_says(messages: Messages, parts: list[str]) -> None:
    answer = said(*messages)
    assert [part for part in parts if part not in answer] == [], answer


MINJI: Messages = [HumanMessage("my name is Minji"), AIMessage("…")]
MINJI_KOREAN: Messages = [HumanMessage("내 이름은 민지야"), AIMessage("…"), HumanMessage("3+4는?"), AIMessage("7")]


@pytest.mark.parametrize(
    ("before", "question", "part"),
    [
        (MINJI, "what's my name?", "Minji"),
        (MINJI, "내 이름이 뭐야?", "Minji"),
        (MINJI, "hello", "Minji"),
        ([HumanMessage("my name is Kim Minji and I live in Busan")], "what's my name?", "is Kim Minji."),
        (MINJI_KOREAN, "내 이름이 뭐야?", "민지"),
        (MINJI_KOREAN, "what's my name?", "민지"),
        (MINJI_KOREAN, "what did I ask before?", "3+4는?"),
        (MINJI_KOREAN, "내가 방금 뭐라고 물어봤지?", "3+4는?"),
        (MINJI_KOREAN, "내가 처음에 뭐라고 했지?", "내 이름은 민지야"),
        (MINJI_KOREAN, "what have I asked so far?", "2. 3+4는?"),
        ([], "what's my name?", "haven't told me"),
        ([], "what did I ask before?", "first thing"),
        ([HumanMessage("my favourite colour is blue")], "what's my favourite colour?", "blue"),
        ([HumanMessage("I'm Minji."), HumanMessage("call me Sam")], "who am I?", "Sam"),
    ],
)
def test_it_remembers_the_conversation_it_is_given(before: Messages, question: str, part: str) -> None:
    assert part in said(*before, HumanMessage(question))


def test_it_never_takes_a_mood_for_a_name() -> None:
    assert "haven't told me" in said(HumanMessage("I'm hungry"), AIMessage("…"), HumanMessage("what's my name?"))


# --- The chat model -----------------------------------------------------------------------------------------------


async def test_the_stream_joined_is_the_answer() -> None:
    model = OfflineModel()
    for messages, _ in ANSWERS:
        whole = await model.ainvoke(messages)
        chunks = [chunk async for chunk in model.astream(messages)]
        joined = chunks[0]
        for chunk in chunks[1:]:
            joined += chunk
        assert joined.content == whole.content
        assert joined.usage_metadata == whole.usage_metadata == chunks[-1].usage_metadata
        assert joined.response_metadata == whole.response_metadata
        assert [chunk.chunk_position for chunk in chunks] == [None] * (len(chunks) - 1) + ["last"]
        assert all(len(chunk.text.split()) <= 1 for chunk in chunks)


async def test_metadata_names_the_model_and_costs_nothing() -> None:
    reply = await OfflineModel().ainvoke([HumanMessage("hi")])
    assert reply.response_metadata["model_name"] == "threadline-offline"
    assert reply.response_metadata["finish_reason"] == "stop"
    assert reply.response_metadata["cost"] == 0.0
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["total_tokens"] > reply.usage_metadata["input_tokens"] > 0
    assert OfflineModel()._llm_type == "threadline-offline"


async def test_the_delay_is_per_token() -> None:
    messages: Messages = [HumanMessage("고마워")]
    began = time.perf_counter()
    chunks = [chunk async for chunk in OfflineModel(delay=0.01).astream(messages)]
    assert time.perf_counter() - began >= 0.01 * (len(chunks) - 1)


def test_the_same_messages_get_the_same_reply() -> None:
    for question in ("서울 날씨 알려주고 15% of 80도 계산해줘", "tell me a joke"):
        replies = {json.dumps(intent(question)) + said(HumanMessage(question)) for _ in range(3)}
        assert len(replies) == 1


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


@tool
def calculator(expression: str) -> dict[str, Any]:
    """Calculate."""
    return {"expression": expression, "result": "84", "unit": None}


async def test_bound_tools_are_called_natively_and_in_their_own_words() -> None:
    model = OfflineModel().bind_tools([get_weather, multiply, calculator])
    messages: Messages = [HumanMessage("weather in Seoul and what is 12*7?", id="m1")]
    reply = await model.ainvoke(messages)
    assert [(call["name"], call["args"]) for call in reply.tool_calls] == [
        ("get_weather", {"city": "Seoul"}),
        ("calculator", {"expression": "12*7"}),
    ]
    assert reply.response_metadata["finish_reason"] == "tool_calls"
    assert len({call["id"] for call in reply.tool_calls}) == 2

    joined: AIMessageChunk | None = None
    async for chunk in model.astream(messages):
        assert isinstance(chunk, AIMessageChunk)
        joined = chunk if joined is None else joined + chunk
    assert joined is not None
    assert joined.tool_calls == reply.tool_calls


async def test_bound_tools_without_use_are_left_alone() -> None:
    reply = await OfflineModel().bind_tools([multiply]).ainvoke([HumanMessage("weather in Seoul")])
    assert reply.tool_calls == []
    assert "weather tool" in reply.text
    forbidden = await OfflineModel().bind_tools([calculator], tool_choice="none").ainvoke([HumanMessage("2+2")])
    assert forbidden.tool_calls == []


async def test_a_strangers_agent_runs_on_it_and_shows_its_tokens() -> None:
    tools = {one.name: one for one in (get_weather, calculator)}
    model = OfflineModel().bind_tools(list(tools.values()))

    async def think(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    async def act(state: MessagesState) -> dict[str, Any]:
        asked = state["messages"][-1]
        assert isinstance(asked, AIMessage)
        return {"messages": [await tools[call["name"]].ainvoke(call) for call in asked.tool_calls]}

    def after(state: MessagesState) -> str:
        last = state["messages"][-1]
        return "act" if isinstance(last, AIMessage) and last.tool_calls else END

    graph = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("act", act)
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", after, ["act", END])
    graph.add_edge("act", "think")

    tokens: list[str] = []
    asked: MessagesState = {"messages": [HumanMessage("weather in Seoul and what is 12*7?")]}
    async for part in graph.compile().astream(asked, stream_mode="messages", version="v2"):
        assert part["type"] == "messages"
        chunk, metadata = part["data"]
        if isinstance(chunk, AIMessageChunk) and metadata["langgraph_node"] == "think" and chunk.text:
            tokens.append(chunk.text)
    assert len(tokens) > 5
    answer = "".join(tokens)
    assert "sunny in Seoul" in answer
    assert "12×7 = 84" in answer


# --- Speed --------------------------------------------------------------------------------------------------------


def cpu_of(question: str, before: Sequence[BaseMessage] = ()) -> float:
    """CPU seconds of the fastest of three analyses: the machine may be busy, the model must not be."""
    spent = []
    for _ in range(3):
        expression.cache_clear()
        began = time.process_time()
        reply_to([*before, HumanMessage(question)], {"response_format": ALL})
        spent.append(time.process_time() - began)
    return min(spent)


HOSTILE = (
    "1",
    "1+",
    "1,",
    ",234",
    "1-",
    "(",
    ")",
    " ",
    "?",
    "%",
    "-",
    "a",
    "가",
    "이",
    "만",
    "일 ",
    "a. ",
    "\n",
    "|",
    "_",
    '"',
    "weather in ",
    "서울 ",
    "날씨 ",
    "and ",
    "and in ",
    "my a is ",
    "search ",
    "에 대해 ",
    "hi ",
    "고 ",
    "what is ",
    "twenty ",
    "(15+27)*3 and ",
    "sqrt(",
    "tell me ",
    "the ",
    "뭐야 ",
    "그거 ",
    "내일 ",
    "하고 ",
    "in Seoul, ",
    "5 km ",
    "1 + ",
    "제곱",
)


@pytest.mark.parametrize("unit", HOSTILE)
def test_no_long_text_takes_long(unit: str) -> None:
    for size in (999, 1_999, 16_000):
        text = (unit * (size // len(unit) + 1))[:size]
        assert cpu_of(text) < 0.1
        assert cpu_of(text[:-1] + "x?") < 0.1


def test_a_typical_message_takes_under_a_millisecond() -> None:
    questions = [*SUMS, *WEATHER, *SEARCHES, *SEVERAL, *KINDS]
    assert sum(map(cpu_of, questions)) / len(questions) < 0.001


def test_a_long_conversation_takes_no_longer() -> None:
    before: Messages = []
    for index in range(40):
        before += [HumanMessage(f"{'my a is ' * 2000}{index}"), AIMessage("x" * 4000)]
    assert cpu_of("내일은?", before) < 0.1
    assert cpu_of("what's my name?", before) < 0.1


def test_a_sum_is_read_as_a_whole_or_not_at_all() -> None:
    assert expression("chapter 5 - 3") is None
    assert embedded("call 010-1234-5678, how much is it?") is None
