"""Completions that answer nothing, and targets that mean nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType

from pydantic import JsonValue

from textgym.testing.cases import Case

_LONG = 1_000_000

PROBES: Mapping[str, Callable[[Case], str]] = MappingProxyType(
    {
        "empty": lambda _: "",
        "blank": lambda _: " \n\t ",
        "prompt echoed": lambda case: case.prompt.text,
        "target among others": lambda case: (
            f"The answer is 7 or {_target(case)} or 13 or none of these."
        ),
        "every option listed": lambda case: "It is one of these: " + " or ".join(_options(case)),
        "1 MB of text": lambda _: "word " * (_LONG // 5),
        "1 MB of one bracket": lambda _: "{" * _LONG,
        "1 MB of one letter": lambda _: "a" * _LONG + "!",
        "1 MB of blanks": lambda _: " " * _LONG + "!",
        "NUL bytes": lambda _: "\0" * 100,
        "lone surrogate": lambda _: "\ud800",
    }
)
"""Completions that answer nothing, made for a case, by the name of the trick."""

EXPENSIVE = tuple(trick for trick in PROBES if trick.startswith("1 MB"))
"""Probes that need one case only: they hold nothing of it, and scoring them takes long."""

BAD_TARGETS: Mapping[str, JsonValue] = MappingProxyType(
    {
        "null": None,
        "an empty text": "",
        "a list of nulls": [None, None],
        "an object of another shape": {"unexpected": [1, {"deep": []}]},
        "a negative number": -1.5,
        "true": True,
    }
)
"""Targets that a data file may hold by mistake, by what they are."""


def probes(case: Case) -> dict[str, str]:
    """Return the completions that answer nothing, by the name of the trick."""
    return {trick: make(case) for trick, make in PROBES.items()}


def _target(case: Case) -> str:
    """Return the target as the policy would write it; of several accepted answers the first."""
    target = case.prompt.target
    if isinstance(target, list) and target:
        target = target[0]
    return target if isinstance(target, str) else json.dumps(target)


def _options(case: Case) -> list[str]:
    gold = case.gold[:1] or (_target(case),)
    return [*case.wrong, *gold, *case.wrong]
