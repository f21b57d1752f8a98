r"""One mathematical expression: parsed from LaTeX or plain text to a small tree.

The grammar is the whole of what may reach the computer algebra system: numbers, variables,
`+ - * / ^ !`, fractions, roots, binomials, common functions, constants. Anything else is refused
here, so no text of a policy is ever evaluated. Trees are exact (`Fraction`) and bounded in size and
depth; `evaluation` says what they are worth.
"""

from __future__ import annotations

import re
from fractions import Fraction

from textgym_plugins.math.tree import Node, negate

MAX_TOKENS = 300
MAX_DEPTH = 20
MAX_REPEATS = 3
"""Divisions in a row (`a/b/c/d`) and factorials of factorials."""

FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log exp".split()
)
_WORDS = FUNCTIONS | {"pi", "sqrt"}
_GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta kappa lambda mu nu xi rho "
    "sigma tau phi varphi chi psi omega Gamma Delta Theta Lambda Sigma Phi Psi Omega ell".split()
)
_TOKEN = re.compile(
    r"\s*(?:(?P<number>[0-9]{1,400}(?:,[0-9]{3}(?![0-9])){0,9}(?:\.[0-9]{1,400})?|\.[0-9]{1,400})"
    r"|(?P<command>\\(?:[a-zA-Z]{1,20}|[{}|%$&,]))|(?P<word>[a-zA-Z]{1,40})"
    r"|(?P<symbol>\*\*|[-+*/^!=<>(){}\[\]|,;:_'&%$]|\\\\))"
)


_LONG_WORD = re.compile(r"(?<![A-Za-z\\{_])[A-Za-z]{4,}")


class SyntaxRefusedError(Exception):
    """Text outside the grammar."""


def tokenize(text: str) -> list[str] | None:
    """Return the tokens of cleaned text, or None for words, unknown characters or too many."""
    if not _WORDS.issuperset(_LONG_WORD.findall(text)):
        return None
    tokens: list[str] = []
    position = 0
    for match in _TOKEN.finditer(text):
        if match.start() != position or len(tokens) > MAX_TOKENS:
            return None
        position = match.end()
        tokens.append(match.group().strip())
    return None if text[position:].strip() else tokens


def parse_tokens(tokens: list[str]) -> Node | None:
    """Return the tree of an expression, or None if the tokens are not one whole expression."""
    parser = _Parser(tokens)
    try:
        node = parser.sum(0)
    except (SyntaxRefusedError, ZeroDivisionError):
        return None
    return None if parser.token else node


_CLOSING = {"(": ")", "[": "]", "{": "}", "|": "|", r"\{": r"\}"}
_MULTIPLY = frozenset(("*", r"\cdot", r"\times"))
_POWER = frozenset(("^", "**"))


