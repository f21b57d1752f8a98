r"""What values the text of a prompt states, and how they are written: `12 * 7`, "5 squared", 1/8.

An answer that only repeats such a value in its form leaves the question undone (`restated`).
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple

from textgym_plugins.math.answer import Answer, parse_answer, walk
from textgym_plugins.math.characters import clean_latex
from textgym_plugins.math.evaluation import TooLargeError, exact_value
from textgym_plugins.math.tree import Node, canonical, num_operations

_MAX_PROMPT = 20_000
_MAX_STATED = 300

Form = Literal["plain", "fraction", "mixed", "scientific", "percent", "expression"]


class Stated(NamedTuple):
    """One value that a prompt states."""

    form: Form
    value: Fraction


def form_of(answer: Answer) -> Form:
    """Return how a value is written; a fraction that can be reduced is an expression."""
    quantity = answer.quantity
    if quantity is None:
        return "expression"
    if quantity.unit == "%":
        return "percent"
    if quantity.form in ("mixed", "scientific"):
        return "mixed" if quantity.form == "mixed" else "scientific"
    if quantity.form == "fraction":
        return "fraction" if quantity.lowest_terms else "expression"
    return "plain"


def value_of(answer: Answer) -> Fraction | None:
    """Return the rational value of an answer, or None if it has none."""
    if answer.quantity is not None:
        percent = answer.quantity.unit == "%"
        return answer.quantity.value / 100 if percent else answer.quantity.value
    try:
        return exact_value(answer.node) if answer.node is not None else None
    except (TooLargeError, ZeroDivisionError):
        return None


_SPOKEN = tuple(
    (re.compile(pattern, re.IGNORECASE), symbols)
    for pattern, symbols in (
        (r"\b(?:the )?square root of\s+([0-9.]+)", r"\\sqrt{\1}"),
        (r"\b(?:the )?cube root of\s+([0-9.]+)", r"\\sqrt[3]{\1}"),
        (r"\b(?:the )?base[ -]([0-9]+) log(?:arithm)? of\s+([0-9.]+)", r"\\log_{\1}{\2}"),
        (r"([0-9.]+)\s+squared\b", r"\1^{2}"),
        (r"([0-9.]+)\s+cubed\b", r"\1^{3}"),
        (
            r"\s+(?:raised )?to the (?:power (?:of )?)?([0-9]+)(?:(?:st|nd|rd|th)(?: power)?)?",
            r"^{\1}",
        ),
        (r"([0-9]+)\s+factorial\b", r"\1!"),
        (r"([0-9]+)\s+choose\s+([0-9]+)", r"\\binom{\1}{\2}"),
        (r"\s+(?:divided by|over)\s+(?=[0-9])", "/"),
        (r"\s+(?:times|multiplied by)\s+(?=[0-9])", "*"),
        (r"\s+plus\s+(?=[0-9])", "+"),
        (r"\s+minus\s+(?=[0-9])", "-"),
    )
)


@lru_cache(maxsize=1024)
def in_symbols(prompt: str) -> str:
    """Return a prompt in cleaned LaTeX, with the operations that it names in words as symbols."""
    text = clean_latex(prompt[:_MAX_PROMPT].replace("$", " $ "))
    for pattern, symbols in _SPOKEN:
        text = pattern.sub(symbols, text)
    return text


_RUN = re.compile(
    r"(?:\\(?:frac|sqrt|cdot|times|div|binom|overline|log|ln|,)(?![a-zA-Z])"
    r"|[0-9][eE](?=[-+]?[0-9])|[0-9.,+\-*/^!%(){}\[\]_ ])+"
)


@lru_cache(maxsize=1024)
def stated_values(prompt: str) -> frozenset[Stated]:
    """Return the rational values that stand in a prompt, each in its form."""
    found: set[Stated] = set()
    for run in _RUN.findall(in_symbols(prompt)):
        for answer in _answers_in(run):
            value = value_of(answer)
            if value is not None and len(found) < _MAX_STATED:
                found.add(Stated(form_of(answer), value))
    return frozenset(found)


def _answers_in(run: str) -> list[Answer]:
    """Parse a run of digits and operators as a whole, else the pieces between its spaces."""
    run = run.strip(" ,.+*/^_")
    if not any(char.isdigit() for char in run):
        return []
    whole = parse_answer(run) if len(run) <= 200 else None
    answers = (
        [whole] if whole is not None else map(parse_answer, run.replace(",", " ").split()[:50])
    )
    return [part for answer in answers if answer is not None for part in walk(answer)]


_MATH = re.compile(r"\$\$?([^$]{1,400})\$|\\\((.{1,400}?)\\\)|\\\[(.{1,400}?)\\\]", re.DOTALL)


@lru_cache(maxsize=1024)
def stated_expressions(prompt: str) -> frozenset[Node]:
    """Return the expressions between the math delimiters of a prompt, in canonical form."""
    found: set[Node] = set()
    for match in _MATH.finditer(prompt[:_MAX_PROMPT]):
        answer = parse_answer(next(group for group in match.groups() if group is not None))
        for part in walk(answer) if answer is not None else ():
            if part.node is not None and num_operations(part.node):
                found.add(canonical(part.node))
    return frozenset(found)
