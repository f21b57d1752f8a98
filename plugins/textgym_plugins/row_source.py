"""Prompt sources that are a JSONL file, one row a prompt, in the form its publisher gave it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from textgym import Demonstrations, Prompt, PromptSource
from textgym.errors import PromptError
from textgym.jsonl import LineError, PromptProblem, read_rows

Row = Mapping[str, object]


class Task(NamedTuple):
    """A prompt, and a completion that would be a success, where the row tells one."""

    prompt: Prompt
    reference: str | None = None


class RowSource(PromptSource):
    """A JSONL file whose rows are problems. A row that is none is an error, not a gap."""

    path: Path
    """The file, one problem a line."""

    def num_prompts(self) -> int:
        """Return how many problems the file holds."""
        return len(self._tasks)

    def prompt(self, index: int) -> Prompt:
        """Return problem number `index`."""
        return self._tasks[index].prompt

    def demonstrations(self, index: int) -> Demonstrations:
        """Return the reference of problem number `index`, where its row has one."""
        reference = self._tasks[index].reference
        return Demonstrations(() if reference is None else (reference,))

    def split_keys(self) -> NDArray[np.uint64]:
        """Return a hash of each problem's text."""
        return np.array([_hash(prompt.text) for prompt, _ in self._tasks], dtype=np.uint64)

    @functools.cached_property
    def _tasks(self) -> tuple[Task, ...]:
        tasks: list[Task] = []
        for number, row in read_rows(self.path):
            if isinstance(row, PromptProblem):
                raise PromptError(str(row))
            try:
                tasks.append(self._read(row, number))
            except (LookupError, TypeError, SyntaxError, AttributeError, LineError) as error:
                what = f"missing field {error}" if isinstance(error, LookupError) else str(error)
                raise PromptError(f"{self.path}:{number}: no {self.name} problem: {what}") from None
        if not tasks:
            raise PromptError(f"{self.path} holds no problem")
        return tuple(tasks)

    def _read(self, row: Row, number: int) -> Task:
        """Return the prompt of the row in line `number`, and its reference."""
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
