"""The prompt source `tiny_queries`: requests for code, to be worded as a generator knows them."""

from __future__ import annotations

import re
from typing import ClassVar

from textgym import Demonstrations, Prompt
from textgym_plugins.tiny.code import TinyCode
from textgym_plugins.tiny.source import Task

_EXAMPLE = re.compile(r"f\((-?\d+)\)=(-?\d+)")
_LAST_DIGIT = re.compile(r"\d(?=\n|\))")


class TinyQueries(TinyCode):
    """The tasks of `tiny_code` in words: `2 to 6 and 5 to 9`.

    What is demonstrated is the wording of `tiny_code`, which a generator that has learnt those
    answers. The tests are of the program that the generator writes.
    """

    name: ClassVar[str] = "tiny_queries"

    def _make(self, kind: int, number: int, name: str) -> Task:
        prompt, _ = super()._make(kind, number, name)
        query = prompt.text
        words = " and ".join(f"{x} to {y}" for x, y in _EXAMPLE.findall(query))
        places = [found.start() for found in _LAST_DIGIT.finditer(query)]
        wrong = [_slip(query, place) for place in places]
        return Task(
            prompt.model_copy(update={"messages": Prompt(id=name, messages=words).messages}),
            Demonstrations((query,), (*wrong, words)),
        )


def _slip(text: str, place: int) -> str:
    """Return a text with another digit in one place."""
    return f"{text[:place]}{(int(text[place]) + 1) % 10}{text[place + 1 :]}"
