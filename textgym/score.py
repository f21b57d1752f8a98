"""What a reward says of a sample: a number with its reason, or honestly no number at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["scored", "abstained", "failed"]
FailureKind = Literal[
    "raised", "not_finite", "out_of_range", "wrong_type", "wrong_length", "timeout", "memory",
    "crashed", "unavailable",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Score:
    """The outcome of scoring one sample.

    `value` is a number only where `status` is `scored`; otherwise it is nan, so that a failure can
    never be mistaken for a reward of 0.0. Samples that are not scored are masked out of the loss
    and of every statistic, counted and reported.
    """

    value: float
    status: Status = "scored"
    label: str | None = None
    """A class the reward puts the sample in, e.g. `correct`, `wrong`, `TP`."""
    reason: str = ""
    """One line for a human: why this value, or why none."""
    extracted: str | None = None
    """What a parser found in the completion."""
    seconds: float = 0.0
    """Wall-clock time that scoring took."""
    kind: FailureKind | None = None
    """What went wrong, where `status` is `failed`."""
    parts: Mapping[str, Score] = field(default_factory=dict, hash=False)
    """The components of a rubric, by name."""

    @classmethod
    def unscored(cls, reason: str, *, extracted: str | None = None) -> Score:
        """Abstain: the sample cannot be judged, and nothing is broken."""
        return cls(math.nan, "abstained", reason=reason, extracted=extracted)

    @classmethod
    def failed(cls, kind: FailureKind, reason: str, *, seconds: float = 0.0) -> Score:
        """Report broken infrastructure: time-out, crash, exception, service down."""
        return cls(math.nan, "failed", reason=reason, kind=kind, seconds=seconds)

    @property
    def is_scored(self) -> bool:
        """Whether `value` is a reward."""
        return self.status == "scored"
