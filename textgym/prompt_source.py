"""The contract of a prompt source: a pure function from an index to a prompt."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from textgym.prompt import Prompt
from textgym.seeding import mix64_array


class PromptSource(BaseModel):
    """A finite, indexable set of prompts. Its fields are its configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: ClassVar[str]
    """How configurations name this source."""

    def num_prompts(self) -> int:
        """Return how many prompts there are."""
        raise NotImplementedError

    def prompt(self, index: int) -> Prompt:
        """Return prompt `index` of `range(num_prompts())`; the same index, the same prompt."""
        raise NotImplementedError

    def split_keys(self) -> NDArray[np.uint64]:
        """Return one uniform 64-bit key per prompt, shape (num_prompts,).

        The key decides whether a prompt is for training or for evaluation. Equal prompts must have
        equal keys: override this where two indices can hold the same prompt.
        """
        return mix64_array(np.arange(self.num_prompts(), dtype=np.uint64))
