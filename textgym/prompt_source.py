"""The contract of a prompt source: a pure function from an index to a prompt."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from textgym.prompt import Prompt
from textgym.seeding import mix64_array
from textgym.tool import ToolCall


class Demonstrations(NamedTuple):
    """Completions of one prompt that show what is wanted of it, and what is not."""

    right: tuple[str, ...] = ()
    """Each would get the best score; none where nobody knows one."""
    wrong: tuple[str, ...] = ()
    """Each would get less: slips that a policy is likely to make."""

    @classmethod
    def of_target(cls, prompt: Prompt) -> Demonstrations:
        """Return the target as the right completion where it is a text or a number."""
        is_text = isinstance(prompt.target, str | int | float)
        return cls((str(prompt.target),)) if is_text else cls()


class Dialogues(NamedTuple):
    """Demonstrations of several turns.

    Each is a completion, what the environment answers, the next completion, and so on; the last one
    is a completion.
    """

    right: tuple[tuple[str, ...], ...] = ()
    """Each would get the best score; none where nobody knows one."""
    wrong: tuple[tuple[str, ...], ...] = ()
    """Each would get less: slips that a policy is likely to make."""


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

    def demonstrations(self, index: int) -> Demonstrations:
        """Return what a supervised start can show of prompt `index`, the same for the same index.

        By default a target that is text. Override this where the target is none (tests, accepted
        answers, instructions), or where wrong completions of a certain kind are wanted.
        """
        return Demonstrations.of_target(self.prompt(index))

    def tool_calls(self, index: int) -> tuple[ToolCall, ...]:
        """Return calls that lead to the right completion of prompt `index`; none by default.

        They are what a supervised start shows before it where the environment has those tools.
        """
        del index
        return ()

    def split_keys(self) -> NDArray[np.uint64]:
        """Return one uniform 64-bit key per prompt, shape (num_prompts,).

        The key decides whether a prompt is for training or for evaluation. Equal prompts must have
        equal keys: override this where two indices can hold the same prompt.
        """
        return mix64_array(np.arange(self.num_prompts(), dtype=np.uint64))
