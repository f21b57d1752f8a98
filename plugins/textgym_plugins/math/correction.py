"""Words by which a text takes back an answer, and the answer it puts in its place."""

from __future__ import annotations

import re
from typing import NamedTuple

from textgym_plugins.math.sentence import SEVERAL, value_of

WINDOW = 400
"""How many characters after an answer may still take it back."""


class Extraction(NamedTuple):
    """The text of the answer and how it was found, or `None` and why there is no answer."""

    text: str | None
    how: str


_WITHDRAWN = re.compile(
    r"\bno,? wait\b|\bwait,? no\b|\bscratch that\b|\bstrike that\b|\bcorrection\b"
    r"|\bmy mistake\b|\boops\b"
    r"|\bi (?:made|was) (?:a |an )?(?:mistake|error|wrong)|\b(?:that|this)(?:'s| is| was) "
    r"(?:wrong|incorrect|not right|not correct|a mistake)|[.,;!] no,|更正|不对|错了",
    re.IGNORECASE,
)
_RECONSIDERED = re.compile(
    r"\bactually,? (?:it|the|i)\b|\bi mean\b|\bor rather\b|\bsorry,|\bi meant\b|\bit should be\b"
    r"|应该是"
    r"|\bbut (?:it|that|the (?:correct|right|real|true) \w+)(?:'s| is)\b|\bon second thought\b",
    re.IGNORECASE,
)
_STEMS = (
    "wait", "that", "correction", "mistake", "oops", "i made", "i was", "this", " no,", "actually",
    "i mean", "rather", "sorry", "should", "but ", "thought", "更正", "不对", "错了", "应该是",
)  # fmt: skip
"""One of these is in every text that the two patterns match; looking for them costs less."""


def markers(text: str) -> list[re.Match[str]]:
    """Return the places where a text takes something back, in no order."""
    if " " not in text and text.isascii():
        return []
    folded = text.lower()
    for stem in _STEMS:
        if stem in folded:
            break
    else:
        return []
    return [*_WITHDRAWN.finditer(text), *_RECONSIDERED.finditer(text)]


def correction(tail: str) -> Extraction | None:
    """Return what a text that follows an answer puts in its place, or None if it lets it stand."""
    found = markers(tail)
    if not found:
        return None
    last = max(found, key=re.Match.end)
    rest = tail[last.end() :].lstrip(" ,.:;!-—").removeprefix("is ")
    value = value_of(rest, wants_words=False).text
    if value is not None and value != SEVERAL:
        return Extraction(value, "correction")
    if _WITHDRAWN.search(tail) is None:
        return None
    return Extraction(None, "the answer is withdrawn" if value is None else SEVERAL)


def correction_in(line: str) -> Extraction | None:
    """Return the correction in a line that states an answer and takes it back."""
    line = line[-WINDOW:]
    found = markers(line)
    if not found or not any(char.isdigit() for char in line[: found[0].start()]):
        return None
    return correction(line)


def before_correction(content: str) -> str:
    """Return what a line states before it takes that back; the whole line if it never does."""
    found = markers(content)
    if not found:
        return content
    head = content[: min(map(re.Match.start, found))]
    return head if value_of(head, wants_words=True).text is not None else content
