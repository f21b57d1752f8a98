r"""Whether two parsed answers are equal by value, structure by structure.

Lists and sets are equal in any order, tuples, matrices and end points only in theirs. Plain numbers
are compared as fractions. Two expressions are compared by their exact value, then at one point
(where they differ, they are different), and only then by the `oracle`, which is the computer
algebra system. Nothing is rounded unless the target says that it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple, TypeVar

from textgym_plugins.math import units
from textgym_plugins.math.answer import Answer
from textgym_plugins.math.evaluation import OVERFLOW, exact_value, sample_value
from textgym_plugins.math.intervals import Interval, to_intervals, variable_of
from textgym_plugins.math.quantity import Quantity
from textgym_plugins.math.tree import Node, contains

T = TypeVar("T")


class NeedsSymbolic(Exception):
    """Only the computer algebra system can tell."""


Oracle = Callable[[Node, Node, bool], bool]
"""Takes two trees, and whether they are equations written as `left - right`."""


def no_oracle(target: Node, given: Node, is_equation: bool) -> bool:
    """Raise `NeedsSymbolic`: the oracle of a process that holds no algebra system."""
    raise NeedsSymbolic


class Comparison(NamedTuple):
    """What a comparison depends on besides the two answers."""

    oracle: Oracle = no_oracle
    is_percent: bool = False
    """The prompt asks for a percentage: `50` and `50%` are the same answer."""
    is_ordered: bool = False
    """The prompt asks for an order: lists are compared in theirs."""
    rounding: int | None = None
    """The target is rounded to this many decimals; None if it is exact."""


_PERCENT = re.compile(r"%|per ?cent|百分", re.IGNORECASE)
_ORDERED = re.compile(
    r"\b(?:in (?:(?:ascending|descending|increasing|decreasing|alphabetical|this|that|the"
    r"|numerical) )?order|respectively|least to greatest|greatest to least|smallest to largest"
    r"|largest to smallest|ordered (?:pair|triple))\b",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def comparison_for(prompt: str, rounding: int | None) -> Comparison:
    """Return how answers to this prompt are compared."""
    is_percent, is_ordered = _PERCENT.search(prompt), _ORDERED.search(prompt)
    return Comparison(no_oracle, is_percent is not None, is_ordered is not None, rounding)


def equal(target: Answer, given: Answer, how: Comparison) -> bool:
    """Return whether `given` has the value of `target`.

    Raises:
        NeedsSymbolic: only the oracle can tell, and there is none.
        TooLargeError: a value has thousands of digits.
    """
    if target.kind == "number" and given.kind == "number":
        assert target.quantity
        assert given.quantity
        return equal_numbers(target.quantity, given.quantity, how)
    if target.text == given.text and target.kind == given.kind:
        return True
    if "relation" in (target.kind, given.kind) or "union" in (target.kind, given.kind):
        return _equal_relations(target, given, how)
    if "text" in (target.kind, given.kind):
        return _equal_words(target, given)
    if target.kind in ("number", "expression") and given.kind in ("number", "expression"):
        return _equal_expressions(target, given, how)
    return _equal_collections(target, given, how)


def equal_numbers(target: Quantity, given: Quantity, how: Comparison) -> bool:
    """Return whether two plain numbers agree in value and unit."""
    for factor in units.conversions(target.unit, given.unit, is_percent=how.is_percent):
        value = given.value if factor == 1 else given.value * factor
        if value == target.value:
            return True
        if how.rounding is not None:
            return abs(value - target.value) <= Fraction(10) ** -how.rounding / 2
    return False


def _equal_expressions(target: Answer, given: Answer, how: Comparison) -> bool:
    left, right = _as_node(target), _as_node(given)
    factors = units.conversions(_unit(target), _unit(given), is_percent=how.is_percent)
    return any(equal_nodes(left, _scaled(right, factor), how) for factor in factors)


def _scaled(node: Node, factor: Fraction) -> Node:
    return node if factor == 1 else Node("mul", (node, Node("num", value=factor)))


def equal_nodes(left: Node, right: Node, how: Comparison) -> bool:
    """Return whether two expressions are equal, asking the oracle last."""
    if left == right:
        return True
    try:
        left_value, right_value = exact_value(left), exact_value(right)
    except ZeroDivisionError:
        return False
    if left_value is not None and right_value is not None and how.rounding is None:
        return left_value == right_value
    if contains(left, "const", "infty") or contains(right, "const", "infty"):
        return False
    left_sample, right_sample = sample_value(left), sample_value(right)
    if OVERFLOW in (left_sample, right_sample) and None not in (left_sample, right_sample):
        # `9^{9^{x}}` against `x + 1`: no need to spend the time limit of the algebra system.
        return left_sample == right_sample and how.oracle(left, right, False)
    if left_sample is not None and right_sample is not None:
        difference = abs(left_sample - right_sample)
        if how.rounding is not None and not (contains(left, "var") or contains(right, "var")):
            # A tie cannot be told in floating point; an irrational value has none.
            return difference <= 0.5 * 10.0**-how.rounding
        if difference > 1e-6 * max(1.0, abs(left_sample), abs(right_sample)):
            return False
    return how.oracle(left, right, False)


def _as_node(answer: Answer) -> Node:
    if answer.node is not None:
        return answer.node
    assert answer.quantity is not None
    return Node("num", value=answer.quantity.value)


def _unit(answer: Answer) -> str:
    return answer.quantity.unit if answer.quantity is not None else answer.name


def _equal_words(target: Answer, given: Answer) -> bool:
    r"""Compare words, and the letter of a choice written as `(C)`, `C` or `\text{C}`."""
    return _as_words(target) == _as_words(given)


def _as_words(answer: Answer) -> str:
    return answer.text.strip("()").casefold()


def _equal_relations(target: Answer, given: Answer, how: Comparison) -> bool:
    left, right = to_intervals(target), to_intervals(given)
    if left is not None and right is not None:
        return _match(left, right, lambda a, b: _equal_intervals(a, b, how))
    if _is_equation(target) and _is_equation(given):
        return _equal_equations(target, given, how)
    if _is_equation(given):
        return final_value(given) is not None and _equal_to_chain(target, given, how)
    if _is_equation(target) and variable_of(target.items[0]):
        return equal(target.items[-1], given, how)
    if "relation" == target.kind == given.kind and target.name == given.name:
        pairs = zip(target.items, given.items, strict=False)
        return len(target.items) == len(given.items) and all(equal(a, b, how) for a, b in pairs)
    return False


def _is_equation(answer: Answer) -> bool:
    return answer.kind == "relation" and set(answer.name.split()) <= {"=", r"\approx", r"\equiv"}


def _equal_to_chain(target: Answer, given: Answer, how: Comparison) -> bool:
    r"""Compare with `x = 84/2 = 42`; of `10/3 \approx 3.33` the exact side counts as well."""
    if equal(target, given.items[-1], how):
        return True
    if not given.name.endswith(r"\approx") or given.items[-1].quantity is None:
        return False
    exact = given.items[-2]
    return exact.kind in ("number", "expression") and equal(target, exact, how)


def final_value(chain: Answer) -> Answer | None:
    """Return the last side of `a = b = c`, or None if its plain numbers contradict each other."""
    numbers = {
        item.quantity.value
        for item, operator in zip(chain.items, ["=", *chain.name.split()], strict=True)
        if item.quantity is not None and operator == "="
    }
    is_approximate = chain.name.endswith(r"\approx")
    if len(numbers) > 1 or (is_approximate and not _is_rounding(*chain.items[-2:])):
        return None
    return chain.items[-1]


def _is_rounding(exact: Answer, rounded: Answer) -> bool:
    r"""Whether `a \approx b` is one value: less than one apart in the last digit of b."""
    if rounded.quantity is None or _unit(exact) != _unit(rounded):
        return True
    if exact.quantity is None and (exact.node is None or contains(exact.node, "var")):
        return True
    value, shown = sample_value(_as_node(exact)), sample_value(_as_node(rounded))
    ulp = 10.0**-rounded.quantity.decimals
    return value is not None and shown is not None and abs(value - shown) < ulp


def _equal_equations(target: Answer, given: Answer, how: Comparison) -> bool:
    target_name, name = variable_of(target.items[0]), variable_of(given.items[0])
    if target_name and name:
        return target_name == name and equal(target.items[-1], given.items[-1], how)
    if not (len(target.items) == len(given.items) == 2):
        return False
    if all(equal(a, b, how) for a, b in zip(target.items, given.items, strict=True)):
        return True
    sides = (*target.items, *given.items)
    if any(side.kind not in ("number", "expression") for side in sides):
        return False
    left, right = (
        Node("add", (_as_node(e.items[0]), Node("neg", (_as_node(e.items[1]),))))
        for e in (target, given)
    )
    return how.oracle(left, right, True)


def _equal_intervals(left: Interval, right: Interval, how: Comparison) -> bool:
    if left.variable and right.variable and left.variable != right.variable:
        return False
    if left[2:4] != right[2:4]:
        return False
    ends = ((left.low, right.low), (left.high, right.high))
    if any((a is None) != (b is None) for a, b in ends):
        return False
    return all(equal(a, b, how) for a, b in ends if a is not None and b is not None)


def _equal_collections(target: Answer, given: Answer, how: Comparison) -> bool:
    if target.kind == given.kind == "matrix" or target.kind == given.kind == "tuple":
        if target.kind == "tuple" and len(target.items) == 2 and target.name != given.name:
            return False
        return _in_order(target.items, given.items, how)
    if {target.kind, given.kind} == {"tuple", "list"}:
        return _in_order(target.items, given.items, how)
    unordered = ("list", "set")
    if target.kind in unordered and given.kind in unordered:
        if how.is_ordered and target.kind == given.kind == "list":
            return _in_order(target.items, given.items, how)
        return _match(_distinct(target), _distinct(given), lambda a, b: equal(a, b, how))
    if target.kind in unordered and len(_distinct(target)) == 1:
        return equal(target.items[0], given, how)
    if given.kind in unordered and target.kind not in unordered:
        # "5/2 or 2.5": one value, written twice.
        return all(equal(target, item, how) for item in given.items)
    return False


def _distinct(answer: Answer) -> list[Answer]:
    return list({item.text: item for item in answer.items}.values())


def _in_order(left: tuple[Answer, ...], right: tuple[Answer, ...], how: Comparison) -> bool:
    pairs = zip(left, right, strict=False)
    return len(left) == len(right) and all(equal(a, b, how) for a, b in pairs)


def _match(left: list[T], right: list[T], same: Callable[[T, T], bool]) -> bool:
    """Return whether the two lists hold equal elements in some order (equality is transitive)."""
    if len(left) != len(right) or len(left) > 50:
        return False
    remaining = list(right)
    for element in left:
        found = next((i for i, other in enumerate(remaining) if same(element, other)), None)
        if found is None:
            return False
        del remaining[found]
    return True
