"""The reference of a prompt, read once: groups of accepted answers, each ready to be found in text.

`"Paris"` and `["Paris", "City of Paris"]` are one group: any alias will do. A list that holds a
list, `[["Paris"], ["Lyon", "Lugdunum"]]`, is several groups, each of which must be met. An alias is
a date, a number or words; numbers and dates are compared by value, words by the one spelling of
`fold`.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Literal, NamedTuple

from pydantic import JsonValue

from textgym_plugins.kbqa.characters import fold
from textgym_plugins.kbqa.dates import Date, dates, read_date, same_date
from textgym_plugins.kbqa.quantities import (
    Quantity,
    chinese_integer,
    quantities,
    read_quantity,
    same,
)

Span = tuple[int, int]
Polarity = Literal["yes", "no"]


class Alias(NamedTuple):
    """One accepted answer."""

    text: str
    lower: str
    dates: tuple[Date, ...]
    quantity: Quantity | None
    polarity: Polarity | None


Group = tuple[Alias, ...]


class Target(NamedTuple):
    """All that must be answered."""

    groups: tuple[Group, ...]

    @property
    def is_single(self) -> bool:
        """Whether one answer is asked for."""
        return len(self.groups) == 1


def read_target(target: JsonValue) -> Target | None:
    """Return the reference, or None if it holds no answer or is no text, number or list of them."""
    if target is None or isinstance(target, dict):
        return None
    return _read(repr(target))  # hashable, unlike a list, and tells 1 from True


@functools.lru_cache(maxsize=8192)
def _read(shown: str) -> Target | None:
    try:
        target = ast.literal_eval(shown)
    except (ValueError, RecursionError):  # infinity, or lists in lists without end
        return None
    listed = target if isinstance(target, list) else [target]
    is_grouped = any(isinstance(entry, list) for entry in listed)
    groups = []
    for entry in listed if is_grouped else [listed]:
        names = entry if isinstance(entry, list) else [entry]
        if not all(isinstance(name, str | int | float) for name in names):
            return None
        group = _group(tuple(map(_text, names)))
        if not group:
            return None
        groups.append(group)
    return Target(tuple(groups)) if groups else None


def _text(name: str | float) -> str:
    if isinstance(name, bool):
        return "yes" if name else "no"
    return name if isinstance(name, str) else repr(name)


@functools.lru_cache(maxsize=8192)
def _group(names: tuple[str, ...]) -> Group:
    """Return the aliases without those that mean the same: a date in eight formats is one."""
    distinct: dict[object, Alias] = {}
    for name in names:
        for alias in _aliases(name):
            meaning = tuple(d[:3] for d in alias.dates) or alias.lower
            distinct.setdefault(meaning, alias)
    return tuple(distinct.values())


_YES = frozenset("yes true correct 是 是的 对 对的 正确 有".split())
_NO = frozenset("no false incorrect 否 不是 不对 错 错误 不 没有".split())


@functools.lru_cache(maxsize=8192)
def _aliases(text: str) -> Group:
    """Return the accepted answer as one alias, or none if it is blank."""
    folded = fold(text).strip(" \n\"'.,;:!?。、")
    if not folded:
        return ()
    lower = folded.lower()
    polarity: Polarity | None = "yes" if lower in _YES else "no" if lower in _NO else None
    return (Alias(folded, lower, read_date(lower), read_quantity(lower), polarity),)


class Page(NamedTuple):
    """A folded completion, and what its question says that a short answer may leave out."""

    cased: str
    lower: str
    years: frozenset[int]


MOST_FOUND = 40
"""Occurrences looked at; a text that names the reference more often than this is no answer."""


def occurrences(group: Group, page: Page) -> list[Span]:
    """Return where any alias of a group stands, in order, at most `MOST_FOUND` places."""
    found: list[Span] = []
    for alias in group:
        found += islice(_find(alias, page), MOST_FOUND)
    return sorted(set(found), key=_place_of) if len(found) > 1 else found


def _place_of(span: Span) -> Span:
    return span[0], -span[1]


def names_all(target: Target, text: str) -> bool:
    """Whether a text names every group of a target, claimed or not."""
    cased = fold(text)
    lower = cased.lower()
    page = Page(cased if len(cased) == len(lower) else lower, lower, frozenset())
    return all(occurrences(group, page) for group in target.groups)


def values_like(alias: Alias, page: Page) -> list[Span]:
    """Return where a text gives any date, or any number, as the alias is one."""
    if alias.dates:
        first = alias.dates[0]
        return [
            (d.start, d.end)
            for d in _dates_of(page.lower)
            if (first.day is None or d.day) and (first.month is None or d.month)
        ]
    unit = alias.quantity.unit if alias.quantity is not None else ""
    return [
        (q.start, q.end)
        for q in _quantities_of(page.lower)
        if q.unit == unit and not _is_in_date(q, page) and _counts(q, page.lower)
    ] + [(d.start, d.end) for d in _dates_of(page.lower) if _is_year(alias) and d.year]


def _is_year(alias: Alias) -> bool:
    return bool(re.fullmatch(r"1\d{3}|20\d{2}", alias.lower))


def _find(alias: Alias, page: Page) -> Iterator[Span]:
    if alias.dates:
        return _find_date(alias, page)
    if alias.quantity is not None:
        return _find_quantity(alias.quantity, page)
    return _find_words(alias, page)


def _find_date(alias: Alias, page: Page) -> Iterator[Span]:
    given = _dates_of(page.lower)
    alone = frozenset(d.year for d in given if d.year and d.month is None and d.day is None)
    years = page.years | alone
    for date in given:
        if any(same_date(wanted, date, years) for wanted in alias.dates):
            yield date.start, date.end


def _find_quantity(wanted: Quantity, page: Page) -> Iterator[Span]:
    for given in _quantities_of(page.lower):
        if same(wanted, given) and _counts(given, page.lower) and not _is_in_date(given, page):
            yield given.start, given.end
    if not wanted.unit and not wanted.has_scale and wanted.exponent >= 0:
        year = wanted.digits * 10**wanted.exponent if wanted.exponent <= 4 else 0
        if 1000 <= year <= 2999:
            for date in _dates_of(page.lower):
                if date.year == year:
                    yield date.start, date.end


@functools.lru_cache(maxsize=64)
def _dates_of(lower: str) -> tuple[Date, ...]:
    return tuple(dates(lower))


@functools.lru_cache(maxsize=64)
def _quantities_of(lower: str) -> tuple[Quantity, ...]:
    return tuple(quantities(lower))


def _is_in_date(given: Quantity, page: Page) -> bool:
    return any(
        date.start <= given.start and given.end <= date.end
        for date in _dates_of(page.lower)
        if date.month is not None or date.day is not None
    )


_COUNTED = re.compile(
    r"\s?[个名位人年月日天次只条座部届强组级支队辆架家岁集席票场]|\s?$|[\s,.。!;)]"
)
_NOT_COUNTING = re.compile(r"(?:[统唯万专独同逐之]|第[一二三四五六七八九十]?)$")


def _counts(given: Quantity, lower: str) -> bool:
    """Whether a single Chinese numeral is a number here, and not part of a word (一些, 统一)."""
    if given.end - given.start > 1 or lower[given.start].isascii():
        return True
    before = lower[max(0, given.start - 2) : given.start]
    return bool(_COUNTED.match(lower, given.end)) and not _NOT_COUNTING.search(before)


_ASCII_WORD = re.compile(r"[a-z0-9]")
_AMBIGUOUS = frozenset("who it us is in on or as am may un so no do go he me we at be by".split())


def _find_words(alias: Alias, page: Page) -> Iterator[Span]:
    if alias.lower in _AMBIGUOUS and alias.text.isupper():
        yield from _literal(alias.text, page.cased)
        return
    is_found = False
    for span in _literal(alias.lower, page.lower):
        is_found = True
        yield span
    if is_found:
        return
    for pattern, check in _patterns(alias.text):
        for match in pattern.finditer(page.lower):
            if check is None or check(page, match):
                yield match.span()


def _literal(needle: str, text: str) -> Iterator[Span]:
    """Find a string where it is no part of a longer word or number."""
    start = text.find(needle)
    while start >= 0:
        end = start + len(needle)
        if _is_whole(needle, text, start, end):
            yield start, end
        start = text.find(needle, start + 1)


def _is_whole(needle: str, text: str, start: int, end: int) -> bool:
    if needle[0].isascii() and needle[0].isalnum() and start > 0:
        before = text[start - 1]
        if before.isascii() and before.isalnum():
            return False
        if needle[0].isdigit() and before in ".," and text[start - 2 : start - 1].isdigit():
            return False
    if needle[-1].isascii() and needle[-1].isalnum() and end < len(text):
        after = text[end]
        if after.isascii() and after.isalnum():
            return False
        if (
            needle[-1].isdigit()
            and after in ".,%"
            and (after == "%" or text[end + 1 : end + 2].isdigit())
        ):
            return False
    return True


Check = Callable[[Page, "re.Match[str]"], bool]
_RUN = re.compile(r"[a-z]+|\d+(?:[.,]\d+)*|[^\W\da-z_]+|&")
_GAP = r"[^\w\n。!?;]{0,3}"


_ORDINAL = re.compile("(?<=第)[一二三四五六七八九十]{1,3}")


def _arabic(match: re.Match[str]) -> str:
    value = chinese_integer(match[0])
    return match[0] if value is None else str(value)


@functools.lru_cache(maxsize=8192)
def _patterns(text: str) -> tuple[tuple[re.Pattern[str], Check | None], ...]:
    """Return what else the words may look like: other separators, a middle initial, `Tampa, FL`."""
    lower = text.lower()
    runs = _RUN.findall(lower)
    if len(runs) > 1 and runs[0] in ("the", "a", "an"):
        runs = runs[1:]
    if not runs:
        return ()
    patterns: list[tuple[re.Pattern[str], Check | None]] = [(_compile(runs), None)]
    ordinal = _ORDINAL.sub(_arabic, lower)
    if ordinal != lower:
        patterns.append((_compile(_RUN.findall(ordinal)), None))
    if re.fullmatch(r"[a-z]+(?:[\s'-][a-z]+)*, ?[a-z]+(?: [a-z]+)?", lower):
        patterns.append(_place(lower))
    elif _is_name(text, runs):
        short = [run for i, run in enumerate(runs) if len(run) > 1 or i == 0]
        if len(short) > 1:
            first, *rest = map(re.escape, short)
            middle = r"[^\w\n]{1,3}(?:[a-z]\b\.?\s?)?"
            patterns.append((re.compile(_bounded(first + middle + middle.join(rest))), None))
        if len(short) == 2:
            patterns.append((_compile([short[1], short[0]]), None))
    return tuple(patterns)


def _is_name(text: str, runs: list[str]) -> bool:
    words = re.findall(r"[A-Za-z]+", text)
    return 2 <= len(runs) <= 3 and len(words) == len(runs) and all(w[0].isupper() for w in words)


def _place(lower: str) -> tuple[re.Pattern[str], Check]:
    """Accept a town without its state or country, or with its abbreviation, but no other one."""
    town, _, region = lower.partition(",")
    region = region.strip()
    pattern = re.compile(_bounded(re.escape(town)) + r"(?:,\s?(?P<region>[a-z.]+))?")

    def is_there(page: Page, match: re.Match[str]) -> bool:
        given = (match["region"] or "").replace(".", "")
        if not given or given in region.split():
            return True
        if len(given) > 3:
            return not page.cased[match.start("region")].isupper()
        letters = iter(region)
        return given[0] == region[0] and all(letter in letters for letter in given)

    return pattern, is_there


_OPTIONAL_INSIDE = re.compile(r"[市省县区州](?=.)")
_OPTIONAL_END = re.compile(r"(?<=..)[队市省]$")


def _compile(runs: list[str]) -> re.Pattern[str]:
    return re.compile(_bounded(_GAP.join(_run_pattern(run, run is runs[-1]) for run in runs)))


def _run_pattern(run: str, is_last: bool) -> str:
    if run in ("&", "and"):
        return "(?:and|&)"
    if run.isascii():
        return re.escape(run)
    if run == "比":
        return "(?:比|:|-)"
    pattern = _OPTIONAL_INSIDE.sub(lambda m: f"{m[0]}?", run) if len(run) >= 4 else run
    return (
        _OPTIONAL_END.sub(lambda m: f"{m[0]}?", pattern) if is_last and len(run) >= 4 else pattern
    )


def _bounded(pattern: str) -> str:
    return rf"(?<![a-z0-9])(?:{pattern})(?![a-z0-9])"
