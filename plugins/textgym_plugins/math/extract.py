"""Find the final answer of a completion, or say why there is none.

The last statement of an answer counts (see `statements`), unless the text after it withdraws it
(`correction`) or the one before it contradicts it. Without any statement the last line counts, if
it holds exactly one value (`sentence`).
"""

from __future__ import annotations

import re

from textgym_plugins.math.answer import parse_answer
from textgym_plugins.math.characters import strip_decoration
from textgym_plugins.math.correction import (
    WINDOW,
    Extraction,
    correction,
    correction_in,
    markers,
)
from textgym_plugins.math.sentence import SEVERAL, value_of, value_of_line
from textgym_plugins.math.statements import FORMULAS, Statement, statements
from textgym_plugins.thinking import after_thinking


def extract(completion: str, *, wants_words: bool = False) -> Extraction:
    """Return the final answer of a completion.

    Args:
        completion: the whole text of the policy; only what follows a closing think tag counts.
        wants_words: whether words can be an answer, because the target is one ("ellipse").
    """
    text = after_thinking(completion)
    if text is None:
        return Extraction(None, "the think tag is never closed")
    found = statements(text, wants_words=wants_words)
    last = next(found, None)
    if last is None:
        return _from_last_line(text, wants_words=wants_words)
    corrected = correction(text[last.end : last.end + WINDOW])
    if corrected is not None:
        return corrected
    other = _alternative(text[last.end : last.end + WINDOW], wants_words=wants_words)
    if SEVERAL in (last.text, other):
        return Extraction(None, SEVERAL)
    if other is not None:
        return Extraction(f"{last.text} or {other}", last.how)
    previous = next(found, None)
    if previous is not None and _stands_beside(previous, last, text[previous.end : last.start]):
        return Extraction(f"{previous.text} or {last.text}", last.how)
    return Extraction(last.text, last.how)


_ANNOTATION = re.compile(r"<<[^<>\n]{0,200}>>")


_OR = re.compile(
    r"[\s$\\)\]*]{0,10}\bor\s+(?!about|approx|around|rough|nearly|equivalent|simply|in\b|more|less)",
    re.IGNORECASE,
)


def _alternative(tail: str, *, wants_words: bool) -> str | None:
    r"""Return the value that a text adds to a finished statement: `\boxed{41} or 42`."""
    match = _OR.match(tail)
    return None if match is None else value_of(tail[match.end() :], wants_words=wants_words).text


_CONCLUDES = re.compile(
    r"\b(?:so|therefore|thus|hence|finally|final|correct\w*|actually|instead|wait|but|however|sum|total)\b"
    r"|所以|因此|最终",
    re.IGNORECASE,
)


def _stands_beside(previous: Statement, last: Statement, gap: str) -> bool:
    """Whether nothing between two statements chooses the second, so that both are the answer."""
    if len(gap) > 60 or "\n\n" in gap or len(gap.split()) > 8 or SEVERAL in previous.text:
        return False
    if previous.how == "answer phrase" != last.how:
        return False  # a box or `####` is a choice
    return _CONCLUDES.search(gap) is None and not markers(gap)


_FENCE = re.compile(r"```[a-z]{0,10}")


def _from_last_line(text: str, *, wants_words: bool) -> Extraction:
    text = text[-20_000:].rstrip()
    text = _ANNOTATION.sub("", text) if "<<" in text else text
    line, previous = _last_lines(text)
    corrected = correction_in(line)
    if corrected is not None:
        return corrected
    value = value_of_line(line, wants_words=wants_words)
    if value is None:
        return Extraction(None, "the last line holds no value")
    if value == SEVERAL or _is_option(line, previous, value):
        return Extraction(None, SEVERAL)
    return Extraction(value, "last line")


def _last_lines(text: str) -> tuple[str, str]:
    """Return the last line (or displayed formula) and the line before it."""
    for opening, closing in FORMULAS:
        if text.endswith(closing):
            start = text.rfind(opening, 0, len(text) - 2)
            if start >= 0:
                return text[start + 2 : -2], ""
    lines = [line for line in text.rsplit("\n", 5)[1:] if line.strip()] or [text]
    if len(lines) > 1 and _FENCE.fullmatch(lines[-1].strip()):
        lines.pop()
    previous = lines[-2] if len(lines) > 1 else text[: text.rfind("\n") + 1].strip()
    return lines[-1], previous[-200:]


_VARYING = re.compile(r"[0-9][0-9.,]{0,60}(?![0-9])|\b[A-Z]\b")
_OPTION = re.compile(r"\s*[-*•(]?\s*(?:[A-Za-z]|[0-9]{1,2})\s?[.):]\s")


def _is_option(line: str, previous: str, value: str) -> bool:
    """Whether the line before is an answer in the same way, and a different one."""
    if _OPTION.match(line) and _OPTION.match(previous):
        return True
    if "=" not in line and _VARYING.sub("#", line) == _VARYING.sub("#", previous) != "":
        return line.strip() != previous.strip()  # "It may be 41.", then "It may be 42."
    before, last = parse_answer(strip_decoration(previous)), parse_answer(value)
    if before is None or last is None or before.quantity is None or last.quantity is None:
        return False
    return before.quantity.value != last.quantity.value
