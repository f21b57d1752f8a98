"""The reward `reasoning_gym`: the verifier of the dataset that a prompt is from.

Some of the package's verifiers evaluate the answer as Python or as a sympy expression, which is
Python too. What would call anything there is refused before they see it.
"""

from __future__ import annotations

import ast
import math
import re
from typing import Any, ClassVar

from pydantic import BaseModel, Field, JsonValue, ValidationError

from textgym import Reward, Sample, Score
from textgym.errors import ConfigError, MissingExtraError, UnknownPromptSourceError
from textgym_plugins.reasoning.datasets import item, open_dataset
from textgym_plugins.thinking import after_thinking

EVALUATED = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
"""Datasets whose verifiers call `eval` on an answer."""
PARSED = frozenset(
    {"countdown", "intermediate_integration", "polynomial_multiplication", "puzzle24",
     "simple_integration"}
)  # fmt: skip
"""Datasets whose verifiers call sympy's `parse_expr`."""
_NAME = re.compile(r"[^\W\d]\w*")
_FUNCTIONS = frozenset(
    "sin cos tan sec csc cot asin acos atan sinh cosh tanh exp log ln sqrt pi Abs Integral".split()
)
_MAX_CHARACTERS = 20_000


class _Target(BaseModel):
    """What makes an item again."""

    dataset: str
    config: dict[str, JsonValue] = Field(default_factory=dict)
    seed: int = 0
    size: int = 500
    index: int
    answer: str | None = None


class ReasoningGymReward(Reward):
    """What the dataset's `score_answer` gives for the tagged answer."""

    name: ClassVar[str] = "reasoning_gym"

    tag: str | None = Field(default="answer", pattern=r"^\w+$")
    """The answer is what stands in the last pair of these tags after the thoughts; None takes all
    that does."""
    partial: bool = True
    """Keep the verifier's partial credit; otherwise what is less than 1.0 scores 0.0."""

    def score(self, sample: Sample) -> Score:
        """Return the verifier's value: `correct`, `partial`, `wrong`, `no_answer` or `refused`."""
        try:
            target = _Target.model_validate(sample.prompt.target)
            dataset = open_dataset(
                target.dataset, target.config, seed=target.seed, size=target.size
            )
            entry = item(dataset, target.index)
        except (ValidationError, ConfigError, UnknownPromptSourceError) as error:
            return Score.unscored(f"the target names no item: {error}")
        except MissingExtraError as error:
            return Score.failed("unavailable", str(error))
        answer = self._extract(sample.completion)
        if not answer:
            return Score(0.0, label="no_answer", reason=f"nothing in <{self.tag}> tags")
        if not is_harmless(target.dataset, answer):
            why = "the verifier would evaluate it as code"
            return Score(0.0, label="refused", reason=why, extracted=answer)
        return self._judge(dataset, entry, answer)

    def _extract(self, completion: str) -> str:
        text = after_thinking(completion)
        if text is None or self.tag is None:
            return (text or "").strip()
        *_, found = ["", *re.findall(rf"<{self.tag}>(.*?)</{self.tag}>", text, re.DOTALL)]
        return str(found).strip()

    def _judge(self, dataset: Any, entry: dict[str, Any], answer: str) -> Score:
        try:
            value = float(dataset.score_answer(answer, entry))
        except Exception as error:  # most of the verifiers expect the form of an answer
            what = f"the verifier cannot read it: {type(error).__name__}"
            return Score(0.0, label="wrong", reason=what, extracted=answer)
        if not math.isfinite(value):
            return Score.unscored(f"the verifier returned {value}", extracted=answer)
        value = min(1.0, max(0.0, value))
        label = "correct" if value == 1.0 else "partial" if value > 0.0 else "wrong"
        shown = value if self.partial else float(value == 1.0)
        return Score(shown, label=label, reason=f"{value:g} by the verifier", extracted=answer)


def is_harmless(dataset: str, answer: str) -> bool:
    """Return whether a verifier may see an answer: it cannot make it call anything."""
    if len(answer) > _MAX_CHARACTERS or "\0" in answer:
        return False
    if dataset in EVALUATED:
        return "(" not in answer or _is_literal(answer)
    if dataset in PARSED:
        names = _NAME.findall(answer)
        is_known = all(len(name) == 1 or name in _FUNCTIONS for name in names)
        return is_known and not set(answer) & set("'\"`_[]{}:;\\@") and ".." not in answer
    return True


def _is_literal(text: str) -> bool:
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return False
    return True
