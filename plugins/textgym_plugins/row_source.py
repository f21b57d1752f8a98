"""Prompt sources that are a JSONL file, one row a prompt, in the form its publisher gave it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textgym import Prompt, PromptSource
from textgym.errors import PromptError
from textgym.jsonl import LineError, PromptProblem, read_rows

Row = Mapping[str, object]


class RowSource(PromptSource):
    """A JSONL file whose rows are problems. A row that is none is an error, not a gap."""

    path: Path
    """The file, one problem a line."""

    def num_prompts(self) -> int:
        """Return how many problems the file holds."""
        return len(self._prompts)

    def prompt(self, index: int) -> Prompt:
        """Return problem number `index`."""
        return self._prompts[index]

    def split_keys(self) -> NDArray[np.uint64]:
        """Return a hash of each problem's text."""
        return np.array([_hash(prompt.text) for prompt in self._prompts], dtype=np.uint64)

    @functools.cached_property
    def _prompts(self) -> tuple[Prompt, ...]:
        prompts: list[Prompt] = []
        for number, row in read_rows(self.path):
            if isinstance(row, PromptProblem):
                raise PromptError(str(row))
            try:
                prompts.append(self._read(row, number))
            except (LookupError, TypeError, SyntaxError, AttributeError, LineError) as error:
                what = f"missing field {error}" if isinstance(error, LookupError) else str(error)
                raise PromptError(f"{self.path}:{number}: no {self.name} problem: {what}") from None
        if not prompts:
            raise PromptError(f"{self.path} holds no problem")
        return tuple(prompts)

    def _read(self, row: Row, number: int) -> Prompt:
        """Return the prompt of the row in line `number`."""
        raise NotImplementedError


def text_of(row: Row, *names: str) -> str:
    """Return the text in the first of the named fields that a row has.

    Raises:
        LineError: the row has none of them, or something else there.
    """
    name = next((name for name in names if row.get(name) is not None), None)
    if name is None:
        raise LineError(names[0], f"missing field '{names[0]}'; the row has {', '.join(row)}")
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise LineError(name, f"'{name}' is {value!r:.80}; expected text")
    return value


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
