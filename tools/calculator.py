"""Arithmetic, percentages and conversion of units, asked in English, Korean or signs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal

from pydantic import BaseModel, Field

from tools.contract import Arguments, Asker, Tool, ToolFailure

DESCRIPTION = (
    "Calculates exactly; use it for any arithmetic, percentage or conversion of units, however simple. "
    "Examples of `expression`: '(15+27)*3', '2^10', '15% of 200', '200 + 10%', 'sqrt(2)', '5!', '1,234*2', '3만5천*2', "
    "'5 km to mile', '30평 to m**2', '100 degF to degC', '5 ft 11 in to cm'. log(x) is the natural logarithm."
)
SHOWN_DIGITS = 15
"""Digits of a result that is not exact."""
LONGEST = 300
"""An exact result with more digits is rounded."""
LONGEST_EXPRESSION = 1000
"""In characters, as asked and as rewritten."""

Evaluate = Callable[[str], tuple[int | Decimal, bool, str]]
"""The value of an expression, whether it is exact, and the expression as understood. Raises ToolFailure."""
Convert = Callable[[Sequence[tuple[Decimal, str]], str | None], Awaitable[tuple[Decimal, str, str]]]
"""The sum of the amounts in a unit (None: their own), the sum as understood, the unit's name. Raises ToolFailure."""


class CalculatorArguments(Arguments):
    expression: str = Field(min_length=1, max_length=LONGEST_EXPRESSION, description="What to calculate or convert.")


class Calculation(BaseModel):
    expression: str
    result: str
    unit: str | None


def tool(*, to_digits: Callable[[str], str], evaluate: Evaluate, convert: Convert, timeout: float) -> Tool:
    """`to_digits` writes Korean numerals in digits."""

    async def run(asked: CalculatorArguments, _: Asker) -> Calculation:
        text = _plain(asked.expression, to_digits)
        source, target = _parted(text)
        if target is None:
            try:
                value, exact, understood = evaluate(text)
            except ToolFailure:
                # What is no formula may still be an amount, such as 5 km + 300 m.
                amounts = _amounts(text, evaluate)
                if not amounts:
                    raise
            else:
                return Calculation(expression=understood, result=_show(value, exact=exact), unit=None)
        else:
            amounts = _amounts(source, evaluate)
        if not amounts:
            raise ToolFailure(f"'{source}' is not a number with a unit, such as 5 km")
        value, understood, unit = await convert(amounts, target)
        return Calculation(expression=understood, result=_show(value, exact=False), unit=unit)

    return Tool("calculator", DESCRIPTION, CalculatorArguments, run, timeout=timeout, cacheable=True)


# Reading: first everything is written with one set of signs, then a conversion is told from a formula.


_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SIGNS = str.maketrans({"×": "*", "✕": "*", "✖": "*", "·": "*", "⋅": "*", "∙": "*", "∗": "*", "÷": "/", "∕": "/"}) | (
    str.maketrans({"⁄": "/", "−": "-", "–": "-", "—": "-", "π": " pi ", "“": '"', "‘": "'"})
)
# Possessive and never begun in the middle of a number, so that no text takes long to match.
_AMOUNT = r"(?<![\d.,])(?:\d[\d,]*+(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d{1,4}(?!\d))?"
_WORD = r"[^\W\d_]+(?:_[^\W\d_]+)*(?:\*\*[1-9]|[1-9](?!\d))?"
_WORD_LAZY = r"[^\W\d_]+?(?:\*\*[1-9]|[1-9])?"
_POWER = "(?:제곱|세제곱|평방|입방)"
_UNIT_LAZY = r"[^\W\d_][^()+,]{0,40}?"
_UNIT = rf"°? ?{_WORD}(?: {_WORD}){{0,2}}(?: ?[*/] ?{_WORD}(?: {_WORD})?){{0,4}}"

