r"""Intervals, also those written as inequalities: `[1, 2)` and `1 \le x < 2` are one thing."""

from __future__ import annotations

import re
from typing import NamedTuple

from textgym_plugins.math.answer import Answer
from textgym_plugins.math.tree import contains


class Interval(NamedTuple):
    """An interval, also one written as an inequality in `variable`."""

    low: Answer | None
    high: Answer | None
    is_low_open: bool
    is_high_open: bool
    variable: str = ""


_FUNCTION = re.compile(r"[fghpqFGHPQ]\([a-z]\)")


def variable_of(answer: Answer) -> str:
    """Return the name of a side that is one variable or `f(x)`, else the empty string."""
    if _FUNCTION.fullmatch(answer.text):
        return answer.text
    return answer.node.name if answer.node is not None and answer.node.kind == "var" else ""


def to_intervals(answer: Answer) -> list[Interval] | None:
    """Return the intervals that an interval, an inequality or a union of them denotes."""
    if answer.kind in ("union", "list"):
        parts = [to_intervals(item) for item in answer.items]
        if any(part is None for part in parts):
            return None
        return [interval for part in parts if part is not None for interval in part]
    if answer.kind == "tuple" and len(answer.items) == 2:
        low, high = (None if _is_infinite(item) else item for item in answer.items)
        return [Interval(low, high, answer.name[0] == "(", answer.name[1] == ")")]
    interval = _inequality(answer) if answer.kind == "relation" else None
    return None if interval is None else [interval]


def _is_infinite(answer: Answer) -> bool:
    return answer.node is not None and contains(answer.node, "const", "infty")


_LESS = {"<": True, r"\le": False}
_GREATER = {">": True, r"\ge": False}


def _inequality(answer: Answer) -> Interval | None:
    operators, items = answer.name.split(), answer.items
    if all(operator in _GREATER for operator in operators):
        mirrored = {">": "<", r"\ge": r"\le"}
        operators, items = [mirrored[o] for o in reversed(operators)], items[::-1]
    if not all(operator in _LESS for operator in operators):
        return None
    is_open = [_LESS[operator] for operator in operators]
    names = [variable_of(item) for item in items]
    if len(items) == 3 and names[1] and not names[0] and not names[2]:
        low, high = (None if _is_infinite(item) else item for item in (items[0], items[2]))
        return Interval(low, high, is_open[0], is_open[1], names[1])
    if len(items) == 2 and bool(names[0]) != bool(names[1]):
        if names[0]:
            return Interval(None, items[1], True, is_open[0], names[0])
        return Interval(items[0], None, is_open[0], True, names[1])
    return None
