"""The contract of a reward: a frozen model that maps a sample to a score.

A `Reward` *is* a pydantic model: its fields are its configuration, so it validates, serialises,
hashes and pickles by itself. What it declares as class variables (its range, whether it is
deterministic, where it may run, how long) is what the scoring boundary enforces; see
`textgym.scoring`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from textgym.prompt import Prompt
from textgym.sample import Sample
from textgym.score import Score

Isolation = Literal["inline", "process"]


class Reward(BaseModel):
    """Base of every reward. Override `score`, or `score_batch` where a batch is cheaper."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: ClassVar[str]
    """How configurations name this reward."""
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    """Lowest and highest value; a value outside fails the sample."""
    deterministic: ClassVar[bool] = True
    """Whether equal samples always get equal scores."""
    dense: ClassVar[bool] = False
    """Whether the scores carry `steps`. Token-mode environments then score every prefix of a
    completion and give each step its share, which costs one call of the reward per token."""
    isolation: ClassVar[Isolation] = "process"
    """`process`: scored in a killable worker, the safe default. `inline`: scored in the caller's
    process, for a reward that cannot hang, crash or exhaust memory on any completion."""
    time_limit: ClassVar[float] = 10.0
    """Seconds one sample may take in a worker before the worker is killed and the sample failed."""
    memory_limit: ClassVar[int] = 4 << 30
    """Bytes of data (RLIMIT_DATA) that a worker of this reward may hold."""

    def success_at(self, prompt: Prompt) -> float:
        """Return the value from which a completion of a prompt is a success, by default the top.

        Override it where the best completion of some prompts scores less (a refusal that is worth
        less than an answer), or where the top is out of reach (a probability). An infinity says
        that no value tells success from failure.
        """
        return self.range[1]

    def score(self, sample: Sample) -> Score:
        """Return the score of one sample."""
        raise NotImplementedError(f"{type(self).__name__} defines neither score nor score_batch")

    def score_batch(self, samples: Sequence[Sample]) -> list[Score]:
        """Return one score per sample, in order."""
        return [self.score(sample) for sample in samples]
