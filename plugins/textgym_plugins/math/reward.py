"""The reward `math`: 1.0 if the final answer of a completion has the value of the target, else 0.0.

Plain numbers never leave this process and cost microseconds. What needs algebra goes to a killable
worker. When a comparison passes its time limit there, the target is tried alone: if that works, the
answer is what hangs, and it counts as wrong (a policy must not be able to have its samples masked
out); otherwise the sample has failed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from pydantic import Field

from textgym import Reward, Sample, Score
from textgym.reward import Isolation
from textgym_plugins.math.answer import Answer, parse_answer
from textgym_plugins.math.characters import strip_decoration
from textgym_plugins.math.compare import (
    Comparison,
    NeedsSymbolic,
    comparison_for,
    equal,
    final_value,
)
from textgym_plugins.math.evaluation import TooLargeError
from textgym_plugins.math.extract import Extraction, extract
from textgym_plugins.math.restated import is_unevaluated
from textgym_plugins.math.sentence import SEVERAL
from textgym_plugins.math.symbolic import Request, Verdict, compare_symbolically
from textgym_plugins.math.target import Target, read_target


class Pending(NamedTuple):
    """A sample whose comparison needs the algebra system."""

    request: Request
    extraction: Extraction


_PLAIN = re.compile(r"-?[0-9]{1,18}")
_CHOICE = re.compile(r"\(?([A-Z])\)?\s?[.:)]\s?\S")


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
            self._score(found, sample, next(verdicts)) if isinstance(found, Pending) else found
            for found, sample in zip(judged, samples, strict=True)
        ]

    def _score(self, pending: Pending, sample: Sample, verdict: Verdict) -> Score:
        extraction, request = pending.extraction, pending.request
        if verdict.failure is None:
            assert request.given is not None
            if not verdict.is_equal:
                return _wrong(extraction, "differs from the target as an expression")
            return _correct(extraction, request.given, request.target, sample, "an expression")
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
        return Score(0.0, label="no_answer", reason=extraction.how)
    return _compare(target, extraction, sample)


def _number_text(value: float) -> str:
    # repr of a float is its shortest exact form: 0.1 means one tenth, as it was written.
    return repr(value)


def _without_echo(completion: str, sample: Sample) -> str:
    """Return the completion without the prompt that it begins with: a question is no answer."""
    prompt = sample.prompt.text.strip()
    return completion.removeprefix(prompt) if len(prompt) >= 8 else completion


def _compare(target: Target, extraction: Extraction, sample: Sample) -> Score | Pending:
    assert extraction.text is not None
    text = strip_decoration(extraction.text)
    extraction = Extraction(text, extraction.how)
    given = parse_answer(text)
    if target.answer.kind == "text":
        return _compare_words(target, given, extraction)
    if given is None:
        return _compare_unread(target, extraction)
    how = _EXACT
    if not _is_plain(target.answer) or not _is_plain(given) or target.rounding is not None:
        how = comparison_for(sample.prompt.text, target.rounding)
    try:
        if not equal(target.answer, given, how):
            if _has_several_values(target.answer, given):
                return Score(
                    0.0, label="no_answer", reason=f"{extraction.how}; {SEVERAL}", extracted=text
                )
            return _wrong(extraction, "differs from the target")
    except NeedsSymbolic:
        return Pending(Request(target.answer, given, how), extraction)
    except TooLargeError:
        return _wrong(extraction, "too large to be an answer")
    as_what = (
        "numbers" if given.kind == target.answer.kind == "number" else f"a {target.answer.kind}"
    )
    return _correct(extraction, given, target.answer, sample, as_what)


_EXACT = Comparison()


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


def _compare_unread(target: Target, extraction: Extraction) -> Score:
    """Compare with what the grammar does not read; of that only `C. ellipse` can be right."""
    assert extraction.text is not None
    choice = _CHOICE.match(extraction.text)
    if choice is not None and target.text.strip("()") == choice[1]:
        return _right(extraction, "a choice")
    return _wrong(extraction, "cannot be read as an answer")


def read_as_text(text: str) -> str:
    """Return text without spaces, case and braces, for targets that are no mathematics."""
    target = read_target(text) if len(text) <= 2000 else None
    return target.answer.text.casefold() if target is not None else text


def _correct(
    extraction: Extraction, given: Answer, target: Answer, sample: Sample, as_what: str
) -> Score:
    if is_unevaluated(target, given, sample.prompt.text):
        reason = f"{extraction.how}; restates the question without working it out"
        return Score(0.0, label="no_answer", reason=reason, extracted=extraction.text)
    return _right(extraction, as_what)


def _right(extraction: Extraction, as_what: str) -> Score:
    reason = f"{extraction.how}; equal as {as_what}"
    return Score(1.0, label="correct", reason=reason, extracted=extraction.text)


def _wrong(extraction: Extraction, why: str) -> Score:
    return Score(0.0, label="wrong", reason=f"{extraction.how}; {why}", extracted=extraction.text)
