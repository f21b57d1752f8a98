"""Filters in words: `reward<0.5 status:timeout tokens>20 apple` chooses rollouts.

A condition is a name, a sign and a value without spaces in between; every other word must be in
the text of the rollout. All of them must hold.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from textgym.errors import ConfigError, did_you_mean
from textgym_agents.reports.rollout_table import RolloutTable

_CONDITION = re.compile(r"(?P<name>[\w./-]+)(?P<sign><=|>=|<|>|=|:)(?P<value>\S*)")
_SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq,
}  # fmt: skip
_NUMBERS = {"reward": "reward", "tokens": "length", "iteration": "iteration"}
_TEXTS = ("status", "phase", "label", "task", "finish", "id")
_SUCCESS = {"yes": 1, "no": 0, "unknown": None}
_SEARCHED = ("completion", "target", "extracted", "reason", "error", "label", "id")

Test = Callable[[int], bool]


class Filter(NamedTuple):
    """A filter that was understood."""

    tests: list[Test]

    def apply(self, count: int) -> list[int]:
        """Return the numbers of the rollouts, of so many, for which all tests hold."""
        return [i for i in range(count) if all(test(i) for test in self.tests)]


def parse_filter(text: str, table: RolloutTable) -> Filter:
    """Return the filter of a text.

    Raises:
        ConfigError: a condition whose name or value means nothing.
    """
    parts = {part for each in table.columns.get("parts", []) for part in each}
    return Filter([_test(word, table, parts) for word in text.split()])


def _test(word: str, table: RolloutTable, parts: set[str]) -> Test:
    match = _CONDITION.fullmatch(word)
    if match is None:
        return _contains(word.lower(), table)
    name, sign, value = match["name"], match["sign"], match["value"]
    if name in _NUMBERS:
        return _compares(table.columns.get(_NUMBERS[name], []), sign, value, word)
    if name == "success":
        return _succeeds(value, table)
    if name in _TEXTS:
        column = table.columns.get(name, [])
        return lambda i: value.lower() in column[i].lower()
    if name in parts:
        values = [each.get(name) for each in table.columns["parts"]]
        return _compares(values, sign, value, word)
    if sign == ":":  # such as a time of day, or a key of JSON
        return _contains(word.lower(), table)
    known = [*_NUMBERS, "success", *_TEXTS, *sorted(parts)]
    raise ConfigError(f"no '{name}' to filter by.{did_you_mean(name, known)}")


def _contains(word: str, table: RolloutTable) -> Test:
    columns, prompts = table.columns, table.prompts

    def test(i: int) -> bool:
        if word in prompts[columns["prompt"][i]].lower():
            return True
        return any(word in columns[name][i].lower() for name in _SEARCHED)

    return test


def _compares(values: Sequence[Any], sign: str, value: str, word: str) -> Test:
    compare = _SIGNS.get("=" if sign == ":" else sign)
    try:
        bound = float(value)
    except ValueError:
        raise ConfigError(f"'{word}': '{value}' is no number") from None
    assert compare is not None
    return lambda i: values[i] is not None and compare(values[i], bound)


def _succeeds(value: str, table: RolloutTable) -> Test:
    if value not in _SUCCESS:
        raise ConfigError(f"success:{value} means nothing; yes, no or unknown")
    wanted, column = _SUCCESS[value], table.columns.get("success", [])
    return lambda i: column[i] == wanted
