"""The reward `kbqa_judged`: the rules of `kbqa`, and a language model where they are in doubt.

The rules stay in charge of everything that is plain, so a judge costs calls only for completions
that decline and answer at once. It says what a completion does; what that is worth, and whether a
refusal was due, the table and the prompt say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, cast

from pydantic import field_validator

from textgym import Prompt, Reward, Sample, Score
from textgym.reward import Isolation
from textgym_plugins.judge import JudgeReward, Labels
from textgym_plugins.kbqa.reward import Kbqa, Outcome, Reading

RUBRIC = """\
What does the answer do in the end, whatever it says on the way?
right: it commits to the reference, in whatever words, form or language, and to nothing that \
contradicts it. Of a list of references any will do; where the list holds lists, one of each.
wrong: it commits to anything else, or to several answers at once, however hedged. A guess is a \
commitment, also after the statement that the passages do not say it.
refused: it commits to nothing: it says that the passages do not hold the answer, that it cannot \
be determined, or that it is not known. A guess that such a refusal takes back is a refusal.
A correction withdraws what stands before it. What the answer merely quotes, denies or mentions \
is no commitment. Whether a refusal is called for is not asked."""
LABELS = Labels(values={"right": 1.0, "refused": 0.5, "wrong": 0.0})


class JudgedKbqa(Reward):
    """Whether a question over passages is answered or refused rightly, doubts left to a judge."""

    name: ClassVar[str] = "kbqa_judged"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    deterministic: ClassVar[bool] = False
    isolation: ClassVar[Isolation] = "inline"
    time_limit: ClassVar[float] = JudgeReward.time_limit

    rules: Kbqa = Kbqa()
    """What scores everything that is plain."""
    judge: JudgeReward
    """Asked about the rest. Of its fields only `endpoint` is needed: rubric and labels are those of
    this reward; another rubric must keep the labels right, wrong and refused."""
    asks: Literal["doubtful", "always"] = "doubtful"
    """`doubtful`: about completions that decline and answer at once. `always`: about every one that
    is not empty."""
    on_failure: Literal["fail", "rules"] = "fail"
    """Where the judge fails or gives no verdict. `fail`: the sample has its status, failed or
    abstained. `rules`: the score of the rules, and the reason says so."""

    @field_validator("judge", mode="before")
    @classmethod
    def _with_labels(cls, value: Any) -> Any:
        defaults = {"rubric": RUBRIC, "mode": LABELS}
        return {**defaults, **value} if isinstance(value, Mapping) else value

    @field_validator("judge")
    @classmethod
    def _says_what_is_done(cls, judge: JudgeReward) -> JudgeReward:
        labels = judge.mode.values if isinstance(judge.mode, Labels) else {}
        if set(labels) != set(LABELS.values):
            found = f"the labels {', '.join(labels)}" if labels else f"the mode {judge.mode.kind}"
            raise ValueError(
                f"it answers with {found}, not with {', '.join(LABELS.values)}; leave its mode out"
            )
        return judge

    def success_at(self, prompt: Prompt) -> float:
        """Return the value of the right answer, or of the refusal where there is none."""
        return self.rules.success_at(prompt)

    def score(self, sample: Sample) -> Score:
        """Return the score of the rules, or of the table for what the judge says."""
        return self.score_batch([sample])[0]

    def score_batch(self, samples: Sequence[Sample]) -> list[Score]:
        """Return one score per sample; the judge is asked about all that need it at once."""
        readings = [self.rules.read(sample) for sample in samples]
        asked = [index for index, reading in enumerate(readings) if self._needs_judge(reading)]
        opinions = self.judge.score_batch([samples[index] for index in asked])
        scores = [reading.score for reading in readings]
        for index, opinion in zip(asked, opinions, strict=True):
            scores[index] = self._decide(samples[index], readings[index].score, opinion)
        return scores

    def report(self, scores: Sequence[Score]) -> dict[str, float | None]:
        """Return the rates over many scores, by name, as `kbqa` does."""
        return self.rules.report(scores)

    def _needs_judge(self, reading: Reading) -> bool:
        if self.asks == "always":
            return reading.outcome not in (None, "no_answer")
        return reading.is_doubtful

    def _decide(self, sample: Sample, ruled: Score, opinion: Score) -> Score:
        if not opinion.is_scored:
            if self.on_failure == "fail":
                return opinion
            reason = f"{ruled.reason}; by the rules alone: {opinion.reason}"
            return replace(ruled, reason=reason, seconds=opinion.seconds)
        score = self.rules.score_of(
            cast(Outcome, opinion.label),
            f"says the judge: {opinion.reason}",
            ruled.extracted,
            sample.prompt.answerable is not False,
        )
        return replace(score, seconds=opinion.seconds, parts={"rules": ruled, "judge": opinion})
