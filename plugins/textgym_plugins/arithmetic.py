"""The prompt source `arithmetic`: every expression of a few operands and operators, by number."""

from __future__ import annotations

import functools
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from textgym import Prompt, PromptSource, ToolCall
from textgym.seeding import mix64_array
from textgym_plugins.numbering import digits_of, find_stride

_LARGEST_SPACE = 1 << 62  # the number of an expression fits an int64


class Arithmetic(PromptSource):
    """Arithmetic expressions such as `12+34=`, each with its exact value as the target."""

    name: ClassVar[str] = "arithmetic"

    digits: int = Field(default=2, ge=1, le=18)
    """Operands have at most this many decimal digits."""
    below: int | None = Field(default=None, ge=2)
    """Operands are smaller than this; `10**digits` by default."""
    operators: str = "+"
    """The operators that occur: a subset of `+-*`. `*` binds before `+` and `-`."""
    operands: int = Field(default=2, ge=2, le=8)
    """Operands of one expression."""
    text: str = "{expression}="
    """The user message; `{expression}` is where the expression goes."""
    limit: int = Field(default=1_000_000, ge=1, le=1 << 24)
    """Most prompts the source holds; of a larger space it takes an even spread."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        operators = self.operators
        if not operators or set(operators) - set("+-*") or len(set(operators)) < len(operators):
            raise ValueError(f"operators={operators!r} must be distinct characters out of '+-*'")
        if self.below is not None and self.below > 10**self.digits:
            raise ValueError(
                f"below={self.below} allows operands of more than digits={self.digits} digits; "
                f"set digits to {len(str(self.below - 1))}"
            )
        if "{expression}" not in self.text:
            raise ValueError(f"text={self.text!r} does not contain '{{expression}}'")
        if self._space > _LARGEST_SPACE:
            raise ValueError(
                f"operands={self.operands}, digits={self.digits} and operators={operators!r} make "
                f"{self._space:.1e} expressions; at most {_LARGEST_SPACE:.1e} can be numbered"
            )
        return self

    @functools.cached_property
    def _radix(self) -> int:
        return 10**self.digits if self.below is None else self.below

    @functools.cached_property
    def _space(self) -> int:
        return int(self._radix**self.operands * len(self.operators) ** (self.operands - 1))

    @functools.cached_property
    def _stride(self) -> int:
        return find_stride(self._space, self.limit)

    def num_prompts(self) -> int:
        """Return how many expressions there are, at most `limit`."""
        return min(self._space, self.limit)

    def prompt(self, index: int) -> Prompt:
        """Return expression number `index`."""
        if not 0 <= index < self.num_prompts():
            raise IndexError(f"prompt {index} of {self.num_prompts()}")
        radices = [self._radix] * self.operands + [len(self.operators)] * (self.operands - 1)
        digits = digits_of(index * self._stride % self._space, radices)
        operands = digits[: self.operands]
        operators = [self.operators[choice] for choice in digits[self.operands :]]
        expression = "".join(f"{a}{b}" for a, b in zip(operands, [*operators, ""], strict=True))
        return Prompt(
            id=expression,
            messages=self.text.replace("{expression}", expression),
            target=str(evaluate(operands, operators)),
            reward="math",
            metadata={"task": self.name},
        )

    def tool_calls(self, index: int) -> tuple[ToolCall, ...]:
        """Return the call of a calculator with the expression."""
        return (ToolCall("calculator", {"expression": self.prompt(index).id}),)

    def split_keys(self) -> NDArray[np.uint64]:
        """Return a hash of each expression, so it falls on one side whatever the bounds are."""
        index = np.arange(self.num_prompts(), dtype=np.uint64)
        if self._stride == 1:
            rest = index
        else:  # the product passes 64 bits
            rest = (index.astype(object) * self._stride % self._space).astype(np.uint64)
        words: list[NDArray[np.uint64]] = []
        for _ in range(self.operands):
            rest, operand = np.divmod(rest, np.uint64(self._radix))
            words.append(operand)
        codes = np.frombuffer(self.operators.encode(), dtype=np.uint8).astype(np.uint64)
        for _ in range(self.operands - 1):
            rest, choice = np.divmod(rest, np.uint64(len(self.operators)))
            words.append(codes[choice])
        return mix64_array(*words)


def evaluate(operands: list[int], operators: list[str]) -> int:
    """Return the exact value of an expression in which `*` binds before `+` and `-`."""
    terms = [operands[0]]
    for operator, operand in zip(operators, operands[1:], strict=True):
        if operator == "*":
            terms[-1] *= operand
        else:
            terms.append(operand if operator == "+" else -operand)
    return sum(terms)