class _Parser:
    """Recursive descent; every call deeper passes `depth`, which is bounded."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = [*tokens, ""]
        self.position = 0
        self.token = self.tokens[0]

    def take(self) -> str:
        token = self.token
        if not token:
            raise SyntaxRefusedError("unexpected end")
        self.position += 1
        self.token = self.tokens[self.position]
        return token

    def put_back(self, tokens: list[str]) -> None:
        """Read these tokens next."""
        self.tokens[self.position : self.position] = tokens
        self.token = self.tokens[self.position]

    def expect(self, token: str) -> None:
        if self.take() != token:
            raise SyntaxRefusedError(f"expected {token}")

    def sum(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise SyntaxRefusedError("too deep")
        terms = [self.product(depth)]
        while self.token in ("+", "-"):
            sign = self.take()
            term = self.product(depth)
            terms.append(term if sign == "+" else negate(term))
        return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def product(self, depth: int) -> Node:
        factors = [self.signed(depth)]
        num_divisions = 0
        while True:
            if self.token in _MULTIPLY:
                self.take()
                factors.append(self.signed(depth))
            elif self.token in ("/", r"\div"):
                self.take()
                num_divisions += 1
                if num_divisions > MAX_REPEATS:
                    raise SyntaxRefusedError("too many divisions")
                factors = [Node("div", (_product_of(factors), self.signed(depth)))]
            elif self._starts_atom():
                factor = self.power(depth)
                mixed = _mixed_number(factors[-1], factor)
                factors = [*factors[:-1], mixed] if mixed else [*factors, factor]
            else:
                return _product_of(factors)

    def _starts_atom(self) -> bool:
        token = self.token
        if not token or (token[0] in "0123456789." and self.tokens[self.position - 1][0].isdigit()):
            return False  # "72 71" is two numbers and no product
        return token in ("(", "[", "{") or token[0].isalnum() or token in _ATOM_COMMANDS

    def signed(self, depth: int) -> Node:
        if self.token in ("+", "-"):
            sign = self.take()
            if depth > MAX_DEPTH:
                raise SyntaxRefusedError("too deep")
            node = self.signed(depth + 1)
            return node if sign == "+" else negate(node)
        return self.power(depth)

    def power(self, depth: int) -> Node:
        base = self.atom(depth)
        for _ in range(MAX_REPEATS):
            if self.token != "!":
                break
            self.take()
            base = Node("factorial", (base,))
        if self.token in _POWER:
            self.take()
            if self.token == r"\circ":
                raise SyntaxRefusedError("a degree sign inside an expression")
            if depth > MAX_DEPTH:
                raise SyntaxRefusedError("too deep")
            exponent = self.signed(depth + 1) if self.token != "{" else self.argument(depth)
            if self.token in _POWER:
                raise SyntaxRefusedError("double exponent")
            return Node("pow", (base, exponent))
        return base

    def argument(self, depth: int) -> Node:
        r"""Parse a braced argument, or the single digit or letter of `\frac12`."""
        if self.token == "{":
            self.take()
            node = self.sum(depth + 1)
            self.expect("}")
            return node
        if len(self.token) > 1 and self.token[0].isalnum():
            self.put_back(list(self.take()))
        return self.atom(depth + 1)

    def atom(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise SyntaxRefusedError("too deep")
        token = self.take()
        if token[0].isdigit() or (token[0] == "." and len(token) > 1):
            return Node("num", value=Fraction(token.replace(",", "")))
        if token in _CLOSING:
            node = self.sum(depth + 1)
            self.expect(_CLOSING[token])
            return Node("fn", (node,), "abs") if token == "|" else node
        if token[0].isalpha():
            return self._letters(token, depth)
        return self._command(token, depth)

    def _letters(self, token: str, depth: int) -> Node:
        if token in _WORDS:
            return self._command("\\" + token, depth)
        if len(token) > 3:
            raise SyntaxRefusedError("a word")
        if len(token) > 1:  # "xy" is x times y
            self.put_back(list(token[1:]))
        return self._variable(token[0], depth)

    def _variable(self, name: str, depth: int) -> Node:
        if self.token == "_":
            self.take()
            braced = self.token == "{"
            if braced:
                self.take()
            name += "_" + self.take()
            if braced:
                self.expect("}")
            if not re.fullmatch(r"\\?[a-zA-Z]+_[a-zA-Z0-9]{1,5}", name):
                raise SyntaxRefusedError("subscript")
        return Node("const", name="e") if name == "e" else Node("var", name=name)

    def _command(self, token: str, depth: int) -> Node:
        if token == r"\frac":
            top = self.argument(depth)
            return Node("frac", (top, self.argument(depth)))
        if token == r"\sqrt":
            return self._root(depth)
        if token == r"\binom":
            top = self.argument(depth)
            return Node("binom", (top, self.argument(depth)))
        if token in (r"\pi", r"\infty"):
            return Node("const", name=token[1:])
        name = token[1:]
        if name in FUNCTIONS:
            return self._function(name, depth)
        if name in _GREEK:
            return self._variable(token, depth)
        raise SyntaxRefusedError(token)

    def _root(self, depth: int) -> Node:
        index = Node("num", value=Fraction(2))
        if self.token == "[":
            self.take()
            index = self.sum(depth + 1)
            self.expect("]")
        if self.token == "(":
            return Node("root", (self.atom(depth + 1), index))
        if self.token and self.token[0].isdigit():  # "√50", but "\sqrt50" is the same by habit
            return Node("root", (self.atom(depth + 1), index))
        return Node("root", (self.argument(depth), index))

    def _function(self, name: str, depth: int) -> Node:
        base: tuple[Node, ...] = ()
        exponent: Node | None = None
        if name == "log" and self.token == "_":
            self.take()
            base = (self.argument(depth),)
        if self.token in _POWER:
            self.take()
            exponent = self.argument(depth)
        inner = self.argument(depth) if self.token in ("{", "(", "[") else self._bare(depth)
        node = Node("fn", (inner, *base), name)
        return node if exponent is None else Node("pow", (node, exponent))

    def _bare(self, depth: int) -> Node:
        r"""Parse the argument of `\sin 2x`: everything up to the next operator."""
        node = self.power(depth + 1)
        while self._starts_atom() and self.token not in ("(", "[", "{"):
            if self.token[1:] in FUNCTIONS or self.token in FUNCTIONS:
                break
            node = Node("mul", (node, self.power(depth + 1)))
        return node


_ATOM_COMMANDS = frozenset(
    "\\" + name for name in ("frac", "sqrt", "binom", "pi", *FUNCTIONS, *_GREEK)
)


def _product_of(factors: list[Node]) -> Node:
    return factors[0] if len(factors) == 1 else Node("mul", tuple(factors))


def _mixed_number(left: Node, right: Node) -> Node | None:
    r"""Return the sum that `2\frac{1}{3}` means, or None where juxtaposition is a product."""
    if left.kind != "num" or left.value.denominator != 1 or right.kind != "frac":
        return None
    top, bottom = right.args
    if top.kind != "num" or bottom.kind != "num" or not 0 < top.value < bottom.value:
        return None
    part = top.value / bottom.value
    return Node("num", value=left.value + (part if left.value >= 0 else -part))
