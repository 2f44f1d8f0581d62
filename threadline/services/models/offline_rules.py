"""The rules of the offline model as tables: what a clause asks for, and which tools that takes. No clock, no chance.

`TOOL_RULES` read a clause by itself, `FOLLOW_UP_RULES` with the help of what came before; `offline_chat` knows small
talk. The first rule that reads a clause wins. To teach the model something, write a handler and add its row.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from threadline.services.models.offline_arithmetic import IT, IT_UNIT, embedded, expression, filled
from threadline.services.models.offline_conversation import (
    Call,
    Plan,
    Then,
    Tool,
)
from threadline.services.models.offline_weather import (
    KNOWN_PLACES,
    days_needed,
    korean_places,
    split_places,
    take_day,
    weather_question,
)


@dataclass(slots=True)
class Memory:
    """What a follow-up can lean on. `pending` is the last call of this very message, whose result is not known yet."""

    weather: Call | None = None
    latest: Tool | None = None
    figure: str | None = None
    unit: str = ""
    pending: Call | None = None
    home: str | None = None
    place_wanted: bool = False

    def note(self, plan: Plan) -> None:
        for call in plan.calls:
            self.latest = call.tool
            if call.tool == "weather":
                self.weather = call


Remember = Callable[[], Memory]


class Rule(NamedTuple):
    """`handle` gets the match and what came before, and may still say no."""

    pattern: re.Pattern[str]
    handle: Callable[[re.Match[str], Remember], Plan | None]


def _calls(*calls: Call, then: Then | None = None, confidence: float = 0.95) -> Plan:
    return Plan("tool", calls=calls, then=then, confidence=confidence)


# --- Sums ---------------------------------------------------------------------------------------------------------


def _sum(match: re.Match[str], remember: Remember) -> Plan | None:
    found = expression(match.string)
    return _calls(Call("calculator", {"expression": found})) if found and IT not in found else None


def _sum_inside(match: re.Match[str], remember: Remember) -> Plan | None:
    found = embedded(match.string)
    return _calls(Call("calculator", {"expression": found}), confidence=0.8) if found and IT not in found else None


def _sum_on_figure(match: re.Match[str], remember: Remember) -> Plan | None:
    found = expression(match.string)
    if not found or IT not in found:
        return None
    memory = remember()
    if memory.pending is not None:
        return _sum_on_pending(found, memory.pending)
    if memory.figure is None:
        return Plan("chat", "no_figure", confidence=0.7)
    if IT_UNIT in found and not memory.unit:
        return Plan("chat", "no_unit", confidence=0.7)
    return _calls(Call("calculator", {"expression": filled(found, [memory.figure], unit=memory.unit)}), confidence=0.85)


def _sum_on_pending(found: str, pending: Call) -> Plan | None:
    """A sum that goes on from an earlier clause of the same message."""
    if pending.tool == "weather":
        place = pending.args["place"]
        return Plan("tool", then=Then(found.replace(IT_UNIT, "degC"), (place,)), confidence=0.85)
    before = str(pending.args.get("expression", "x"))
    if IT_UNIT in found or re.search(r"[^\W\d]", before):
        return None
    return _calls(Call("calculator", {"expression": filled(found, [f"({before})"])}), confidence=0.85)


# --- Sums on the weather ------------------------------------------------------------------------------------------

_TEMPERATURE = re.compile(
    r"\b(?:the )?(?:current )?temperature (?:in|of|at|for) (?P<en>[^\W\d_][\w' -]{1,40}?)"
    r"(?=\s+(?:plus|minus|times|multiplied|divided|in|to|and|by|from|into)\b|\s*[-+*/×÷?!.]|\s*$)"
    r"|(?P<ko>[가-힣]{2,12}(?: [가-힣]{2,12})??)(?:의)? ?(?:현재 |지금 )?(?:기온|온도)",
    re.IGNORECASE,
)
_BETWEEN = re.compile(
    r"\b(?P<kind>difference|average|mean)\b[^\n]{0,20}\btemperatures?\b[^\n]{0,12}\b(?:between|of|in"
    r"|for) (?P<places>[^\n?]+)"
    r"|(?P<kind2>average) temperatures? (?:of|in|between) (?P<places2>[^\n?]+)"
    r"|\btemperature (?P<kind3>difference) (?:between|of) (?P<places3>[^\n?]+)",
    re.IGNORECASE,
)
_BETWEEN_KOREAN = re.compile(
    r"(?P<places>[^\n]{2,40}?)의? ?(?:기온|온도)(?:의|은|는|이|을|를)? ?(?P<kind>차이?|평균)(?=[가는은이를을 ?]|$)"
)


def _sum_on_temperature(match: re.Match[str], remember: Remember) -> Plan | None:
    """Add 10 to the temperature in Seoul: the place is looked up first, then the sum is done."""
    korean = match["ko"]
    places = korean_places([korean]) if korean else split_places(match["en"])
    text = match.string
    start = match.end() - len(match[0].lstrip())
    template = expression(f"{text[:start]} {'그거' if korean else 'it'}{text[match.end() :]}")
    if not places or len(places) != 1 or template is None or IT not in template:
        return None
    then = Then(template.replace(IT_UNIT, "degC"), places)
    return _calls(Call("weather", {"place": places[0], "days": 0}), then=then, confidence=0.9)


def _sum_over_places(match: re.Match[str], remember: Remember) -> Plan | None:
    """The difference, or the mean, of the temperatures of several places."""
    found = {name.rstrip("23"): value for name, value in match.groupdict().items() if value}
    korean = "kind2" not in match.groupdict()
    places = korean_places([found["places"]]) if korean else split_places(found["places"])
    if not places or len(places) < 2:
        return None
    slots = [f"{{{index}}}" for index in range(len(places))]
    mean = found["kind"].lower() in {"average", "mean", "평균"}
    if not mean and len(places) != 2:
        return None
    template = f"({'+'.join(slots)})/{len(slots)}" if mean else "-".join(slots)
    return _calls(*(Call("weather", {"place": place, "days": 0}) for place in places), then=Then(template, places))


# --- Weather ------------------------------------------------------------------------------------------------------


def _weather(match: re.Match[str], remember: Remember) -> Plan | None:
    question = weather_question(match.string)
    if question is None:
        return None
    places = question.places
    if not places:
        memory = remember()
        known = (memory.weather.args["place"] if memory.weather else None) or memory.home
        if not known:
            return Plan("chat", "which_place", confidence=0.8)
        places = (known,)
    return _calls(*(_weather_call(place, question.day or "now", rain=question.rain) for place in places))


def _weather_call(place: str, day: str, *, rain: bool = False) -> Call:
    return Call("weather", {"place": place, "days": days_needed(day)}, day, rain)


_NOT_FOLLOWING = re.compile(
    r"^(?:yes|no|ok|okay|why|how|what|who|when|where|sure|fine|good|great|cool|nice|really|right|wow"
    r"|hmm|please|sorry|that|it|this|"
    r"you|me|again|continue|go on|more|next|wait|그래|응|네|아니|왜|뭐|정말|진짜|좋아|그렇구나|알겠어"
    r"|계속|너|나|그거|이거|아니요|뭐라고)\b[^|]*$",
    re.IGNORECASE,
)


def _weather_again(match: re.Match[str], remember: Remember) -> Plan | None:
    """And in Busan? 내일은? Tomorrow? — the rest is as in the last question."""
    day, rest = take_day(match["rest"])
    rest = rest.replace("|", " ").strip(" ?!.,~")
    rest = re.sub(r"^(?:(?:in|at|for|on)\s+)|^(?:은|는|도|엔|에는|에도)(?:\s|$)", "", rest)
    memory = remember()
    before = memory.weather
    if rest in {"", "요", "은", "는", "도", "어때", "은 어때", "는 어때"} and day:
        place = before.args["place"] if before else memory.home
        return _calls(_weather_call(place, day, rain=bool(before and before.rain)), confidence=0.85) if place else None
    if not rest or _NOT_FOLLOWING.match(rest):
        return None
    korean = bool(re.search("[가-힣]", rest))
    places = korean_places([rest]) if korean else split_places(rest)
    wanted = memory.place_wanted or (before and memory.latest == "weather")
    led = bool(match["lead"] or match["tail"] or day or memory.place_wanted)
    familiar = bool(places) and all(place in KNOWN_PLACES for place in places or ())
    if not places or not ((wanted and (led or familiar)) or (before and familiar)):
        return None
    kept = day or (before.day if before else "now")
    return _calls(*(_weather_call(place, kept, rain=bool(before and before.rain)) for place in places), confidence=0.85)


# --- Search -------------------------------------------------------------------------------------------------------

_PERSONAL = re.compile(
    r"\b(?:you|your|yours|me|my|mine|i|we|us|our|i'm|you're)\b"
    r"|(?:^|\s)(?:내가|나는|난|너는|넌|네가|니가|저는|제가|우리|당신|내|네|제)(?=\s|$)",
    re.IGNORECASE,
)
_NO_SUBJECT = re.compile(
    r"(?:it|this|that|these|those|he|she|they|there|here|up|new|wrong|next|the (?:matter|problem"
    r"|result|answer|difference|point)|"
    r"이거|그거|저거|이것|그것|저것|이게|그게|저게|이건|그건|너|넌|네|니|나|난|내|저|제|당신|우리|오늘"
    r"|지금|내일|여기|거기|결과|답|문제|이유|왜|어떻게|그럼|아까|방금|"
    r"이름|내 이름|다시|더|하나|그|이|정답|[\d\s.,:/()+*=%-]+)",
    re.IGNORECASE,
)
_TRAIL = re.compile(
    r"(?:\s+(?:please|for me|online|on the web|on the internet|right now|thanks|thank you)|[\s?!.,;]+"
    r"|\s*(?:검색|조사)해 ?(?:줘요?|주세요|주고|봐요?|줄래)?|\s*좀|\s*부탁해요?)$",
    re.IGNORECASE,
)


def _search(query: str, confidence: float) -> Plan | None:
    """A search for the query, unless nothing is left of it or it is no subject ("it", a bare number)."""
    previous = None
    while previous != query:
        previous, query = query, _TRAIL.sub("", query.strip())
    quoted = len(query) > 2 and query[0] == query[-1] and query[0] in "\"'"
    query = query[1:-1].strip() if quoted else query
    if not query or _NO_SUBJECT.fullmatch(query):
        return None
    return _calls(Call("search", {"query": query}), confidence=confidence)


def _search_for(match: re.Match[str], remember: Remember) -> Plan | None:
    return _search(match["query"], 0.95)


def _search_question(match: re.Match[str], remember: Remember) -> Plan | None:
    query = re.sub(r"^(?:the|a|an) (?=\S)", "", match["query"])
    return None if _PERSONAL.search(query) else _search(query, 0.85)


def _search_whole_question(match: re.Match[str], remember: Remember) -> Plan | None:
    return None if _PERSONAL.search(match["query"]) else _search(match["query"], 0.75)


def _search_told(match: re.Match[str], remember: Remember) -> Plan | None:
    """X 알려줘 is a search, but 부산도 알려줘 after the weather of Seoul asks for Busan's."""
    places = korean_places([match["query"]])
    if places and KNOWN_PLACES.issuperset(places) and remember().latest == "weather":
        return None
    return _search_question(match, remember)


