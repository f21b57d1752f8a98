"""What the tiny sources share: kinds of prompts in turn, by number, split by their text."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from textgym import Demonstrations, Prompt, PromptSource
from textgym_plugins.numbering import find_stride


class Task(NamedTuple):
    """A prompt and what can be demonstrated on it."""

    prompt: Prompt
    demonstrations: Demonstrations


class TinySource(PromptSource):
    """Prompts of several kinds, as many of each: prompt i is of kind `i % number of kinds`."""

    limit: int = Field(default=10_000, ge=1, le=1 << 24)
    """Most prompts the source holds; of a larger space it takes an even spread."""

    def num_prompts(self) -> int:
        """Return how many prompts there are, as many of each kind."""
        return len(self._spaces) * self._num_per_kind

    def prompt(self, index: int) -> Prompt:
        """Return prompt number `index`."""
        return self._task(index).prompt

    def demonstrations(self, index: int) -> Demonstrations:
        """Return right and wrong completions of prompt number `index`."""
        return self._task(index).demonstrations

    def split_keys(self) -> NDArray[np.uint64]:
        """Return a hash of each prompt's text, so it falls on one side whatever the fields are."""
        texts = (self.prompt(i).text for i in range(self.num_prompts()))
        return np.array([_hash(text) for text in texts], dtype=np.uint64)

    def _sizes(self) -> Sequence[int]:
        """Return how many prompts of each kind could be made."""
        raise NotImplementedError

    def _make(self, kind: int, number: int, name: str) -> Task:
        """Return the task of a kind and of a number below that kind's size, its prompt named so."""
        raise NotImplementedError

    @functools.cached_property
    def _spaces(self) -> Sequence[int]:
        return self._sizes()

    @functools.cached_property
    def _num_per_kind(self) -> int:
        return min(*self._spaces, max(1, self.limit // len(self._spaces)))

    @functools.cached_property
    def _strides(self) -> list[int]:
        return [find_stride(space, self._num_per_kind) for space in self._spaces]

    def _task(self, index: int) -> Task:
        if not 0 <= index < self.num_prompts():
            raise IndexError(f"prompt {index} of {self.num_prompts()}")
        rest, kind = divmod(index, len(self._spaces))
        number = rest * self._strides[kind] % self._spaces[kind]
        return self._make(kind, number, f"{self.name}/{kind}/{number}")


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
