"""Texts and figures for people: rollouts are hostile, and numbers have too many digits."""

from __future__ import annotations

import re
import unicodedata

_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_UNSEEN = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\ufeff{_BIDI}]")


def visible(text: str) -> str:
    """Return text in which control characters, half characters and turns of direction are spelt.

    A terminal would obey some of them; line feeds and tabs stay.
    """
    return _UNSEEN.sub(_spelt, text)


def _spelt(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code < 32 else f"‹U+{code:04X}›"


def one_line(text: str, most: int) -> str:
    """Return the beginning of a text on one line, in so many columns of a terminal."""
    line = " ".join(visible(text[: 4 * most]).split())
    cut, columns = [], 0
    for character in line:
        columns += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if columns > most:
            break
        cut.append(character)
    return "".join(cut)


def figure(value: float | None, *, share: bool = False) -> str:
    """Return a number with four digits, or per cent of a share."""
    if value is None:
        return "–"
    return f"{value:.1%}" if share else f"{value:,.4g}"
