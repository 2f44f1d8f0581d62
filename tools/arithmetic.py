"""Exact arithmetic on what a stranger wrote: bounded work, no names but our own, decimals instead of floats."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable
from decimal import (
    ROUND_CEILING,
    ROUND_DOWN,
    ROUND_FLOOR,
    ROUND_HALF_UP,
    Context,
    Decimal,
    DivisionByZero,
    Inexact,
    InvalidOperation,
    Overflow,
    Underflow,
    getcontext,
    localcontext,
)
from typing import Any

from simpleeval import InvalidExpression, SimpleEval

from tools.contract import ToolFailure

Number = int | Decimal

MAX_DIGITS = 4000
PRECISION = 50
_MAX_BITS = int(MAX_DIGITS * math.log2(10))
_PERCENT = "_percent"


def evaluate(text: str) -> tuple[Number, bool, str]:
    """The value, whether it is exact, and the expression as it was understood. Raises ToolFailure.

    Understands `+ - * / // ** %`, `15%`, `15% of 200`, `200 + 10%`, `5!`, `1,234`, `2(3+4)` and the functions below.
    """
    with localcontext(Context(prec=PRECISION, Emax=MAX_DIGITS, Emin=-MAX_DIGITS, traps=_TRAPS)) as context:
        try:
            source = _write(_tokens(text))
            tree = _Exact(source).visit(ast.parse(source, mode="eval"))
            value = _evaluator().eval(source, previously_parsed=tree.body)
            exact = not context.flags[Inexact] and not any(_is_constant(node) for node in ast.walk(tree))
            return _bounded(value), exact, ast.unparse(ast.fix_missing_locations(tree))
        except ZeroDivisionError:
            raise ToolFailure("division by zero has no result") from None
        except (OverflowError, Overflow):
            raise _too_large() from None
        except Underflow:
            raise ToolFailure("that number is too close to zero") from None
        except (InvalidOperation, ValueError):
            raise ToolFailure("that has no result among the real numbers") from None
        except RecursionError:
            raise ToolFailure("that expression is too long or too deeply nested") from None
        except (SyntaxError, MemoryError, InvalidExpression):
            raise ToolFailure("that is not a complete arithmetic expression") from None


_TRAPS = [DivisionByZero, InvalidOperation, Overflow, Underflow]


def _too_large() -> ToolFailure:
    return ToolFailure(f"that number is too large: it has more than {MAX_DIGITS} digits")


# Reading


_TOKEN = re.compile(
    r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4}(?!\d))?)|(?P<name>[A-Za-z]+\d*)|(?P<sign>\*\*|//|[-+*/%(),!])"
)
_GROUPED = re.compile(r"(?P<number>\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?)")


def _tokens(text: str) -> list[tuple[str, str]]:
    """Kind and text of each token. Between the arguments of a function that takes several, a comma divides them."""
    tokens: list[tuple[str, str]] = []
    dividing: list[bool] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        grouped = not any(dividing[-1:])
        found = (_GROUPED.match(text, at) if grouped else None) or _TOKEN.match(text, at)
        if found is None:
            raise ToolFailure(f"{text[at]!r} is not understood here: only arithmetic, known functions and units are")
        kind, token = str(found.lastgroup), found[0]
        if token == "(":
            function = FUNCTIONS.get(tokens[-1][1].lower()) if tokens and tokens[-1][0] == "name" else None
            dividing.append(function is not None and function[2] > 1)
        elif token == ")" and dividing:
            dividing.pop()
        tokens.append((kind, token))
        at = found.end()
    return tokens


def _write(tokens: list[tuple[str, str]]) -> str:
    """The tokens as Python: percent and factorial become calls, and a product left unsaid is said."""
    parts: list[str] = []
    operand = False  # does what is written so far end in a complete operand?
    for index, (kind, token) in enumerate(tokens):
        following = tokens[index + 1] if index + 1 < len(tokens) else ("end", "")
        if kind == "number":
            if operand and parts[-1] != ")":
                raise ToolFailure(f"something is missing before {token}")
            parts += ["*"] * operand + [_literal(token)]
            operand = True
        elif kind == "name" and token.lower() in ("of", "mod") and operand:
            parts.append("*" if token.lower() == "of" else "%")
            operand = False
        elif kind == "name":
            parts += ["*"] * operand + [_known(token, called=following[1] == "(")]
            operand = parts[-1] in CONSTANTS
        elif token == "%" and operand and not _goes_on(following):
            _wrap(parts, _PERCENT)
        elif token == "!" and operand:
            _wrap(parts, "factorial")
        elif token == "(":
            parts += ["*"] * operand + ["("]
            operand = False
        else:
            parts.append(token)
            operand = token == ")"
    return " ".join(parts)


def _goes_on(following: tuple[str, str]) -> bool:
    """Is a % before this token the remainder's sign? Otherwise it says percent."""
    kind, token = following
    return kind == "number" or token == "(" or (kind == "name" and token.lower() != "of")


def _literal(token: str) -> str:
    digits = token.replace(",", "")
    return digits.lstrip("0") or "0" if digits.isdigit() else digits


