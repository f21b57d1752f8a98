"""Dates in text, whole or in part, in the formats of both languages.

`March 5, 2021`, `5th of March 2021`, `2021-03-05`, `3/5/2021`, `2021年3月5日`,
`二〇二一年三月五日`, `December 2015`, `5月12日`, `16日`, and the two ends of `11月15日至16日`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from textgym_plugins.kbqa.quantities import chinese_integer


class Date(NamedTuple):
    """A date as far as it is given; what is not given is None."""

    year: int | None
    month: int | None
    day: int | None
    start: int
    end: int


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|"
    r"sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_TH = r"(?:st|nd|rd|th)?"
_JOIN = r"\s?(?:-|~|to|through|and|&)\s?"
_CN = "[〇零一二三四五六七八九十]"
_DATE = re.compile(
    r"(?=[\djfmasond〇零一二三四五六七八九十])(?:"  # only for speed
    rf"(?<![a-z\d])(?:"
    rf"(?P<m1>{_MONTH})\s?(?:the\s)?(?P<d1>\d{{1,2}}){_TH}(?!\d)(?:{_JOIN}(?P<e1>\d{{1,2}}){_TH}(?!\d))?"
    r"(?:\s?,?\s?(?:of\s|in\s)?(?P<y1>\d{4})(?!\d))?"
    rf"|"
    rf"(?P<d2>\d{{1,2}}){_TH}(?:{_JOIN}(?P<e2>\d{{1,2}}){_TH})?\s?(?:day\s)?(?:of\s)?(?P<m2>{_MONTH})(?![a-z])"
    r"(?:\s?,?\s?(?:of\s|in\s)?(?P<y2>\d{4})(?!\d))?"
    rf"|(?P<m3>{_MONTH})\s?,?\s?(?:of\s)?(?P<y3>\d{{4}})(?!\d)"
    r"|(?P<y4>\d{4})\s?(?P<s4>[-/.])\s?(?P<m4>\d{1,2})(?:\s?(?P=s4)\s?(?P<d4>\d{1,2}))?(?!\d)"
    r"|(?P<a5>\d{1,2})(?P<s5>[-/.])(?P<b5>\d{1,2})(?P=s5)(?P<y5>\d{4})(?!\d)"
    rf"|(?P<m7>{_MONTH})(?![a-z])"
    r")"
    rf"|(?<!\d)(?<!{_CN})(?:(?P<y6>\d{{4}}|{_CN}{{2,4}})\s?年)?\s?(?:(?P<m6>\d{{1,2}}|"
    rf"{_CN}{{1,3}})\s?月(?:份)?)?\s?"
    rf"(?:(?P<d6>\d{{1,2}}|{_CN}{{1,3}})\s?[日号]?(?:\s?[-~至到]\s?(?P<e6>\d{{1,2}}))?\s?[日号])?"
    r"(?<=[年月份日号])"
    r"|(?<![\d.,/-])(?P<y8>1\d{3}|20\d{2})(?![\d,%]|\.\d))"
)
_LINK = re.compile(r"\s?(?:上午|下午|晚)?\s?(?:-|~|至|到|、|和|与|及|to|and|until|through)\s?")


def dates(lower: str, start: int = 0, end: int | None = None) -> list[Date]:
    """Return every date in a folded, lower-case text; a range gives its two ends."""
    found: list[Date] = []
    for match in _DATE.finditer(lower, start, len(lower) if end is None else end):
        for date in _read(match):
            found.append(_inherit(date, found, lower))
    return found


def read_date(lower: str) -> tuple[Date, ...]:
    """Return the readings of a text that is a date and nothing else; a bare year is a number."""
    text = lower.strip().rstrip(".")
    match = _DATE.match(text)
    if match is None or match.end() != len(text) or match["y8"] or match["e1"] or match["e6"]:
        return ()
    return tuple(_read(match))


def _read(match: re.Match[str]) -> list[Date]:
    group, span = match.groupdict(), match.span()
    if group["a5"]:  # 3/5/2021 is March in one country and May in another
        a, b, year = int(group["a5"]), int(group["b5"]), int(group["y5"])
        readings = dict.fromkeys(((a, b), (b, a)))
        return [Date(year, m, d, *span) for m, d in readings if _is_valid(m, d)]
    if group["y8"]:
        return [Date(int(group["y8"]), None, None, *span)]
    for form in "123467":
        if group.get(f"m{form}") or (form == "6" and (group["y6"] or group["d6"])):
            y, m = _number(group.get(f"y{form}")), _month(group.get(f"m{form}"))
            named = [group.get(f"{part}{form}") for part in "de"]
            days = [_number(day) for day in named if day] or [None]
            return [Date(y, m, day, *span) for day in days if _is_valid(m, day)]
    return []


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if text.isdigit():
        return int(text)
    value = chinese_integer(text)
    return 2000 + value if value is not None and len(text) == 2 and "十" not in text else value


def _month(text: str | None) -> int | None:
    if text is None:
        return None
    return _MONTHS.index(text[:3]) + 1 if text[0].isascii() and text[0].isalpha() else _number(text)


def _is_valid(month: int | None, day: int | None) -> bool:
    return (month is None or 1 <= month <= 12) and (day is None or 1 <= day <= 31)


def _inherit(date: Date, before: list[Date], text: str) -> Date:
    """Give the end of a range the month and year that its beginning names."""
    if not before or before[-1].day is None or date.year is not None:
        return date
    gap = text[before[-1].end : date.start]
    if len(gap) > 8 or not _LINK.fullmatch(gap):
        return date
    month = before[-1].month if date.month is None else date.month
    return date._replace(year=before[-1].year, month=month)


def same_date(target: Date, given: Date, years: frozenset[int]) -> bool:
    """Whether a date in a completion is the target, or is more precise than it.

    `years` are those that the question names, or that stand alone beside the date: a date without
    its year is right where the target's year is among them.
    """
    if target.year is not None and given.year != target.year:
        if given.year is not None or target.year not in years or target.month is None:
            return False
    if target.month is not None and given.month != target.month:
        return False
    return target.day is None or given.day == target.day
