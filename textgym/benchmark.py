"""A benchmark: a named, fixed set of prompts with the reward that scores it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Benchmark(BaseModel):
    """What `textgym evaluate --benchmark NAME` runs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(min_length=1)
    """How the command line names this benchmark."""
    prompts: str
    """A prompt source by name, or the path of a JSONL file."""
    reward: str
    """The reward by name."""
    description: str = ""
    """One line for `textgym plugins`."""
