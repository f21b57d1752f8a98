"""Which names the tests themselves treat as classes.

What a class makes is an object, and the tests may compute with it: they then ask the program, and
tell it with what. What a function returns is a value, and only compared here. The program's word
for which of the two a name is would let it choose; so the tests' use of the name decides.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from textgym_plugins.code.guest.remote import METHODS
from textgym_plugins.code.guest.trees import walk


def class_names(nodes: Sequence[ast.AST]) -> frozenset[str]:
    """Return the capitalised names that code of these nodes uses as classes.

    It does if it asks for an instance of one, reads an attribute of one, makes one of nothing, has
    two of them in one expression, enters one, or uses one as no built-in value can be used.
    """
    if not any(name[:1].isupper() for node in nodes for name in _made(node)):  # only for speed
        return frozenset()
    makers = _makers(nodes)
    found: set[str] = set()
    for node in nodes:
        match node:
            case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, kinds]):
                found |= {n.id for n in walk(kinds) if isinstance(n, ast.Name)}
            case ast.Call(func=ast.Name(id=name), args=[], keywords=[]):
                found.add(name)
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=owner))):
                found |= makers.get(ast.unparse(owner), set())
            case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                found.add(name)
                if attribute not in METHODS:
                    found |= makers.get(name, set())
            case ast.Attribute(value=owner, attr=attribute) if attribute not in METHODS:
                found |= _made(owner) | makers.get(ast.unparse(owner), set())
            case ast.BinOp(left=left, right=right):
                found |= _made_inside(left) & _made_inside(right)
            case ast.Compare(left=left, comparators=[right, *_]):
                found |= _made_inside(left) & _made_inside(right)
            case ast.withitem(context_expr=made):
                found |= _made(made)
    return frozenset(name for name in found if name[:1].isupper())


def _makers(nodes: Sequence[ast.AST]) -> dict[str, set[str]]:
    """Return, for each variable that is assigned what a call returns, the names called."""
    makers: dict[str, set[str]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                makers.setdefault(ast.unparse(target), set()).update(_made(node.value))
    return makers


def _made(node: ast.AST) -> set[str]:
    """Return the name that a node calls."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return {node.func.id}
    return set()


def _made_inside(node: ast.AST) -> set[str]:
    return {name for part in walk(node) for name in _made(part)}
