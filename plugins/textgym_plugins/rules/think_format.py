"""The reward `think_format`: 1.0 if a completion thinks between tags and then answers."""

from __future__ import annotations

import re
from typing import ClassVar

from pydantic import Field

from textgym import Reward, Sample, Score
from textgym.reward import Isolation


class ThinkFormat(Reward):
    """Whether a completion is one thought between tags, followed by an answer."""

    name: ClassVar[str] = "think_format"
    isolation: ClassVar[Isolation] = "inline"

    tag: str = Field(default="think", pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$")
    """Name of the tags."""
    opens_in_prompt: bool = False
    """The prompt ends with the opening tag, so that the completion has the closing one only."""
    answer_tag: str | None = Field(default=None, pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$")
    """Name of tags that must enclose the answer, if any."""

    def score(self, sample: Sample) -> Score:
        """Return 1.0 (`formatted`), or 0.0 (`malformed`) with what is wrong."""
        problem = self._problem(sample.completion)
        if problem:
            return Score(0.0, label="malformed", reason=problem)
        return Score(1.0, label="formatted", reason="a thought, then an answer")

    def _problem(self, completion: str) -> str:
        opening, closing = f"<{self.tag}>", f"</{self.tag}>"
        wanted = 0 if self.opens_in_prompt else 1
        for tag, times in ((opening, wanted), (closing, 1)):
            count = completion.count(tag)
            if count != times:
                return f"{tag} occurs {count} times, not {times}"
        before, _, rest = completion.partition(opening) if wanted else ("", "", completion)
        thought, closed, answer = rest.partition(closing)
        if before.strip() or not closed:
            return f"there is text before {opening}" if before.strip() else f"{closing} comes first"
        if not thought.strip():
            return "the thought is empty"
        return self._answer_problem(answer.strip())

    def _answer_problem(self, answer: str) -> str:
        if self.answer_tag is None:
            return "" if answer else "there is no answer after the thought"
        tags = re.findall(rf"</?{self.answer_tag}>", answer)
        opening, closing = f"<{self.answer_tag}>", f"</{self.answer_tag}>"
        if tags != [opening, closing]:
            return f"the answer does not hold {opening} and {closing} once each"
        if not answer.startswith(opening) or not answer.endswith(closing):
            return f"there is text outside {opening} and {closing}"
        inner = answer[len(opening) : -len(closing)]
        return "" if inner.strip() else "the answer is empty"
