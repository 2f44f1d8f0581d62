"""A conversation as the offline model sees it: the question, this turn's tool results, and what was said before."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall, ToolMessage

Tool = Literal["calculator", "weather", "search"]
Language = Literal["en", "ko"]
Kind = Literal["tool", "chat", "greeting", "help", "unknown"]

LONGEST = 1_000
"""Characters of a message that the rules read. What is longer is a text to talk about, not a command."""

_TOOL_WORDS: tuple[tuple[Tool, re.Pattern[str]], ...] = (
    ("weather", re.compile("weather|forecast", re.IGNORECASE)),
    ("calculator", re.compile("calculat|(?:^|_)math(?:_|$)|arithmetic", re.IGNORECASE)),
    ("search", re.compile("search|lookup|look_up", re.IGNORECASE)),
)
_LATIN_WORD = re.compile(r"[A-Za-z][A-Za-z'’]*(?![가-힣A-Za-z])")
_ENGLISH = re.compile(
    r"\b(?:the|an?|in|of|for|to|at|and|is|are|was|what|who|how|where|my|i|you|please|tell|does|mean|about)\b",
    re.IGNORECASE,
)
_KOREAN_WORD = re.compile(r"\S*[가-힣]\S*")


def tool_kind(name: str) -> Tool | None:
    """What a tool is for, told from its name: `get_weather` is a weather tool."""
    return next((kind for kind, words in _TOOL_WORDS if words.search(name)), None)


def text_of(message: BaseMessage) -> str:
    """The text of a message whose content may be a string or a list of blocks."""
    if isinstance(message.content, str):
        return message.content
    parts = (block if isinstance(block, str) else block.get("text") for block in message.content)
    return "\n".join(part for part in parts if isinstance(part, str))


def tidy(text: str) -> str:
    """One form for the many ways to write the same text: composed letters, plain quotes, single spaces."""
    if not text.isascii():
        text = text.encode("utf-8", "ignore").decode()  # half a surrogate pair is no character
        text = unicodedata.normalize("NFKC", text.replace("²", "^2").replace("³", "^3"))
        text = text.replace("’", "'").replace("‘", "'").replace("“", '"').replace("”", '"')
    return "\n".join(filter(None, (" ".join(line.split()) for line in text.splitlines())))


def language_of(text: str) -> Language:
    """Korean, unless it has no Korean words or only a few in an English sentence."""
    korean, latin = len(_KOREAN_WORD.findall(text)), len(_LATIN_WORD.findall(text))
    return "ko" if korean and (2 * korean > latin or not _ENGLISH.search(text)) else "en"


@dataclass(frozen=True, slots=True)
class Call:
    """A tool to call. `day` and `rain` say what the asker wants to know of the weather."""

    tool: Tool
    args: dict[str, Any]
    day: str = "now"
    rain: bool = False


@dataclass(frozen=True, slots=True)
class Then:
    """A sum over temperatures still to be looked up: `template` holds {0}, {1} … for those of `places`."""

    template: str
    places: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about a message: call tools, or say what `topic` (see offline_phrases) has to say of `detail`."""

    kind: Kind
    topic: str = ""
    detail: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()
    then: Then | None = None
    confidence: float = 0.95


UNKNOWN = Plan("unknown", "unknown", confidence=0.2)


@dataclass(frozen=True, slots=True)
class Result:
    """A tool's result: the call's arguments, and `data` as an object or, where it is none, as text."""

    name: str
    args: dict[str, Any]
    data: dict[str, Any] | str
    failed: bool

    @property
    def kind(self) -> Tool | None:
        return tool_kind(self.name)

    @property
    def figure(self) -> str | None:
        """The number one can go on reckoning with."""
        if self.failed or isinstance(self.data, str):
            return None
        value = self.data.get("result") if self.kind == "calculator" else self.data.get("temperature_c")
        text = str(value).replace(",", "") if isinstance(value, str | int | float) else ""
        return text if _FIGURE.fullmatch(text) else None

    @property
    def unit(self) -> str:
        if self.kind == "weather":
            return "degC"
        unit = self.data.get("unit") if isinstance(self.data, dict) else None
        return unit if isinstance(unit, str) else ""


_FIGURE = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


class Conversation:
    """The messages, cut at the last human one. Nothing is read before it is asked for."""

    def __init__(self, messages: Sequence[BaseMessage]) -> None:
        last = next((i for i in reversed(range(len(messages))) if isinstance(messages[i], HumanMessage)), None)
        self.earlier = messages[:last] if last is not None else ()
        self.turn = messages[last + 1 :] if last is not None else ()
        self.question = tidy(text_of(messages[last])) if last is not None else ""

    @cached_property
    def language(self) -> Language:
        return language_of(self.question[:LONGEST])

    @cached_property
    def results(self) -> tuple[Result, ...]:
        """What tools answered in this turn, in order."""
        return tuple(_results(self.turn))

    @cached_property
    def before(self) -> tuple[Result, ...]:
        """What tools answered in earlier turns, in order."""
        return tuple(_results(self.earlier))

    @cached_property
    def asked(self) -> tuple[str, ...]:
        """What was said to us before, oldest first."""
        return tuple(tidy(text_of(message)) for message in self.earlier if isinstance(message, HumanMessage))

    @cached_property
    def last_reply(self) -> str:
        return next((text_of(message) for message in reversed(self.earlier) if isinstance(message, AIMessage)), "")

    @cached_property
    def earlier_calls(self) -> tuple[tuple[Tool, dict[str, Any]], ...]:
        """The calls of earlier turns whose tools we know, oldest first."""
        calls = (call for message in self.earlier if isinstance(message, AIMessage) for call in message.tool_calls)
        return tuple((kind, call["args"]) for call in calls if (kind := tool_kind(call["name"])))


def _results(messages: Sequence[BaseMessage]) -> Iterator[Result]:
    calls: dict[str | None, ToolCall] = {}
    for message in messages:
        if isinstance(message, AIMessage):
            calls |= {call["id"]: call for call in message.tool_calls}
        elif isinstance(message, ToolMessage):
            call = calls.get(message.tool_call_id)
            failed = message.status == "error"
            text = text_of(message)
            yield Result(
                message.name or (call["name"] if call else ""),
                call["args"] if call else {},
                text if failed else _read(message, text),
                failed,
            )


def _read(message: ToolMessage, text: str) -> dict[str, Any] | str:
    if isinstance(message.artifact, dict):
        return message.artifact
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return data if isinstance(data, dict) else text
