"""Understands a message: cuts it into sentences and clauses, lets the rules read them, and recalls what came before."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from threadline.services.models.offline_arithmetic import IT, expression, filled
from threadline.services.models.offline_chat import home, small_talk, told
from threadline.services.models.offline_conversation import (
    LONGEST,
    UNKNOWN,
    Call,
    Conversation,
    Plan,
    Result,
    Then,
    Tool,
)
from threadline.services.models.offline_rules import FOLLOW_UP_RULES, SUM_RULES, TOOL_RULES, Memory, Remember, Rule
from threadline.services.models.offline_weather import day_of

LONGEST_SUM = 2 * LONGEST
"""Characters of a sum; what is longer no calculator takes."""
MOST_CALLS = 8
REPLAYED = 6
"""Messages read again where the conversation shows no tool calls to remember."""
WHICH_PLACE = re.compile(r"^Which city\?|^어느 도시")


def understand(conversation: Conversation) -> Plan:
    """What the last human message asks for, whatever tools there are."""
    text = conversation.question
    if not text:
        return UNKNOWN
    remember = Recollection(conversation)
    if len(text) > LONGEST:
        return (_first(SUM_RULES, text, remember) if len(text) <= LONGEST_SUM else None) or UNKNOWN
    return (
        small_talk(text, conversation)
        or _unless_unknown(_requests(text, remember))
        or _last_small_talk(text, conversation)
        or told(text, conversation)
        or _first_greeting(text, conversation)
        or UNKNOWN
    )


def _unless_unknown(plan: Plan) -> Plan | None:
    return None if plan.kind == "unknown" else plan


def _sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in _pieces(_SENTENCE_END, text)]


def _last_small_talk(text: str, conversation: Conversation) -> Plan | None:
    plans = (small_talk(sentence, conversation) for sentence in reversed(_sentences(text)))
    return next((plan for plan in plans if plan and plan.kind != "greeting"), None)


def _first_greeting(text: str, conversation: Conversation) -> Plan | None:
    return next(filter(None, (small_talk(sentence, conversation) for sentence in _sentences(text))), None)


def next_call(plan: Plan, results: Sequence[Result]) -> Call | None:
    """The sum that could not be written before the weather was known, once it is; None if it is done or cannot be."""
    if plan.then is None:
        return None
    figures = []
    for place in plan.then.places:
        figure = next((r.figure for r in results if r.kind == "weather" and place in r.args.values()), None)
        if figure is None:
            return None
        figures.append(figure)
    found = filled(plan.then.template, figures)
    done = any(found in result.args.values() for result in results)
    return None if done else Call("calculator", {"expression": found})


# --- What came before -------------------------------------------------------------------------------------------------


class Recollection:
    """The memory of a conversation, gathered only if a rule asks for it."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation

    def __call__(self) -> Memory:
        return self.memory

    @cached_property
    def memory(self) -> Memory:
        conversation = self.conversation
        memory = Memory(home=home(conversation.asked))
        for tool, args in conversation.earlier_calls:
            memory.note(Plan("tool", calls=(_remembered(tool, args),)))
        if not conversation.earlier_calls:
            for text in conversation.asked[-REPLAYED:]:
                if len(text) <= LONGEST:
                    memory.note(_requests(text, lambda: memory))
        for result in reversed(conversation.before):
            if result.figure is not None:
                memory.figure, memory.unit = result.figure, result.unit
                break
        memory.place_wanted = WHICH_PLACE.search(conversation.last_reply) is not None
        return memory


def _remembered(tool: Tool, args: dict[str, Any]) -> Call:
    if tool != "weather":
        return Call(tool, args)
    days = args.get("days")
    place = args.get("place") or next((value for value in args.values() if isinstance(value, str)), "")
    return Call(tool, {"place": place}, day_of(days if isinstance(days, int) else 0))


# --- Sentences and clauses ----------------------------------------------------------------------------------------

