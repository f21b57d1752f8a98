r"""Whether an answer of the right value is only the question again, not carried out.

Where the target is a number, `12 + 30` and `12 \cdot 7` are questions. A single power, root,
factorial, binomial or function of plain numbers (`3^{10}`), or a product of them, can be the closed
form that somebody worked out, and so can a fraction in lowest terms; they are refused where the
prompt states that very value in that form ("What is 5 factorial?", "Write 1/8 as a decimal").
Where the target is an expression, what already stands in the prompt is refused.
"""

from __future__ import annotations

import re
from fractions import Fraction

from textgym_plugins.math.answer import Answer, squash, walk
from textgym_plugins.math.evaluation import TooLargeError, exact_value
from textgym_plugins.math.intervals import variable_of
from textgym_plugins.math.question import (
    Stated,
    form_of,
    in_symbols,
    stated_expressions,
    stated_values,
    value_of,
)
from textgym_plugins.math.tree import Node, canonical, contains, num_operations

_ARITHMETIC = ("mul", "div", "frac")
_OPERATIONS = ("pow", "root", "factorial", "binom", "fn")
_EQUATION = frozenset(("=", r"\approx", r"\equiv"))


def is_unevaluated(target: Answer, given: Answer, prompt: str, *, is_rounded: bool = False) -> bool:
    """Return whether an answer, if it equals the target, leaves the work of the prompt undone.

    Args:
        target: the gold answer.
        given: what was extracted.
        prompt: the question.
        is_rounded: the target is rounded, so that an exact irrational value is more than it asks.
    """
    if _spelled(given) in set(map(_spelled, walk(target))):
        return False
    if given.kind == "relation":
        return _is_unevaluated_chain(target, given, prompt, is_rounded=is_rounded)
    if given.items:
        return any(
            is_unevaluated(target, item, prompt, is_rounded=is_rounded) for item in given.items
        )
    if given.quantity is None and (given.node is None or not num_operations(given.node)):
        return False
    value = value_of(given)
    goal = _goal(target, value)
    if goal is not None and goal.quantity is not None:
        if value is None:
            is_closed = _is_closed(given, stated_values(prompt))
            return not is_rounded and (not is_closed or occurs_in(given.text, prompt))
        return _is_restated_number(goal, given, value, prompt)
    return given.node is not None and _is_restated_expression(goal, given, given.node, prompt)


def _is_unevaluated_chain(target: Answer, chain: Answer, prompt: str, *, is_rounded: bool) -> bool:
    """Look at `x = a = b`: one side that is worked out is enough, if it equals the last one."""
    sides = [side for side in chain.items if not variable_of(side)]
    undone = [is_unevaluated(target, side, prompt, is_rounded=is_rounded) for side in sides]
    if not set(chain.name.split()) <= _EQUATION:
        return any(undone)
    if not undone or not undone[-1]:
        return False
    last = value_of(sides[-1])
    done = [value_of(side) for side, is_open in zip(sides, undone, strict=True) if not is_open]
    return last is None or last not in done


def _goal(target: Answer, value: Fraction | None) -> Answer | None:
    """Return the part of the target that a part of the answer stands for."""
    if target.kind == "relation":
        target = target.items[-1]
    if not target.items:
        return target
    parts = [part for part in walk(target) if not part.items]
    return next((part for part in parts if value is not None and value_of(part) == value), None)


def _is_restated_number(goal: Answer, given: Answer, value: Fraction, prompt: str) -> bool:
    """Whether a number that is written otherwise than the target stands like this in the prompt."""
    form, wanted = form_of(given), form_of(goal)
    is_integer = form == "plain" and value.denominator == 1
    if form == wanted or (is_integer and wanted in ("expression", "fraction")):
        return False
    if "percent" in (form, wanted) and _numeral(given) == _numeral(goal):
        return False  # "50" and "50%" where the prompt asks for a percentage
    stated = stated_values(prompt)
    if form == "expression":
        is_open = (
            _is_quotient(value, stated) if given.node is None else not _is_closed(given, stated)
        )
        if is_open:
            return True
    return Stated(form, value) in stated


