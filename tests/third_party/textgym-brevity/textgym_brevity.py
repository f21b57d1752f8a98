"""Reward brevity: 1.0 for an empty completion, falling linearly to 0.0 at `max_words`."""

from typing import ClassVar

from pydantic import PositiveInt

import textgym


class Brevity(textgym.Reward):
    """Fewer words score higher."""

    name: ClassVar[str] = "brevity"

    max_words: PositiveInt = 50
    """Words from which on the score is 0.0."""

    def score(self, sample: textgym.Sample) -> textgym.Score:
        """Return the share of `max_words` that was not used."""
        words = len(sample.completion.split())
        return textgym.Score(max(0.0, 1.0 - words / self.max_words), reason=f"{words} words")


@textgym.hookimpl
def textgym_rewards() -> list[type[textgym.Reward]]:
    """Return the rewards of this plugin."""
    return [Brevity]
