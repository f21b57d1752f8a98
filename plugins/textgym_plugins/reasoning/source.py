"""The prompt source `reasoning_gym`: any dataset of the package reasoning-gym by name."""

from __future__ import annotations

import functools
import hashlib
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue, model_validator

from textgym import Demonstrations, Prompt, PromptSource
from textgym_plugins.reasoning.datasets import item, open_dataset


class ReasoningGym(PromptSource):
    """The items of one dataset, each judged by its own verifier.

    The target holds what the verifier needs to make the item again; its `answer` is None where the
    dataset tells none.
    """

    name: ClassVar[str] = "reasoning_gym"

    dataset: str
    """Name of the dataset, such as `leg_counting`."""
    size: int = Field(default=500, ge=1, le=1_000_000)
    """How many items."""
    seed: int = Field(default=0, ge=0)
    """Which items; different seeds share none but by chance."""
    config: dict[str, JsonValue] = Field(default_factory=dict)
    """The dataset's own settings, such as its ranges of difficulty."""
    text: str = "{question}\n\nGive the final answer between <answer> and </answer>."
    """The user message; `{question}` is where the item's question goes."""
    tag: str | None = Field(default="answer", pattern=r"^\w+$")
    """What demonstrations put around the answer; None leaves it bare. As the reward's."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "{question}" not in self.text:
            raise ValueError(f"text={self.text!r} does not contain '{{question}}'")
        return self

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    def num_prompts(self) -> int:
        """Return how many items there are."""
        return self.size

    def prompt(self, index: int) -> Prompt:
        """Return the question of item `index`."""
        if not 0 <= index < self.size:
            raise IndexError(f"prompt {index} of {self.size}")
        entry = self._item(index)
        answer = entry["answer"]
        target: dict[str, JsonValue] = {
            "dataset": self.dataset, "config": self.config, "seed": self.seed, "size": self.size,
            "index": index, "answer": None if answer is None else str(answer),
        }  # fmt: skip
        return Prompt(
            id=f"{self.dataset}-{self.seed}-{index}",
            messages=self.text.replace("{question}", str(entry["question"])),
            target=target,
            reward="reasoning_gym",
            metadata={"task": self.dataset},
        )

    def demonstrations(self, index: int) -> Demonstrations:
        """Return the item's answer as the reward reads it, where the dataset tells one."""
        answer = self._item(index)["answer"]
        if answer is None:
            return Demonstrations()
        shown = str(answer) if self.tag is None else f"<{self.tag}>{answer}</{self.tag}>"
        return Demonstrations((shown,))

    def split_keys(self) -> NDArray[np.uint64]:
        """Return a hash of each question, which equal items share; it makes all of them once."""
        return self._keys

    def _item(self, index: int) -> dict[str, Any]:
        opened = open_dataset(self.dataset, self.config, seed=self.seed, size=self.size)
        return item(opened, index)

    @functools.cached_property
    def _keys(self) -> NDArray[np.uint64]:
        questions = (str(self._item(i)["question"]).encode() for i in range(self.size))
        hashes = [hashlib.blake2b(each, digest_size=8).digest() for each in questions]
        return np.array([int.from_bytes(each, "little") for each in hashes], dtype=np.uint64)
