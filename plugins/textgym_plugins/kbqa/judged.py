"""A second opinion on top of the rules, asked only where they are in doubt.

The judge is any reward whose score has the label `right`, `wrong` or `refused`; a language model
behind an endpoint is one. The rules stay in charge of everything that is plain, so a judge costs
calls only for completions that decline and answer at once.
"""

from __future__ import annotations

from typing import ClassVar, cast

from pydantic import InstanceOf

from textgym import Reward, Sample, Score
from textgym_plugins.kbqa.reward import Kbqa, Outcome

_OPINIONS = ("right", "wrong", "refused")


class JudgedKbqa(Reward):
    """The reward `kbqa`, with a judge for doubtful completions. Made in Python, not by name."""

    name: ClassVar[str] = "kbqa_judged"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    deterministic: ClassVar[bool] = False
    time_limit: ClassVar[float] = 120.0

    rules: Kbqa = Kbqa()
    """What scores everything that is plain."""
    judge: InstanceOf[Reward]
    """Asked about the rest."""

    def score(self, sample: Sample) -> Score:
        """Return the score of the rules, or of the table for the judge's opinion.

        A judge that fails or abstains costs the sample: its status is passed on. A label that is no
        opinion leaves the rules' score.
        """
        reading = self.rules.read(sample)
        if not reading.is_doubtful:
            return reading.score
        opinion = self.judge.score(sample)
        if not opinion.is_scored:
            return opinion
        if opinion.label not in _OPINIONS:
            return reading.score
        prompt = sample.prompt
        return self.rules.score_of(
            cast(Outcome, opinion.label),
            f"says '{self.judge.name}': {opinion.reason}",
            opinion.extracted or reading.score.extracted,
            prompt.answerable if prompt.answerable is not None else True,
        )
