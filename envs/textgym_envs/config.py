"""The configuration of the TextGen environments, validated in one place for scalar and vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PositiveInt, ValidationError

from textgym.errors import ConfigError
from textgym.validation import explain

RewardSpec: TypeAlias = str | list[JsonValue] | dict[str, JsonValue]


class TextGenConfig(BaseModel):
    """The keyword arguments of `gym.make("textgym:TextGen-v0", ...)`: JSON types only.

    Names and paths, not objects: Gymnasium copies and serialises what an environment is made with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    env_id: ClassVar[str] = "TextGen-v0"

    action_mode: Literal["token", "text"] = "token"
    """`token`: one token id per step. `text`: one completion per step."""
    prompts: str | list[str | dict[str, JsonValue]] = "arithmetic"
    """Prompt sources: a name, a JSONL path, or a list of them, with weights and settings."""
    reward: RewardSpec | None = None
    """What `textgym.make_rubric` takes; None leaves each prompt to the reward it names itself."""
    split: Literal["train", "evaluation", "all"] = "train"
    """Which share of the prompts to draw from."""
    evaluation_share: float = Field(default=0.1, ge=0.0, le=1.0)
    """Share of the prompts held out for evaluation."""
    review_share: float = Field(default=0.2, ge=0.0, lt=1.0)
    """Share of the draws at a level of a curriculum that are of earlier levels."""
    template: str = "plain"
    """Chat template that renders a prompt to the observation."""
    system: str | None = None
    """System message of the template."""
    think_share: float | None = Field(default=None, ge=0.0, le=1.0)
    """Share of episodes rendered in the thinking variant; None leaves the template alone."""
    tokenizer: str = "chars"
    """`chars`, `chars:<alphabet>`, or the path or hub id of a Hugging Face tokenizer."""
    max_prompt_tokens: PositiveInt | None = None
    """Columns that token mode keeps for the prompt. None measures every prompt of all splits once
    (some 10 us each); a longer prompt than a given number is an error."""
    max_new_tokens: PositiveInt = 64
    """Tokens after which token mode cuts a completion off."""
    score_length_cut: bool = False
    """Score a completion that was cut off; otherwise it gets `Scorer.cut_off`, the lowest score."""
    length_cutoff: Literal["terminal", "truncate"] = "terminal"
    """Whether the cut terminates (the default: the budget is part of the task) or truncates."""
    num_workers: PositiveInt = 1
    """Worker processes of rewards that need isolation."""
    score_cache: str | None = None
    """File that keeps the scores of deterministic rewards; None scores every completion afresh."""

    @property
    def is_text(self) -> bool:
        """Whether one step is one completion."""
        return self.action_mode == "text"


ConfigT = TypeVar("ConfigT", bound=TextGenConfig)


def parse_config(kind: type[ConfigT], arguments: Mapping[str, Any]) -> ConfigT:
    """Validate the keyword arguments of an environment.

    Raises:
        ConfigError: names every wrong argument, its value, and the nearest existing name.
    """
    try:
        return kind.model_validate(dict(arguments))
    except ValidationError as error:
        problems = "\n  ".join(line for _, line in explain(error, kind, arguments))
        raise ConfigError(f"{kind.env_id} cannot be made:\n  {problems}") from None
