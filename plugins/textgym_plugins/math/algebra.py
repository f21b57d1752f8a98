"""The part that holds the computer algebra system. Imported only in a worker process.

math-verify parses LaTeX that `expression.to_latex` wrote (never text of a policy) and compares.
Decimals arrive as fractions and the numeric precision exceeds the number of digits in the input, so
nothing is rounded.
"""

from __future__ import annotations

import logging
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify

from textgym_plugins.math.tree import Node, to_latex

# It warns that its own time limits are off; the worker pool has the limit.
logging.getLogger("math_verify").setLevel(logging.ERROR)

_AS_WRITTEN = LatexExtractionConfig(
    normalization_config=NormalizationConfig(
        basic_latex=False,
        units=False,
        malformed_operators=False,
        nits=False,
        boxed="none",
        equations=False,
    )
)


def equal_in_algebra(target: Node, given: Node, is_equation: bool) -> bool:
    """Return whether two expressions are equal, or two equations `tree = 0` have one meaning."""
    left, right = to_sympy(target), to_sympy(given)
    if is_equation:
        ratio = sympy.simplify(left / right)
        return bool(ratio.is_number and ratio.is_finite and not ratio.is_zero)
    precision = 50 + len(to_latex(target)) + len(to_latex(given))
    return bool(
        verify(left, right, numeric_precision=precision, timeout_seconds=None, raise_on_error=True)
    )


def can_handle(target: Node) -> bool:
    """Parse and simplify a target by itself: raises, or takes for ever, where it cannot."""
    sympy.simplify(to_sympy(target))
    return True


def to_sympy(node: Node) -> Any:
    """Return the SymPy expression that math-verify reads from a tree."""
    latex = to_latex(node)
    parsed = parse(f"${latex}$", [_AS_WRITTEN], fallback_mode="no_fallback", parsing_timeout=None)
    if not parsed:
        raise ValueError(f"math-verify cannot parse {latex[:200]}")
    # As an answer `i` is the imaginary unit; math-verify reads a variable of that name.
    units = {symbol: sympy.I for symbol in parsed[0].free_symbols if symbol.name == "i"}
    return parsed[0].xreplace(units)
