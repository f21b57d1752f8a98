r"""Find the places where a text says what the answer is: boxes, `####`, "the answer is", `A:`.

They are yielded from the end of the text. Every search is linear: positions come from `str.rfind`,
and regular expressions only see bounded windows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from textgym_plugins.math.answer import MAX_LENGTH
from textgym_plugins.math.correction import before_correction
from textgym_plugins.math.sentence import SEVERAL, value_of

_MAX_STATEMENTS = 8
_MAX_BOXES = 20


class Statement(NamedTuple):
    """One place where the text says what the answer is."""

    start: int
    end: int
    text: str
    how: str


_ASCII_CUES = {
    "\\boxed": "boxed", "\\fbox": "boxed", "####": "####", "nswer": "answer phrase",
    "NSWER": "answer phrase", "A:": "A: line",
}  # fmt: skip
_CUES = {
    **_ASCII_CUES, "答案": "answer phrase", "答:": "answer phrase", "答：": "answer phrase",
}  # fmt: skip


def statements(text: str, *, wants_words: bool) -> Iterator[Statement]:
    """Yield the statements that hold a value, the last first."""
    cues = [cue for cue in (_ASCII_CUES if text.isascii() else _CUES) if cue in text]
    if not cues:
        return
    found = sorted(_cue_positions(text, cues), reverse=True)
    limit = len(text)
    for start, cue in found[:_MAX_STATEMENTS]:
        if start >= limit:
            continue
        statement = _statement(text, start, cue, limit, wants_words=wants_words)
        if statement is not None:
            # What a later statement says is no part of this one: "The answer is \boxed{5}".
            limit = statement.start
            yield statement


def _cue_positions(text: str, cues: list[str]) -> Iterator[tuple[int, str]]:
    for cue in cues:
        end = text.rfind(cue)
        for _ in range(_MAX_STATEMENTS):
            if end < 0:
                break
            yield end, cue
            end = text.rfind(cue, 0, end)


def _statement(
    text: str, start: int, cue: str, limit: int, *, wants_words: bool
) -> Statement | None:
    how, position = _CUES[cue], start + len(cue)
    if how == "boxed":
        return _boxed(text, start, position)
    if how == "answer phrase" and cue[-1] not in ":：":
        phrase = _end_of_phrase(text, position)
        if phrase is None:
            return None
        position = phrase
        start -= 1  # the cue is "nswer", so that it is found in "Answer" and "answer"
    if how == "A: line" and not _is_a_line(text, start):
        return None
    content, end = _line_after(text, position, limit)
    # Words that run into the next statement lead to it: "Answer: the correct answer is C".
    wants_words = wants_words and (end < limit or limit == len(text))
    value, length = value_of(before_correction(content), wants_words=wants_words)
    if value is None or (value == SEVERAL and text[end:].strip()):
        # "Let me explain the answer: first 12 and 30" in the middle of a text states nothing.
        return None
    return Statement(start, end - max(0, len(content) - length), value, how)


_GAP = re.compile(r"[\s$\\()\[\],.;:*]{0,20}(?:and|or|,|;|、|和|或)?[\s$\\()\[\],.;:*]{0,20}")
_BOX_END = {"b": len("\\boxed"), "f": len("\\fbox")}


def _boxed(text: str, start: int, position: int) -> Statement | None:
    content, end = _braced(text, position)
    if content is None or not content.strip():
        return None
    parts = [content]
    # Boxes with nothing but a conjunction between them are one statement of several values.
    for _ in range(_MAX_BOXES):
        earlier = max(text.rfind("\\boxed", 0, start), text.rfind("\\fbox", 0, start))
        if earlier < 0 or start - earlier > MAX_LENGTH:
            break
        content, earlier_end = _braced(text, earlier + _BOX_END[text[earlier + 1]])
        if content is None:
            break
        if earlier_end > start:  # a box in a box
            parts, end = [content], earlier_end
        elif _GAP.fullmatch(text[earlier_end:start][:60]):
            parts.insert(0, content)
        else:
            break
        start = earlier
    distinct = list(dict.fromkeys(part.strip() for part in parts))
    return Statement(start, end, " or ".join(distinct), "boxed")


_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_UNBRACED = re.compile(r"\s{0,5}([0-9A-Za-z.-]{1,40})")


def _braced(text: str, position: int) -> tuple[str | None, int]:
    r"""Return the content of the braces at `position` (or the token of `\boxed 5`) and its end."""
    window = text[position : position + MAX_LENGTH]
    indent = len(window) - len(window.lstrip())
    if not window[indent:].startswith("{"):
        match = _UNBRACED.match(window)
        return (None, position) if match is None else (match[1], position + match.end())
    depth = 0
    for match in _BRACE.finditer(window):
        char = match.group()
        if len(char) == 1:
            depth += 1 if char == "{" else -1
        if depth == 0 and char == "}":
            return window[indent + 1 : match.start()], position + match.end()
    return None, position


_PHRASE = re.compile(
    r"(?:s)?(?:[^\n:：.?!]{0,60}?)(?:\b(?:is|are|was|be|equals)\b"
    r"(?:[ ]?(?:therefore|thus|then|simply|just|given by|equal to|indeed|clearly|hence))?[:：]?"
    r"|[:：=]|是|为|等于)\s{0,4}[:：]?",
    re.IGNORECASE,
)
_HEADING = re.compile(r"s?[*_# ]{0,6}[:：]?[*_ ]{0,6}\n")


def _end_of_phrase(text: str, position: int) -> int | None:
    """Return where "the answer to this is:" ends, or None if the word announces nothing."""
    window = text[position : position + 100]
    match = _PHRASE.match(window) or _HEADING.match(window)
    return None if match is None else position + match.end()


def _is_a_line(text: str, start: int) -> bool:
    """Whether `A:` begins a line, and not the options of a multiple choice."""
    if start > 0 and text[start - 1] != "\n":
        return False
    end = text.find("\n", start)
    return end < 0 or text[end : end + 100].lstrip()[:2] not in ("B:", "B.")


FORMULAS = ((r"\[", r"\]"), ("$$", "$$"))
"""How a displayed formula begins and ends."""


def _line_after(text: str, position: int, limit: int) -> tuple[str, int]:
    """Return the rest of the line, or the next line (or displayed formula) if that is empty."""
    window = text[position : min(position + MAX_LENGTH, limit)]
    lead = len(window) - len(window.lstrip(" \t*_:：\n"))
    body = window[lead:]
    for opening, closing in FORMULAS:
        if body.startswith(opening):
            end = body.find(closing, 2)
            if end >= 0:
                return body[2:end], position + lead + end + 2
    end = body.find("\n")
    end = len(body) if end < 0 else end
    return window[:lead].replace("\n", " ") + body[:end], position + lead + end
