"""A benchmark suite: a named, fixed set of prompts, the reward that scores it, and its figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PositiveInt

from textgym.errors import ConfigError
from textgym.item_statistics import summarise
from textgym.items import Item, Metric

__all__ = ["Benchmark", "Item", "Metric"]

DATA = "{data}"
"""Stands in a suite's prompts for the path of its file."""
JUDGE = "{judge}"
"""Stands in a suite's reward for the endpoint of a judge."""


class Benchmark(BaseModel):
    """What `textgym evaluate --suite NAME` runs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(min_length=1)
    """How the command line names this suite."""
    prompts: JsonValue
    """What `TextGen-v0` takes as `prompts`: a source, a JSONL path, or a list of them. The text
    `{data}` stands for the path of the suite's file."""
    reward: JsonValue = None
    """What `make_rubric` takes; None leaves each prompt to the reward it names. The text `{judge}`
    stands for the endpoint of a judge."""
    description: str = ""
    """One line for `textgym plugins`."""
    split: Literal["all", "evaluation"] = "all"
    """All prompts, or those that training holds out."""
    data: str | None = None
    """The name of the suite's file, where it needs one."""
    also: tuple[str, ...] = ()
    """Other names that the file goes by."""
    hub: str | None = None
    """Where the rows are on the Hugging Face hub: `owner/name`, `owner/name:subset:split`."""
    groups: tuple[str, ...] = ()
    """Names that stand for several suites, this one among them."""
    template: str | None = None
    """Chat template of the prompts; None is the model's own."""
    max_new_tokens: PositiveInt = 512
    """Longest answer, the end token included."""
    score_length_cut: bool = True
    """Score an answer that was cut off as far as it goes; otherwise its score is 0.0."""

    def metrics(self, items: Sequence[Item]) -> dict[str, Metric]:
        """Return the figures over scored answers, the most important one first."""
        return summarise(items)

    def find_data(self, folder: Path) -> Path | None:
        """Return the suite's file in a folder, None where it is not there."""
        names = [] if self.data is None else [self.data, *self.also]
        return next((folder / name for name in names if (folder / name).is_file()), None)

    def sources(self, data: Path | None) -> JsonValue:
        """Return `prompts` with the path of the file in its place.

        Raises:
            ConfigError: the suite needs a file and there is none.
        """
        if self.data is None:
            return self.prompts
        if data is None:
            raise ConfigError(f"the suite '{self.name}' needs the file {self.data}")
        return _filled(self.prompts, DATA, str(data))

    @property
    def needs_judge(self) -> bool:
        """Whether the reward lacks the endpoint of a judge."""
        return _filled(self.reward, JUDGE, None) != self.reward

    def judged_by(self, endpoint: JsonValue) -> Benchmark:
        """Return the suite with the endpoint of its judge, as the reward `judge` takes it."""
        return self.model_copy(update={"reward": _filled(self.reward, JUDGE, endpoint)})


def _filled(value: JsonValue, name: str, replacement: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {key: _filled(each, name, replacement) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, name, replacement) for each in value]
    return replacement if value == name else value
