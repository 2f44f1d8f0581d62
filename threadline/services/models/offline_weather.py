"""Reads questions about the weather, in English and Korean: which places, and for which day."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

Day = str
"""`now`, `today`, `tomorrow`, `after` (the day after tomorrow), `weekend`, `monday` … `sunday`, `N days`."""

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_KOREAN_WEEKDAYS = "월화수목금토일"


@dataclass(frozen=True, slots=True)
class WeatherQuestion:
    """`places` is empty where the text names none; `rain` is whether rain or snow was asked for."""

    places: tuple[str, ...]
    day: Day | None
    rain: bool


def days_needed(day: Day) -> int:
    """The `days` argument of the weather tool that covers the day; today counts."""
    named = {"now": 0, "today": 1, "tomorrow": 2, "after": 3}
    if day in named:
        return named[day]
    return int(day.split()[0]) if day.endswith(" days") else 7


def day_of(days: int) -> Day:
    """The likeliest day behind a `days` argument."""
    return {0: "now", 1: "today", 2: "tomorrow", 3: "after"}.get(days, f"{days} days")


# --- Days ---------------------------------------------------------------------------------------------------------

_DAYS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (day, re.compile(pattern, re.IGNORECASE))
    for day, pattern in (
        ("after", r"\b(?:the )?day after tomorrow\b|내일 ?모레|모레|\bin (?:2|two) days\b"),
        ("4 days", r"글피|\bin (?:3|three) days\b"),
        (
            "tomorrow",
            r"\b(?:for )?tomorrow(?:'s)?(?: (?:morning|afternoon|evening|night))?\b|내일(?: (?:오전|오후"
            r"|아침|저녁|밤))?",
        ),
        ("weekend", r"\b(?:on |over |at |for )?(?:the |this |next )?weekend(?:'s)?\b|(?:이번 ?|다음 ?)?주말"),
        (
            "7 days",
            r"\b(?:for |over |during )?(?:this |the |next |coming |whole )*week(?:ly)?(?:'s)?\b|(?:이번"
            r"|다음|한) ?주(?: ?내내|간)?(?![가-힣]*문)|일주일(?: ?동안|간)?(?: ?치)?|주간",
        ),
        (
            "today",
            r"\b(?:for |later )?today(?:'s)?\b|\btonight\b|\bthis (?:morning|afternoon|evening)\b"
            r"|오늘(?: ?(?:오전|오후|아침|저녁|밤))?",
        ),
        ("now", r"\b(?:right now|now|currently|current|at the moment)\b|지금|현재|요즘"),
    )
)
_WEEKDAY = re.compile(rf"\b(?:on |this |next |for )*({'|'.join(WEEKDAYS)})(?:'s)?\b|([{_KOREAN_WEEKDAYS}])요일", re.I)
_SPAN = re.compile(
    r"\b(?:for |over |in )?(?:the )?(?:next |coming |following )?([2-7]|two|three|four|five|six|seven)[- ]days?\b"
    r"|(?:앞으로 )?([2-7]) ?일(?: ?동안|간| ?치)",
    re.IGNORECASE,
)
_COUNT = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7}


def take_day(text: str) -> tuple[Day | None, str]:
    """The day that the text names, and the text without it (`|` in its place)."""
    for day, pattern in _DAYS[:2]:
        if pattern.search(text):
            return day, pattern.sub("|", text)
    if span := _SPAN.search(text):
        count = (span[1] or span[2]).lower()
        return f"{_COUNT.get(count) or int(count)} days", _SPAN.sub("|", text)
    if weekday := _WEEKDAY.search(text):
        name = weekday[1] or WEEKDAYS[_KOREAN_WEEKDAYS.index(weekday[2])]
        return name.lower(), _WEEKDAY.sub("|", text)
    found = None
    for day, pattern in _DAYS[2:]:
        text, count = pattern.subn("|", text)
        found = found or (day if count else None)
    return found, text


# --- What is asked ------------------------------------------------------------------------------------------------

_ENGLISH_CUE = re.compile(
    r"\b(?:weather|forecast|temperature|humidity|umbrella)\b(?!\.\w)|\b(?:warmer|colder|hotter|cooler)\b"
    r"|\bhow (?:hot|cold|warm|cool|windy|humid|chilly|sunny)\b"
    r"|\b(?:is|will|was) it (?:be |going to |gonna )*(?:hot|cold|warm|rain|snow|sunn|cloud|wind|humid"
    r"|chilly|freez|storm)"
    r"|\b(?:does|will|should|could|might|going to) (?:it )?(?:rain|snow)|\bchances? of (?:rain|snow)"
    r"|\b(?:any|more) (?:rain|snow) (?:in|at|for)\b|\bhow many degrees\b",
    re.IGNORECASE,
)
_KOREAN_CUE = re.compile(
    r"날씨|기온|일기 ?예보|예보|우산|습도|체감|온도|날이 ?(?:어때|추|더|좋)"
    r"|(?:더|제일|가장) ?(?:따뜻|추[워운울]|춥|덥|더[워운울])"
    r"|(?:^|\s|[은는도가에의])(?:비|눈)[가는이은도]? ?(?:와|오|올|온|내리|내려|내릴|소식|예보)"
    r"|(?:^|\s)(?:추워|더워|춥니|덥니|추울까|더울까|추운가|더운가|맑아|맑을까|흐려|흐릴까)\S*\??$"
    r"|(?:몇|기온) ?도(?:야|예요|인가|지)"
)
_RAIN = re.compile(
    r"\brain|\bsnow|umbrella|우산|(?:비|눈)[가는이은도]? ?(?:와|오|올|온|내리|내려|내릴|소식|예보)", re.I
)
_STATEMENT = re.compile(
    r"\bI (?:love|like|hate|enjoy)\b|weather balloon|weather (?:the|a) |under the weather"
    r"|\bweather (?:is|was) (?:so |very |really |quite )*(?:nice|good|bad|great|lovely|terrible|awful"
    r"|cold|hot|beautiful)"
    r"|^\W*(?:please )?(?:can you )?(?:write|compose|draw|translate|summari[sz]e|generate)\b"
    r"|(?:시|글|소설|노래|편지|코드)[를을]? ?(?:하나 )?(?:써|작성|만들)|번역"
    r"|날씨[가는]? ?(?:너무 |참 |정말 |진짜 )?(?:안 ?)?(?:좋|나쁘|맑|흐리|춥|덥|이상|별로)[가-힣]*[.!~ ]*$",
    re.IGNORECASE,
)


def weather_question(text: str) -> WeatherQuestion | None:
    """What the text asks about the weather, or None if it does not."""
    korean = _KOREAN_CUE.search(text)
    if (korean is None and _ENGLISH_CUE.search(text) is None) or _STATEMENT.search(text):
        return None
    day, rest = take_day(text)
    rain = _RAIN.search(text) is not None
    places = _korean_places(rest) if korean else _english_places(rest)
    if places is None:
        return None
    return WeatherQuestion(places, day or ("today" if rain else None), rain)


# --- English places -----------------------------------------------------------------------------------------------

_AFTER_PREPOSITION = re.compile(
    r"\b(?:in|at|for|of|near|around|between|across|(?:over|to)(?=\s+(?-i:[A-Z])))\s+(?!\s*\|)"
    r"((?:(?!\s(?:in|at|near)\s)[^?!|;:])+)",
    re.IGNORECASE,
)
_CUT = re.compile(
    r"\s+(?:like|please|be|is|are|will|looks?|looking|thanks|right|compared|celsius|fahrenheit|if|because|so|going|"
    r"by|i|we|they|with|during|when|while|do|does|should|that|which|who|today|degrees|and (?:tell|do"
    r"|what|how|is|will|should)|"
    r"(?:and|or) (?:also|then)|weather|forecast|temperature)\b.*$",
    re.IGNORECASE | re.DOTALL,
)
_BETWEEN_PLACES = re.compile(
    r"\s*(?:[?!;|]|\s&\s|,?\s+(?:and|or|vs\.?|versus|plus|also|as well as)\s+|,\s+(?:and\s+)?)\s*"
    r"(?:also\s+)?(?:(?:and\s+)?(?:what|how) about\s+)?(?:(?:the\s+)?weather\s+)?(?:(?:in|at|for|of|near)\s+)?",
    re.IGNORECASE,
)
_NEXT_TO_CUE = re.compile(
    r"^(?P<before>[^\W\d_][\w.' -]{1,40}?)(?:'s)?\s+(?:weather|forecast|temperature"
    r"|humidity)(?:\s+(?:forecast|like|please|report|is|\|))*[\s?!.|]*$"
    r"|^(?:weather|forecast|temperature)(?:\s+(?:forecast"
    r"|report))?[\s:|]+(?P<after>[^\W\d_][\w.', -]{1,40}?)(?:\s+please)?[\s?!.|]*$",
    re.IGNORECASE,
)
_COMPARED = re.compile(
    r"\b(?:warmer|colder|hotter|cooler)\b[\s|,:]+(?!than\b)([^?!|;:]{2,80})"
    r"|\bis (?:it )?([^?!|;:]{2,40}?) (?:warmer|colder|hotter|cooler) than ([^?!|;:]{2,40})",
    re.IGNORECASE,
)
_LEAD = re.compile(
    r"^(?:\s*(?:hi|hello|hey|please|what's|whats|what is|what will|how's|how is|how are|and|also|then|now|so|tell me|"
    r"show me|give me|show|check|get|find|i want|i need|can you|could you|would you|do you know"
    r"|let me know|look up|about|"
    r"the|is|be|current|like|\||,|[.!?])(?=[\s|,.!?]|$))+\s*",
    re.IGNORECASE,
)
_NOT_A_PLACE = re.compile(
    r"^(?:the(?! (?:hague|bronx|netherlands|philippines|bahamas|maldives|gambia|vatican|uk|us|usa"
    r"|uae)\b)|an?|my|your|his|her|"
    r"our|their|this|that|these|those|it|me|you|us|them|here|there|home|general|fact|case|not|no|why"
    r"|when|what|how|who|"
    r"where|some|any|good|bad|nice|great|cold|hot|warm|rain|rainy|snow|sunny|love|like|yes|ok|okay"
    r"|sure|thanks?|really|again|"
    r"more|less|else|later|outside|space|degrees|celsius|fahrenheit|of|do|does|it's|its|going|today|tomorrow|week|"
    r"hello|hi|hey|bye|stop|cancel|help|well|maybe|never|nothing|everything|something|him|and|or|but"
    r"|room|body|water|mars|venus|api|apis|app|apps|data|station|service|map|channel|news|report|model|science)\b",
    re.IGNORECASE,
)
_HERE = re.compile(r"\b(?:here|outside|my (?:city|town|place|area|location|home))\b|where i live", re.IGNORECASE)
_PLACE = re.compile(r"[^\W\d_][^\W\d_.'’-]*(?:[ .'’-]+[^\W\d_]+)*\.?")
_REGION_WORDS = (
    "usa us uk uae england scotland wales ireland france germany spain italy portugal greece turkey poland austria "
    "switzerland netherlands belgium denmark sweden norway finland russia ukraine canada mexico brazil argentina "
    "chile peru colombia australia japan china korea india pakistan thailand vietnam indonesia malaysia philippines "
    "egypt morocco nigeria kenya alabama alaska arizona california colorado connecticut delaware florida georgia "
    "hawaii idaho illinois indiana iowa kansas kentucky louisiana maine maryland massachusetts michigan minnesota "
    "mississippi missouri montana nebraska nevada ohio oklahoma oregon pennsylvania tennessee texas utah vermont "
    "virginia wisconsin wyoming ontario quebec tx ca ny fl wa il pa oh ma nj va"
)
_REGIONS = frozenset(_REGION_WORDS.split()) | {
    "d.c",
    "dc",
    "south korea",
    "north korea",
    "united states",
    "united kingdom",
    "new zealand",
    "south africa",
}


def _english_places(text: str) -> tuple[str, ...] | None:
    """The places named; empty if none is, None if what stands in their place can be no place ("of the sun")."""
    if _HERE.search(text):
        return ()
    text = text.replace(" | ", " ").strip(" |") if "|" in text else text
    found = _AFTER_PREPOSITION.findall(text)
    if not found:
        match = _COMPARED.search(text) or _NEXT_TO_CUE.match(_LEAD.sub("", text))
        if match is None:
            return ()
        found = [part for part in match.groups() if part]
    places = tuple(place for part in found for place in split_places(part))
    return places or (None if any(_CUT.sub("", part).strip() for part in found) else ())


_WITH_COUNTRY = re.compile(r"^([^,]{2,}) (uk|usa|us|uae|dc|d\.c)$", re.IGNORECASE)


def split_places(text: str) -> tuple[str, ...]:
    """The places in "Seoul, Busan and Paris, France", none if a part of it can be no place."""
    places: list[str] = []
    for part in _BETWEEN_PLACES.split(text.strip(" ?!.,|")):
        name = _CUT.sub("", f" {part.strip(' ?!.,|')}").strip(" ?!.,|").removesuffix(" and")
        name = _WITH_COUNTRY.sub(lambda found: f"{_titled(found[1])}, {found[2].upper()}", name)
        if places and name.lower() in _REGIONS and places[-1].lower() not in _REGIONS:
            places[-1] = f"{places[-1]}, {_titled(name) if len(name) > 3 else name.upper()}"
        elif is_place(name.replace(",", "")):
            places.append(_titled(name))
        elif name:
            break
    return tuple(dict.fromkeys(places))


def is_place(name: str) -> bool:
    """Whether the name could be a place's: a few words, no figures, none of the words that never start one."""
    return len(name) <= 50 and name.count(" ") < 5 and bool(_PLACE.fullmatch(name)) and not _NOT_A_PLACE.match(name)


