"""The words of sums: numbers, operators, units and small talk around them, in English and Korean, as tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import NamedTuple


class Token(NamedTuple):
    kind: str
    value: str
    text: str


# --- Numbers in words ---------------------------------------------------------------------------------------------


def _spelled(words: str, values: Iterable[int]) -> dict[str, int]:
    return dict(zip(words.split(), values, strict=True))


_ENGLISH = (
    _spelled("zero one two three four five six seven eight nine ten", range(11))
    | _spelled("eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen", range(11, 20))
    | _spelled("twenty thirty forty fifty sixty seventy eighty ninety", range(20, 100, 10))
)
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SINO = {"영": 0, "공": 0, "일": 1, "이": 2, "삼": 3, "사": 4, "오": 5, "육": 6, "륙": 6, "칠": 7, "팔": 8, "구": 9}
_SMALL = {"십": 10, "백": 100, "천": 1000}
_LARGE = {"만": 10**4, "억": 10**8, "조": 10**12}
_NATIVE = (
    _spelled("하나 둘 셋 넷 다섯 여섯 일곱 여덟 아홉", range(1, 10))
    | _spelled("열 스물 서른 마흔 쉰 예순 일흔 여든 아흔", range(10, 100, 10))
    | {"스무": 20}
)
_DIGITS = r"(?:\d{1,3}(?:,\d{3}){1,12}+(?![\d,])|\d+)(?:\.\d+)?|\.\d+"
_SINO_PART = re.compile(rf"(?P<digits>{_DIGITS})|(?P<one>[{''.join(_SINO)}])|(?P<unit>[십백천만억조])")
_NATIVE_PART = re.compile("|".join(_NATIVE))


def _sino(text: str) -> str:
    """The figure of a Sino-Korean numeral, which may mix in digits: 삼백만, 3만5천, 1.5억."""
    total, section, figure = Decimal(0), Decimal(0), None
    for part in _SINO_PART.finditer(text):
        if part["digits"]:
            figure = Decimal(part["digits"].replace(",", ""))
        elif part["one"]:
            figure = Decimal(_SINO[part["one"]])
        elif part["unit"] in _SMALL:
            section += (Decimal(1) if figure is None else figure) * _SMALL[part["unit"]]
            figure = None
        else:
            total += (section + (figure or 0) or 1) * _LARGE[part["unit"]]
            section, figure = Decimal(0), None
    return _plain(total + section + (figure or 0))


def _native(text: str) -> str:
    return str(sum(_NATIVE[word] for word in _NATIVE_PART.findall(text)))


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


# --- Units --------------------------------------------------------------------------------------------------------

_UNITS = {
    "km": "km|kilometers?|kilometres?|킬로미터",
    "m": "m|meters?|metres?|미터",
    "cm": "cm|centimeters?|centimetres?|센티미터|센티|센치",
    "mm": "mm|millimeters?|millimetres?|밀리미터",
    "mile": "mi|miles?|마일",
    "foot": "ft|foot|feet|피트",
    "inch": "inch|inches|인치",
    "yard": "yd|yards?|야드",
    "kg": "kg|kgs|kilograms?|kilos?|킬로그램",
    "g": "g|grams?|그램",
    "mg": "mg|milligrams?|밀리그램",
    "tonne": "tonnes?|metric tons?|톤",
    "pound": "lb|lbs|pounds?|파운드",
    "ounce": "oz|ounces?|온스",
    "liter": "l|liters?|litres?|리터",
    "milliliter": "ml|milliliters?|millilitres?|밀리리터",
    "gallon": "gal|gallons?|갤런",
    "cup": "cups?",
    "m**2": "m2|m\\^2|m\\*\\*2|sqm|square met(?:er|re)s?|제곱미터|평방미터",
    "km**2": "km2|km\\^2|km\\*\\*2|square kilomet(?:er|re)s?|제곱킬로미터",
    "foot**2": "ft2|ft\\^2|sqft|square f(?:oo|ee)t|제곱피트",
    "acre": "acres?|에이커",
    "hectare": "ha|hectares?|헥타르",
    "평": "평|pyeong",
    "degC": "°c|℃|degrees? celsius|celsius|centigrade|degc|c|섭씨",
    "degF": "°f|℉|degrees? fahrenheit|fahrenheit|degf|f|화씨",
    "kelvin": "kelvins?|켈빈",
    "km/hour": "km/h|kmh|kph|kilomet(?:er|re)s per hour",
    "mile/hour": "mph|miles per hour",
    "m/second": "m/s|met(?:er|re)s per second",
    "second": "seconds?|secs?|초",
    "minute": "minutes?|mins?|분",
    "hour": "hours?|hrs?|시간",
    "day": "days?",
    "week": "weeks?",
    "megabyte": "mb|megabytes?|메가바이트",
    "gigabyte": "gb|gigabytes?|기가바이트",
    "terabyte": "tb|terabytes?|테라바이트",
    "킬로": "킬로",
}


def _words(alternatives: str) -> str:
    """Alternatives that end where a Latin word ends; Korean ones may have a particle behind."""
    return rf"(?:{alternatives})(?![a-z0-9])"


def _unit(text: str, position: int) -> tuple[str, int] | None:
    """The unit that starts here and where it ends; the longest wins ("m/s" over "m")."""
    best: tuple[str, int] | None = None
    for unit, pattern in _UNIT_BY_FIRST.get(text[position], ()):
        match = pattern.match(text, position)
        if match and (best is None or match.end() > best[1]):
            best = unit, match.end()
    return best


def _by_first_letter() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    table: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for unit, alternatives in _UNITS.items():
        pattern = re.compile(_words(alternatives))
        for first in {alternative[0] for alternative in alternatives.split("|")}:
            table.setdefault(first, []).append((unit, pattern))
    return table


_UNIT_BY_FIRST = _by_first_letter()

# --- Words to tokens ----------------------------------------------------------------------------------------------

_ONES = "one|two|three|four|five|six|seven|eight|nine"
_GIVE = r"(?: ?(?:줘요?|주세요|주고|주면|봐요?|봐))?"
_HA = rf"(?:하면|하고|하자|하니|해서?{_GIVE}|해요|한 ?(?:값|다음|뒤|후|거|것)?)"
_END = r"(?=[은는이가을를?!. ]|$)"
_KINDS: tuple[tuple[str, str], ...] = (
    ("space", r"\s+"),
    ("op:+", r"더하기|플러스|\+|plus\b"),
    ("op:-", r"빼기|마이너스|[-−–]|minus\b"),
    ("op:**", r"\*\*|\^|(?:raised )?to the power of\b"),
    ("op:*", r"곱하기|[*×✕·∙]|x(?![a-z])|times\b|multiplied by\b"),
    ("op:/", r"나누기|[/÷∕]|divided by\b|over\b"),
    ("op:%", r"mod(?:ulo)?\b|나머지"),
    ("kverb:+", rf"더{_HA}|합{_END}"),
    ("kverb:-", rf"빼(?:면|고|자|서)|빼{_GIVE}|뺀 ?(?:값|다음|뒤|후|거|것)?|차이|차{_END}"),
    ("kverb:*", rf"곱{_HA}|곱{_END}"),
    ("kverb:/", rf"나(?:누면|누고|누자|눠서?{_GIVE}|눠요|눈 ?(?:값|다음|뒤|후|거|것)?)"),
    ("kverb:avg", r"평균"),
    ("kverb:off", rf"할인(?:{_HA}|된|받으면)?(?: ?가격)?"),
    ("everb:+", r"add(?:ing)?\b|(?:the )?(?:sum|total) of\b"),
    ("everb:-", r"subtract\b|take away\b|(?:the )?difference (?:between|of)\b"),
    ("everb:*", r"multiply\b|(?:the )?product of\b"),
    ("everb:/", r"divide\b|(?:the )?quotient of\b"),
    ("everb:avg", r"(?:the )?(?:average|mean) of\b"),
    ("func:sqrt", r"(?:the )?(?:square root of|sqrt)\b|루트|√|제곱근"),
    ("scale:2*", r"double\b|twice\b"),
    ("scale:0.5*", r"(?:a )?half(?: of)?\b"),
    ("scale:0.25*", r"a quarter of\b"),
    ("post:!", r"factorial\b|팩토리얼"),
    ("post:**3", r"cubed\b|(?:의 )?세제곱(?!미터|피트)"),
    ("post:**2", r"squared\b|(?:의 )?제곱(?!(?:킬로)?미터|피트)"),
    ("pct", r"%|percent\b|per cent\b|퍼센트|프로"),
    ("off", r"off(?: of)?\b"),
    ("of", r"of\b"),
    (
        "it",
        r"(?:the |that )?(?:last |previous )?(?:result|answer)\b|that\b|it\b|this\b|그거|그것|이거|이것"
        r"|거기(?:에다|에|서|다)?|여기에?|그 ?(?:결과|값|답)|(?:방금|아까|이전|앞)(?:의)? ?(?:결과|값|답|거|것)|결과",
    ),
    ("many", r"how many\b|how much\b|몇(?: ?도)?"),
    ("to", r"into\b|in\b|to\b|as\b"),
    ("sep", r"and\b|&|,|by\b|from\b|with\b"),
    (
        "lead",
        r"what about\b|how about\b|what(?:'s| is| are|s)?\b|calculate\b|compute\b|evaluate\b|work out\b|solve\b"
        r"|convert\b|(?:can|could|would|will) you\b|please\b|tell me\b|give me\b|show me\b|help me\b|then\b|so\b"
        r"|now\b|also\b|ok(?:ay)?\b|the\b|value of\b|hey\b|hi\b|hello\b|안녕(?:하세요)?|그럼|그러면|그리고"
        r"|그렇다면|이제|또(?:한)?|다시",
    ),
    (
        "tail",
        r"is\b|are\b|there\b|be\b|equals?\b|equal to\b|worth\b|for me\b|[=?!.~]+"
        rf"|(?:계산|변환|환산|부탁){_HA}|계산(?: 좀)?|변환|환산|부탁합니다|(?:알려|구해|말해|바꿔){_GIVE}|바꾸면"
        r"|얼마(?:고|예요|에요|인가요|입니까|일까요?|야|지|죠)?"
        r"|뭐(?:고|예요|에요|야|지|죠|니)?|무엇(?:이야|인가요|입니까)?"
        r"|해 ?(?:줘요?|주세요|봐요?|봐)|인지|인가요|입니까|일까요?|이에요|예요"
        r"|에요|이야|이지|이죠|되(?:지|나요|니)|돼요?|될까요?"
        r"|좀|값|어때|야|지|죠|요|정도",
    ),
)
_KIND_OF = {f"k{index}": kind for index, (kind, _) in enumerate(_KINDS)}
_WORD = re.compile("|".join(f"(?P<k{index}>{pattern})" for index, (_, pattern) in enumerate(_KINDS)))
_PARTICLE = re.compile(
    r"에서는?|에다가?|에는?|으로는?|로는?|이랑|랑|하고|이면|면|은|는|이|가|을|를|와|과|의|도|만|원|°(?![cf])"
)
_NUMBER = re.compile(
    rf"(?P<sino>(?:(?:{_DIGITS}|[{''.join(_SINO)}])?[십백천만억조])+(?:\d+|[일이삼사오육륙칠팔구])?)"
    rf"|(?P<digits>{_DIGITS})"
    r"|(?P<native>(?:열|스물|스무|서른|마흔|쉰|예순|일흔|여든|아흔)(?:하나|둘|셋|넷|다섯|여섯|일곱|여덟|아홉)?"
    r"|하나|둘|셋|넷|다섯|여섯|일곱|여덟|아홉)"
    rf"|(?P<pair>(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)[- ](?:{_ONES})\b)"
    rf"|(?P<english>(?:{'|'.join(_ENGLISH)})\b)"
    rf"|(?P<scale>(?:an? )?(?:{'|'.join(_SCALES)})\b)"
    r"|(?P<point>point\b|점)"
    rf"|(?P<one>[{''.join(_SINO)}])"
)

_SILENT = frozenset({"원", "°"})
_TAKES_PARTICLE = frozenset({"num", "unit", "it", "pct", "post", "part", "kverb"})


def tokens_of(text: str) -> list[Token] | None:
    """Lower-case text as tokens, or None as soon as a part of it has no place in a sum. Linear in the text's length."""
    tokens: list[Token] = []
    position, glued = 0, False
    while position < len(text):
        step = _token(text, position, after_number=glued)
        if step is None:
            return None
        token, position = step
        if token.kind == "space":
            glued = False
            continue
        if token.text not in _SILENT:
            tokens.append(token)
        glued = token.kind in _TAKES_PARTICLE or token.value == ")"
    return _merged(tokens)


