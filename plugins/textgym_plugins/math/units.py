"""Units, currencies, percent and scale words that follow or precede a number.

A known unit has a dimension and a factor, so `5 km` equals `5000 m` and differs from `5 m`. Other
words ("apples", "of the eggs per day") are kept as they are: they may be added to a target that
has no unit, and must match one that has.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple


class Suffix(NamedTuple):
    """What follows a number: a factor from scale words, and a unit."""

    scale: Fraction
    unit: str


_DIMENSIONS: dict[str, dict[str, str]] = {
    "length": {
        "mm millimeter millimetre": "1/1000", "cm centimeter centimetre": "1/100",
        "m meter metre": "1", "km kilometer kilometre": "1000", "in inch inche": "127/5000",
        "ft foot feet": "381/1250", "yd yard": "1143/1250", "mi mile": "201168/125",
    },
    "mass": {
        "mg milligram": "1/1000", "g gram": "1", "kg kilogram kilo": "1000",
        "lb lbs pound": "45359237/100000", "oz ounce": "45359237/1600000", "ton": "907184.74",
        "tonne": "1000000",
    },
    "time": {
        "ms millisecond": "1/1000", "s sec second": "1", "min minute": "60", "h hr hour": "3600",
        "day": "86400", "week": "604800", "month": "2629746", "year yr": "31556952",
    },
    "volume": {
        "ml milliliter millilitre": "1/1000", "l liter litre": "1", "gal gallon": "3.785411784",
    },
    "angle": {"degree deg": "1"},
    "radian": {"radian rad": "1"},
    "dollar": {"$ usd dollar buck": "1", "\\cent cent": "1/100"},
    "euro": {"€ eur euro": "1"},
    "sterling": {"£ gbp": "1", "pence penny": "1/100"},
    "yen": {"¥ rmb cny yuan yen": "1"},
    "rupee": {"₹ inr rs rupee": "1"},
    "percent": {"%": "1"},
    "speed": {"mph": "1"},
}  # fmt: skip


def _table() -> dict[str, tuple[str, Fraction]]:
    table = {}
    for dimension, names in _DIMENSIONS.items():
        for spellings, factor in names.items():
            top, _, bottom = factor.partition("/")
            for spelling in spellings.split():
                table[spelling] = (dimension, Fraction(top) / Fraction(bottom or 1))
    return table


KNOWN = _table()
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9,
           "trillion": 10**12, "万": 10**4, "亿": 10**8}  # fmt: skip
_CHINESE = {"元": "yuan", "米": "m", "厘米": "cm", "千米": "km", "公里": "km", "千克": "kg",
            "公斤": "kg", "克": "g", "小时": "h", "分钟": "min", "秒": "s", "天": "day", "升": "l",
            "美元": "$", "度": "degree"}  # fmt: skip
_NO_UNIT = frozenset(
    "or and nor not minus plus times divided over squared cubed factorial point is isn't are was "
    "wrong incorrect than but versus vs mod dozen half quarter if then else unless "
    "add subtract multiply sum difference product".split()
)  # fmt: skip
_FILLERS = frozenset(
    "a an the of in on per each every total altogether left more less fewer remaining away long "
    "wide high tall old now today worth to for with after before at by as".split()
)  # fmt: skip
_WORD = re.compile(
    r"(?:\\?\$|€|£|¥|₹|\\cent|[A-Za-z]['A-Za-z-]{0,30}|[\u4e00-\u9fff]{1,8})(?:\^?\{?[23]\}?)?"
)
_SEPARATORS = re.compile(r"\s*([/])\s*|[\s.,]+")
_POWERS = {"square": "^2", "sq": "^2", "cubic": "^3"}
_MAX_WORDS = 12
_BASE = re.compile(r"_\s?\{?\s?([0-9]{1,2})\s?\}?")


def parse_suffix(text: str) -> Suffix | None:
    """Return the meaning of the text after a number, or None if it is more than a unit."""
    stripped = text.strip()
    if not stripped:
        return Suffix(Fraction(1), "")
    if stripped == "%":
        return Suffix(Fraction(1), "%")
    base = _BASE.fullmatch(stripped)
    if base is not None:
        return Suffix(Fraction(1), f"base {base[1]}")
    if stripped.startswith(r"^\circ"):
        text = stripped = "degree " + stripped[6:]
    elif not text[0].isspace() and not _may_be_glued(stripped):
        return None
    words = [word for word in _SEPARATORS.split(stripped.lower()) if word]
    if len(words) > _MAX_WORDS or not all(w == "/" or _WORD.fullmatch(w) for w in words):
        return None
    scale = Fraction(1)
    while words and words[0] in _SCALES:
        scale *= _SCALES[words.pop(0)]
    if not _NO_UNIT.isdisjoint(words):
        return None
    unit = _canonical(words)
    return None if unit is None else Suffix(scale, unit)


def _may_be_glued(text: str) -> bool:
    """Whether a unit may stand right after a digit: `5km` and `5元`, but not `5m` or `5x`."""
    first = re.match(r"[A-Za-z]+|.", text)
    word = first.group() if first else ""
    return not word.isascii() or word == "%" or (len(word) > 1 and _singular(word.lower()) in KNOWN)


def _canonical(words: list[str]) -> str | None:
    power = ""
    unit: list[str] = []
    for index, word in enumerate(words):
        if word in _POWERS:
            power = _POWERS[word]
        elif word in ("/", "per"):
            if not unit:
                break
            unit.append("/")
        elif word in _FILLERS and not (word == "in" and index == 0 == len(words) - 1):
            break
        else:
            word, _, exponent = word.replace("{", "").replace("}", "").partition("^")
            word = _CHINESE.get(word, _singular(word))
            if len(word) < 3 and word.isascii() and word not in KNOWN:
                return None
            unit.append(word + (f"^{exponent}" if exponent else power))
            power = ""
    if unit[:1] == ["percent"] or unit[:1] == ["percentage"]:
        return "%"
    return " ".join(unit)


def _singular(word: str) -> str:
    if word in KNOWN or len(word) < 3 or word.endswith("ss"):
        return word
    return word.removesuffix("s")


def currency(symbol: str) -> str:
    """Return the unit of a currency symbol that stands before a number."""
    symbol = symbol.lower().lstrip("\\").rstrip(".").removeprefix("us")
    return "$" if symbol in ("$", "d") else symbol


def is_known(unit: str) -> bool:
    """Whether the unit is in the table, so that it can be converted and can conflict."""
    return unit.partition("^")[0] in KNOWN


def conversions(target: str, given: str, *, is_percent: bool) -> tuple[Fraction, ...]:
    """Return the factors that may turn a value in `given` into one in `target`; none if none does.

    A unit that only one side has agrees with its absence. Percent is a factor of 1/100, and where
    the prompt asks for a percentage also a unit: "50" and "50%" are then the same.
    """
    if target == given:
        return (Fraction(1),)
    if "%" in (target, given):
        if target and given:
            return ()
        factor = Fraction(100) if target == "%" else Fraction(1, 100)
        return (factor, Fraction(1)) if is_percent else (factor,)
    factor_or_none = _conversion(target, given)
    return () if factor_or_none is None else (factor_or_none,)


def _conversion(target: str, given: str) -> Fraction | None:
    if not target or not given:
        return Fraction(1)
    (target_name, _, target_power), (name, _, power) = target.partition("^"), given.partition("^")
    if target_name in KNOWN and name in KNOWN:
        (target_dimension, factor), (dimension, given_factor) = KNOWN[target_name], KNOWN[name]
        if (dimension, power) != (target_dimension, target_power):
            return None
        return (given_factor / factor) ** int(power or 1)
    target_words, words = set(target.split()), set(given.split())
    return Fraction(1) if target_words <= words or words <= target_words else None
