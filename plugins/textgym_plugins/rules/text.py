"""What several rules read in a completion: its thinking, its answer, its words."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

from textgym_plugins.thinking import after_thinking

Part = Literal["answer", "completion"]
"""The answer is what stands after the closing think tag; nothing, where a think tag stays open."""

_SPACES = re.compile(r"\s+")
_HAN_AND_KANA = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_UNIT = re.compile(rf"[{_HAN_AND_KANA}]|[^\W{_HAN_AND_KANA}]{{1,16}}|[^\w\s]")


def part_of(completion: str, part: Part) -> str:
    """Return the part of a completion that a rule looks at."""
    return completion if part == "completion" else after_thinking(completion) or ""


def units(text: str) -> list[str]:
    """Return words, marks and, for Chinese and Japanese, single characters.

    Words are cut after 16 characters, so that one endless word is many units.
    """
    return _UNIT.findall(text)


def normalize(text: str) -> str:
    """Return text without differences that nobody means: width, capital letters, spaces."""
    if text.isascii():
        return " ".join(text.split()).lower()  # the same, ten times faster
    return _SPACES.sub(" ", unicodedata.normalize("NFKC", text)).strip().casefold()


def short(text: str) -> str:
    """Return the repr of a text, cut for a reason."""
    return repr(text) if len(text) <= 60 else f"{text[:60]!r}..."
