"""The tool `calculator`: arithmetic on exact fractions, parsed by `ast` and never evaluated by it.

Sums, products and quotients are exact, so 0.1 + 0.2 is 0.3. Every step is bounded by the size of
its operands before it is taken: nothing that is accepted can hang or fill memory.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import ClassVar, Literal, TypeAlias

from pydantic import Field, PositiveInt

from textgym import Prompt, Tool, ToolArguments, ToolError

Number: TypeAlias = Fraction | float

_MAX_BITS = 4096
_MAX_DEPTH = 64
_SHOWN_DIGITS = 12
_SPELLINGS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "^": "**"})


class Expression(ToolArguments):
    """The arguments of `calculator`."""

    expression: str
    """Arithmetic such as (12 + 7.5) * 3 ** 2; sqrt, log, exp, sin, cos, tan, abs, round, floor,
    ceil, factorial, gcd, min, max, pi and e are known."""


class Calculator(Tool):
    """Evaluates arithmetic."""

    name: ClassVar[str] = "calculator"
    description: ClassVar[str] = "Evaluate an arithmetic expression exactly."
    arguments: ClassVar[type[Expression]] = Expression
    runs: ClassVar[Literal["inline", "thread", "timed"]] = "inline"

    max_characters: PositiveInt = Field(default=200, le=2000)
    """Longest expression."""

    def call(self, arguments: Expression, prompt: Prompt) -> str:
        """Return the value of an expression."""
        del prompt
        text = arguments.expression
        if len(text) > self.max_characters:
            raise ToolError(
                f"the expression has {len(text)} characters; at most {self.max_characters} are "
                "allowed"
            )
        return shown(evaluate(text))


def evaluate(text: str) -> Number:
    """Return the value of an expression.

    Raises:
        ToolError: it is no arithmetic, is undefined, or its value is out of bounds.
    """
    text = text.strip().removesuffix("=").translate(_SPELLINGS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the parser, about what the model wrote
            tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ToolError(f"not an arithmetic expression: {_cut(text)}") from None
    try:
        return _value(tree.body, 0)
    except ZeroDivisionError:
        raise ToolError("division by zero") from None
    except OverflowError:
        raise ToolError("the result is too large") from None
    except ValueError as error:  # of math, such as sqrt(-1)
        raise ToolError(f"undefined: {error}") from None


def shown(value: Number) -> str:
    """Return a number as a person would write it: whole, as a short decimal, or rounded."""
    if isinstance(value, Fraction):
        if value.denominator == 1:
            return str(value.numerator)
        scaled = value * 10**_SHOWN_DIGITS
        if scaled.denominator == 1 and abs(scaled) < 10**30:  # a decimal that ends
            digits = f"{abs(scaled.numerator):0{_SHOWN_DIGITS + 1}d}"
            sign = "-" if value < 0 else ""
            return f"{sign}{digits[:-_SHOWN_DIGITS]}.{digits[-_SHOWN_DIGITS:]}".rstrip("0")
        value = value.numerator / value.denominator
    return f"{value:.{_SHOWN_DIGITS}g}"


def _value(node: ast.expr, depth: int) -> Number:
    if depth > _MAX_DEPTH:
        raise ToolError("the expression is nested too deeply")
    match node:
        case ast.Constant(value=bool() | complex() | str() | bytes()):
            pass
        case ast.Constant(value=int() | float() as number) if math.isfinite(number):
            return _bounded(Fraction(repr(number)))  # by its digits: 0.1 is a tenth
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=ast.UAdd() | ast.USub() as sign, operand=operand):
            value = _value(operand, depth + 1)
            return -value if isinstance(sign, ast.USub) else value
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            operands = _value(left, depth + 1), _value(right, depth + 1)
            return _bounded(_OPERATORS[type(op)](*operands))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            return _called(name, [_value(each, depth + 1) for each in args])
    raise ToolError(f"not allowed in arithmetic: {_cut(ast.unparse(node))}")


def _called(name: str, args: list[Number]) -> Number:
    function, fewest, most = _FUNCTIONS[name]
    if not fewest <= len(args) <= most:
        raise ToolError(f"{name} takes {fewest} to {most} numbers, not {len(args)}")
    return _bounded(function(*args))


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, float) or isinstance(exponent, float) or exponent.denominator != 1:
        if base < Fraction(0):
            raise ToolError("a root of a negative number is not real")
        return math.pow(base, exponent)
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if size * abs(exponent.numerator) > _MAX_BITS and base not in (1, -1):
        raise ToolError("the result is too large")
    return Fraction(base**exponent.numerator)


def _rounded(value: Number, digits: Number = Fraction(0)) -> Number:
    if not -100 <= digits <= 100:
        raise ToolError("round takes at most 100 digits")
    return Fraction(round(Fraction(value), int(digits)))


def _root(value: Number) -> Number:
    if isinstance(value, Fraction) and value >= 0:
        top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
        if Fraction(top * top, bottom * bottom) == value:
            return Fraction(top, bottom)
    return math.sqrt(value)


def _factorial(value: Number) -> Number:
    if not 0 <= value <= 300 or value != int(value):
        raise ToolError("factorial takes a whole number of 0 to 300")
    return Fraction(math.factorial(int(value)))


def _divisor(a: Number, b: Number) -> Number:
    if int(a) != a or int(b) != b:
        raise ToolError("gcd takes whole numbers")
    return Fraction(math.gcd(int(a), int(b)))


def _of_float(function: Callable[[float], float]) -> Callable[[Number], Number]:
    return lambda value: function(float(value))


def _log(value: Number, base: Number = math.e) -> Number:
    return math.log(float(value)) if base == math.e else math.log(float(value), float(base))


def _bounded(value: Number) -> Number:
    """Return a number that later steps can afford; one without imprecision stays as it is."""
    if isinstance(value, int):
        value = Fraction(value)
    if isinstance(value, Fraction):
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MAX_BITS:
            raise ToolError("the result is too large")
    elif not math.isfinite(value):
        raise ToolError("the result is too large")
    return value


def _cut(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."


_CONSTANTS: dict[str, Number] = {"pi": math.pi, "e": math.e}
_OPERATORS: dict[type[ast.operator], Callable[..., Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
_FUNCTIONS: dict[str, tuple[Callable[..., Number], int, int]] = {
    "sqrt": (_root, 1, 1),
    "log": (_log, 1, 2),
    "ln": (_of_float(math.log), 1, 1),
    "log10": (_of_float(math.log10), 1, 1),
    "log2": (_of_float(math.log2), 1, 1),
    "exp": (_of_float(math.exp), 1, 1),
    "sin": (_of_float(math.sin), 1, 1),
    "cos": (_of_float(math.cos), 1, 1),
    "tan": (_of_float(math.tan), 1, 1),
    "abs": (abs, 1, 1),
    "round": (_rounded, 1, 2),
    "floor": (lambda value: Fraction(math.floor(value)), 1, 1),
    "ceil": (lambda value: Fraction(math.ceil(value)), 1, 1),
    "factorial": (_factorial, 1, 1),
    "gcd": (_divisor, 2, 2),
    "min": (min, 1, 32),
    "max": (max, 1, 32),
}
