r"""Find the final answer of a completion, or say why there is none.

Statements of an answer (a box, `####`, "the answer is", `A:`, "答案是") are read from the
end of the text; the last one that holds a value counts, unless the text after it withdraws it or
the one before it contradicts it. Without any statement the last line counts, if it holds exactly
one value. Every search is linear: positions come from `str.rfind`, and regular expressions only see
bounded windows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from textgym_plugins.math.answer import MAX_LENGTH, parse_answer
from textgym_plugins.math.characters import strip_decoration
from textgym_plugins.math.sentence import SEVERAL, value_of, value_of_line

_MAX_STATEMENTS = 8
_WINDOW = 400


class Extraction(NamedTuple):
    """The text of the answer and how it was found, or `None` and why there is no answer."""

    text: str | None
    how: str


class Statement(NamedTuple):
    """One place where the text says what the answer is."""

    start: int
    end: int
    text: str
    how: str


def extract(completion: str, *, wants_words: bool = False) -> Extraction:
    """Return the final answer of a completion.

    Args:
        completion: the whole text of the policy; only what follows a closing think tag counts.
        wants_words: whether words can be an answer, because the target is one ("ellipse").
    """
    text = after_thinking(completion)
    if text is None:
        return Extraction(None, "the think tag is never closed")
    statements = _statements(text, wants_words=wants_words)
    last = next(statements, None)
    if last is None:
        return _from_last_line(text, wants_words=wants_words)
    correction = _correction(text[last.end : last.end + _WINDOW])
    if correction is not None:
        return correction
    if last.text == SEVERAL:
        return Extraction(None, SEVERAL)
    previous = next(statements, None)
    if previous is not None and _stands_beside(previous, last, text[previous.end : last.start]):
        return Extraction(f"{previous.text} or {last.text}", last.how)
    return Extraction(last.text, last.how)


_THINK = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)
_ANNOTATION = re.compile(r"<<[^<>\n]{0,200}>>")


def after_thinking(text: str) -> str | None:
    """Return what follows the last closing think tag, or None if a think tag stays open."""
    if "<" not in text:
        return text
    last = max(_THINK.finditer(text), key=re.Match.start, default=None)
    if last is None:
        return text
    return text[last.end() :] if last[1] else None


_ASCII_CUES = {
    "\\boxed": "boxed", "\\fbox": "boxed", "####": "####", "nswer": "answer phrase",
    "NSWER": "answer phrase", "A:": "A: line",
}  # fmt: skip
_CUES = {
    **_ASCII_CUES, "答案": "answer phrase", "答:": "answer phrase", "答：": "answer phrase",
}  # fmt: skip


def _statements(text: str, *, wants_words: bool) -> Iterator[Statement]:
    """Yield the statements that hold a value, the last first."""
    found = sorted(_cue_positions(text), reverse=True)
    before = len(text) + 1
    for start, cue in found[:_MAX_STATEMENTS]:
        how = _CUES[cue]
        if how == "boxed":
            statement = _boxed(text, start, start + len(cue))
        elif how == "answer phrase":
            statement = _phrase(text, start, start + len(cue), wants_words=wants_words)
        elif how == "####":
            statement = _rest_of_line(text, start, start + len(cue), how, wants_words=wants_words)
        else:
            statement = _a_line(text, start, wants_words=wants_words)
        # "The answer is \boxed{5}" is one statement, found twice.
        if statement is not None and statement.end <= before:
            before = statement.start
            yield statement


def _cue_positions(text: str) -> Iterator[tuple[int, str]]:
    for cue in _ASCII_CUES if text.isascii() else _CUES:
        end = len(text)
        for _ in range(_MAX_STATEMENTS):
            end = text.rfind(cue, 0, end)
            if end < 0:
                break
            yield end, cue


_GAP = re.compile(r"[\s$\\()\[\],.;:*]{0,20}(?:and|or|,|;|、|和|或)?[\s$\\()\[\],.;:*]{0,20}")


_OX = {"b": 4, "f": 2}
"""Characters from `ox` to the end of the command `\\boxed` or `\\fbox`."""


def _boxed(text: str, start: int, position: int) -> Statement | None:
    content, end = _braced(text, position)
    if content is None or not content.strip():
        return None
    parts = [content]
    # Boxes with nothing but a conjunction between them are one statement of several values.
    for _ in range(20):
        earlier = max(text.rfind("\\boxed", 0, start), text.rfind("\\fbox", 0, start))
        if earlier < 0 or start - earlier > MAX_LENGTH:
            break
        content, earlier_end = _braced(text, text.index("ox", earlier) + _OX[text[earlier + 1]])
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


def _braced(text: str, position: int) -> tuple[str | None, int]:
    r"""Return the content of the braces at `position` (or the token of `\boxed 5`) and its end."""
    window = text[position : position + MAX_LENGTH]
    indent = len(window) - len(window.lstrip())
    if not window[indent:].startswith("{"):
        match = re.match(r"\s{0,5}([0-9A-Za-z.-]{1,40})", window)
        return (None, position) if match is None else (match[1], position + match.end())
    depth = 0
    for match in _BRACE.finditer(window):
        char = match.group()
        if len(char) == 1:
            depth += 1 if char == "{" else -1
        if depth == 0 and char == "}":
            return window[indent + 1 : match.start()], position + match.end()
    return None, position


_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_PHRASE = re.compile(
    r"(?:s)?(?:[^\n:：.?!]{0,60}?)(?:\b(?:is|are|was|be|equals)\b"
    r"(?:[ ]?(?:therefore|thus|then|simply|just|given by|equal to|indeed|clearly|hence))?[:：]?"
    r"|[:：=]|是|为|等于)\s{0,4}[:：]?",
    re.IGNORECASE,
)
_HEADING = re.compile(r"s?[*_# ]{0,6}[:：]?[*_ ]{0,6}\n")


def _phrase(text: str, start: int, position: int, *, wants_words: bool) -> Statement | None:
    window = text[position : position + 100]
    match = _PHRASE.match(window) or _HEADING.match(window)
    if match is None:
        return None
    return _rest_of_line(
        text, start, position + match.end(), "answer phrase", wants_words=wants_words
    )


def _a_line(text: str, start: int, *, wants_words: bool) -> Statement | None:
    if start > 0 and text[start - 1] != "\n":
        return None
    end = text.find("\n", start)
    if end >= 0 and text[end:].lstrip()[:2] in ("B:", "B."):
        return None  # the options of a multiple choice
    return _rest_of_line(text, start, start + 2, "A: line", wants_words=wants_words)


def _rest_of_line(
    text: str, start: int, position: int, how: str, *, wants_words: bool
) -> Statement | None:
    content, end = _line_after(text, position)
    value, length = value_of(content, wants_words=wants_words)
    if value is None or (value == SEVERAL and text[end:].strip()):
        # "Let me explain the answer: first 12 and 30" in the middle of a text states nothing.
        return None
    return Statement(start, end - max(0, len(content) - length), value, how)


_OPENERS = ((r"\[", r"\]"), ("$$", "$$"))


def _line_after(text: str, position: int) -> tuple[str, int]:
    """Return the rest of the line, or the next line (or displayed formula) if that is empty."""
    window = text[position : position + MAX_LENGTH]
    lead = len(window) - len(window.lstrip(" \t*_:：\n"))
    body = window[lead:]
    for opening, closing in _OPENERS:
        if body.startswith(opening):
            end = body.find(closing, 2)
            if end >= 0:
                return body[2:end], position + lead + end + 2
    end = body.find("\n")
    end = len(body) if end < 0 else end
    return window[:lead].replace("\n", " ") + body[:end], position + lead + end


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


def _correction(tail: str) -> Extraction | None:
    """Return what a text that follows an answer puts in its place, or None if it lets it stand."""
    if not tail.strip():
        return None
    markers = list(_WITHDRAWN.finditer(tail)) + list(_RECONSIDERED.finditer(tail))
    if not markers:
        return None
    last = max(markers, key=lambda match: match.end())
    rest = tail[last.end() :].lstrip(" ,.:;!-—").removeprefix("is ")
    value = value_of(rest, wants_words=False).text
    if value is not None and value != SEVERAL:
        return Extraction(value, "correction")
    if _WITHDRAWN.search(tail) is None:
        return None
    return Extraction(None, "the answer is withdrawn" if value is None else SEVERAL)


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
    return _CONCLUDES.search(gap) is None


_FENCE = re.compile(r"```[a-z]{0,10}")


def _from_last_line(text: str, *, wants_words: bool) -> Extraction:
    text = text[-20_000:].rstrip()
    text = _ANNOTATION.sub("", text) if "<<" in text else text
    line, previous = _last_lines(text)
    correction = _correction_in(line)
    if correction is not None:
        return correction
    value = value_of_line(line, wants_words=wants_words)
    if value is None:
        return Extraction(None, "the last line holds no value")
    if value == SEVERAL or _is_option(line, previous, value):
        return Extraction(None, SEVERAL)
    return Extraction(value, "last line")


def _last_lines(text: str) -> tuple[str, str]:
    """Return the last line (or displayed formula) and the line before it."""
    for opening, closing in _OPENERS:
        if text.endswith(closing):
            start = text.rfind(opening, 0, len(text) - 2)
            if start >= 0:
                return text[start + 2 : -2], ""
    lines = [line for line in text.rsplit("\n", 5)[1:] if line.strip()] or [text]
    if _FENCE.fullmatch(lines[-1].strip()) and len(lines) > 1:
        lines.pop()
    previous = lines[-2] if len(lines) > 1 else text[: text.rfind("\n") + 1].strip()
    return lines[-1], previous[-200:]


def _correction_in(line: str) -> Extraction | None:
    markers = [*_WITHDRAWN.finditer(line[-_WINDOW:]), *_RECONSIDERED.finditer(line[-_WINDOW:])]
    if not markers or not any(char.isdigit() for char in line[-_WINDOW:][: markers[0].start()]):
        return None
    return _correction(line[-_WINDOW:])


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
