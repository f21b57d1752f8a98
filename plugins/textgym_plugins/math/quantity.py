r"""Plain numbers: exact values in linear time, with no computer algebra.

`parse_quantity` reads integers, decimals, repeating decimals (`0.\overline{3}`), fractions, mixed
numbers, scientific notation, thousands separators, percent, currency, scale words and units. The
value is a `Fraction`; a literal is refused if it has more than 400 digits or a power of ten above
400, so nothing that is built here can be huge (and Python's limit of 4300 digits is never met).
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from textgym_plugins.math import units
from textgym_plugins.math.characters import clean_latex

MAX_DIGITS = 400


class Quantity(NamedTuple):
    """A plain number as written: its value, and what stood around it."""

    value: Fraction
    """The number before percent and units; scale words and powers of ten are applied."""
    unit: str = ""
    """The unit in lower case, singular; `%` for percent; empty if none."""
    form: str = "integer"
    """`integer`, `decimal`, `fraction`, `mixed` or `scientific`."""
    decimals: int = 0
    """Digits after the decimal point, as written."""
    lowest_terms: bool = True
    """Whether a fraction is written in lowest terms."""


_INT = r"[0-9]{1,400}"
_GROUPED = r"[0-9]{1,3}(?:,[0-9]{3}){1,9}|[0-9]{1,2}(?:,[0-9]{2}){1,5},[0-9]{3}"
_SPACED = r"[1-9][0-9]{0,2}(?:(?:[ ]|\\,)[0-9]{3}){1,9}(?![0-9])"
_DECIMAL = rf"(?:{_GROUPED}|{_SPACED}|{_INT})?(?:\.[0-9]{{0,400}})?"
_REPEATING = r"[0-9]{0,40}\.[0-9]{0,40}\\overline\s*\{?[0-9]{1,40}\}?"
_SIGNED = r"[-+]?\s?[0-9]{1,400}(?:\.[0-9]{1,400})?"
_FRAC = rf"\\frac\s*(?:\{{\s*{_SIGNED}\s*\}}|[0-9])\s*(?:\{{\s*{_SIGNED}\s*\}}|[0-9])"
_CURRENCY = r"\\?\$|€|£|¥|₹|USD|US\$|EUR|GBP|RMB|CNY|INR|Rs\.?"
_PATTERN = re.compile(
    rf"""(?P<approx>(?:\\approx|about|approximately|around|roughly|nearly)\s*)?
    (?P<sign>[-+]|minus\s|negative\s)?\s?
    (?P<currency>{_CURRENCY})?\s?
    (?P<sign2>[-+])?\s?
    (?:
      (?P<whole>{_INT})(?:\s+|\s*\\,\s*|(?=\\frac))
        (?P<mixed>{_FRAC}|[0-9]{{1,40}}\s?/\s?[0-9]{{1,40}})
    | (?P<frac>{_FRAC})
    | (?P<repeating>{_REPEATING})
    | (?P<number>{_DECIMAL})
      (?:\s?/\s?(?P<denominator>[0-9]{{1,400}}(?:\.[0-9]{{1,400}})?)
       | \s?(?:\\times|\\cdot|\*|x)\s?10\s?(?:\^|\*\*)\s?
         (?P<power>\{{\s?[-+]?[0-9]{{1,9}}\s?\}}|[-+]?[0-9]{{1,9}}|\([-+]?[0-9]{{1,9}}\))
       | [eE](?P<exponent>[-+]?[0-9]{{1,9}}))?
    )
    (?P<unit>.{{0,200}})""",
    re.VERBOSE | re.DOTALL,
)
_FRAC_PARTS = re.compile(
    rf"\\frac\s*(?:\{{\s*({_SIGNED})\s*\}}|([0-9]))\s*(?:\{{\s*({_SIGNED})\s*\}}|([0-9]))"
)
_PLAIN = re.compile(r"-?[0-9]{1,40}")


class _Body(NamedTuple):
    value: Fraction
    form: str
    decimals: int = 0
    lowest_terms: bool = True


@lru_cache(maxsize=4096)
def parse_quantity(text: str) -> Quantity | None:
    """Return the plain number that `text` is, or None if it is anything else."""
    if _PLAIN.fullmatch(text):
        return Quantity(Fraction(int(text)))
    if len(text) > 1000:
        return None
    text = clean_latex(text)
    if text.startswith("(") and text.endswith(")") and text.count("(") == 1 and "," not in text:
        text = text[1:-1].strip()
    match = _PATTERN.fullmatch(text)
    if match is None:
        return None
    try:
        body = _body(match)
    except ZeroDivisionError:
        return None
    if body is None:
        return None
    suffix = units.parse_suffix(match["unit"])
    if suffix is None or (match["currency"] and suffix.unit):
        # "$5 million" and "$18 per day" are read, "$5 kg" is not a price.
        if suffix is None or units.is_known(suffix.unit):
            return None
    unit = units.currency(match["currency"]) if match["currency"] else suffix.unit
    negative = (match["sign"] or "+")[0] in "-mn"
    if match["sign2"]:
        if match["sign"]:
            return None
        negative = match["sign2"] == "-"
    value = (-body.value if negative else body.value) * suffix.scale
    return Quantity(value, unit, body.form, body.decimals, body.lowest_terms)


def _body(match: re.Match[str]) -> _Body | None:
    if match["whole"]:
        whole, part = int(match["whole"]), _fraction(match["mixed"])
        # A mixed number needs a proper fraction: "2 3/2" and "2\frac{-1}{2}" are no numbers.
        if part is None or not 0 < part.value < 1:
            return None
        return _Body(whole + part.value, "mixed")
    if match["frac"]:
        return _fraction(match["frac"])
    if match["repeating"]:
        return _repeating(match["repeating"])
    return _number(match)


def _number(match: re.Match[str]) -> _Body | None:
    literal = match["number"].replace(",", "").replace(" ", "").replace("\\", "")
    if not literal or literal == ".":
        return None
    value = Fraction(literal)
    decimals = len(literal.partition(".")[2])
    if match["denominator"]:
        return _over(value, Fraction(match["denominator"]))
    power = match["power"] or match["exponent"]
    if power is not None:
        exponent = int(power.strip("{}() "))
        if abs(exponent) > MAX_DIGITS:
            return None
        return _Body(value * Fraction(10) ** exponent, "scientific", decimals)
    return _Body(value, "decimal" if "." in literal else "integer", decimals)


def _fraction(text: str) -> _Body | None:
    match = _FRAC_PARTS.fullmatch(text)
    if match is None:
        top, _, bottom = text.partition("/")
        return _over(Fraction(int(top)), Fraction(int(bottom)))
    top, bottom = (match[1] or match[2]).replace(" ", ""), (match[3] or match[4]).replace(" ", "")
    return _over(Fraction(top), Fraction(bottom))


def _over(top: Fraction, bottom: Fraction) -> _Body:
    value = top / bottom
    is_lowest = abs(top.numerator) == abs(value.numerator) and bottom.denominator == 1
    return _Body(value, "fraction", lowest_terms=is_lowest and top.denominator == 1)


def _repeating(text: str) -> _Body:
    whole, _, rest = text.partition(".")
    fixed, _, cycle = rest.partition("\\overline")
    cycle = cycle.strip(" {}")
    denominator = (10 ** len(cycle) - 1) * 10 ** len(fixed)
    value = Fraction(int(whole or 0)) + Fraction(int(fixed or 0), 10 ** len(fixed))
    return _Body(value + Fraction(int(cycle), denominator), "decimal", len(fixed) + len(cycle))
