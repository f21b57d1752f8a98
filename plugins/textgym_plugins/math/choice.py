r"""Multiple choice: the letter of an option, alone (`C`, `(C)`) or before its text (`C. 42`)."""

from __future__ import annotations

import re
from typing import NamedTuple

from textgym_plugins.math.characters import clean_latex

_LABEL = re.compile(r"\(\s?([A-J])\s?\)\s?[.:]?\s?|([A-J])\s?(?:\)\s?|[.:]\s)")
_OTHER = re.compile(r"(?<![A-Za-z])(?:[B-J](?![A-Za-z])|A(?![A-Za-z]| [a-z]))")
_ABOUT = re.compile(
    r"(?:is|was|are|isn't|wasn't|cannot|can|can't|could|might|may|should|or|and|nor|but|seems|does"
    r"|doesn't|has|would)\b",
    re.IGNORECASE,
)
"""How a sentence about an option goes on after its letter, unlike the text of the option."""
_MAX_START = 40
"""Where a label has begun at the latest, `\\textbf{` and the like included."""
_STARTS = "(ABCDEFGHIJ\\ "
_LETTER = re.compile(r"\(?([A-J])\)?\.?")


class Choice(NamedTuple):
    """An option: its letter and the text after it."""

    letter: str
    text: str


def letter_of(text: str) -> str:
    """Return the letter, where a text is only the letter of an option, else the empty string."""
    match = _LETTER.fullmatch(text)
    return match[1] if match is not None else ""


def parse_choice(text: str) -> Choice | None:
    """Return the option that a text names with its letter, or None for none or several."""
    if text[:1] not in _STARTS or _LABEL.search(text, 0, _MAX_START) is None:
        return None
    text = clean_latex(text) if "\\" in text else text.strip()
    match = _LABEL.match(text)
    if match is None or _OTHER.search(text, match.end()) is not None:
        return None
    rest = text[match.end() :].strip()
    if not rest or _ABOUT.match(rest):
        return None
    return Choice(match[1] or match[2], rest)