def _token(text: str, position: int, *, after_number: bool) -> tuple[Token, int] | None:
    first = text[position]
    if first in "()":
        return Token("paren", first, first), position + 1
    if after_number and (particle := _PARTICLE.match(text, position)):
        return Token("part", particle[0], particle[0]), particle.end()
    if number := _NUMBER.match(text, position):
        return _number(number), _number_end(number)
    if after_number or text[position - 1 : position].isspace() or position == 0 or first > "~":
        unit = _unit(text, position)
        word = _WORD.match(text, position)
        if unit and (word is None or unit[1] >= word.end()):
            return Token("unit", unit[0], text[position : unit[1]]), unit[1]
    else:
        word = _WORD.match(text, position)
    if word is None:
        return None
    kind, _, value = _KIND_OF[str(word.lastgroup)].partition(":")
    return Token(kind, value, word[0]), word.end()


def _number(match: re.Match[str]) -> Token:
    kind, text = str(match.lastgroup), match[0]
    if kind == "sino":
        return Token("num", _sino(_without_subject(text)), text)
    if kind == "digits":
        return Token("num", text.replace(",", ""), text)
    if kind == "native":
        return Token("num", _native(text), text)
    if kind == "pair":
        return Token("num", str(sum(_ENGLISH[word] for word in re.split("[- ]", text))), "word")
    if kind == "english":
        return Token("num", str(_ENGLISH[text]), "word")
    if kind == "scale":
        return Token("scaleword", str(_SCALES[text.split()[-1]]), text)
    if kind == "point":
        return Token("point", ".", text)
    return Token("num", str(_SINO[text]), text)


