"""Read the value that a sentence states: "The total is $18 per day", "x = 3 or x = -3".

A sentence with several different values and no choice among them gives `SEVERAL`; a question, a
bound ("at least 42"), a negation or program code gives nothing. Regular expressions are bounded and
see at most `MAX_LENGTH` characters.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from textgym_plugins.math.answer import MAX_LENGTH, Answer, is_balanced, parse_answer, walk
from textgym_plugins.math.characters import to_ascii
from textgym_plugins.math.choice import parse_choice

SEVERAL = "several values without a choice"
MAX_WORDS = 5
"""How many words an answer in words may have."""

_NEGATED = re.compile(r"[\s*]*(?:not|n't|never|不是)\b", re.IGNORECASE)
_CLAUSE_END = re.compile(
    r"\.(?=\s|$)|。|；|;|\n|\?"
    r"|,?\s(?:because|since|which|rather than|instead of|as the|where|but)\s"
    r"|,\s(?:so|not|and so|as|with|after|when|if|the)\s|\s\((?!or\b|[0-9-])|，(?=[^0-9])"
)
_CHOICE = re.compile(r"\bnot\s[^,.;]{1,40}?,?\s(?:but|rather)\s(?:rather\s)?", re.IGNORECASE)
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
    if len(chosen) <= 200 and _reads_as_value(chosen.rstrip("! "), wants_words=wants_words):
        return Value(chosen.strip().rstrip("! "), len(content))
    if _NEGATED.match(chosen):
        return Value(None, len(content))
    line = chosen.partition("\n")[0].strip()
    if parse_choice(line) is not None:
        return Value(line, len(content))
    clause = _CLAUSE_END.split(chosen, maxsplit=1)[0]
    length = len(clause) + skipped
    if chosen[len(clause) :].lstrip()[:1] == "?":
        return Value(None, length)
    clause = clause.strip().rstrip("! ")
    if _reads_as_value(clause, wants_words=wants_words):
        return Value(clause, length)
    return Value(_in_prose(clause, wants_words=wants_words), length)


_PROSE = re.compile(
    r"(?<![A-Za-z\\])(?:not|is|it|so|the|for|was|are|has|had|be|to|of|in|on|at|by|he|she|we|you|an|as|if"
    r"|no|yes|can|may|all|any|but|out|our|its|his|her|did|do|am|my|me|us|up|get|got|now|one|two|six"
    r"|ten|how|why|who|say|see|let|use|set|sum|add)(?![A-Za-z])",
    re.IGNORECASE,
)


_UNREADABLE = re.compile(
    r"[#?@&:]|(?<![\s,;=()\[\]{}<>])[\"`~](?![\s,;=()\[\]{}<>.])"  # stands in no value
    r"|[-+*/^=<>(\[;]\s?[/^>)\]}%!]|[-+/^]\s?\*"  # an operator without its operand
    r"|(?<![0-9A-Za-z)\]}|!\s])!|(?<![0-9)\]}\s])%|_(?![0-9A-Za-z{ ])"
)
_UNREADABLE_LATEX = re.compile(r"[#?@]|(?<!\\)\\(?:[A-Za-z](?![A-Za-z])|[-+*/0-9'\"<=>^_`.])")
"""The same for text with commands; none of one letter is read."""
_DECORATION = "*_`\"'~$.,;: \t"


def _reads_as_value(text: str, *, wants_words: bool) -> bool:
    """Whether the whole of a text is an answer; most text of other kinds is told at a glance."""
    unreadable = _UNREADABLE_LATEX if "\\" in text else _UNREADABLE
    if text.isascii() and (unreadable.search(text.strip(_DECORATION)) or not is_balanced(text)):
        return False
    return _is_value(parse_answer(text), wants_words=wants_words)


def _is_value(answer: Answer | None, *, wants_words: bool) -> bool:
    """Whether what was parsed from a sentence is an answer, and not prose read as symbols."""
    if answer is None:
        return False
    if answer.kind == "text":
        return wants_words and len(answer.text.split()) <= MAX_WORDS
    if answer.quantity is not None:
        return True
    if any(part.kind == "text" for part in walk(answer)):
        return False  # "The number of eggs = 9", "42, because 6 * 7 = 42"
    return _PROSE.search(answer.source) is None


_CODE = re.compile(
    r"[_(){}\[\]<>;\"`|\\#@&~^]|^\s*(?:lambda|import|from|def|print|return|exec|eval|assert|yield|raise)\b"
)
_BESIDE = r"[^\W\u4e00-\u9fff]|[\u0300-\u036f\u20d0-\u20f0]"
"""What a number in prose must not touch: letters (Chinese apart), digits, combining marks."""
_NUMBER = re.compile(
    r"(?<![.])(?<![^\W\u4e00-\u9fff])(?:[-−])?(?:\\?\$|€|£|¥)?(?:-)?[0-9][0-9,]{0,60}"
    r"(?:\.[0-9]{1,60})?(?:\s?/\s?[0-9]{1,20})?\s?(?:%|percent\b|million\b|billion\b|thousand\b)?"
    rf"(?!(?:st|nd|rd|th)\b|{_BESIDE}|\.[0-9])"
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


_DIGIT = re.compile(r"\d")
_PROMISING = re.compile(r"[\d$\\]")


def _in_prose(sentence: str, *, wants_words: bool) -> str | None:
    """Return the one value in a sentence, `SEVERAL`, or None."""
    sentence = sentence.strip()
    value = _number_in_prose(sentence)
    if wants_words and value == SEVERAL and len(sentence.split()) <= MAX_WORDS:
        return sentence  # "3:00", "June 20, 1999"
    return value


def _number_in_prose(sentence: str) -> str | None:
    if not _PROMISING.search(sentence) or sentence.endswith("?"):
        return None
    if sentence.count("$") > 1 or "\\(" in sentence or "\\[" in sentence:
        segments = [next(g for g in m.groups() if g is not None) for m in _MATH.finditer(sentence)]
        outside = _MATH.sub(" ", sentence)
        if segments and not _DIGIT.search(outside):
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


_STATES = re.compile(
    r"(?<=[A-Za-z0-9)%])\s(?:is|are|was|were|equals|makes|gives)\s+(?=[-−]?\\?[$€£¥]?[0-9])",
    re.IGNORECASE,
)


def _one_number(sentence: str) -> str | None:
    body, equals, tail = sentence.rpartition("=")
    scope = tail if equals else sentence
    if _CODE.search(scope) or (equals and _CODE.search(body.replace("(", "").replace(")", ""))):
        return None
    if _HEDGE.search(scope):
        return SEVERAL if len(_NUMBER.findall(scope)) > 1 else None
    clauses = _STATES.split(scope)
    if len(clauses) == 2 and any(char.isalpha() for char in clauses[0]):
        scope = clauses[1]  # "The product of 6 and 7 is 42"
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


_WORDY = re.compile(r"[^\W\d_]|=")
"""A line of nothing but numbers and punctuation is a value as a whole or none."""


def value_of_line(line: str, *, wants_words: bool) -> str | None:
    """Return the value of a last line that carries no statement."""
    line = line.strip()
    if len(line) <= MAX_LENGTH and _reads_as_value(line, wants_words=wants_words):
        return line
    if len(line) > MAX_LENGTH or line.endswith("?") or not _WORDY.search(line):
        return None
    if parse_choice(line) is not None:
        return line
    sentence = line.rstrip(".!。 ")
    value = _in_prose(sentence, wants_words=wants_words)
    if value != SEVERAL or _HEDGE.search(line):
        return value
    last = re.split(r"(?<=[.!。])\s+", sentence)[-1]
    return _number_in_prose(last) if _TOTAL.search(last) and last != sentence else SEVERAL