def _known(name: str, *, called: bool) -> str:
    lower = name.lower()
    if lower in CONSTANTS or (lower in FUNCTIONS and called):
        return lower
    if lower in FUNCTIONS:
        raise ToolFailure(f"{lower} needs its argument in parentheses, as in {lower}(9)")
    known = ", ".join([*FUNCTIONS, *CONSTANTS])
    raise ToolFailure(f"'{name[:40]}' is not a number; the functions and constants are {known}")


def _wrap(parts: list[str], function: str) -> None:
    """Make the operand `parts` end in the argument of `function`."""
    start, depth = len(parts) - 1, 0
    while start >= 0:
        depth += {")": 1, "(": -1}.get(parts[start], 0)
        if depth <= 0:
            break
        start -= 1
    if start > 0 and parts[start] == "(" and parts[start - 1] in {*FUNCTIONS, _PERCENT}:
        start -= 1
    parts[max(start, 0) : max(start, 0)] = [function, "("]
    parts.append(")")


class _Literal(Decimal):
    """A decimal that `ast.unparse` writes the way it was read."""

    def __repr__(self) -> str:
        return format(self, "f") if -20 < self.adjusted() < 40 else str(self)


class _Exact(ast.NodeTransformer):
    """Floats become the decimals they were written as; percentages become fractions of what they are taken of."""

    def __init__(self, source: str) -> None:
        self.source = source

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if type(node.value) is int:
            return node
        written = getcontext().create_decimal(self.source[node.col_offset : node.end_col_offset])
        return ast.Constant(_Literal(written))  # type: ignore[arg-type]

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        return ast.BinOp(node.args[0], ast.Div(), ast.Constant(100)) if _is_percent(node) else node

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        of_left = isinstance(node.op, ast.Add | ast.Sub) and _is_percent(node.right)
        self.generic_visit(node)
        if of_left:
            return ast.BinOp(node.left, ast.Mult(), ast.BinOp(ast.Constant(1), node.op, node.right))
        return node


