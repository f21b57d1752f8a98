"""Parse JSON that a model wrote: fences off, and no bomb goes off."""

from __future__ import annotations

import json
import re
from typing import NoReturn

from pydantic import JsonValue

MAX_DEPTH = 500
"""The parser of the standard library gives up at about twice that, depending on its caller."""

_MARK = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_FENCE = re.compile(r"```[A-Za-z0-9_-]*[ \t]*\r?\n?")


def parse_json(text: str, *, allow_constants: bool = False) -> JsonValue:
    """Return the value of a JSON document.

    Args:
        text: the document.
        allow_constants: take NaN and the infinities, as Python does and JSON does not.

    Raises:
        ValueError: it is no JSON, or nested deeper than `MAX_DEPTH`.
    """
    if json_depth(text) > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    value: JsonValue = json.loads(text, parse_constant=None if allow_constants else _refuse)
    return value


def without_fence(text: str) -> str:
    """Return what a Markdown fence around the whole text encloses, or the text."""
    text = text.strip()
    opening = _FENCE.match(text)
    if opening is None or not text.endswith("```") or len(text) < opening.end() + 3:
        return text
    return text[opening.end() : -3].strip()


def json_depth(text: str) -> int:
    """Return how deep brackets outside strings nest, 0 where there are too few to matter."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return 0
    depth = deepest = 0
    for mark in _MARK.findall(text):
        if mark in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif mark in "]}":
            depth -= 1
    return deepest


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")
