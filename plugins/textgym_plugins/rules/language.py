"""The reward `language`: whether a completion keeps to the script of its prompt.

Language consistency by script alone: no model, so it tells Chinese from English and Russian from
Greek, but not English from French. Fenced code and LaTeX between dollar signs are left out.
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal, get_args

from pydantic import Field

from textgym import Reward, Sample, Score
from textgym.reward import Isolation

Script = Literal[
    "latin", "greek", "cyrillic", "hebrew", "arabic", "devanagari", "bengali", "thai", "hangul",
    "kana", "han",
]  # fmt: skip

_RANGES: dict[Script, str] = {
    "latin": "A-Za-zªº\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff",
    "greek": "\u0370-\u03ff\u1f00-\u1fff",
    "cyrillic": "\u0400-\u052f",
    "hebrew": "\u0590-\u05ff",
    "arabic": "\u0600-\u06ff\u0750-\u077f",
    "devanagari": "\u0900-\u097f",
    "bengali": "\u0980-\u09ff",
    "thai": "\u0e00-\u0e7f",
    "hangul": "\u1100-\u11ff\uac00-\ud7af",
    "kana": "\u3041-\u30ff",
    "han": "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff",
}
_LETTER_BY_LETTER = ("han", "kana", "thai")
_WORDS = {
    script: re.compile(f"[{ranges}]" if script in _LETTER_BY_LETTER else f"[{ranges}]+")
    for script, ranges in _RANGES.items()
}
_CODE = re.compile(r"```.*?(?:```|\Z)|\$\$[^$]*\$\$|\$[^$\n]{1,200}\$", re.DOTALL)
_WANTED_SHARE = 0.2


class LanguageReward(Reward):
    """The share of words in the expected scripts, less a share that costs nothing."""

    name: ClassVar[str] = "language"
    isolation: ClassVar[Isolation] = "inline"

    scripts: tuple[Script, ...] = ()
    """The expected scripts; empty: those that make up a fifth of the prompt or more."""
    free: float = Field(default=0.1, ge=0, lt=1)
    """Share of words in other scripts that costs nothing: names, units and terms."""

    def score(self, sample: Sample) -> Score:
        """Return the score, labelled `consistent` or `mixed`; a completion without letters fits.

        Thinking counts too. It abstains where neither the configuration nor the prompt has letters.
        """
        expected = self.scripts or _main_scripts(sample.prompt.text)
        if not expected:
            return Score.unscored(f"prompt '{sample.prompt.id}' has no letters; set 'scripts'")
        counts = count_words_by_script(sample.completion)
        total = sum(counts.values())
        if not total:
            return Score(1.0, label="consistent", reason="no letters")
        other = 1.0 - sum(counts.get(script, 0) for script in expected) / total
        value = 1.0 - max(0.0, other - self.free) / (1.0 - self.free)
        reason = f"{other:.1%} of {total} words are not {' or '.join(expected)}"
        return Score(value, label="consistent" if other <= self.free else "mixed", reason=reason)


def count_words_by_script(text: str) -> dict[Script, int]:
    """Return how many words there are in each script; Han, kana and Thai by the letter."""
    text = _CODE.sub(" ", text)
    scripts: tuple[Script, ...] = ("latin",) if text.isascii() else get_args(Script)
    counts = {script: len(_WORDS[script].findall(text)) for script in scripts}
    return {script: count for script, count in counts.items() if count}


def _main_scripts(text: str) -> tuple[Script, ...]:
    counts = count_words_by_script(text)
    total = sum(counts.values())
    return tuple(script for script, count in counts.items() if count >= _WANTED_SHARE * total)