def _is_percent(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == _PERCENT


def _is_constant(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in CONSTANTS


# Calculating


def _evaluator() -> SimpleEval:
    """simpleeval reduced to calls, signs and numbers: no attribute, no subscript, no comparison, no text."""
    evaluator = SimpleEval(operators=OPERATORS, functions=_FUNCTIONS, names=CONSTANTS)
    wanted = (ast.BinOp, ast.UnaryOp, ast.Call, ast.Name, ast.Constant)
    evaluator.nodes = {node: evaluator.nodes[node] for node in wanted}
    return evaluator


def _bounded(number: Number) -> Number:
    if isinstance(number, int) and number.bit_length() > _MAX_BITS:
        raise _too_large()
    if isinstance(number, Decimal) and not number.is_finite():
        raise ToolFailure("that has no finite result")
    return number


def _decimal(number: Number) -> Decimal:
    """Rounded to the working precision: a logarithm of thousands of digits would take long."""
    return getcontext().create_decimal(number)


def _multiply(a: Number, b: Number) -> Number:
    if isinstance(a, int) and isinstance(b, int) and a.bit_length() + b.bit_length() > _MAX_BITS + 1:
        raise _too_large()
    return a * b


def _divide(a: Number, b: Number) -> Number:
    if isinstance(a, int) and isinstance(b, int) and a % b == 0:
        return a // b
    return _decimal(a) / _decimal(b)


def _floor_divide(a: Number, b: Number) -> Number:
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    quotient, rest = divmod(_decimal(a), _decimal(b))
    return quotient - 1 if rest and (rest < 0) != (b < 0) else quotient


def _modulo(a: Number, b: Number) -> Number:
    """With the sign of `b`, for decimals as for integers."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    rest = _decimal(a) % _decimal(b)
    return rest + b if rest and (rest < 0) != (b < 0) else rest


def _power(base: Number, exponent: Number) -> Number:
    if not isinstance(base, int) or not isinstance(exponent, int) or exponent < 0:
        return _bounded(_decimal(base) ** _decimal(exponent))
    if abs(base) > 1 and (exponent > _MAX_BITS or math.log2(abs(base)) * exponent > _MAX_BITS):
        raise _too_large()
    return int(base**exponent)


OPERATORS: dict[type, Callable[..., Number]] = {
    ast.Add: lambda a, b: _bounded(a + b),
    ast.Sub: lambda a, b: _bounded(a - b),
    ast.Mult: _multiply,
    ast.Div: _divide,
    ast.FloorDiv: _floor_divide,
    ast.Mod: _modulo,
    ast.Pow: _power,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}

CONSTANTS: dict[str, Number] = {
    "pi": Decimal("3.1415926535897932384626433832795028841971693993751"),
    "e": Decimal("2.7182818284590452353602874713526624977572470937000"),
    "tau": Decimal("6.2831853071795864769252867665590057683943387987502"),
}


def _floating(function: Callable[..., float]) -> Callable[..., Number]:
    """A function of the C library, whose last digit cannot be trusted: sin(pi) is 0, not 1.2e-16."""

    def call(*numbers: Number) -> Number:
        value = function(*map(float, numbers))
        getcontext().flags[Inexact] = True
        vanishes = abs(value) < 1e-15 and not all(-1 <= number <= 1 for number in numbers)
        return Decimal(0 if vanishes else format(value, ".15g"))

    return call


def _whole(function: Callable[..., int], *, most: int | None = None) -> Callable[..., Number]:
    """A function of whole numbers, none larger than `most`."""

    def call(*numbers: Number) -> Number:
        if any(number != int(number) for number in numbers):
            raise ToolFailure("factorial, gcd, lcm, comb and perm take whole numbers")
        if most is not None and any(number > most for number in numbers):
            raise ToolFailure(f"factorial, comb and perm take numbers up to {most}")
        return function(*map(int, numbers))

    return call


def _rounding(mode: str) -> Callable[[Number], Number]:
    return lambda number: number if isinstance(number, int) else int(number.to_integral_value(rounding=mode))


def _round(number: Number, digits: Number = 0) -> Number:
    """Half is rounded away from zero, as at school."""
    if digits != int(digits) or not -PRECISION <= digits <= PRECISION:
        raise ToolFailure(f"round takes a whole number of digits up to {PRECISION}")
    if isinstance(number, int):
        unit = int(10 ** max(0, -int(digits)))
        size = (2 * abs(number) + unit) // (2 * unit) * unit
        return -size if number < 0 else size
    inexact = getcontext().flags[Inexact]
    rounded = _decimal(number).quantize(Decimal(1).scaleb(-int(digits)), rounding=ROUND_HALF_UP)
    getcontext().flags[Inexact] = inexact
    return int(rounded) if digits <= 0 else rounded


def _root(number: Number) -> Number:
    if isinstance(number, int) and number >= 0 and math.isqrt(number) ** 2 == number:
        return math.isqrt(number)
    return _decimal(number).sqrt()


def _cube_root(number: Number) -> Number:
    root = abs(_decimal(number)) ** (Decimal(1) / 3) if number else Decimal(0)
    return -root if number < 0 else root


def _logarithm(number: Number, base: Number | None = None) -> Number:
    natural = _decimal(number).ln()
    return natural if base is None else natural / _decimal(base).ln()


# name: (function, fewest arguments, most arguments)
FUNCTIONS: dict[str, tuple[Callable[..., Number], int, int]] = {
    "sqrt": (_root, 1, 1),
    "cbrt": (_cube_root, 1, 1),
    "abs": (abs, 1, 1),
    "round": (_round, 1, 2),
    "floor": (_rounding(ROUND_FLOOR), 1, 1),
    "ceil": (_rounding(ROUND_CEILING), 1, 1),
    "trunc": (_rounding(ROUND_DOWN), 1, 1),
    "min": (lambda *numbers: min(numbers), 1, 100),
    "max": (lambda *numbers: max(numbers), 1, 100),
    "sum": (lambda *numbers: sum(numbers), 1, 100),
    "mean": (lambda *numbers: _divide(sum(numbers), len(numbers)), 1, 100),
    "avg": (lambda *numbers: _divide(sum(numbers), len(numbers)), 1, 100),
    "pow": (_power, 2, 2),
    "exp": (lambda number: _decimal(number).exp(), 1, 1),
    "ln": (_logarithm, 1, 1),
    "log": (_logarithm, 1, 2),
    "log10": (lambda number: _decimal(number).log10(), 1, 1),
    "log2": (lambda number: _logarithm(number, 2), 1, 1),
    "sin": (_floating(math.sin), 1, 1),
    "cos": (_floating(math.cos), 1, 1),
    "tan": (_floating(math.tan), 1, 1),
    "asin": (_floating(math.asin), 1, 1),
    "acos": (_floating(math.acos), 1, 1),
    "atan": (_floating(math.atan), 1, 1),
    "atan2": (_floating(math.atan2), 2, 2),
    "sinh": (_floating(math.sinh), 1, 1),
    "cosh": (_floating(math.cosh), 1, 1),
    "tanh": (_floating(math.tanh), 1, 1),
    "degrees": (_floating(math.degrees), 1, 1),
    "radians": (_floating(math.radians), 1, 1),
    "hypot": (_floating(math.hypot), 2, 2),
    "factorial": (_whole(math.factorial, most=1000), 1, 1),
    "comb": (_whole(math.comb, most=1000), 2, 2),
    "perm": (_whole(math.perm, most=1000), 2, 2),
    "gcd": (_whole(math.gcd), 1, 100),
    "lcm": (_whole(math.lcm), 1, 100),
}


def _checked(name: str, function: Callable[..., Number], fewest: int, most: int) -> Callable[..., Number]:
    def call(*numbers: Number, **_: Any) -> Number:
        if not fewest <= len(numbers) <= most:
            wanted = str(fewest) if fewest == most else f"{fewest} to {most}"
            raise ToolFailure(f"{name} takes {wanted} argument{'s' * (wanted != '1')}, not {len(numbers)}")
        return _bounded(function(*numbers))

    return call


_FUNCTIONS = {name: _checked(name, *entry) for name, entry in FUNCTIONS.items()}
