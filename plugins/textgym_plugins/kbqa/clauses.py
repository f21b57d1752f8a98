"""Cut a text into sentences and clauses, in both languages, without cutting numbers and names.

A clause is what can be claimed, denied or refused on its own: "The passages do not say it, but I
believe it is Lyon" holds two. In Chinese every comma ends a clause; in English a comma does so only
before a conjunction, since "Tampa, Florida" is one thing.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Clause(NamedTuple):
    """A stretch of a text, with the number of its sentence."""

    start: int
    end: int
    sentence: int
    is_question: bool
    """Whether the sentence ends in a question mark."""


_BREAK = re.compile(
    r"(?=[。!?;\n.,\s\-但不然可所因而(])(?:[。!?;\n]+[\"')\]]*"
    r"|(?<!\.)\.++[\"')\]]*+(?=\s|$|[\u3400-\u9fff])"
    r"|(?=,?\s+(?:but|however|yet|although|though|whereas|while|nevertheless|nonetheless|because)\b)"
    r"(?<!anything)(?<!anyone)(?<!everything)(?<!everyone)(?<!\ball),?\s+"
    r"|,\s*(?=(?:therefore|hence|instead|thus|since|as)\b)"
    r"|,?\s+(?=and (?:i|we|there|none|it|the (?:provided|given|documents?|passages?|context|texts?|"
    r"other|second))\b)"
    r"|,\s*(?=(?:which|that|this) (?:is|was) (?:in|not |wrong|false))"
    r"|,\s*(?=(?:so|i|we|it|he|she|they|none of|there)\b)"
    r"|\s*\((?=(?:[^)]{0,10}(?:未|没|无法)|not (?:stated|mentioned|given|in|found|specified|"
    r"provided|confirmed)|no |the (?:\w+ )?(?:doc|pass|text|source)|though|although|i ))"
    r"|,(?=\s*[\u3400-\u9fff])|(?<=[\u3400-\u9fff]),"
    r"|(?<=[\u3400-\u9fff])(?=(?:但是|但(?!丁|泽)|不过|然而|可是|所以|因此|而不是|而非))"
    r"|(?<=[^\s\d])\s*--+\s*|(?<=[^\s\d])\s+-\s+)"  # the look-ahead is only for speed
)
_CONCESSION = re.compile(
    r"\s*(?:although|though|even though|while|despite|whereas|since|because|as|if|unless|"
    r"based on|according to|in|given|from)\b"
)
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'.])(?:[a-z]|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|mr|mrs|ms|dr|st|no|vs|"
    r"inc|jr|"
    r"sr|ltd|co|corp|prof|gen|gov|sen|rep|approx|fig|vol|e\.g|i\.e|u\.s|u\.k)$"
)
_NUMBERING = re.compile(r"(?:^|\n)\s*\d{1,2}$")


def split(lower: str) -> list[Clause]:
    """Return the clauses of a folded, lower-case text in order; they hold no blank ones."""
    clauses: list[Clause] = []
    start = sentence = 0
    for found in _BREAK.finditer(lower):
        mark = found[0][:1]
        is_end = mark in "。!?;\n" if mark and mark != "." else mark == "."
        if mark == "." and _is_inside_name(lower, found.start(), found.end()):
            continue
        _add(clauses, lower, start, found.start(), sentence, is_question="?" in found[0])
        start = found.end()
        sentence += is_end
    _add(clauses, lower, start, len(lower), sentence, is_question=False)
    return clauses


def _is_inside_name(text: str, start: int, end: int) -> bool:
    """Whether the full stop at `start` is that of `J. K.`, `Dec. 1` or of a list's number."""
    if end - start != 1 or end >= len(text):
        return False
    before = text[max(0, start - 8) : start]
    return bool(_ABBREVIATION.search(before) or _NUMBERING.search(before))


def _add(
    clauses: list[Clause], text: str, start: int, end: int, sentence: int, *, is_question: bool
) -> None:
    if not text[start:end].strip(" \"'()[]{}.,:-"):
        if is_question and clauses:  # the mark stood alone after a closed clause
            clauses[-1] = clauses[-1]._replace(is_question=True)
        return
    comma = text.find(",", start, end)
    if (
        comma > start
        and _CONCESSION.match(text, start, end)
        and text[comma + 1 : end].strip()
        and not text[comma + 1 : comma + 2].isdigit()
    ):
        clauses.append(Clause(start, comma, sentence, is_question))
        start = comma + 1
    clauses.append(Clause(start, end, sentence, is_question))