def _search_again(match: re.Match[str], remember: Remember) -> Plan | None:
    """And what about checkpointers? — after a search."""
    if not match["lead"] or remember().latest != "search" or _NOT_FOLLOWING.match(match["rest"]):
        return None
    return _search(re.sub(r"(?:은|는|도)(?:요)?(?: 어때\S*)?[?\s]*$", "", match["rest"]), 0.8)


# --- The tables ---------------------------------------------------------------------------------------------------

_POLITE = (
    r"(?:(?:hi|hello|hey|ok|okay|so|and|also|then|now|please|can you|could you|would you|will you"
    r"|i want you to|i'd like you to|let's|just|안녕하세요|안녕|그리고|그럼|그러면|혹시)[\s,!.]+)*+"
)
_DOING = r" ?(?:해 ?줘요?|해 ?주세요|해 ?주고|해 ?봐요?|해 ?줄래\S*|해|하고|부탁\S*)?"
_ABOUT = r"(?:에 ?대해서?|에 ?대한 ?(?:정보|내용|것|자료)[를을]?|에 ?관해서?|에 ?관한 ?(?:정보|내용|자료)[를을]?)"
_TELL = r"(?:알려|가르쳐|설명해?|말해|찾아|검색해?|조사해?|알고|소개해?)"
_BE = r"(?:is|are|was|were)"