def _without_subject(numeral: str) -> str:
    """삼백만이 is 3,000,000 and a particle, not 3,000,002."""
    return numeral[:-1] if numeral[-1] == "이" and numeral[-2] in _LARGE else numeral


def _number_end(match: re.Match[str]) -> int:
    return match.start() + (len(_without_subject(match[0])) if match.lastgroup == "sino" else len(match[0]))


def _merged(tokens: Sequence[Token]) -> list[Token] | None:
    """Numbers of several words made one: "two million and five", "3.5 million", "two point five", 2억 5천만."""
    merged: list[Token] = []
    for index, token in enumerate(tokens):
        last = merged[-1] if merged else None
        if token.kind == "scaleword":
            if last and last.kind == "num":
                merged[-1] = Token("num", _scaled(last, int(token.value)), "word")
            else:
                merged.append(Token("num", token.value, "word"))
        elif token.kind == "num" and last and last.kind == "num":
            joined = _joined(last, token)
            if joined is None:
                return None
            merged[-1] = joined
        elif token.kind == "num" and last and last.kind == "point":
            if len(merged) < 2 or merged[-2].kind != "num":
                return None
            merged[-2:] = [Token("num", f"{merged[-2].value}.{token.value}", "point")]
        elif (
            token.text == "and"
            and last
            and last.text == "word"
            and Decimal(last.value) >= 100
            and index + 1 < len(tokens)
            and tokens[index + 1].text == "word"
            and Decimal(tokens[index + 1].value) < 100
        ):
            continue
        else:
            merged.append(token)
    return merged


def _scaled(number: Token, scale: int) -> str:
    value = Decimal(number.value)
    whole, rest = divmod(value, 1000) if scale == 100 and value > 100 else (Decimal(0), value)
    return _plain(whole * 1000 + rest * scale)


def _joined(left: Token, right: Token) -> Token | None:
    """Two numerals side by side, where the right one fits under the left one's last zeros."""
    if left.text == "point" and "." in left.value and right.text == "word" and len(right.value) == 1:
        return Token("num", left.value + right.value, "point")
    if left.text.isdigit() or right.text.isdigit() or "." in left.value + right.value:
        return None
    if left.text == "word" and right.text != "word":
        return None
    zeros = len(left.value) - len(left.value.rstrip("0"))
    if zeros < len(right.value) or left.value == "0":
        return None
    return Token("num", str(Decimal(left.value) + Decimal(right.value)), right.text)