def _numeral(answer: Answer) -> Fraction | None:
    return answer.quantity.value if answer.quantity is not None else None


def _is_quotient(value: Fraction, stated: frozenset[Stated]) -> bool:
    """Whether a value is one number of the prompt divided by another one."""
    numbers = {number.value for number in stated}
    return any(value * divisor in numbers for divisor in numbers - {0, 1})


def _is_closed(given: Answer, stated: frozenset[Stated]) -> bool:
    numbers = frozenset(number.value for number in stated)
    return given.node is not None and is_closed_form(given.node, numbers)


def is_closed_form(node: Node, stated: frozenset[Fraction]) -> bool:
    r"""Return whether a tree is an operation on plain numbers, or a product of such operations.

    A product may hold one plain number, and none of its operands may be a value in `stated`: both
    keep `12 \cdot \sqrt{49}` from answering "What is 12 * 7?".
    """
    while node.kind == "neg":
        node = node.args[0]
    if node.kind not in _ARITHMETIC:
        return _is_operation(node)
    operands = list(_operands(node))
    values = list(map(_value, operands))
    if any(abs(value) != 1 and value in stated for value in values if value is not None):
        return False
    plain = [v for o, v in zip(operands, values, strict=True) if not _is_operation(o)]
    return (
        all(_is_operation(operand) or _is_atom(operand) for operand in operands)
        and len(plain) < len(operands)
        and sum(value is not None and abs(value) != 1 for value in plain) <= 1
    )


def _operands(node: Node) -> list[Node]:
    """Return what a product or quotient is made of, through all its levels."""
    if node.kind in _ARITHMETIC and not _is_atom(node):
        return [operand for argument in node.args for operand in _operands(argument)]
    return _operands(node.args[0]) if node.kind == "neg" else [node]


def _is_operation(node: Node) -> bool:
    """Whether this is one operation on atoms whose value is none of theirs (unlike `84^1`)."""
    if node.kind not in _OPERATIONS or node.name == "abs":
        return False
    value = _value(node)
    is_trivial = value is not None and value in list(map(_value, node.args))
    return all(map(_is_atom, node.args)) and not is_trivial


def _is_atom(node: Node) -> bool:
    r"""Whether this is a number, a constant, a fraction of numbers, or a multiple of a constant."""
    if node.kind == "neg":
        return _is_atom(node.args[0])
    if node.kind in _ARITHMETIC:
        is_fraction = node.kind != "mul" and all(argument.kind == "num" for argument in node.args)
        return is_fraction or (contains(node, "const") and all(map(_is_atom, node.args)))
    return node.kind in ("num", "const") or (node.kind, node.name) == ("var", "i")


def _value(node: Node) -> Fraction | None:
    try:
        return exact_value(node)
    except (TooLargeError, ZeroDivisionError):
        return None


def _is_restated_expression(goal: Answer | None, given: Answer, node: Node, prompt: str) -> bool:
    written = canonical(node)
    if goal is not None and goal.node is not None and canonical(goal.node) == written:
        return False
    return written in stated_expressions(prompt) or occurs_in(given.text, prompt)


def _spelled(answer: Answer) -> str:
    return squash_text(answer.text)


def squash_text(text: str) -> str:
    r"""Return text in which `\frac{1}{2}`, `1/2`, braces and spacing make no difference."""
    text = _FRACTION.sub(r"\1/\2", squash(text))
    return text.replace("{", "").replace("}", "").replace("\\div", "/")


_FRACTION = re.compile(r"\\frac\{([^{}]{1,40})\}\{([^{}]{1,40})\}")


def occurs_in(text: str, prompt: str) -> bool:
    """Return whether an expression stands in the prompt as a whole, spacing aside."""
    needle, haystack = squash_text(text), squash_text(in_symbols(prompt))
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