def _table(*rows: tuple[str | re.Pattern[str], Callable[[re.Match[str], Remember], Plan | None]]) -> tuple[Rule, ...]:
    return tuple(
        Rule(re.compile(pattern, 0 if isinstance(pattern, re.Pattern) else re.I | re.S), handle)
        for pattern, handle in rows
    )


TOOL_RULES = _table(
    (
        rf"^{_POLITE}(?:search|google|look up|web search|do a (?:web )?search|run a search"
        r"|find(?: me)? (?:information|info|something|articles?|news|out))"
        r"(?: (?:the web|the internet|online|google|wikipedia))?(?:\s+(?:for|about|on))?[\s:]+(?P<query>\S.*)$",
        _search_for,
    ),
    (rf"^{_POLITE}(?:웹에서 |인터넷에서 |구글에서 )?(?:검색|검색어)[:\s]\s*(?P<query>\S.*)$", _search_for),
    (
        rf"^{_POLITE}(?:웹에서 |인터넷에서 |구글에서 )?(?P<query>\S.*?) ?{_ABOUT} ?(?:좀 |더 |자세히 "
        rf"|간단히 )?{_TELL}\S*(?: ?(?:줘|주세요|봐|싶어)\S*)?[\s?.!]*$",
        _search_for,
    ),
    (
        rf"^{_POLITE}(?:웹에서 |인터넷에서 |구글에서 )?(?P<query>\S.*?)(?:을|를|도)? ?(?:좀 )?(?:검색"
        rf"|구글링){_DOING}[\s?.!]*$",
        _search_for,
    ),
    (r"^.", _sum),
    (_BETWEEN, _sum_over_places),
    (_BETWEEN_KOREAN, _sum_over_places),
    (_TEMPERATURE, _sum_on_temperature),
    (r"^.", _weather),
    (r"\d", _sum_inside),
    (rf"^{_POLITE}(?:do you know |tell me )?(?:who|what)(?:'s|s| {_BE}) (?P<query>\S.*)$", _search_question),
    (
        rf"^{_POLITE}(?:tell me (?:more )?about|explain|define|what do you know about"
        r"|(?:the )?(?:latest )?news (?:about|on|of))\s+(?P<query>\S.*)$",
        _search_question,
    ),
    (rf"^{_POLITE}what does (?P<query>\S.*?) (?:mean|stand for|do)\b.*$", _search_question),
    (
        rf"^{_POLITE}(?P<query>(?:when|where|which|why) (?:{_BE}|did|do|does|can|will)\b\s\S.*"
        rf"|how (?:do|does|did|can|many|much|old|tall|far|long|big|high|deep|to|{_BE})\s\S.*"
        r"|who (?:invented|discovered|wrote|made|created|won|founded|painted|built|developed"
        r"|directed|composed|designed)\s\S.*|which \S+ (?:is|has|was)\s\S.*"
        r"|(?:the )?latest news\b.*)$",
        _search_whole_question,
    ),
    (
        rf"^{_POLITE}(?P<query>\S.*?)(?:이라는|라는)? ?(?:이란|란|이라는 게|라는 게|이라는 것은"
        r"|라는 것은)(?: ?(?:뭐|무엇|뭔)\S*(?: \S+)?)?[\s?.!]*$",
        _search_question,
    ),
    (
        rf"^{_POLITE}(?P<query>\S.*?)(?:은|는|이|가)? ?(?:뭐야|뭐예요|뭐에요|뭐죠|뭐지|뭐니|뭔가요|뭔데"
        r"|뭔지|뭐하는|무엇\S*|누구\S*|어디\S*|언제\S*|무슨 ?뜻\S*|뜻이? ?뭐\S*)(?: (?:알려|설명해?"
        r"|가르쳐|말해|있|야)\S*(?: ?\S+)?)?[\s?.!]*$",
        _search_question,
    ),
    (
        rf"^{_POLITE}(?P<query>\S.*?)(?:을|를|은|는|도)? ?(?:좀 |더 )?(?:알려|찾아|설명해?|소개해?"
        r"|조사해?|가르쳐) ?(?:줘|주세요|주고|봐|줄래|드려)\S*[\s?.!]*$",
        _search_told,
    ),
    (
        rf"^{_POLITE}(?P<query>\d[\d,.]* ?[만억천]?(?:달러|유로|엔|위안|파운드|원)"
        r"(?:은|는|이|가|을|를)? 몇 ?(?:원|달러|유로|엔|위안))\S*$",
        _search_whole_question,
    ),
    (
        rf"^{_POLITE}(?=.*(?:누가|언제|어디서|어디에서|왜|어떻게|얼마나))"
        r"(?=.*[가-힣A-Za-z](?:은|는|이|가|을|를|의)\s)(?P<query>\S.{3,120})\?$",
        _search_whole_question,
    ),
)

