"""The reward `kbqa`: answers and refusals over passages, TP, FN, TN or FP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from textgym import Prompt, Reward, Sample, Score
from textgym.reward import Isolation
from textgym_plugins.kbqa.report import OVER_REFUSAL, report

Label = Literal["TP", "FN", "TN", "FP"]
Outcome = Literal["right", "wrong", "refused", "no_answer"]


class Reading(NamedTuple):
    """What the rules say of a sample."""

    score: Score
    outcome: Outcome | None = None
    """What the completion does; None where the prompt cannot be judged."""
    is_doubtful: bool = False
    """Whether the completion declines and answers at once, which is where rules are weakest."""


class RewardTable(BaseModel):
    """The value of each thing that can happen."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    right: float = Field(default=1.0, ge=-1, le=1)
    """Answerable, and answered with the reference (TP)."""
    refused: float = Field(default=0.5, ge=-1, le=1)
    """Unanswerable, and refused (TN)."""
    over_refused: float = Field(default=-0.5, ge=-1, le=1)
    """Answerable, and refused (FN)."""
    wrong: float = Field(default=-1.0, ge=-1, le=1)
    """Answerable, and answered otherwise (FN)."""
    answered: float = Field(default=-1.0, ge=-1, le=1)
    """Unanswerable, and answered (FP)."""
    no_answer: float = Field(default=-1.0, ge=-1, le=1)
    """Neither an answer nor a refusal: empty, an unclosed thought, the prompt repeated (FN, FP)."""


class Kbqa(Reward):
    """Whether a question over passages is answered where it can be, and refused where it cannot."""

    name: ClassVar[str] = "kbqa"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    isolation: ClassVar[Isolation] = "inline"

    table: RewardTable = RewardTable()
    """The value of each outcome."""

    def success_at(self, prompt: Prompt) -> float:
        """Return the value of the right answer, or of the refusal where there is none."""
        return self.table.refused if prompt.answerable is False else self.table.right

    def score(self, sample: Sample) -> Score:
        """Return the value of the table with label TP, FN, TN or FP, a reason and what shows it."""
        return self.read(sample).score

    def read(self, sample: Sample) -> Reading:
        """Return the score, and whether the completion both declines and answers."""
        # Its patterns take some milliseconds to compile, which a registry must not pay.
        from textgym_plugins.kbqa.target import read_target
        from textgym_plugins.kbqa.verdict import judge

        prompt = sample.prompt
        target = read_target(prompt.target)
        is_answerable = target is not None if prompt.answerable is None else prompt.answerable
        if target is None and (is_answerable or prompt.answerable is None):
            what = f"the target of prompt '{prompt.id}' is {prompt.target!r}, which holds no answer"
            return Reading(Score.unscored(what))
        verdict = judge(sample.completion, prompt, target, is_answerable=is_answerable)
        score = self.score_of(verdict.outcome, verdict.reason, verdict.extracted, is_answerable)
        return Reading(score, verdict.outcome, verdict.is_doubtful)

    def score_of(
        self, outcome: Outcome, reason: str, extracted: str | None, is_answerable: bool
    ) -> Score:
        """Return the score that the table gives an outcome."""
        label, value = self._outcome(outcome, is_answerable)
        return Score(
            value, label=label, reason=f"{_NAMES[label, outcome]}: {reason}", extracted=extracted
        )

    def report(self, scores: Sequence[Score]) -> dict[str, float | None]:
        """Return the rates over many scores, by name; `textgym score` prints them."""
        return report(scores).figures()

    def _outcome(self, outcome: Outcome, is_answerable: bool) -> tuple[Label, float]:
        table = self.table
        if outcome == "no_answer":
            return ("FN" if is_answerable else "FP"), table.no_answer
        if outcome == "refused":
            return ("FN", table.over_refused) if is_answerable else ("TN", table.refused)
        if not is_answerable:
            return "FP", table.answered
        return ("TP", table.right) if outcome == "right" else ("FN", table.wrong)


_NAMES: dict[tuple[Label, Outcome], str] = {
    ("TP", "right"): "right",
    ("FN", "wrong"): "wrong",
    ("FN", "refused"): OVER_REFUSAL,
    ("FN", "no_answer"): "no answer",
    ("TN", "refused"): "refused",
    ("FP", "right"): "answered though unanswerable",
    ("FP", "wrong"): "answered though unanswerable",
    ("FP", "no_answer"): "no answer and no refusal",
}
