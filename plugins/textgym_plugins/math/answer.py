r"""The structure of an answer: number, expression, list, set, tuple, interval, matrix, relation.

`parse_answer` takes cleaned or raw text of at most 2,000 characters and splits it at the operators
outside all brackets; what is left are plain numbers (`quantity`), expressions (`expression`) and
words. Text that is none of these gives None.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, NamedTuple

from textgym_plugins.math import units
from textgym_plugins.math.characters import clean_latex
from textgym_plugins.math.expression import MAX_TOKENS, parse_tokens, tokenize
from textgym_plugins.math.quantity import Quantity, parse_quantity
from textgym_plugins.math.tree import Node

MAX_LENGTH = 2000
MAX_NESTING = 30

Kind = Literal[
    "number", "expression", "list", "set", "tuple", "union", "matrix", "relation", "text"
]


@dataclass(frozen=True, slots=True)
class Answer:
    """One parsed answer."""

    kind: Kind
    text: str
    """The text without spaces, for comparing as text."""
    items: tuple[Answer, ...] = ()
    """Elements; for a matrix its rows, for a relation what stands between its operators."""
    quantity: Quantity | None = None
    node: Node | None = None
    name: str = ""
    r"""The brackets of a tuple, the operators of a relation (`< \le`), the unit of a value."""
    source: str = field(default="", compare=False)
    """The text as it was split off, with its spaces."""


class _Token(NamedTuple):
    text: str
    start: int
    end: int
    depth: int


_SCAN = re.compile(
    r"\s*(\\begin\{[a-zA-Z]{1,12}\*?\}(?:\{[lcr|]{1,20}\})?|\\end\{[a-zA-Z]{1,12}\*?\}|\\[a-zA-Z]+|\\.|"
    r"[0-9]+(?:,[0-9]{3}(?![0-9]))*(?:\.[0-9]+)?|[A-Za-z]+|[\u4e00-\u9fff]+|[!-~€£¥₹])"
)
_OPENING = frozenset(("(", "[", "{", r"\{", r"\langle"))
_CLOSING = frozenset((")", "]", "}", r"\}", r"\rangle"))
_RELATIONS = frozenset(("=", "<", ">", r"\le", r"\ge", r"\ne", r"\approx", r"\in", r"\equiv"))
_CONJUNCTIONS = frozenset(("or", "and"))
_SEPARATORS = frozenset((",", ";"))
_MATRICES = frozenset("pmatrix bmatrix matrix Bmatrix smallmatrix array".split())
_STRUCTURE = re.compile(r"[()\[\]{},;=<>\\]|\b(?:or|and)\b")
_LEADING_WORDS = re.compile(r"(?:either|both|just|only|simply|exactly|equal to)\s+", re.IGNORECASE)
_NAMED = {r"\mathbb{R}": r"(-\infty,\infty)", r"\mathbbR": r"(-\infty,\infty)"}
_INTEGER = re.compile(r"-?[0-9]{1,40}")
_NEVER = re.compile(r"[#?@]")
"""Characters of no answer: a quick way out for text of other kinds."""
_SHORT_WORDS = frozenset("yes no odd even all none".split())
_UNIT_TAIL = re.compile(r"(?:\s+([A-Za-z][A-Za-z^{}0-9 /]{0,60})|\s*(\^\\circ|%))$")
_HAS_VALUE = re.compile(r"[0-9\\]")
_CURRENCY_HEAD = re.compile(r"\\?\$\s*(?=[0-9.\\])")


@lru_cache(maxsize=8192)
def parse_answer(text: str) -> Answer | None:
    """Return the structure of an answer, or None if the text is not one."""
    if _INTEGER.fullmatch(text):
        return Answer("number", text, quantity=parse_quantity(text))
    if len(text) > MAX_LENGTH:
        return None
    text = clean_latex(text)
    if _NEVER.search(text):
        return None
    return _parse(_LEADING_WORDS.sub("", text, count=1), 0)


def squash(text: str) -> str:
    """Return cleaned text without the differences that no reader sees."""
    text = clean_latex(text)
    for old, new in ((" ", ""), (r"\,", ""), (r"\cdot", "*"), (r"\times", "*"), ("**", "^")):
        text = text.replace(old, new)
    return text.replace("$", "")


def _parse(text: str, depth: int) -> Answer | None:
    text = text.strip()
    text = _NAMED.get(text, text)
    if not text or depth > MAX_NESTING:
        return None
    quantity = parse_quantity(text)
    if quantity is not None:
        return Answer("number", squash(text), quantity=quantity)
    if _STRUCTURE.search(text):
        tokens = _scan(text)
        if tokens is None:
            return None
        for parse in (_list, _union, _relation, _plus_minus, _bracketed):
            found = parse(text, tokens, depth)
            if found is not None:
                return replace(found, source=text)
    if text.casefold() in _SHORT_WORDS or text == r"\emptyset":
        return Answer("text", text.casefold())
    return _expression(text) or _words(text)


def is_balanced(text: str) -> bool:
    """Return whether as many brackets close as open; in `[1, 2)` they differ in kind."""
    return sum(map(text.count, "([{")) == sum(map(text.count, ")]}"))


def _scan(text: str) -> list[_Token] | None:
    """Return the tokens with their bracket depth, or None where brackets do not balance."""
    if not is_balanced(text):
        return None
    tokens: list[_Token] = []
    position, depth = 0, 0
    for match in _SCAN.finditer(text):
        if match.start() != position or len(tokens) > 2 * MAX_TOKENS:
            return None
        token = match[1]
        position = match.end()
        if token in _CLOSING or token.startswith(r"\end"):
            depth -= 1
        if not 0 <= depth <= MAX_NESTING:
            return None
        tokens.append(_Token(token, match.start(1), position, depth))
        if token in _OPENING or token.startswith(r"\begin"):
            depth += 1
    return tokens if depth == 0 and not text[position:].strip() else None


def _split(text: str, tokens: list[_Token], separators: frozenset[str]) -> list[str]:
    """Split at the separators outside all brackets."""
    parts, start = [], 0
    for token in tokens:
        if token.depth == 0 and token.text in separators:
            parts.append(text[start : token.start])
            start = token.end
    return [*parts, text[start:]]


def _children(kind: Kind, text: str, parts: list[str], depth: int, name: str = "") -> Answer | None:
    items = [_parse(part, depth + 1) for part in parts]
    if any(item is None for item in items):
        return None
    return Answer(kind, squash(text), tuple(item for item in items if item is not None), name=name)


def _list(text: str, tokens: list[_Token], depth: int) -> Answer | None:
    parts = _split(text, tokens, _CONJUNCTIONS | _SEPARATORS)
    parts = [part for part in parts if part.strip()]
    if len(parts) < 2:
        return None
    found = _children("list", text, parts, depth)
    return None if found is None else _flatten(found)


def _flatten(found: Answer) -> Answer:
    """Put the two values of a plus-minus among the other elements."""
    items: list[Answer] = []
    for item in found.items:
        items.extend(item.items if item.kind == "list" else (item,))
    return Answer(found.kind, found.text, tuple(items), name=found.name)


def _union(text: str, tokens: list[_Token], depth: int) -> Answer | None:
    parts = _split(text, tokens, frozenset((r"\cup",)))
    return _children("union", text, parts, depth) if len(parts) > 1 else None


def _relation(text: str, tokens: list[_Token], depth: int) -> Answer | None:
    operators = [t.text for t in tokens if t.depth == 0 and t.text in _RELATIONS]
    if not operators:
        return None
    parts = _split(text, tokens, _RELATIONS)
    if r"\in" in operators:
        return _parse(parts[-1], depth + 1) if operators == [r"\in"] else None
    if not parts[0].strip():
        parts, operators = parts[1:], operators[1:]
        if not operators:
            return _parse(parts[0], depth + 1)
    if not all(part.strip() for part in parts):
        return None
    # The left side of a chain may be words: "The number of eggs = 9".
    last = _parse(parts[-1], depth + 1)
    items = [_parse(part, depth + 1) or _opaque(part) for part in parts[:-1]]
    if last is None:
        return None
    return Answer("relation", squash(text), (*items, last), name=" ".join(operators))


def _opaque(text: str) -> Answer:
    return Answer("text", squash(text).casefold())


def _plus_minus(text: str, tokens: list[_Token], depth: int) -> Answer | None:
    if not any(token.text in (r"\pm", r"\mp") for token in tokens):
        return None
    if tokens[0].text in _OPENING and _closes_at(tokens) == len(tokens) - 1:
        return None  # a set or a tuple: its elements are expanded one by one
    plus = text.replace(r"\pm", "+").replace(r"\mp", "-")
    minus = text.replace(r"\pm", "-").replace(r"\mp", "+")
    return _children("list", text, [plus, minus], depth)


def _closes_at(tokens: list[_Token]) -> int:
    """Return the index of the token that closes the bracket of the first one."""
    return next((i for i, token in enumerate(tokens) if i and token.depth == 0), -1)


def _bracketed(text: str, tokens: list[_Token], depth: int) -> Answer | None:
    opening, closing = tokens[0].text, tokens[-1].text
    if len(tokens) < 2 or tokens[0].end == len(text) or _closes_at(tokens) != len(tokens) - 1:
        return None
    inner = text[tokens[0].end : tokens[-1].start]
    if opening.startswith(r"\begin"):
        return _matrix(text, opening, inner, depth)
    if opening not in _OPENING:
        return None
    # Inside brackets every comma separates: (1,234) is a pair, while 1,234 is a number.
    spread = inner.replace(",", ", ")
    inner_tokens = _scan(spread)
    if inner_tokens is None:
        return None
    parts = _split(spread, inner_tokens, _SEPARATORS)
    if opening == r"\{" or (opening == "{" and len(parts) > 1):
        found = _children("set", text, parts, depth)
        return None if found is None else _flatten(found)
    if len(parts) == 1:
        return _parse(inner, depth + 1) if opening + closing in ("()", "{}", "[]") else None
    brackets = "()" if opening == r"\langle" else opening + closing
    found = _children("tuple", text, parts, depth, name=brackets)
    return None if found is None else _nested_matrix(found)


def _nested_matrix(found: Answer) -> Answer:
    rows = found.items
    if found.name == "[]" and all(row.kind == "tuple" and row.name == "[]" for row in rows):
        return Answer("matrix", found.text, rows)
    return found


def _matrix(text: str, opening: str, inner: str, depth: int) -> Answer | None:
    if opening[7:].partition("}")[0] not in _MATRICES:
        return None
    rows = []
    for line in inner.split("\\\\"):
        if line.strip():
            row = _children("tuple", line, line.split("&"), depth + 1, name="[]")
            if row is None:
                return None
            rows.append(row)
    return Answer("matrix", squash(text), tuple(rows)) if rows else None


def _expression(text: str) -> Answer | None:
    unit = ""
    tail = _UNIT_TAIL.search(text)
    if tail is not None:
        suffix = units.parse_suffix(" " + (tail[1] or tail[2]))
        is_word = tail[1] is None or len(tail[1]) > 3 or (suffix and units.is_known(suffix.unit))
        has_value = _HAS_VALUE.search(text, 0, tail.start()) is not None
        if suffix is not None and suffix.scale == 1 and is_word and has_value:
            unit, text = suffix.unit, text[: tail.start()]
    text = _CURRENCY_HEAD.sub("", text, count=1)
    tokens = tokenize(text)
    node = parse_tokens(tokens) if tokens else None
    return (
        None
        if node is None
        else Answer("expression", squash(text), node=node, name=unit, source=text)
    )


_WORDS = re.compile(r"\(?[A-Za-z\u4e00-\u9fff][A-Za-z\u4e00-\u9fff' -]{0,100}\)?")


def _words(text: str) -> Answer | None:
    """Return words that are the whole answer: `ellipse`, `(C)`, `no solution`."""
    if not _WORDS.fullmatch(text):
        return None
    words = re.sub(r"^(?:the|an?)\s+", "", text.strip("() ").casefold())
    return Answer("text", " ".join(words.split()))


def walk(answer: Answer) -> Iterator[Answer]:
    """Yield the answer and all its parts."""
    yield answer
    for item in answer.items:
        yield from walk(item)