def _titled(name: str) -> str:
    return name if name != name.lower() else re.sub(r"(?<!['’\w])[a-zà-ÿ]", lambda letter: letter[0].upper(), name)


# --- Korean places ------------------------------------------------------------------------------------------------

_KNOWN_WORDS = (
    "서울 부산 대구 인천 광주 대전 울산 세종 수원 성남 고양 용인 부천 안산 안양 남양주 화성 평택 의정부 시흥 파주 "
    "광명 김포 군포 이천 오산 하남 양주 구리 안성 포천 의왕 여주 동두천 과천 춘천 원주 강릉 동해 태백 속초 삼척 청주 "
    "충주 제천 천안 공주 보령 아산 서산 논산 계룡 당진 전주 군산 익산 정읍 남원 김제 목포 여수 순천 나주 광양 포항 "
    "경주 김천 안동 구미 영주 영천 상주 문경 경산 창원 마산 진주 통영 사천 김해 밀양 거제 양산 제주 제주도 서귀포 "
    "울릉도 독도 여의도 강화도 거제도 진도 완도 해운대 강남 홍대 평양 도쿄 오사카 교토 후쿠오카 삿포로 나고야 "
    "오키나와 요코하마 고베 나가사키 히로시마 베이징 상하이 홍콩 마카오 타이베이 타이페이 칭다오 하노이 호치민 다낭 "
    "방콕 푸켓 치앙마이 싱가포르 쿠알라룸푸르 자카르타 발리 마닐라 세부 델리 뭄바이 두바이 도하 이스탄불 앙카라 런던 "
    "파리 로마 밀라노 베네치아 피렌체 베를린 뮌헨 프랑크푸르트 빈 비엔나 프라하 부다페스트 바르셀로나 마드리드 리스본 "
    "암스테르담 브뤼셀 취리히 제네바 스톡홀름 오슬로 코펜하겐 헬싱키 모스크바 아테네 더블린 에든버러 바르샤바 카이로 "
    "나이로비 케이프타운 뉴욕 로스앤젤레스 시카고 샌프란시스코 시애틀 보스턴 워싱턴 라스베이거스 마이애미 휴스턴 "
    "하와이 호놀룰루 괌 토론토 밴쿠버 몬트리올 멕시코시티 리우데자네이루 상파울루 부에노스아이레스 산티아고 리마 "
    "시드니 멜버른 브리즈번 오클랜드 한국 일본 중국 미국 영국 프랑스 독일 인도 대만 태국 베트남 스페인 이탈리아 "
    "캐나다 호주"
)
KNOWN_PLACES = frozenset(_KNOWN_WORDS.split())
_PARTICLES = re.compile(
    r"(?:에서|에는|에서는|에도|에|으로|은|는|이|가|을|를|의|도|만|이랑|랑|하고|와|과|이나|나|이고|고|쪽|시|이요|요)+"
)
_JOINS = re.compile(r"(?:이랑|랑|하고|와|과|이나|나|,)$")
_SAFE_TAIL = re.compile(
    r"(?<=[가-힣]{2})(?:에서는|에서|에는|에도|은|는|을|를|의|에|이랑|하고)$|(?<=[가-힣])(?:은|는|을|를|의|에서|에는)$"
)
_SOFT_TAIL = re.compile(r"(?<=[가-힣]{2})(?:랑|와|과|도|이|가)$")
_KOREAN_NOISE = re.compile(
    r"중|중에|중에서|어디가|어느\w*|더|제일|곳\w*|(?:(?:날씨|기온|온도|습도|체감온도|체감|예보|일기예보|일기|비|눈|우산|소식|날|바람|정보|상태|확률)"
    r"(?:은|는|이|가|을|를|도|만|의|랑|하고|과|와|이랑|에|야|요)?)"
    r"|(?:알려|가르쳐|보여|말해|확인해?|궁금|찾아|검색해?|체크해?)\w*|어때\w*|어떤\w*|어떻\w*|어떨\w*"
    r"|필요\w*|챙\w*|가져\w*"
    r"|(?:오|와|올|온|내려|내리|내릴)(?:나요|니|나|까|까요|려나|요|는지|지|는|는데|대|냐|ㄹ까)?|(?:추"
    r"|더)(?:워|울|운)\w*|[춥덥](?:니|나|냐)\w*"
    r"|따뜻\w*|시원\w*|맑\w*|흐[려릴리]\w*|좋[아을]\w*|되\w*|돼\w*|될\w*|할까\w*|해|해줘\w*|해주세요"
    r"|해주고|줘|줘요|주세요|주고|좀|몇|몇도\w*|"
    r"도야|도예요|도인가요|도|뭐\w*|무슨|무엇\w*|얼마\w*|있\w*|없\w*|그리고|그럼|그러면|그런데|근데"
    r"|혹시|안녕\w*|저기|네|응|음|아|같\w*|비교\w*|"
    r"차이\w*|야|이야|은|는|요|인가요|부탁\w*|많이|너무|봐\w*|거야|걸까|정말|가장|둘|다|모두|각각|또"
    r"|또한|여기|우리|동네|밖|밖에|밖은|the|weather|please|in|now|지금은|현재는|"
    r"까지|동안|내내|쯤|때|기준|부터|오전|오후|아침|저녁|밤|새벽|에는|에도|에|의|하고|이랑|랑|와|과|대한|대해|관한"
)
_VERBISH = re.compile(
    r"(?:[가-힣]*[가-힣](?:습니다|어요|아요|해요|네요|니까|는데|지만|아서|어서|해서|려고|했다|었다"
    r"|았다|한다|싶어|싶다|했어|었어|았어|잖아|거든|구나|군요|하는|하면))"
    r"|왜\w*|언제\w*|누구\w*|어디\w*|이유\w*|때문\w*|영향\w*|변화\w*|관계\w*|원리\w*|뜻\w*|이름\w*|나"
    r"|너|내|제|저|네가|내가"
)
_GLUED = re.compile(r"(?<=[가-힣]{2})(?=날씨|기온)")
_SPLIT_KOREAN = re.compile(r"([\s|?!.,]+)")


