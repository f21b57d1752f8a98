"""The reward `exact_match`: 1.0 if the answer is the target, as text."""

from __future__ import annotations

import re
import unicodedata
from typing import ClassVar

from textgym import Reward, Sample, Score
from textgym.reward import Isolation
from textgym_plugins.rules.text import normalize, short
from textgym_plugins.thinking import after_thinking

_LONGEST = 10_000
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")


class ExactMatch(Reward):
    """Whether what follows the thinking equals the target, or one of several targets."""

    name: ClassVar[str] = "exact_match"
    isolation: ClassVar[Isolation] = "inline"

    ignore_case: bool = True
    """Compare without capital letters, full-width forms and runs of spaces."""
    ignore_punctuation: bool = False
    """Compare without punctuation and the articles a, an, the (as SQuAD does)."""
    last_line: bool = False
    """Compare the last line that is not empty, instead of the whole answer."""

    def score(self, sample: Sample) -> Score:
        """Return 1.0 (`correct`) or 0.0 (`wrong`); abstain where the target is no text."""
        targets = accepted(sample.prompt.target)
        if not targets:
            return Score.unscored(
                f"the target of prompt '{sample.prompt.id}' is {short(str(sample.prompt.target))}; "
                "expected a text, a number or a list of them"
            )
        answer = (after_thinking(sample.completion) or "").strip()
        if self.last_line:
            answer = answer.rpartition("\n")[2]
        if len(answer) > _LONGEST + 10 * max(map(len, targets)):
            return Score(0.0, label="wrong", reason=f"{len(answer)} characters, far too long")
        key = self._key(answer)
        if any(key == self._key(target) for target in targets):
            return Score(1.0, label="correct", reason="equals the target", extracted=answer[:1000])
        reason = f"{short(answer)} is not the target"
        return Score(0.0, label="wrong", reason=reason, extracted=answer[:1000])

    def _key(self, text: str) -> str:
        text = normalize(text) if self.ignore_case else text.strip()
        if not self.ignore_punctuation:
            return text
        kept = "".join(" " if unicodedata.category(c)[0] == "P" else c for c in text)
        return " ".join(_ARTICLE.sub(" ", kept).split())


def accepted(target: object) -> list[str]:
    """Return the accepted answers of a target; none, where it is not of this kind."""
    values = target if isinstance(target, list | tuple) else [target]
    texts = [str(v) for v in values if isinstance(v, str | int | float) and type(v) is not bool]
    return [t for t in texts if t.strip()] if len(texts) == len(values) else []
