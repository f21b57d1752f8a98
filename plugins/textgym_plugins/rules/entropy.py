"""The reward `entropy`: how many bits of information a character or word of a completion carries.

The plug-in estimate of Shannon's entropy from the completion's own frequencies. It tells degenerate
text (one character, one word, over and over) from language; it does not tell sense from nonsense,
and random characters score highest. Use it with a small weight or as a gate.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import ClassVar, Literal

from pydantic import Field

from textgym import Reward, Sample, Score
from textgym.reward import Isolation
from textgym_plugins.rules.text import Part, part_of, units


class EntropyReward(Reward):
    """Entropy in bits per unit, divided by `full_bits`, at most 1.0."""

    name: ClassVar[str] = "entropy"
    isolation: ClassVar[Isolation] = "inline"

    unit: Literal["characters", "words"] = "characters"
    """What is counted; Chinese characters and marks count as words."""
    full_bits: float = Field(default=4.0, gt=0, le=32)
    """Bits per unit from which the score is 1.0. English prose has 4.1 to 4.6 bits a character."""
    part: Part = "completion"
    """Look at the whole completion, or at what follows the thinking."""

    def score(self, sample: Sample) -> Score:
        """Return the score; an empty completion carries no information."""
        text = part_of(sample.completion, self.part)
        bits = entropy(text if self.unit == "characters" else units(text.lower()))
        return Score(min(1.0, bits / self.full_bits), reason=f"{bits:.2f} bits per unit")


def entropy(items: str | list[str]) -> float:
    """Return -sum p log2 p over the frequencies p of the items, in bits."""
    total = len(items)
    counts = Counter(items).values()
    return (
        max(0.0, math.log2(total) - sum(c * math.log2(c) for c in counts) / total) if total else 0.0
    )
