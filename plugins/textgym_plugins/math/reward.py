"""The reward `math`: 1.0 if the final answer of a completion has the value of the target, else 0.0.

Plain numbers never leave this process and cost microseconds. What needs algebra goes to a killable
worker. When a comparison passes its time limit there, the target is tried alone: if that works, the
answer is what hangs, and it counts as wrong (a policy must not be able to have its samples masked
out); otherwise the sample has failed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar, NamedTuple

from pydantic import Field

from textgym import Reward, Sample, Score
from textgym.reward import Isolation
from textgym_plugins.math.answer import Answer, parse_answer
from textgym_plugins.math.characters import strip_decoration
from textgym_plugins.math.choice import letter_of, parse_choice
from textgym_plugins.math.compare import (
    Comparison,
    NeedsSymbolic,
    comparison_for,
    equal,
    final_value,
)
from textgym_plugins.math.correction import Extraction
from textgym_plugins.math.evaluation import TooLargeError
from textgym_plugins.math.extract import extract
from textgym_plugins.math.restated import is_unevaluated
from textgym_plugins.math.sentence import SEVERAL
from textgym_plugins.math.symbolic import Request, Verdict, compare_symbolically
from textgym_plugins.math.target import Target, read_target


class Pending(NamedTuple):
    """A sample whose comparison needs the algebra system."""

    request: Request
    extraction: Extraction


_PLAIN = re.compile(r"-?[0-9]{1,400}")


class MathReward(Reward):
    """Whether the final answer equals the target by value."""

    name: ClassVar[str] = "math"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    isolation: ClassVar[Isolation] = "inline"

    symbolic_time_limit: float = Field(default=5.0, gt=0, le=60)
    """Seconds one comparison by the algebra system may take before its worker is killed."""

    def score(self, sample: Sample) -> Score:
        """Return 1.0 (`correct`) or 0.0 (`wrong`, `no_answer`) with what was extracted and how."""
        [score] = self.score_batch([sample])
        return score

    def score_batch(self, samples: Sequence[Sample]) -> list[Score]:
        """Score a batch; all its symbolic comparisons go to the worker in one run."""
        judged = [judge(sample) for sample in samples]
        pending = [found for found in judged if isinstance(found, Pending)]
        verdicts = iter(
            compare_symbolically([p.request for p in pending], time_limit=self.symbolic_time_limit)
        )
        return [
            self._score(found, next(verdicts)) if isinstance(found, Pending) else found
            for found in judged
        ]

    def _score(self, pending: Pending, verdict: Verdict) -> Score:
        extraction = pending.extraction
        if verdict.failure is None:
            if not verdict.is_equal:
                return _wrong(extraction, "differs from the target as an expression")
            return _right(extraction, "an expression")
        if verdict.blame == "missing":
            return Score.failed("unavailable", verdict.failure.message)
        if verdict.blame == "answer":
            reason = (
                f"cannot be compared ({verdict.failure.kind} after at most "
                f"{self.symbolic_time_limit:g} s), while the target alone can"
            )
            return _wrong(extraction, reason)
        message = f"the worker for symbolic comparisons: {verdict.failure.message}"
        return Score.failed(verdict.failure.kind, message)


def judge(sample: Sample) -> Score | Pending:
    """Score a sample, or return what only the algebra system can compare."""
    gold = sample.prompt.target
    if isinstance(gold, bool) or not isinstance(gold, (str, int, float)):
        return Score.unscored(
            f"the target of prompt '{sample.prompt.id}' is {gold!r}, not an answer"
        )
    target = read_target(gold if isinstance(gold, str) else _number_text(gold))
    if target is None:
        return Score.unscored(f"the target of prompt '{sample.prompt.id}' is empty")
    completion = sample.completion.strip()
    if target.plain is not None and _PLAIN.fullmatch(completion):
        if int(completion) == target.plain:
            return Score(
                1.0, label="correct", reason="last line; equal as numbers", extracted=completion
            )
        return Score(0.0, label="wrong", reason="last line; different number", extracted=completion)
    wants_words = target.answer.kind == "text"
    extraction = extract(_without_echo(completion, sample), wants_words=wants_words)
    if extraction.text is None:
        return _nothing(extraction.how)
    return _compare(target, extraction, sample)


def _number_text(value: float) -> str:
    # repr of a float is its shortest exact form: 0.1 means one tenth, as it was written.
    return repr(value)


def _without_echo(completion: str, sample: Sample) -> str:
    """Return the completion without the prompt that it repeats: a question is no answer."""
    prompt = sample.prompt.text.strip()
    return completion.replace(prompt, "\n") if len(prompt) >= 8 else completion


def _compare(target: Target, extraction: Extraction, sample: Sample) -> Score | Pending:
    assert extraction.text is not None
    text = strip_decoration(extraction.text)
    choice = parse_choice(text)
    if choice is not None:
        if choice.letter == letter_of(target.text):
            return _right(Extraction(text, extraction.how), "a choice")
        text = choice.text
    extraction = Extraction(text, extraction.how)
    given = parse_answer(text)
    if target.answer.kind == "text":
        return _compare_words(target, given, extraction)
    if given is None:
        return _wrong(extraction, "cannot be read as an answer")
    return _compare_values(target, given, extraction, sample.prompt.text)


def _compare_values(
    target: Target, given: Answer, extraction: Extraction, prompt: str
) -> Score | Pending:
    how = _EXACT
    if not _is_plain(target.answer) or not _is_plain(given) or target.rounding is not None:
        how = comparison_for(prompt, target.rounding)
    try:
        is_equal = equal(target.answer, given, how)
    except NeedsSymbolic:
        if _is_undone(target, given, prompt):
            return _no_answer(extraction, "not worked out")
        return Pending(Request(target.answer, given, how), extraction)
    except TooLargeError:
        return _wrong(extraction, "too large to be an answer")
    if is_equal:
        if _is_undone(target, given, prompt):
            return _no_answer(extraction, "restates the question without working it out")
        return _right(extraction, _DESCRIPTION[given.kind])
    if _has_several_values(target.answer, given):
        return _no_answer(extraction, SEVERAL)
    return _wrong(extraction, "differs from the target")


def _is_undone(target: Target, given: Answer, prompt: str) -> bool:
    is_rounded = target.rounding is not None
    return is_unevaluated(target.answer, given, prompt, is_rounded=is_rounded)


_EXACT = Comparison()
_DESCRIPTION = {
    "number": "numbers",
    "expression": "an expression",
    "list": "a list",
    "set": "a set",
    "tuple": "a tuple or interval",
    "union": "a union of intervals",
    "matrix": "a matrix",
    "relation": "an equation or inequality",
    "text": "words",
}
"""What a score says that an answer of this kind was compared as."""


def _is_plain(answer: Answer) -> bool:
    return answer.quantity is not None and not answer.quantity.unit


def _has_several_values(target: Answer, given: Answer) -> bool:
    """Whether an answer lists several values where the target is one."""
    if target.kind not in ("number", "expression"):
        return False
    if given.kind == "relation":
        return final_value(given) is None
    return given.kind == "list" and len({item.text for item in given.items}) > 1


def _compare_words(target: Target, given: Answer | None, extraction: Extraction) -> Score:
    assert extraction.text is not None
    if given is not None and equal(target.answer, given, _EXACT):
        return _right(extraction, "words")
    if read_as_text(extraction.text) == read_as_text(target.text):
        return _right(extraction, "text")
    return _wrong(extraction, "differs from the target as text")


def read_as_text(text: str) -> str:
    """Return text without spaces, case and braces, for targets that are no mathematics."""
    target = read_target(text) if len(text) <= 2000 else None
    return target.answer.text.casefold() if target is not None else text


def _right(extraction: Extraction, as_what: str) -> Score:
    reason = f"{extraction.how}; equal as {as_what}"
    return Score(1.0, label="correct", reason=reason, extracted=extraction.text)


def _wrong(extraction: Extraction, why: str) -> Score:
    return Score(0.0, label="wrong", reason=f"{extraction.how}; {why}", extracted=extraction.text)


def _no_answer(extraction: Extraction, why: str) -> Score:
    return Score(
        0.0, label="no_answer", reason=f"{extraction.how}; {why}", extracted=extraction.text
    )


@lru_cache(maxsize=64)
def _nothing(why: str) -> Score:
    return Score(0.0, label="no_answer", reason=why)
