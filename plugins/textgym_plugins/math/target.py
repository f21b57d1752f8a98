"""The gold answer of a prompt, read once: text, LaTeX, a number, or a whole reference solution."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from textgym_plugins.math.answer import Answer, parse_answer, squash
from textgym_plugins.math.characters import clean_latex, strip_decoration
from textgym_plugins.math.extract import extract


class Target(NamedTuple):
    """A gold answer, ready to be compared with."""

    text: str
    answer: Answer
    rounding: int | None
    """Decimals to which the target says it is rounded; None if it is exact."""
    plain: int | None
    """The integer, where the target is one without unit and rounding."""


_ROUNDED = re.compile(
    r"^\s*\$?\s*(?:\\approx|\\sim|≈|~|about|approximately|approx\.?|around|roughly)\s*"
    r"|\s*[,(]?\s*(?:rounded\b|to the nearest|\(approx|correct to|to (?:[0-9]+|one|two|three|four) "
    r"(?:decimal|significant)).*$|(?<=[0-9])\s*(?:\.{3}|…|\\(?:ldots|dots))\s*\$?$",
    re.IGNORECASE,
)
_NEAREST = re.compile(r"nearest (ten|hundred|thousand|million)s?\b", re.IGNORECASE)
_POWERS = {"ten": -1, "hundred": -2, "thousand": -3, "million": -6}
_SOLUTION = re.compile(r"####|\\boxed|\\fbox|\n|^A:|answer|答案|答[:：]", re.IGNORECASE)


@lru_cache(maxsize=8192)
def read_target(text: str) -> Target | None:
    """Return the gold answer in a text, or None if there is none.

    A reference solution (several lines, `####`, a box, "the answer is") is read as a completion is.
    """
    if _SOLUTION.search(text):
        found = extract(text, wants_words=True).text
        text = found if found is not None else text
    exact = _ROUNDED.sub("", text)
    answer = parse_answer(exact) or _as_text(exact)
    if answer is None:
        return None
    rounding = None if exact == text else _decimals(text, answer)
    quantity, plain = answer.quantity, None
    if quantity is not None and rounding is None and not quantity.unit:
        plain = int(quantity.value) if quantity.value.denominator == 1 else None
    return Target(strip_decoration(text), answer, rounding, plain)


def _decimals(text: str, answer: Answer) -> int | None:
    nearest = _NEAREST.search(text)
    if nearest is not None:
        return _POWERS[nearest[1].lower()]
    return answer.quantity.decimals if answer.quantity is not None else None


def _as_text(text: str) -> Answer | None:
    """Take a target outside the grammar as it is written: it is compared as text."""
    cleaned = clean_latex(text)
    return Answer("text", squash(cleaned).casefold()) if cleaned else None
