"""The reward `regex_format`: 1.0 if a completion matches a regular expression.

A pattern can take exponential time, so it runs in a worker that is killed after `time_limit`; such
a sample has failed. Only the configuration names the pattern, never a prompt.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from textgym import Reward, Sample, Score
from textgym_plugins.rules.text import Part, part_of, short


class RegexFormat(Reward):
    """Whether a completion matches a regular expression."""

    name: ClassVar[str] = "regex_format"
    time_limit: ClassVar[float] = 1.0

    pattern: str = Field(min_length=1)
    """A Python regular expression; flags as in `(?is)...`."""
    match: Literal["search", "fullmatch"] = "fullmatch"
    """`fullmatch`: the whole text, spaces around it aside. `search`: any part of it."""
    part: Part = "answer"
    """Look at what follows the thinking, or at the whole completion."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return value

    def score_batch(self, samples: Sequence[Sample]) -> list[Score]:
        """Return 1.0 (`formatted`, with the match) or 0.0 (`malformed`) for each sample."""
        return [self._score(sample) for sample in samples]

    def _score(self, sample: Sample) -> Score:
        text = part_of(sample.completion, self.part).strip()
        found = getattr(self._compiled, self.match)(text)
        if found is None:
            reason = f"{short(text)} does not match {short(self.pattern)}"
            return Score(0.0, label="malformed", reason=reason)
        extracted = found[0][:1000]
        return Score(1.0, label="formatted", reason="matches the pattern", extracted=extracted)

    @functools.cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern)
