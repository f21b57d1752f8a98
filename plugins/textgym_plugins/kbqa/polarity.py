"""Yes and no: which of them a completion says, for references that are nothing else."""

from __future__ import annotations

import re

from textgym_plugins.kbqa.clauses import Clause
from textgym_plugins.kbqa.target import Polarity, Span

_LEAD = (
    r"^\W*(?:(?:the |final )*answer(?: is)?\W*|so\W+|therefore\W+|thus\W+|答案\W*(?:是|为)?\W*|"
    r"答\W*|因此\W*|所以\W*)?"
)
_YES = re.compile(
    _LEAD
    + r"(?:(?P<word>yes|yeah|yep|correct|true|right|indeed)\b|(?P<zh>是的|是(?!否|不是|谁|什么|"
    r"因为|由于)|对(?!不|于)|没错|正确|确实|有(?!没有|误|可能)|可以))"
)
_NO = re.compile(
    _LEAD
    + r"(?:(?P<word>no|nope|false|incorrect|wrong)\b(?! (?:doubt|information|mention|answer))|"
    r"(?P<zh>不是|不对|否|不(?!确定|清楚|知道)|没有(?!答案|信息|提)|错误|错|并非|不正确))"
)


def claims_polarity(text: str, clauses: list[Clause], wanted: Polarity) -> Span | None:
    """Return where a completion says yes or no, if it says only what is wanted."""
    said: dict[Polarity, Span] = {}
    for clause in clauses:
        content = text[clause.start : clause.end]
        polarities: tuple[tuple[Polarity, re.Pattern[str]], ...] = (("no", _NO), ("yes", _YES))
        for polarity, pattern in polarities:
            found = pattern.match(content)
            if found is not None and not re.match(
                r"\W*(?:or\b|and no\b|and yes\b|和|或|/)", content[found.end() :]
            ):
                said.setdefault(
                    polarity, (clause.start + found.start(), clause.start + found.end())
                )
                break
    return said[wanted] if set(said) == {wanted} else None