_SENTENCE_END = re.compile(
    r"\n+|(?<=[?!。])\s+(?=\S)|(?<=[^\s.][^\s.A-Z])(?<!\bSt)(?<!\bMt)\.\s+(?=\S)|;\s*|(?<=[가-힣][줘요])\s+(?=\S)"
)
_CLAUSE_END = re.compile(
    r",\s+(?:(?:and|then|also|그리고|또)\s+)*|\s+(?:and(?: then| also)?|then)\s+|\s*그리고\s+"
    r"|(?<=[가-힣]고)\s+(?:또\s+)?|(?<=날씨[랑와])\s+"
)


def _pieces(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for gap in pattern.finditer(text):
        if gap.start() > start:
            yield start, gap.start()
        start = gap.end()
    if start < len(text):
        yield start, len(text)


def _first(rules: tuple[Rule, ...], text: str, remember: Remember) -> Plan | None:
    for rule in rules:
        match = rule.pattern.search(text)
        if match and (plan := rule.handle(match, remember)):
            return plan
    return None


def _request(text: str, remember: Remember) -> Plan | None:
    return _first(TOOL_RULES, text, remember) or _first(FOLLOW_UP_RULES, text, remember)


def _clauses(text: str, remember: Remember) -> Iterator[Plan]:
    """The plans of a sentence's clauses. A clause that is no request by itself belongs to the one before it, so that
    "cats and dogs" stays one search; the first ones may also belong to the one after them."""
    pieces = list(_pieces(_CLAUSE_END, text))
    if len(pieces) > 2 * MOST_CALLS:
        pieces = [(0, len(text))]
    for head, whole in _groups(text, pieces, remember):
        plan = _request(head, remember)
        wider = _first(TOOL_RULES, whole, remember) if whole != head else None
        if wider and (plan is None or not plan.calls or _tools(wider) == _tools(plan)):
            plan = wider
        if plan:
            yield plan


def _groups(text: str, pieces: list[tuple[int, int]], remember: Remember) -> Iterator[tuple[str, str]]:
    """Each request clause, first alone, then with the clauses that belong to it."""
    heads = [index for index, (start, end) in enumerate(pieces) if _stands_alone(text[start:end], remember)]
    if not heads:
        yield text, text
        return
    if heads[0] and _first(TOOL_RULES, before := text[: pieces[heads[0] - 1][1]], remember):
        yield before, before
        first = pieces[heads[0]][0]
    else:
        first = 0
    for index, head in enumerate(heads):
        start = pieces[head][0] if index else first
        last = heads[index + 1] - 1 if index + 1 < len(heads) else len(pieces) - 1
        yield text[pieces[head][0] : pieces[head][1]], text[start : pieces[last][1]]


_DAY_AND_PLACE = re.compile(r"(?:tomorrow|today|tonight) (?:in|at|for) \S", re.IGNORECASE)


def _stands_alone(text: str, remember: Remember) -> bool:
    found = expression(text)
    return (
        (found is not None and IT in found)
        or _DAY_AND_PLACE.match(text) is not None
        or _first(TOOL_RULES, text, remember) is not None
    )


def _tools(plan: Plan) -> frozenset[str]:
    return frozenset(call.tool for call in plan.calls)


def _requests(text: str, remember: Remember) -> Plan:
    """All that the text asks for, in order; later clauses may lean on earlier ones."""
    calls: list[Call] = []
    then: Then | None = None
    spare = UNKNOWN
    confidence = 1.0

    def leaning() -> Memory:
        if not calls:
            return remember()
        memory = replace(remember(), pending=calls[-1])
        memory.note(Plan("tool", calls=tuple(calls)))
        return memory

    sentences = [(0, len(text))] if expression(text) else _pieces(_SENTENCE_END, text)
    for start, end in sentences:
        sentence = text[start:end]
        for plan in _whole_sum(sentence, leaning) or _clauses(sentence, leaning):
            if not plan.calls and not plan.then:
                spare = plan
                continue
            calls += [call for call in plan.calls if call not in calls]
            then = plan.then or then
            confidence = min(confidence, plan.confidence)
    if not calls:
        return spare
    return Plan("tool", calls=tuple(calls[:MOST_CALLS]), then=then, confidence=confidence)


def _whole_sum(sentence: str, remember: Remember) -> list[Plan]:
    """ "One hundred and five plus 2" is one sum, whatever its "and" looks like."""
    plan = _first(SUM_RULES, sentence, remember)
    return [plan] if plan else []
