"""Converting measured amounts by pint, which is asked about single unit names only and never given a formula."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Sequence
from decimal import Context, Decimal, DivisionByZero, InvalidOperation, Overflow, localcontext
from typing import Any

from tools.contract import ToolFailure

_NAME = re.compile(r"([^\W\d_]+(?:_[^\W\d_]+){0,3}?)(?:(?:\*\*)?([1-9]))?")
_RAISED = {"square": 2, "sq": 2, "제곱": 2, "평방": 2, "cubic": 3, "세제곱": 3, "입방": 3}


async def convert(amounts: Sequence[tuple[Decimal, str]], target: str | None) -> tuple[Decimal, str, str]:
    """The sum of `amounts` in unit `target` (None: the first amount's own), the sum as understood, the unit's name.

    Raises ToolFailure for an unknown unit and for amounts that cannot be summed or converted.
    """
    # Reading pint's definitions takes a good part of a second: once per process, and never in the event loop.
    pint = _loaded if _loaded is not None else await asyncio.to_thread(_load)
    with localcontext(Context(prec=40, traps=[DivisionByZero, InvalidOperation, Overflow])):
        return pint.convert(amounts, target)


class _Pint:
    """A registry of units whose numbers are decimals, with the Korean names and units."""

    def __init__(self) -> None:
        import pint

        self.errors = pint.errors
        self.registry: Any = pint.UnitRegistry(non_int_type=Decimal)
        for definition in DEFINITIONS:
            self.registry.define(definition)

    def convert(self, amounts: Sequence[tuple[Decimal, str]], target: str | None) -> tuple[Decimal, str, str]:
        names = [unit for _, unit in amounts]
        goal = self._unit(target or names[0])
        units = [self._unit("섭씨" if _bare_degree(name) and _warmth(goal) else name) for name in names]
        try:
            parts = [self.registry.Quantity(amount, unit) for (amount, _), unit in zip(amounts, units, strict=True)]
            total = parts[0] if len(parts) == 1 else sum(part.to(units[0]) for part in parts[1:]) + parts[0]
            value = total.to(goal).magnitude
        except self.errors.DimensionalityError:
            kinds = " and ".join(dict.fromkeys([*names, *([target] if target else [])]))
            raise ToolFailure(f"{kinds} do not measure the same kind of thing") from None
        except (self.errors.PintError, self.errors.OffsetUnitCalculusError):
            raise ToolFailure("temperatures can be converted one at a time, not added up") from None
        except ArithmeticError:
            raise ToolFailure("that amount is too large or too small to convert") from None
        sources = " + ".join(f"{amount:g} {_words(unit)}" for (amount, _), unit in zip(amounts, units, strict=True))
        return value, f"{sources} to {_words(goal)}" if target else sources, _words(goal)

    def _unit(self, text: str) -> Any:
        """`km/h`, `m**2`, `m2`, `square meters`, `제곱미터`, `nautical miles`: names multiplied, divided and raised."""
        text = " ".join(text.split())
        product = self.registry.Unit("")
        for sign, factor in re.findall(r"(^|/|\*(?!\*)(?<!\*\*))\s*((?:[^/*]|\*\*)+)", text)[:8]:
            unit = self._factor(factor.strip(), of=text)
            try:
                product = product / unit if sign == "/" else product * unit
            except self.errors.PintError:
                raise _unknown(text) from None
        return product

    def _factor(self, text: str, *, of: str) -> Any:
        name = NAMES.get(text, text)
        power = 1
        for word, raised in _RAISED.items():
            if name.startswith(word) and name != word and name not in NAMES.values():
                name, power = name.removeprefix(word).strip(), raised
        found = _NAME.fullmatch(NAMES.get(name, name).replace(" ", "_"))
        if found is None or len(found[1]) > 40:
            raise _unknown(of)
        for spelling in (found[1], found[1].lower()):
            try:
                return self.registry.Unit(NAMES.get(spelling, spelling)) ** (power * int(found[2] or 1))
            except (self.errors.PintError, AttributeError):
                continue
        raise _unknown(of)


_loaded: _Pint | None = None
_loading = threading.Lock()


def _load() -> _Pint:
    global _loaded
    with _loading:
        if _loaded is None:
            _loaded = _Pint()
        return _loaded


def _unknown(name: str) -> ToolFailure:
    return ToolFailure(f"there is no unit called {name}")


def _words(unit: Any) -> str:
    return f"{unit:P}".replace("_", " ")


def _bare_degree(name: str) -> bool:
    return name in ("도", "deg", "degree", "degrees", "°")


def _warmth(unit: Any) -> bool:
    return bool(unit.dimensionality == {"[temperature]": 1})


DEFINITIONS = (
    "pyeong = 400 / 121 * meter ** 2",
    "geun = 600 * gram",  # of meat; of vegetables it is 400 g
    "gwan = 3750 * gram",
    "nyang = 37.5 * gram",
    "don = 3.75 * gram",
    "doe = 1.8 * liter",
    "mal = 18 * liter",
    "ja = 10 / 33 * meter",
    "mpg = mile / gallon",
)

# What people write, and pint's name for it.
NAMES = {
    "C": "degC",
    "F": "degF",
    "°": "degree",
    "°C": "degC",
    "°F": "degF",
    "degrees C": "degC",
    "degrees F": "degF",
    "degree C": "degC",
    "degree F": "degF",
    "degrees celsius": "degC",
    "degrees fahrenheit": "degF",
    "degrees Celsius": "degC",
    "degrees Fahrenheit": "degF",
    "kgs": "kg",
    "Cal": "kcal",
    "KB": "kB",
    "KW": "kW",
    "kwh": "kWh",
    "sqft": "foot**2",
    "sqm": "meter**2",
    "킬로미터": "kilometer",
    "킬로": "kilogram",
    "미터": "meter",
    "센티미터": "centimeter",
    "센티": "centimeter",
    "밀리미터": "millimeter",
    "마이크로미터": "micrometer",
    "나노미터": "nanometer",
    "마일": "mile",
    "야드": "yard",
    "피트": "foot",
    "인치": "inch",
    "해리": "nautical_mile",
    "광년": "light_year",
    "자": "ja",
    "척": "ja",
    "킬로그램": "kilogram",
    "그램": "gram",
    "그람": "gram",
    "밀리그램": "milligram",
    "톤": "metric_ton",
    "파운드": "pound",
    "온스": "ounce",
    "근": "geun",
    "관": "gwan",
    "냥": "nyang",
    "돈": "don",
    "평": "pyeong",
    "헥타르": "hectare",
    "에이커": "acre",
    "아르": "are",
    "리터": "liter",
    "밀리리터": "milliliter",
    "시시": "cc",
    "갤런": "gallon",
    "되": "doe",
    "말": "mal",
    "년": "year",
    "개월": "month",
    "달": "month",
    "주": "week",
    "일": "day",
    "시간": "hour",
    "분": "minute",
    "초": "second",
    "밀리초": "millisecond",
    "도": "degree",
    "섭씨": "degC",
    "화씨": "degF",
    "켈빈": "kelvin",
    "라디안": "radian",
    "비트": "bit",
    "바이트": "byte",
    "킬로바이트": "kilobyte",
    "메가바이트": "megabyte",
    "기가바이트": "gigabyte",
    "테라바이트": "terabyte",
    "와트": "watt",
    "킬로와트": "kilowatt",
    "킬로와트시": "kilowatt_hour",
    "마력": "horsepower",
    "줄": "joule",
    "칼로리": "calorie",
    "킬로칼로리": "kilocalorie",
    "파스칼": "pascal",
    "기압": "atm",
    "노트": "knot",
}
