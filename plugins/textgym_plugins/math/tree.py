"""The tree of one expression, and the LaTeX that says it without ambiguity."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple


class Node(NamedTuple):
    """A node: `kind` is `num`, `var`, `const`, or an operation on `args`."""

    kind: str
    args: tuple[Node, ...] = ()
    name: str = ""
    value: Fraction = Fraction(0)


def negate(node: Node) -> Node:
    """Return the negative of a tree."""
    return Node("num", value=-node.value) if node.kind == "num" else Node("neg", (node,))


def contains(node: Node, kind: str, name: str = "") -> bool:
    """Whether a node of this kind (and name) occurs in the tree."""
    if node.kind == kind and (not name or node.name == name):
        return True
    return any(contains(argument, kind, name) for argument in node.args)


def num_operations(node: Node) -> int:
    """Return how many operations a reader would still have to carry out."""
    own = 0 if node.kind in ("num", "var", "const", "neg") else 1
    return own + sum(num_operations(argument) for argument in node.args)


def canonical(node: Node) -> Node:
    """Return the tree without the differences of writing: order, nesting, plus 0 and times 1."""
    args = tuple(map(canonical, node.args))
    if node.kind in ("add", "mul"):
        neutral = Node("num", value=Fraction(node.kind == "mul"))
        flat = [a for arg in args for a in (arg.args if arg.kind == node.kind else (arg,))]
        args = tuple(sorted((a for a in flat if a != neutral), key=repr))
        return args[0] if len(args) == 1 else Node(node.kind, args) if args else neutral
    if node.kind in ("div", "frac") and args[1] == Node("num", value=Fraction(1)):
        return args[0]
    kind = "div" if node.kind == "frac" else node.kind
    return Node(kind, args, node.name, node.value)


def to_latex(node: Node) -> str:
    """Return unambiguous LaTeX: every operand in braces or parentheses, decimals as fractions."""
    if node.kind == "num":
        top, bottom = node.value.as_integer_ratio()
        text = str(abs(top)) if bottom == 1 else rf"\frac{{{abs(top)}}}{{{bottom}}}"
        return f"(-{text})" if top < 0 else text
    if node.kind == "const":
        return {"pi": r"\pi", "e": "e", "infty": r"\infty"}[node.name]
    if node.kind == "var":
        stem, _, subscript = node.name.partition("_")
        return f"{stem}_{{{subscript}}}" if subscript else f"{stem} "
    parts = [to_latex(argument) for argument in node.args]
    if node.kind == "add":
        return "(" + "+".join(parts) + ")"
    if node.kind == "mul":
        return "(" + r" \cdot ".join(parts) + ")"
    if node.kind in ("div", "frac"):
        return rf"\frac{{{parts[0]}}}{{{parts[1]}}}"
    if node.kind == "neg":
        return f"(-{parts[0]})"
    if node.kind == "pow":
        return f"({parts[0]})^{{{parts[1]}}}"
    if node.kind == "root":
        index = "" if parts[1] == "2" else f"[{parts[1]}]"
        return rf"\sqrt{index}{{{parts[0]}}}"
    if node.kind == "factorial":
        return f"({parts[0]})!"
    if node.kind == "binom":
        return rf"\binom{{{parts[0]}}}{{{parts[1]}}}"
    if node.name == "abs":
        return f"|{parts[0]}|"
    base = f"_{{{parts[1]}}}" if len(parts) == 2 else ""
    return rf"\{node.name}{base}({parts[0]})"
