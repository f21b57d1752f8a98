"""Read the value that a sentence states: "The total is $18 per day", "x = 3 or x = -3".

A sentence with several different values and no choice among them gives `SEVERAL`; a question, a
bound ("at least 42"), a negation or program code gives nothing. Regular expressions are bounded and
see at most `MAX_LENGTH` characters.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from textgym_plugins.math.answer import MAX_LENGTH, Answer, parse_answer, walk
from textgym_plugins.math.characters import to_ascii

SEVERAL = "several values without a choice"

_NEGATED = re.compile(r"[\s*]*(?:not|n't|never|不是)\b", re.IGNORECASE)
_CLAUSE_END = re.compile(
    r"\.(?=\s|$)|。|；|;|\n|\?"
    r"|,?\s(?:because|since|which|rather than|instead of|as the|where|but)\s"
    r"|,\s(?:so|not|and so|as|with|after|when|if|the)\s|\s\((?!or\b|[0-9-])|，(?=[^0-9])"
)
_CHOICE = re.compile(r"\bnot\s[^,.;]{1,40}?,?\s(?:but|rather)\s(?:rather\s)?", re.IGNORECASE)
_OPTION = re.compile(r"\(?\b[A-J]\)\s?(?=\S)")
_MATH = re.compile(
    r"\$\$(.{1,400}?)\$\$|\$([^$\n]{1,400}?)\$|\\\((.{1,400}?)\\\)|\\\[(.{1,400}?)\\\]", re.DOTALL
)


class Value(NamedTuple):
    """The value in a piece of text (or `SEVERAL`, or None) and how many characters hold it."""

    text: str | None
    length: int


def value_of(content: str, *, wants_words: bool) -> Value:
    """Return the value that a statement begins with."""
    content = content[:MAX_LENGTH]
    chosen = _CHOICE.sub("", content, count=1)
    skipped = len(content) - len(chosen)
    if len(chosen) <= 200 and _is_value(parse_answer(chosen.rstrip("! ")), wants_words=wants_words):
        return Value(chosen.strip().rstrip("! "), len(content))
    if _NEGATED.match(chosen):
        return Value(None, len(content))
    if _OPTION.match(chosen) and len(_OPTION.findall(chosen)) == 1:
        return Value(chosen.strip(), len(content))
    clause = _CLAUSE_END.split(chosen, maxsplit=1)[0]
    length = len(clause) + skipped
    if chosen[len(clause) :].lstrip()[:1] == "?":
        return Value(None, length)
    clause = clause.strip().rstrip("! ")
    if _is_value(parse_answer(clause), wants_words=wants_words):
        return Value(clause, length)
    return Value(_in_prose(clause), length)


_PROSE = re.compile(
    r"(?<![A-Za-z\\])(?:not|is|it|so|the|for|was|are|has|had|be|to|of|in|on|at|by|he|she|we|you|an|as|if"
    r"|no|yes|can|may|all|any|but|out|our|its|his|her|did|do|am|my|me|us|up|get|got|now|one|two|six"
    r"|ten|how|why|who|say|see|let|use|set|sum|add)(?![A-Za-z])",
    re.IGNORECASE,
)


def _is_value(answer: Answer | None, *, wants_words: bool) -> bool:
    """Whether what was parsed from a sentence is an answer, and not prose read as symbols."""
    if answer is None:
        return False
    if answer.kind == "text":
        return wants_words and len(answer.text.split()) <= 5
    if answer.quantity is not None:
        return True
    if any(part.kind == "text" for part in walk(answer)):
        return False  # "The number of eggs = 9", "42, because 6 * 7 = 42"
    return _PROSE.search(answer.source) is None


_CODE = re.compile(
    r"[_(){}\[\]<>;\"`|\\#@&~^]|^\s*(?:lambda|import|from|def|print|return|exec|eval|assert|yield|raise)\b"
)
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9.])(?:[-−])?(?:\\?\$|€|£|¥)?(?:-)?[0-9][0-9,]{0,60}(?:\.[0-9]{1,60})?"
    r"(?:\s?/\s?[0-9]{1,20})?\s?(?:%|percent\b|million\b|billion\b|thousand\b)?(?!(?:st|nd|rd|th)\b|[A-Za-z_0-9]|\.[0-9])"
)
_BOUND = re.compile(
    r"(?:\bnot|n't|\bthan|\bat least|\bat most|\bup to|\bleast|\bminimum of|\bmaximum of|\bnever"
    r"|不是|至少|至多)\s*$",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"\b(?:either|or|alternatively|otherwise|another|maybe|perhaps|possibly|might|could be|guess"
    r"|between|或)\b|或者",
    re.IGNORECASE,
)


def _in_prose(sentence: str) -> str | None:
    """Return the one value in a sentence, `SEVERAL`, or None."""
    sentence = sentence.strip()
    if not any(char.isdigit() or char in "$\\" for char in sentence) or sentence.endswith("?"):
        return None
    segments = [next(g for g in m.groups() if g is not None) for m in _MATH.finditer(sentence)]
    outside = _MATH.sub(" ", sentence)
    if segments and not any(char.isdigit() for char in outside):
        return _one_of_segments(segments, outside)
    return _one_number(to_ascii(sentence))


def _one_of_segments(segments: list[str], outside: str) -> str | None:
    """Choose among the formulas of a sentence: the only one that is a value."""
    values = [s for s in segments if any(c.isdigit() for c in s) or r"\pi" in s]
    values = list(dict.fromkeys(value.strip() for value in values))
    if not values:
        return segments[0].strip() if len(segments) == 1 and parse_answer(segments[0]) else None
    if len(values) > 1 or _HEDGE.search(outside):
        return SEVERAL
    return values[0] if parse_answer(values[0]) is not None else None


def _one_number(sentence: str) -> str | None:
    body, equals, tail = sentence.rpartition("=")
    scope = tail if equals else sentence
    if _CODE.search(scope) or (equals and _CODE.search(body.replace("(", "").replace(")", ""))):
        return None
    if _HEDGE.search(scope):
        return SEVERAL if len(_NUMBER.findall(scope)) > 1 else None
    matches = list(_NUMBER.finditer(scope))
    if not matches:
        return None
    distinct = {match.group().strip() for match in matches}
    if len(distinct) > 1:
        return SEVERAL
    [text] = distinct
    if _BOUND.search(scope[: matches[-1].start()][-20:]):
        return None
    return _with_unit(text, scope[matches[-1].end() :])


_UNIT_WORDS = re.compile(
    r"\s[A-Za-z]{1,20}(?:\s(?:per|square|cubic)\s[A-Za-z]{1,20})?|\s?[\u4e00-\u9fff]{1,4}"
)


def _with_unit(number: str, tail: str) -> str:
    """Return the number with the word after it, if that reads as its unit."""
    match = _UNIT_WORDS.match(tail)
    if match is not None and parse_answer(number + match.group()) is not None:
        return number + match.group()
    return number


_TOTAL = re.compile(
    r"\b(?:so|therefore|thus|hence|in total|altogether|finally)\b|所以|因此|总共|一共",
    re.IGNORECASE,
)


def value_of_line(line: str, *, wants_words: bool) -> str | None:
    """Return the value of a last line that carries no statement."""
    line = line.strip()
    if len(line) <= MAX_LENGTH and _is_value(parse_answer(line), wants_words=wants_words):
        return line
    if len(line) > MAX_LENGTH or (not any(char.isalpha() for char in line) and "=" not in line):
        return None
    if line.endswith("?"):
        return None
    sentence = line.rstrip(".!。 ")
    value = _in_prose(sentence)
    if value != SEVERAL or _HEDGE.search(line):
        return value
    last = re.split(r"(?<=[.!。])\s+", sentence)[-1]
    return _in_prose(last) if _TOTAL.search(last) and last != sentence else SEVERAL
