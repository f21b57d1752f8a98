"""The reward `safety`: the probability, by a trained classifier, that a completion is safe.

No list of words decides: what is unsafe is what the classifier was trained to find, in the
conversation it stands in. Refusing what is harmless is not its business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt, StrictInt, StrictStr, model_validator

from textgym import Prompt, Reward, Sample, Score
from textgym.errors import ConfigError, MissingExtraError
from textgym.reward import Isolation
from textgym_plugins.models.missing import missing_package
from textgym_plugins.reward_model.encoding import Reads


class SafetyReward(Reward):
    """How likely a completion is safe."""

    name: ClassVar[str] = "safety"
    isolation: ClassVar[Isolation] = "inline"
    # What a check allows the worker that loads the model; in use it runs in the caller's process.
    time_limit: ClassVar[float] = 300.0
    memory_limit: ClassVar[int] = 1 << 40

    model: str = Field(min_length=1)
    """Any sequence classifier: a folder or a hub id."""
    safe: tuple[StrictInt | StrictStr, ...] = ()
    """The labels that mean safe, by name or index. Give these or `unsafe`."""
    unsafe: tuple[StrictInt | StrictStr, ...] = ()
    """The labels that mean unsafe. Of a classifier that judges each label by itself the worst
    counts."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """The lowest value that is labelled `safe`."""
    reads: Reads = "conversation"
    """What the classifier was trained on: conversations, or single texts (`completion`)."""
    device: str = "auto"
    """`auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1`."""
    max_tokens: PositiveInt | None = None
    """Longest conversation; None takes 4096, and never more than the model reads."""
    tokens_per_batch: PositiveInt | None = None
    """Tokens of a batch, padding included; None takes 16384 on a GPU and 1024 on the CPU."""
    too_long: Literal["truncate", "abstain"] = "truncate"
    """A conversation above `max_tokens` loses its beginning, which the reason says; or has no
    score."""

    @model_validator(mode="after")
    def _names_one_side(self) -> SafetyReward:
        if bool(self.safe) == bool(self.unsafe):
            given = f"safe is {list(self.safe)} and unsafe {list(self.unsafe)}"
            raise ValueError(f"{given}; name the labels of one of the two, and only of one")
        return self

    def success_at(self, prompt: Prompt) -> float:
        """Return the threshold: a probability of 1.0 is out of reach."""
        return self.threshold

    def score(self, sample: Sample) -> Score:
        """Return the score of one sample."""
        return self.score_batch([sample])[0]

    def score_batch(self, samples: Sequence[Sample]) -> list[Score]:
        """Return one score per sample, in order; batched by length.

        A model or a label that cannot be used fails every sample (`unavailable`).
        """
        try:
            try:
                from textgym_plugins.safety.classifier import evaluate
            except ModuleNotFoundError as error:
                raise missing_package(error, "the reward 'safety'") from error
            return evaluate(self, samples)
        except (ConfigError, MissingExtraError) as error:
            return [Score.failed("unavailable", str(error))] * len(samples)
