"""The fixed phrases of the offline model, in English and Korean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from threadline.services.models.offline_conversation import Language, Plan

Row = Mapping[str, Any]

# --- Fixed phrases ------------------------------------------------------------------------------------------------

_CAN = {
    "en": (
        "- work things out: “What is (15+27)*3?”, “15% of 200”, “5 km in miles”\n"
        "- look up the weather, now or in the coming days: “What's the weather in Seoul?”, “Will it "
        "rain in Paris tomorrow?”\n"
        "- search the web: “Search for LangGraph”, “Who is Ada Lovelace?”\n"
        "- do several of these in one message, and follow up: “And in Busan?”, “Times 2?”"
    ),
    "ko": (
        "- 계산: “(15+27)*3은?”, “200의 15%는?”, “30평은 몇 제곱미터야?”\n"
        "- 지금과 며칠 뒤까지의 날씨: “서울 날씨 알려줘”, “부산 내일 비 와?”\n"
        "- 웹 검색: “LangGraph에 대해 검색해줘”, “세종대왕은 누구야?”\n"
        "- 한 번에 여러 가지를 묻거나 이어서 묻기: “부산은?”, “그거 곱하기 2”"
    ),
}
_CONNECT = {
    "en": "For open conversation, connect a real model: set OPENROUTER_API_KEY, or OPENAI_BASE_URL for any "
    "OpenAI-compatible server, and start the service again.",
    "ko": "자유로운 대화를 하려면 OPENROUTER_API_KEY를 설정하거나, OpenAI 호환 서버라면 OPENAI_BASE_URL을 "
    "설정해 진짜 모델을 "
    "연결한 뒤 서비스를 다시 시작해 주세요.",
}
_PHRASES: dict[str, dict[Language, str]] = {
    "greeting": {
        "en": "Hello{name}! I'm Threadline's offline model. I follow fixed rules, yet I can do sums, tell "
        "you the weather "
        "and search the web. What can I do for you?",
        "ko": "안녕하세요{name}! 저는 Threadline의 오프라인 모델이에요. 정해진 규칙대로 움직이지만 계산, "
        "날씨, 웹 검색을 할 수 "
        "있어요. 무엇을 도와드릴까요?",
    },
    "well": {
        "en": "All well, thank you! I'm Threadline's offline model, so I run on rules rather than moods. "
        "What can I do for you?",
        "ko": "잘 지내고 있어요, 고마워요! 저는 규칙으로 움직이는 Threadline의 오프라인 모델이에요. 무엇을 "
        "도와드릴까요?",
    },
    "help": {
        "en": "I'm Threadline's offline model: fixed rules, no language model behind me. I can\n\n{can}\n\n{connect}",
        "ko": "저는 Threadline의 오프라인 모델이에요. 언어 모델 없이 정해진 규칙으로 답해요. 이런 일을 할 "
        "수 있어요.\n\n{can}\n\n"
        "{connect}",
    },
    "identity": {
        "en": "I'm Threadline's offline model, a program of fixed rules that answers while no language "
        "model is connected. "
        "I can\n\n{can}\n\n{connect}",
        "ko": "저는 Threadline의 오프라인 모델이에요. 언어 모델이 연결되지 않았을 때 정해진 규칙으로 "
        "답하는 프로그램이에요. 이런 "
        "일을 할 수 있어요.\n\n{can}\n\n{connect}",
    },
    "unknown": {
        "en": "I'm the offline model and follow fixed rules, so I have no answer to that. I can\n\n{can}\n\n{connect}",
        "ko": "저는 정해진 규칙으로 답하는 오프라인 모델이라 이 말에는 답할 수 없어요. 이런 일은 할 수 "
        "있어요.\n\n{can}\n\n"
        "{connect}",
    },
    "ack": {"en": "All right. What shall I do next?", "ko": "네, 알겠어요. 무엇을 도와드릴까요?"},
    "thanks": {"en": "You're welcome{name}!", "ko": "천만에요{name}! 또 필요하면 말씀해 주세요."},
    "bye": {"en": "Goodbye{name}! Come back any time.", "ko": "안녕히 가세요{name}! 언제든 다시 오세요."},
    "clock": {
        "en": "I can't tell the time: the offline model has no clock. Ask for a city's weather and I can "
        "tell you its local time.",
        "ko": "오프라인 모델은 시계가 없어서 지금 시각이나 날짜를 알 수 없어요. 도시 날씨를 물어보시면 "
        "그곳의 현지 시각을 알려드릴 수 "
        "있어요.",
    },
    "which_place": {
        "en": "Which city? For example: “What's the weather in Seoul?”",
        "ko": "어느 도시의 날씨가 궁금하세요? 예를 들어 “서울 날씨 알려줘”라고 물어보세요.",
    },
    "no_figure": {
        "en": "There is no earlier result in this conversation to go on from. Please give me the whole "
        "sum, such as “126 * 2”.",
        "ko": "이 대화에는 이어서 계산할 앞의 결과가 없어요. “126 곱하기 2”처럼 식을 모두 알려주세요.",
    },
    "no_unit": {
        "en": "The earlier result has no unit, so I can't convert it. Please name both, such as “5 km in miles”.",
        "ko": "앞의 결과에 단위가 없어서 바꿀 수 없어요. “5 km는 몇 마일이야?”처럼 단위를 함께 알려주세요.",
    },
    "fact_told": {"en": "Got it: your {0} is {1}. I'll remember it in this conversation.", "ko": "{1}, 기억할게요."},
    "name_told": {
        "en": "Nice to meet you, {1}! I'll remember your name in this conversation.",
        "ko": "반가워요, {1} 님! 이 대화에서 이름을 기억할게요.",
    },
    "home_told": {"en": "Got it: you are in {0}.", "ko": "{0}에 사시는군요. 기억할게요."},
    "fact_known": {"en": "Your {0} is {1}.", "ko": "{0}: {1}. 앞에서 그렇게 말씀하셨어요."},
    "name_known": {"en": "Your name is {1}.", "ko": "{1} 님이에요. 앞에서 이름을 알려주셨어요."},
    "fact_unknown": {
        "en": "You haven't told me your {0} in this conversation yet.",
        "ko": "이 대화에서 아직 알려주지 않으셔서 모르겠어요.",
    },
    "asked_last": {"en": "Before this you said: “{0}”", "ko": "바로 전에 이렇게 말씀하셨어요: “{0}”"},
    "asked_first": {"en": "The first thing you said was: “{0}”", "ko": "처음에 이렇게 말씀하셨어요: “{0}”"},
    "asked_all": {"en": "So far you have said:\n{list}", "ko": "지금까지 이렇게 말씀하셨어요:\n{list}"},
    "asked_nothing": {
        "en": "This is the first thing you've said in the part of the conversation I can see.",
        "ko": "제가 볼 수 있는 대화에서는 이번이 첫 말씀이에요.",
    },
}


def said(plan: Plan, language: Language, *, name: str | None = None) -> str:
    """The phrase of a plan's topic; `name` is the asker's, if told."""
    topic = plan.topic
    if topic in {"fact_told", "fact_known"} and plan.detail[0] in {"name", "이름"}:
        topic = topic.replace("fact", "name")
    called = "" if not name else f", {name}" if language == "en" else f", {name} 님"
    values = {"can": _CAN[language], "connect": _CONNECT[language], "name": called}
    values["list"] = "\n".join(f"{index}. {text}" for index, text in enumerate(plan.detail, 1))
    template = _PHRASES[topic][language]
    return re.sub(r"\{(\w+)\}", lambda slot: _slot(slot[1], values, plan.detail), template)


def _slot(name: str, values: Mapping[str, str], detail: Sequence[str]) -> str:
    return detail[int(name)] if name.isdigit() else values[name]