SUM_RULES = _table((r"^.", _sum), (r"^.", _sum_on_figure))

FOLLOW_UP_RULES = _table(
    (r"^.", _sum_on_figure),
    (
        r"^(?P<lead>(?:(?:and|so|then|ok|okay|but|also|now|thanks|what about|how about"
        r"|what is it like|how is it|그럼|그러면|그리고|또|혹시|그런데|근데)[\s,]+|(?:in|for|at) (?=\S))*+)"
        r"(?P<rest>[^\n]{1,80}?)(?P<tail>(?:은요|는요|은|는|도|엔|에는|에도)?(?: ?(?:어때\S*"
        r"|어떨까\S*|알려 ?\S+|어떤가요|요))?\s*[?!.~]+|(?<=[가-힣])(?:은요|는요|은|는|도"
        r"|은 어때\S*|는 어때\S*|도 알려\S*|은 어떨까\S*))?$",
        _weather_again,
    ),
    (
        r"^(?P<lead>(?:(?:and|so|then|what about|how about|also|그럼|그러면|그리고"
        r"|또)[\s,]+)++)(?P<rest>\S.{0,120})$",
        _search_again,
    ),
    (
        r"^(?!그럼|그러면|그리고|그런데|근데|또|내일|오늘|모레|이번|다음|그 |이 )(?P<query>\S+ \S.{0,80}?)(?:은|는)\?$",
        _search_whole_question,
    ),
)
