"""The prompt source `tiny_code`: a function of one expression, to be found from two examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from pydantic import Field, model_validator

from textgym import Demonstrations, Prompt
from textgym_plugins.numbering import digits_of, pick_distinct
from textgym_plugins.tiny.source import Task, TinySource

_HIDDEN = (11, 24, 53)
"""Inputs that are tested but not shown, where no two of the expressions agree."""
_HEADER = "def f(x):\n"


class TinyCode(TinySource):
    """Examples such as `f(2)=6` and `f(5)=9`, of which `return x+4` is the program."""

    name: ClassVar[str] = "tiny_code"

    operators: str = "+-*"
    """What the expression does to x: a subset of `+-*`."""
    below: int = Field(default=10, ge=4, le=100)
    """Constants and shown inputs are smaller than this."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        operators = self.operators
        if not operators or set(operators) - set("+-*") or len(set(operators)) < len(operators):
            raise ValueError(f"operators={operators!r} must be distinct characters out of '+-*'")
        return self

    def _sizes(self) -> Sequence[int]:
        return [(self.below - 2) * self.below * (self.below - 1)] * len(self.operators)

    def _make(self, kind: int, number: int, name: str) -> Task:
        below, operator = self.below, self.operators[kind]
        offset, *inputs = digits_of(number, (below - 2, below, below - 1))
        constant = 2 + offset  # x*1 is x+0
        shown = pick_distinct(range(below), inputs)
        examples = "".join(f"f({x})={_apply(operator, x, constant)}\n" for x in shown)
        cases = [
            {"args": [x], "expected": _apply(operator, x, constant)} for x in (*shown, *_HIDDEN)
        ]
        prompt = Prompt(
            id=name,
            messages=f"{examples}{_HEADER.rstrip()}",
            target={"kind": "function", "entry": "f", "header": _HEADER, "cases": cases},
            reward="code",
            metadata={"task": self.name},
        )
        wrong = [_program(other, constant) for other in "+-*" if other != operator]
        wrong += [_program(operator, constant + step) for step in (-1, 1)]
        return Task(prompt, Demonstrations((_program(operator, constant),), tuple(wrong)))


def _apply(operator: str, x: int, constant: int) -> int:
    return {"+": x + constant, "-": x - constant, "*": x * constant}[operator]


def _program(operator: str, constant: int) -> str:
    return f"return x{operator}{constant}"