# Each is applied in turn to what was asked.
_REWRITES: tuple[tuple[str, str], ...] = (
    (r"^ ?(?:what(?:'s| is)|calculate|compute|convert|how much is) ", ""),
    (r"(?: ?(?:=|\?|은요?|는요?|계산|얼마))++ ?$", ""),
    (r" ?(?:더하기|\bplus\b) ?", " + "),
    (r" ?(?:빼기|\bminus\b) ?", " - "),
    (r" ?(?:곱하기|\btimes\b|\bmultiplied by\b) ?", " * "),
    (r" ?(?:나누기|\bdivided by\b) ?", " / "),
    (r" per ", "/"),
    (r"(?<=\d) ?(?:퍼센트|프로|percent\b)", "%"),
    (r"(?<=\d) ?원(?![가-힣])|(?<=\d) ?원(?=[의을를은는])", ""),
    (rf"({_AMOUNT}) ?의 ?({_AMOUNT}) ?%", r"\2% of \1"),
    (rf"({_AMOUNT}) ?% ?의 ?({_AMOUNT})", r"\1% of \2"),
    (rf"({_AMOUNT}) ?의 ?제곱근|(?:√|루트) ?({_AMOUNT})", r"sqrt(\1\2)"),
    (r"√ ?(?=\()", "sqrt"),
    (rf"({_AMOUNT}) ?의 ?제곱$", r"\1**2"),
    (rf"({_AMOUNT}) ?의 ?({_AMOUNT}) ?제곱$", r"\1**\2"),
    (rf"(섭씨|화씨) ?([+-]?{_AMOUNT}) ?도?", r"\2 \1"),
    (r"(?<![\w.,])(?!0x)(\d[\d.,]*+) ?x ?(?=\d)", r"\1 * "),
    (r"\^", "**"),
)
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE), by) for pattern, by in _REWRITES)

# "5 km to mile", "5 km -> mile"; "5킬로미터를 마일로 변환"; "30평은 몇 제곱미터야"
_TARGETS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?P<source>.*\S) ?(?:\s(?:to|in|into|as)\s|->|=>|→) ?(?P<target>{_UNIT})",
        rf"(?P<source>.*?) ?(?:[을를은는]\s|\s) ?(?P<target>(?:{_POWER} )?{_WORD_LAZY})(?:으로|로)(?:\s.*)?",
        rf"(?P<source>.*?) ?[은는이가]? ?몇 ?(?P<target>{_UNIT_LAZY}) ?(?:이?야|인가요?|이에요|예요|입니까|이?지)?",
    )
)
_TERM = re.compile(rf" ?([+-]?) ?({_AMOUNT}) ?({_UNIT})")
_FORMULA = re.compile(rf"(.*[\d)!]) ?({_UNIT})")


def _plain(asked: str, to_digits: Callable[[str], str]) -> str:
    # Superscripts and fractions first: NFKC would make 52 of 5² and 31/2 of 3½.
    text = re.sub("[⁻⁰¹²³⁴-⁹]+", lambda power: f"**{power[0].translate(_SUPERSCRIPTS)}", asked)
    text = re.sub("(?<![0-9])([0-9]*+)([¼-¾⅐-⅞])", lambda mixed: f"({mixed[1] or 0}+{_fraction(mixed[2])})", text)
    text = " ".join(unicodedata.normalize("NFKC", text).translate(_SIGNS).split())
    text = to_digits(re.sub("영하 ?(?=[0-9일이삼사오육칠팔구십])", "-", text))
    for pattern, by in _COMPILED:
        text = pattern.sub(by, text)
    if len(text) > LONGEST_EXPRESSION:
        raise ToolFailure("that expression is too long")
    signs = set(re.findall("[$₩€£¥]", text))
    return (text.replace(signs.pop(), "") if len(signs) == 1 else text).strip()


def _fraction(character: str) -> str:
    return unicodedata.normalize("NFKC", character).translate(_SIGNS)


def _parted(text: str) -> tuple[str, str | None]:
    """What is to be converted, and into which unit; None if no unit is asked for."""
    for pattern in _TARGETS:
        if found := pattern.fullmatch(text):
            return found["source"], found["target"]
    return text, None


def _amounts(text: str, evaluate: Evaluate) -> list[tuple[Decimal, str]]:
    """`5 ft 11 in`, `5 km + 300 m` or `(2+3) km` as numbers with units; empty if it is something else."""
    amounts, at = [], 0
    while term := _TERM.match(text, at):
        sign, number, unit = term.groups()
        amounts.append((Decimal(sign + number.replace(",", "")), unit.strip()))
        at = term.end()
    if amounts and not text[at:].strip():
        return amounts
    if formula := _FORMULA.fullmatch(text):
        return [(Decimal(evaluate(formula[1])[0]), formula[2].strip())]
    return []


# Showing


def _show(value: int | Decimal, *, exact: bool) -> str:
    """Exact results in full, others to 15 digits, very large and very small ones as 1.5e+30."""
    if isinstance(value, int):
        digits = str(value)
        return digits if len(digits) <= LONGEST else _scientific(Decimal(value))
    if not value:
        return "0"
    rounded = value if exact else _rounded(value)
    if not -10 <= rounded.adjusted() < (60 if exact else 21):
        return _scientific(rounded)
    text = f"{rounded:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _rounded(value: Decimal) -> Decimal:
    return Decimal(f"{value:.{SHOWN_DIGITS - 1}e}")


def _scientific(value: Decimal) -> str:
    mantissa, _, exponent = f"{value:.{SHOWN_DIGITS - 1}e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{exponent}"
