"""The rewards `length` and `overlong`: a band to stay in, and a soft end to grow towards."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from textgym import Reward, Sample, Score
from textgym.reward import Isolation
from textgym_plugins.rules.text import Part, part_of

Unit = Literal["tokens", "words", "characters"]


class LengthReward(Reward):
    """1.0 for a length inside a band, falling linearly to 0.0 outside it."""

    name: ClassVar[str] = "length"
    isolation: ClassVar[Isolation] = "inline"

    unit: Unit = "words"
    """`words` are what spaces separate; Chinese needs `characters`. `tokens` needs sampled ids."""
    minimum: int = Field(default=1, ge=0)
    """The shortest length that scores 1.0."""
    maximum: int | None = Field(default=500, ge=0)
    """The longest length that scores 1.0; None for no end."""
    slack: int = Field(default=0, ge=0)
    """How far outside the band the score reaches 0.0; 0 drops at once."""
    part: Part = "answer"
    """Measure what follows the thinking, or the whole completion; tokens are always the whole."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.maximum is not None and self.maximum < self.minimum:
            raise ValueError(f"maximum={self.maximum} is below minimum={self.minimum}")
        if self.maximum is None and self.minimum == 0:
            raise ValueError("every length is inside the band; set minimum or maximum")
        return self

    def score(self, sample: Sample) -> Score:
        """Return the score, labelled `short`, `fitting` or `long`."""
        length = measure(sample, self.unit, self.part)
        if length is None:
            return Score.unscored(_NO_TOKENS)
        excess, label = self.minimum - length, "short"
        if self.maximum is not None and length > self.maximum:
            excess, label = length - self.maximum, "long"
        reason = f"{length} {self.unit}"
        if excess <= 0:
            return Score(1.0, label="fitting", reason=reason)
        value = max(0.0, 1.0 - excess / self.slack) if self.slack else 0.0
        return Score(value, label=label, reason=reason)


class OverlongReward(Reward):
    """The soft overlong punishment of DAPO (Yu et al. 2025, arXiv:2503.14476, eq. 13).

    0 up to `max_length - cache`, falling linearly to -1 at `max_length`, -1 beyond.
    """

    name: ClassVar[str] = "overlong"
    range: ClassVar[tuple[float, float]] = (-1.0, 0.0)
    isolation: ClassVar[Isolation] = "inline"

    max_length: int = Field(default=20_480, ge=1)
    """L_max: the length from which the punishment is full."""
    cache: int = Field(default=4_096, ge=1)
    """L_cache: how long before that the punishment begins."""
    unit: Unit = "tokens"
    """`tokens` counts sampled ids, the end token included."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.cache > self.max_length:
            raise ValueError(f"cache={self.cache} is above max_length={self.max_length}")
        return self

    def score(self, sample: Sample) -> Score:
        """Return the punishment, labelled `fitting` or `long`."""
        length = measure(sample, self.unit, "completion")
        if length is None:
            return Score.unscored(_NO_TOKENS)
        free = self.max_length - self.cache
        value = min(0.0, max(-1.0, (free - length) / self.cache))
        label = "fitting" if length <= free else "long"
        return Score(value, label=label, reason=f"{length} {self.unit}, {free} free")


_NO_TOKENS = "the sample has no token ids; score sampled completions, or set unit to 'characters'"


def measure(sample: Sample, unit: Unit, part: Part) -> int | None:
    """Return the length of a completion, None where its tokens are not known."""
    if unit == "tokens":
        return None if sample.token_ids is None else len(sample.token_ids)
    text = part_of(sample.completion, part)
    return len(text.split()) if unit == "words" else len(text)
