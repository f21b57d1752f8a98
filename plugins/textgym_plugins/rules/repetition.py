"""The reward `repetition`: how much of a completion says something for the first time.

Measured as the share of n-grams that are distinct (`distinct-n` of Li et al. 2016,
arXiv:1510.03055), over words, marks and single Chinese characters.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from textgym import Reward, Sample, Score
from textgym.reward import Isolation
from textgym_plugins.rules.text import Part, part_of, units


class RepetitionReward(Reward):
    """1.0 without repeated n-grams, falling to 0.0 as all but the first repeat."""

    name: ClassVar[str] = "repetition"
    isolation: ClassVar[Isolation] = "inline"

    n: int = Field(default=4, ge=1, le=16)
    """Words per n-gram."""
    free: float = Field(default=0.1, ge=0, lt=1)
    """Share of repeated n-grams that costs nothing: tables and lists repeat for good reason."""
    part: Part = "completion"
    """Look at the whole completion, or at what follows the thinking."""

    def score(self, sample: Sample) -> Score:
        """Return the score; a completion shorter than one n-gram repeats nothing."""
        words = units(part_of(sample.completion, self.part).lower())
        total = len(words) - self.n + 1
        if total < 1:
            return Score(1.0, reason=f"fewer than {self.n} words")
        repeated = 1.0 - len(set(zip(*(words[i:] for i in range(self.n)), strict=False))) / total
        value = 1.0 - max(0.0, repeated - self.free) / (1.0 - self.free)
        return Score(value, reason=f"{repeated:.1%} of {total} {self.n}-grams repeat")
