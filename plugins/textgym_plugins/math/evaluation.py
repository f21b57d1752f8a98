"""What an expression is worth, without an algebra system.

Three things can be told: its exact rational value, that a part of it is far too large to be an
answer (so that no algebra system ever sees `9^{9^{9}}`), and its complex value at one fixed point:
two trees that differ there are different.
"""

from __future__ import annotations

import cmath
import math
from fractions import Fraction
from functools import lru_cache

from textgym_plugins.math.tree import Node

MAX_VALUE_BITS = 13_000
"""Largest size of an exact value: 3,900 digits, below Python's limit for printing integers."""
MAX_EXPONENT = 10_000
MAX_FACTORIAL = 1_000


class TooLargeError(Exception):
    """A value with thousands of digits: no answer, and nothing to compute with."""


@lru_cache(maxsize=4096)
def exact_value(node: Node) -> Fraction | None:
    """Return the rational value of a tree, or None if it has none or is not known to be rational.

    Raises:
        TooLargeError: a part of the tree has a value of thousands of digits.
        ZeroDivisionError: a part of the tree divides by zero.
    """
    values = list(map(exact_value, node.args))
    if node.kind == "num":
        return node.value
    if node.kind == "pow" and values[1] is not None and abs(values[1]) > MAX_EXPONENT:
        raise TooLargeError
    if not values or any(value is None for value in values):
        return None
    return _bounded(_evaluate(node, [value for value in values if value is not None]))


def _evaluate(node: Node, values: list[Fraction]) -> Fraction | None:
    kind, first, second = node.kind, values[0], values[-1]
    if kind == "add":
        return sum(values, Fraction(0))
    if kind == "mul":
        return math.prod(values, start=Fraction(1))
    if kind in ("div", "frac"):
        return first / second
    if kind == "neg":
        return -first
    if kind == "pow":
        return _power(first, second)
    if kind == "root":
        return _root(first, second)
    if kind == "factorial":
        return _factorial(first)
    if kind == "binom":
        return _binomial(first, second)
    return abs(first) if node.name == "abs" else None


def _bounded(value: Fraction | None) -> Fraction | None:
    if value is not None and max(_bits(value.numerator), _bits(value.denominator)) > MAX_VALUE_BITS:
        raise TooLargeError
    return value


def _bits(value: int) -> int:
    return value.bit_length()


def _power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1:
        root = _root(base, Fraction(exponent.denominator))
        return None if root is None else _power(root, Fraction(exponent.numerator))
    if max(_bits(base.numerator), _bits(base.denominator)) * abs(exponent) > 2 * MAX_VALUE_BITS:
        if abs(base) in (0, 1):
            return base ** (exponent.numerator % 2 or 2) if exponent > 0 else None
        raise TooLargeError
    return base**exponent.numerator


def _root(value: Fraction, index: Fraction) -> Fraction | None:
    if index.denominator != 1 or not 1 < index <= 64 or value < 0:
        return None
    top, bottom = (_integer_root(part, index.numerator) for part in value.as_integer_ratio())
    return None if top is None or bottom is None else Fraction(top, bottom)


def _integer_root(value: int, index: int) -> int | None:
    if index == 2:
        root = math.isqrt(value)
    else:
        low, high = 0, 1 << (value.bit_length() // index + 1)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if middle**index <= value else (low, middle - 1)
        root = low
    return root if root**index == value else None


def _factorial(value: Fraction) -> Fraction | None:
    if value > MAX_FACTORIAL:
        raise TooLargeError
    if value.denominator != 1 or value < 0:
        return None
    return Fraction(math.factorial(value.numerator))


def _binomial(n: Fraction, k: Fraction) -> Fraction | None:
    if max(abs(n), abs(k)) > MAX_FACTORIAL:
        raise TooLargeError
    if n.denominator != 1 or k.denominator != 1 or min(n, k) < 0:
        return None
    return Fraction(math.comb(n.numerator, k.numerator))


OVERFLOW = complex(math.inf)
"""The sampled value of a tree that is too large for a float, or has a part that is."""


@lru_cache(maxsize=4096)
def sample_value(node: Node) -> complex | None:
    """Return the value of a tree at a fixed point, `OVERFLOW`, or None where it has none."""
    try:
        value = _sample(node)
    except OverflowError:
        return OVERFLOW
    except (ArithmeticError, ValueError, TypeError):
        return None
    return value if cmath.isfinite(value) else None


def _sample(node: Node) -> complex:
    if node.kind == "num":
        return complex(float(node.value))
    if node.kind == "const":
        return {"pi": cmath.pi, "e": cmath.e}[node.name] if node.name != "infty" else cmath.inf
    if node.kind == "var":
        # i is the imaginary unit; were it a variable, 1j would be as good a point as any.
        position = sum((index + 1) * ord(char) for index, char in enumerate(node.name))
        return 1j if node.name == "i" else complex(1.1 + (position * 0.6180339887) % 1.7)
    values = list(map(_sample, node.args))
    first, second = values[0], values[-1]
    if node.kind == "add":
        return sum(values)
    if node.kind == "mul":
        return math.prod(values, start=complex(1))
    if node.kind in ("div", "frac"):
        return first / second
    if node.kind == "neg":
        return -first
    if node.kind in ("pow", "root"):
        exponent = second if node.kind == "pow" else 1 / second
        # Roots of negative numbers mean the real root to some and the principal one to others.
        if exponent != int(exponent.real) and not (first.imag == 0 and first.real >= 0):
            raise ValueError("ambiguous root")
        return first**exponent
    return _sample_function(node, values)


def _sample_function(node: Node, values: list[complex]) -> complex:
    exact = exact_value(node)
    if exact is not None:
        return complex(float(exact))
    first = values[0]
    if node.name == "abs":
        return complex(abs(first))
    if node.name == "ln" or (node.name == "log" and len(values) == 2):
        return cmath.log(first) / (cmath.log(values[1]) if len(values) == 2 else 1)
    simple = {"sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "exp": cmath.exp}
    if node.name in simple:
        return simple[node.name](first)
    if node.kind == "factorial" and first.imag == 0:
        return complex(math.gamma(first.real + 1))
    if node.kind == "binom" and first.imag == values[1].imag == 0:
        n, k = first.real, values[1].real
        return complex(math.gamma(n + 1) / math.gamma(k + 1) / math.gamma(n - k + 1))
    raise ValueError(node.name)
