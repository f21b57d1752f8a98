"""Go through a syntax tree, as `ast.walk` does in several times the time."""

from __future__ import annotations

import ast

_LEAVES = frozenset({ast.Name, ast.Constant, ast.alias})


def walk(tree: ast.AST) -> list[ast.AST]:
    """Return the nodes of a tree, each before its children, but no contexts of names."""
    nodes = [tree]
    for node in nodes:  # which grows meanwhile
        if type(node) in _LEAVES:
            continue
        for name in node._fields:
            value = getattr(node, name)
            if type(value) is list:
                nodes += [each for each in value if isinstance(each, ast.AST)]
            elif isinstance(value, ast.AST) and not isinstance(value, ast.expr_context):
                nodes.append(value)
    return nodes
