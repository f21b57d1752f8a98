"""The part of a completion that is its answer: what stands after the closing think tag."""

from __future__ import annotations

import re

_TAG = re.compile(r"<(/?)(?:think(?:ing)?|thought|reasoning)>", re.IGNORECASE)


def after_thinking(completion: str) -> str | None:
    """Return what follows the last closing think tag, or None if a think tag stays open.

    Blank lines between the tag and the answer belong to neither.
    """
    if "<" not in completion:
        return completion
    last = max(_TAG.finditer(completion), key=re.Match.start, default=None)
    if last is None:
        return completion
    return completion[last.end() :].lstrip("\r\n") if last[1] else None
