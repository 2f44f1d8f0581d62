"""Reads sums, percentages and unit conversions, in English and Korean words or symbols, into calculator expressions.

A text is read only as a whole: one word that is not part of a sum and it is no sum. That, not a list of exceptions,
is what keeps "C++", "chapter 5" and most dates out. `IT` in an expression stands for an earlier figure ("times 2").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from threadline.services.models.offline_tokens import Token, tokens_of

IT = "{0}"
"""Where an earlier figure goes: the last result, or a figure still to be looked up."""
IT_UNIT = "{unit}"
"""Where the unit of that earlier figure goes."""

_MASS = frozenset({"kg", "g", "mg", "tonne", "pound", "ounce"})
_TEMPERATURE = frozenset({"degC", "degF", "kelvin"})
_OPERATOR = re.compile(r"[-+*/% ]")


def _wrapped(operand: str) -> str:
    return f"({operand})" if _OPERATOR.search(operand) else operand


def _binary(left: str, operator: str, right: str) -> str:
    if operator == "off":
        return f"{_wrapped(left)}*(1-{_wrapped(right)})"
    return f"{_wrapped(left)}{operator}{_wrapped(right)}"


def _operand(tokens: Sequence[Token]) -> str | None:
    if len(tokens) == 1 and tokens[0].kind in {"num", "it"}:
        return IT if tokens[0].kind == "it" else tokens[0].value
    if len(tokens) == 2 and tokens[0].kind == "num" and tokens[1].kind == "pct":
        return f"{tokens[0].value}/100"
    return _infix(tokens)


def _operands(groups: Iterable[Sequence[Token]]) -> list[str] | None:
    operands = [_operand(group) for group in groups if group]
    return None if None in operands else [operand for operand in operands if operand is not None]


def _folded(operands: Sequence[str], operator: str) -> str | None:
    """All operands under one operator; a lone one works on the earlier figure."""
    if operator == "avg":
        return f"({'+'.join(map(_wrapped, operands))})/{len(operands)}" if len(operands) > 1 else None
    if len(operands) == 1:
        return _binary(IT, operator, operands[0])
    if not operands or (len(operands) > 2 and operator not in "+*"):
        return None
    if operator in "+*":
        return operator.join(map(_wrapped, operands))
    return _binary(operands[0], operator, operands[1])


def _infix(tokens: Sequence[Token]) -> str | None:
    """Figures and operators in writing order; checks that they alternate and that brackets close."""
    out: list[str] = []
    depth = operators = 0
    want_figure = True
    if tokens and tokens[0].kind == "op" and tokens[0].text != "-":
        out.append(IT)
        want_figure = False
    for index, token in enumerate(tokens):
        if want_figure:
            if token.kind == "num":
                out.append(token.value)
                want_figure = False
            elif token.kind == "it":
                out.append(IT)
                want_figure = False
            elif token.value == "(":
                out.append("(")
                depth += 1
            elif token.kind == "op" and token.value in "+-":
                out.append(token.value)
            elif token.kind == "scale":
                out.append(token.value)
                operators += 1
            elif token.kind == "func":
                following = tokens[index + 1] if index + 1 < len(tokens) else None
                if following is None or (following.kind not in {"num", "it"} and following.value != "("):
                    return None
                out.append(token.value if following.value == "(" else f"{token.value}(")
                operators += 1
            else:
                return None
            if index and tokens[index - 1].kind == "func" and token.value != "(":
                out.append(")")
        elif token.kind == "op":
            out.append(token.value)
            operators += 1
            want_figure = True
        elif token.kind == "post":
            out.append(token.value)
            operators += 1
        elif token.kind == "pct":
            following = tokens[index + 1] if index + 1 < len(tokens) else None
            if following is not None and (following.kind in {"num", "it"} or following.value == "("):
                out.append("%")  # 17 % 5
                operators += 1
                want_figure = True
            else:
                out[-1] = f"({out[-1]}/100)" if out[-1] != ")" else ")/100"
        elif token.kind == "of" and tokens[index - 1].kind == "pct":
            out.append("*")
            operators += 1
            want_figure = True
        elif token.value == ")" and depth:
            out.append(")")
            depth -= 1
        elif token.kind != "part":
            return None
    return "".join(out) if operators and not want_figure and depth == 0 else None


def _percentage(tokens: Sequence[Token]) -> str | None:
    """15% of 200; 200의 15%; 20% off 50; 200 + 10%."""
    kinds = tuple(token.kind for token in tokens)
    if kinds in {("num", "pct", "of", "num"), ("num", "pct", "of", "it")}:
        return f"{tokens[0].value}% of {_operand(tokens[3:])}"
    if kinds in {("num", "pct", "off", "num"), ("num", "pct", "off", "it")}:
        return f"{_operand(tokens[3:])}*(1-{tokens[0].value}/100)"
    if kinds[1:] == ("part", "num", "pct") and kinds[0] in {"num", "it"} and tokens[1].value in "의에":
        return f"{tokens[2].value}% of {_operand(tokens[:1])}"
    if kinds[1:] == ("op", "num", "pct") and kinds[0] in {"num", "it"} and tokens[1].value in "+-":
        return f"{_operand(tokens[:1])}*(1{tokens[1].value}{tokens[2].value}/100)"
    return None


def _english_verb(tokens: Sequence[Token]) -> str | None:
    """Add 5 to 7; subtract 3 from 10; the average of 1, 2 and 3; divide by 4."""
    if tokens[0].kind != "everb":
        return None
    groups: list[list[Token]] = [[]]
    for token in tokens[1:]:
        if token.kind == "sep" or token.text == "to":
            groups.append([])
        else:
            groups[-1].append(token)
    operands = _operands(groups)
    if operands and len(operands) == 2 and any(token.text in {"from", "to"} for token in tokens):
        operands.reverse()
    return _folded(operands, tokens[0].value) if operands else None


def _korean_verb(tokens: Sequence[Token]) -> str | None:
    """3에 5를 더하고 2를 곱하면; 10을 4로 나눠줘; 5와 7의 합."""
    if not any(token.kind == "kverb" for token in tokens):
        return None
    total: str | None = None
    groups: list[list[Token]] = [[]]
    for token in tokens:
        if token.kind == "kverb":
            operands = _operands(groups)
            if not operands:
                return None
            total = _folded(operands if total is None else [total, *operands], token.value)
            if total is None:
                return None
            groups = [[]]
        elif token.kind in {"part", "sep"}:
            groups.append([])
        elif token.kind == "num" and groups[-1] and groups[-1][-1].kind in {"num", "it", "post"}:
            groups.append([token])
        else:
            groups[-1].append(token)
    return None if any(groups) else total


def _conversion(tokens: Sequence[Token]) -> str | None:
    """5 km in miles; how many feet in 2 meters; 30평은 몇 제곱미터; 화씨 100도는 섭씨 몇 도."""
    if not any(token.kind == "unit" for token in tokens):
        return None
    asked = any(token.kind in {"to", "many"} or token.text in {"로", "으로", "로는", "으로는"} for token in tokens)
    if len(tokens) > 1 and tokens[0].text == "-" and tokens[1].kind == "num":
        tokens = [Token("num", f"-{tokens[1].value}", ""), *tokens[2:]]
    kept = [token for token in tokens if token.kind not in {"part", "to", "lead", "tail"}]
    kinds = " ".join(token.kind for token in kept)
    values = [token.value for token in kept]
    if kinds in {"num unit unit", "num unit many unit"} and asked:
        return _converted(values[0], values[1], values[-1])
    if kinds == "many unit num unit":
        return _converted(values[2], values[3], values[1])
    if kinds in {"unit num unit", "unit num unit many"} and values[0] in _TEMPERATURE and values[2] in _TEMPERATURE:
        return _converted(values[1], values[0], values[2])
    if kinds in {"num unit", "num unit many"} and asked and any(token.text == "도" for token in tokens):
        other = {"degF": "degC", "degC": "degF"}.get(values[1])
        return _converted(values[0], other, values[1]) if other else None
    if kinds in {"it unit", "it many unit", "unit"} and asked:
        return _converted(IT, IT_UNIT, values[-1])
    return None


def _converted(figure: str, source: str, target: str) -> str:
    if "킬로" in (source, target):
        kilo = "kg" if {source, target} & _MASS else "km"
        source, target = (kilo if unit == "킬로" else unit for unit in (source, target))
    return f"{figure}{'' if source == '평' else ' '}{source} to {target}"


_SHAPES: tuple[Callable[[Sequence[Token]], str | None], ...] = (
    _conversion,
    _percentage,
    _english_verb,
    _korean_verb,
    _infix,
)
_BEFORE = frozenset({"lead", "sep", "part"})
_AFTER = frozenset({"tail", "lead", "sep", "part"})


_NEVER = re.compile(
    r"\b\d{4}-\d{1,2}-\d{1,2}\b|\b\d{1,2}/\d{1,2}/\d{4}\b|\b\d{4}/\d{1,2}/\d{1,2}\b"  # dates
    r"|\b\d{2,4}-\d{2,4}-\d{4}\b|\b\d{6}-\d{7}\b"  # telephone numbers and the like
)
_ROOT_OF = re.compile(r"(?<!\d)(\d{1,30}(?:\.\d{1,30})?)의 ?제곱근")
_TELEPHONE = re.compile(r"[\s?]*\d{3}-\d{4}[\s?.]*")


@lru_cache(maxsize=128)
def expression(text: str) -> str | None:
    """The calculator expression that the whole text asks for, or None. It may hold `IT` and `IT_UNIT`."""
    text = _ROOT_OF.sub(r"sqrt(\1)", text.lower())
    tokens = tokens_of(text)
    if not tokens or _NEVER.search(text) or _TELEPHONE.fullmatch(text):
        return None
    start, end = 0, len(tokens)
    how_many = frozenset() if any(token.kind == "unit" for token in tokens) else frozenset({"many"})
    while start < end and tokens[start].kind in _BEFORE | how_many:
        start += 1
    while end > start and tokens[end - 1].kind in _AFTER | how_many and not _is_target(tokens[end - 2 : end]):
        end -= 1
    if start == end:
        return None
    core = [token for token in tokens[start:end] if token.kind != "tail" or token.text not in {"is", "are", "there"}]
    for shape in _SHAPES:
        if found := shape(core):
            return found
    return None


def _is_target(last: Sequence[Token]) -> bool:
    """마일로: the particle says that the unit is the target, so it stays."""
    return len(last) == 2 and last[0].kind == "unit" and last[1].text.startswith(("로", "으로"))


_SYMBOLS = re.compile(r"(?<![\w.,:/+\-(^=&])[-(]*+\d(?:[\d\s.,+\-*/×÷^()%]*[\d)%])?(?![\w:/])")
_EXPLICIT = re.compile(r"calculat|comput|evaluat|work out|value of|how much|result of|계산|얼마")
_CURIOUS = re.compile(r"[?]|\b(?:what|how|tell|is)\b|몇|뭐|알려")


def embedded(text: str) -> str | None:
    """A sum in symbols inside a longer sentence that asks for it: "could you calculate (15+27)*3 for my mother"."""
    found = max((match[0] for match in _SYMBOLS.finditer(text)), key=len, default="")
    if not any(sign in found for sign in "+*×÷^-/"):
        return None
    plain_sign = any(sign in found for sign in "+*×÷^(") or " " in found
    if not _EXPLICIT.search(text.lower()) and not (plain_sign and _CURIOUS.search(text.lower())):
        return None
    return expression(found)


def filled(template: str, figures: Sequence[str], *, unit: str = "") -> str:
    """The template with the figures in the places of `{0}`, `{1}` …; negative ones in brackets."""
    for index, figure in enumerate(figures):
        template = template.replace(f"{{{index}}}", f"({figure})" if figure.startswith("-") else figure)
    return template.replace(IT_UNIT, unit)
