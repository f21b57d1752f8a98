r"""Whether an answer of the right value is only the question again, not carried out.

`12 + 30` does not answer "What is 12 + 30?", but `\frac{1}{2}`, `2\sqrt{3}` or `3^{10}` may be one.
"""

from __future__ import annotations

import re

from textgym_plugins.math.answer import Answer, squash
from textgym_plugins.math.characters import clean_latex
from textgym_plugins.math.expression import Node, contains, num_operations
from textgym_plugins.math.quantity import Quantity

_ARITHMETIC = ("mul", "div", "frac")
_EVALUABLE = ("pow", "root", "factorial", "binom", "fn")
_DIGITS = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def is_unevaluated(target: Answer, given: Answer, prompt: str) -> bool:
    """Return whether an answer equal to the target leaves the work of the prompt undone."""
    if given.kind == "relation":
        given = given.items[-1]
    if target.kind == "relation":
        target = target.items[-1]
    if squash_text(given.text) == squash_text(target.text):
        return False
    if given.quantity is not None:
        return _is_restated_fraction(target.quantity, given.quantity, given.text, prompt)
    if given.node is None or num_operations(given.node) == 0:
        return False
    if target.quantity is not None and _is_open_arithmetic(given.node, given.text, prompt):
        return True
    return occurs_in(given.text, prompt)


def _is_open_arithmetic(node: Node, text: str, prompt: str) -> bool:
    """Sums and products of numbers are unevaluated; powers and roots may be a closed form."""
    if contains(node, "const"):
        return False  # a multiple of pi has no simpler form
    if contains(node, "add"):
        return True
    if not any(contains(node, kind) for kind in _ARITHMETIC):
        return False
    if not any(contains(node, kind) for kind in _EVALUABLE):
        return True
    # `6^1 \cdot 7^1` repeats the question as well as `6 \cdot 7` does.
    return _numbers(text) <= _numbers(prompt) | {"0", "1"}


def _is_restated_fraction(target: Quantity | None, given: Quantity, text: str, prompt: str) -> bool:
    if target is None or given.form != "fraction" or ("/" not in text and r"\frac" not in text):
        return False
    if given.lowest_terms and not (target.form == "mixed" and occurs_in(text, prompt)):
        return False
    return target.form == "mixed" or _numbers(text) <= _numbers(prompt)


def _numbers(text: str) -> set[str]:
    return set(_DIGITS.findall(text.replace(",", "")))


def squash_text(text: str) -> str:
    r"""Return text in which `\frac{1}{2}`, `1/2`, braces and spacing make no difference."""
    text = _FRACTION.sub(r"\1/\2", squash(text))
    return text.replace("{", "").replace("}", "").replace("\\div", "/")


_FRACTION = re.compile(r"\\frac\{([^{}]{1,40})\}\{([^{}]{1,40})\}")


def occurs_in(text: str, prompt: str) -> bool:
    """Return whether an expression stands in the prompt as a whole, spacing aside."""
    needle, haystack = squash_text(text), squash_text(clean_latex(prompt[:20_000]))
    start = haystack.find(needle)
    for _ in range(20):
        if start < 0 or not needle:
            return False
        before, after = haystack[start - 1 : start], haystack[start + len(needle) :][:1]
        # "x+1" stands in "Factor x+1", where the words before it are squashed to letters too.
        if not before.isdigit() and before not in (".", "^") and not after.isdigit():
            return True
        start = haystack.find(needle, start + 1)
    return False