def _korean_places(text: str) -> tuple[str, ...] | None:
    """What is left once the words of weather, days and asking are gone; None where it can be no place."""
    groups: list[list[str]] = [[]]
    pieces = _SPLIT_KOREAN.split(_GLUED.sub(" ", text.strip(" ?!.|~")))
    for index, word in enumerate(pieces[::2]):
        gap = pieces[2 * index - 1] if index else ""
        if not word or (word not in KNOWN_PLACES and _KOREAN_NOISE.fullmatch(word)):
            groups.append([])
            continue
        if gap.strip():
            groups.append([])
        name, ends = _name_of(word)
        if _VERBISH.fullmatch(name) or not (is_place(name) or name in KNOWN_PLACES):
            return None
        if name in KNOWN_PLACES and groups[-1] and groups[-1][-1] in KNOWN_PLACES:
            groups.append([])
        groups[-1].append(name)
        if ends:
            groups.append([])
    places = tuple(dict.fromkeys(" ".join(group) for group in groups if group))
    return places if all(place.count(" ") < 3 for place in places) and len(places) <= 5 else None


def _name_of(word: str) -> tuple[str, bool]:
    """A word without its particles, and whether the name ends with it (서울이랑 joins, 서울 does not)."""
    for end in range(len(word), 0, -1):
        if word[:end] in KNOWN_PLACES and (end == len(word) or _PARTICLES.fullmatch(word, end)):
            return word[:end], end < len(word)
    bare = _SAFE_TAIL.sub("", word)
    if bare == word and _fits(word):
        bare = _SOFT_TAIL.sub("", word)
    return bare, bare != word


def _fits(word: str) -> bool:
    """Whether a last syllable is the particle that Korean asks for there: 춘천과 but 오타와, 강릉이 but 하와이."""
    if len(word) < 3 or not ("가" <= word[-2] <= "힣"):
        return False
    closed = (ord(word[-2]) - ord("가")) % 28 != 0
    return word[-1] in ("과이" if closed else "가")


def korean_places(words: Sequence[str]) -> tuple[str, ...] | None:
    """The places among the words of a short follow-up such as 부산은 or 부산이랑 대구는."""
    return _korean_places(" ".join(words))
