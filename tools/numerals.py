"""Korean numerals in a text as digits: 3만5천 is 35000, 삼백만 is 3000000, 2.5억 is 250000000."""

from __future__ import annotations

import re
from decimal import Decimal

DIGITS = {character: value for value, character in enumerate("영일이삼사오육칠팔구")} | {"공": 0}
SMALL = {"십": 10, "백": 100, "천": 1000}
LARGE = {"만": 10**4, "억": 10**8, "조": 10**12}

_DIGIT, _SMALL, _LARGE = "".join(DIGITS), "".join(SMALL), "".join(LARGE)
_NUMBER = r"\d[\d,]*(?:\.\d+)?"
# A numeral is no other word's tail (마일 is a mile, 3 일 are days). After 만, 억 or 조 it may go on behind a space.
_NUMERAL = re.compile(
    rf"(?<![가-힣\d.,])(?<!\d )(?:{_NUMBER}(?: (?=[{_LARGE}]))?)?"
    rf"(?:[{_DIGIT}{_SMALL}{_LARGE}]"
    rf"|(?<=[{_SMALL}{_LARGE}]){_NUMBER}"
    rf"|(?<=[{_LARGE}]) (?:{_NUMBER}(?=[{_SMALL}{_LARGE}])|(?=[{_DIGIT}]?[{_SMALL}{_LARGE}])))+"
)
_PART = re.compile(rf"{_NUMBER}|[{_DIGIT}{_SMALL}{_LARGE}]")


def to_digits(text: str) -> str:
    """`text` with every numeral it can be sure of written in digits."""
    return _NUMERAL.sub(lambda found: _value(found[0]) or found[0], text)


def _value(numeral: str) -> str | None:
    """The digits of one numeral, or None if its parts are in no sensible order, as in 3일 (three days)."""
    total = section = Decimal(0)
    pending: Decimal | None = None
    ceiling_large, ceiling_small = 10**16, 10**4
    for part in _PART.findall(numeral):
        if part in LARGE:
            if LARGE[part] >= ceiling_large:
                return None
            ceiling_large, ceiling_small = LARGE[part], 10**4
            amount = section + (pending or 0)
            total += (amount or 1) * LARGE[part]
            section, pending = Decimal(0), None
        elif part in SMALL:
            if SMALL[part] >= ceiling_small:
                return None
            ceiling_small = SMALL[part]
            section += (1 if pending is None else pending) * SMALL[part]
            pending = None
        elif pending is not None:
            return None
        else:
            pending = Decimal(DIGITS[part]) if part in DIGITS else Decimal(part.replace(",", ""))
    return format((total + section + (pending or 0)).normalize(), "f")
