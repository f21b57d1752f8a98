"""Find calls that can be sent to the program before their answers are needed.

A row of assertions such as `assert f(1) == 2` needs one exchange of messages for each, and each
exchange two switches between processes. Where nothing else of the program is touched in between,
all questions can be sent at once: the program answers them in the same order, one after the other.
That holds for assertions that stand directly behind each other, call one function of the program
once, unconditionally, and with literal arguments.
"""

from __future__ import annotations

import ast
import builtins
from typing import NamedTuple

from textgym_plugins.code.guest.trees import walk

_LITERALS = (
    ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.UnaryOp, ast.USub, ast.UAdd,
)  # fmt: skip


class EarlyCall(NamedTuple):
    """A call in an assertion."""

    number: int
    """Of the test."""
    function: ast.expr
    arguments: list[ast.expr]
    keywords: list[ast.keyword]


def early_call(node: ast.Assert, names: frozenset[str]) -> ast.Call | None:
    """Return the call of an assertion that may be sent ahead.

    Args:
        node: the assertion.
        names: built-in names that are the program's all the same.
    """
    found = [call for call in _unconditional(node.test) if _is_early(call, names)]
    if len(found) != 1:
        return None
    (call,) = found
    assert isinstance(call.func, ast.Name)
    used = [n.id for n in walk(node) if isinstance(n, ast.Name)]
    used.remove(call.func.id)  # a second use of the function is one too many
    is_alone = all(hasattr(builtins, name) and name not in names for name in used)
    return call if is_alone else None


def _is_early(call: ast.Call, names: frozenset[str]) -> bool:
    if not isinstance(call.func, ast.Name):
        return False
    if hasattr(builtins, call.func.id) and call.func.id not in names:
        return False
    parts = [*call.args, *(keyword.value for keyword in call.keywords)]
    is_plain = all(keyword.arg is not None for keyword in call.keywords)
    return is_plain and all(isinstance(n, _LITERALS) for part in parts for n in walk(part))


def _unconditional(node: ast.expr) -> list[ast.Call]:
    """Return the calls that are made whenever the expression is evaluated."""
    match node:
        case ast.Call():
            parts = [*node.args, *(keyword.value for keyword in node.keywords)]
            return [node] + [call for part in parts for call in _unconditional(part)]
        case ast.Compare():
            parts = [node.left, *node.comparators[:1]]
        case ast.BinOp():
            parts = [node.left, node.right]
        case ast.UnaryOp():
            parts = [node.operand]
        case ast.Tuple() | ast.List():
            parts = node.elts
        case _:
            return []
    return [call for part in parts for call in _unconditional(part)]
