"""What travels between a service and its clients: the models of requests and answers.

A value that is no number travels as null, never as 0: JSON has no nan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from textgym.prompt import Message, Prompt
from textgym.sample import FinishReason, Sample
from textgym.score import FailureKind, Score, Status, Step, StepUnit

MAX_DEPTH = 8
"""How deep the parts of a score may hold parts; deeper ones are left out."""
REQUEST_ID = r"^[A-Za-z0-9._:-]{1,128}$"


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class WireSample(_Wire):
    """One prompt and one completion."""

    prompt: Prompt
    completion: str
    token_ids: tuple[int, ...] | None = None
    """The ids that were sampled, where they are known."""
    finish_reason: FinishReason = "stop"
    turns: tuple[Message, ...] = ()
    """The conversation after the prompt, when the episode had more than one turn."""

    @classmethod
    def of(cls, sample: Sample) -> WireSample:
        """Return a sample as it travels."""
        return cls(
            prompt=sample.prompt,
            completion=str(sample.completion),
            token_ids=sample.token_ids,
            finish_reason=sample.finish_reason,
            turns=sample.turns,
        )

    def sample(self) -> Sample:
        """Return the sample."""
        return Sample(self.prompt, self.completion, self.token_ids, self.finish_reason, self.turns)


class ScoreRequest(_Wire):
    """Samples to score, all or none."""

    samples: tuple[WireSample, ...] = Field(min_length=1)
    fingerprint: str | None = None
    """The fingerprint that the client expects; another one is refused with 409."""


Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""A number as JSON has it: `true` and `"1"` are none, and 1 for `true` would be a wrong score."""


class WireStep(_Wire):
    """What one stretch of a completion earned."""

    value: Number
    stop: int | None = Field(default=None, ge=0)
    """Where it ends, exclusive; null for the end of the completion."""
    unit: StepUnit = "characters"
    reason: str = ""


class WireScore(_Wire):
    """The outcome of one sample."""

    value: Number | None
    """The reward; null unless the status is `scored`."""
    status: Status
    label: str | None = None
    reason: str = ""
    extracted: str | None = None
    seconds: FiniteFloat = 0.0
    kind: FailureKind | None = None
    """What went wrong, where the status is `failed`."""
    parts: dict[str, WireScore] = Field(default_factory=dict)
    """The components of a rubric, by name."""
    steps: tuple[WireStep, ...] = ()
    """Where in the completion the value was earned."""

    @classmethod
    def of(cls, score: Score, depth: int = MAX_DEPTH) -> WireScore:
        """Return a score as it travels."""
        return cls(
            value=score.value if score.is_scored else None,
            status=score.status,
            label=None if score.label is None else encodable(score.label),
            reason=encodable(score.reason),
            extracted=None if score.extracted is None else encodable(score.extracted),
            seconds=score.seconds if math.isfinite(score.seconds) else 0.0,
            kind=score.kind,
            parts={encodable(n): cls.of(s, depth - 1) for n, s in score.parts.items() if depth},
            steps=tuple(
                WireStep(value=s.value, stop=s.stop, unit=s.unit, reason=encodable(s.reason))
                for s in score.steps
            ),
        )

    def score(self) -> Score:
        """Return the score.

        Raises:
            ValueError: a scored sample without a number, or a number without a scored sample.
        """
        if (self.status == "scored") != (self.value is not None):
            raise ValueError(f"the status is '{self.status}' and the value {self.value}")
        return Score(
            math.nan if self.value is None else self.value,
            self.status,
            self.label,
            self.reason,
            self.extracted,
            self.seconds,
            self.kind,
            {name: part.score() for name, part in self.parts.items()},
            tuple(Step(**step.model_dump()) for step in self.steps),
        )


class ScoreResponse(_Wire):
    """One score per sample, in order."""

    fingerprint: str
    """What scored: a hash of the rewards, their versions and configuration."""
    request_id: str | None
    """The `X-Request-Id` of the request."""
    low: Number | None
    """The lowest value that the rewards declare; null where they declare none."""
    high: Number | None
    """The highest value."""
    scores: tuple[WireScore, ...]


class LogprobSequence(_Wire):
    """Token ids whose log-probabilities are asked for, and what comes before them."""

    prompt_ids: tuple[int, ...] = Field(min_length=1)
    completion_ids: tuple[int, ...]


class LogprobRequest(_Wire):
    """Sequences to evaluate, all or none."""

    sequences: tuple[LogprobSequence, ...] = Field(min_length=1)
    temperature: float = Field(default=1.0, gt=0, le=100)
    """Divides the logits."""
    illegal_ranges: tuple[tuple[int, int], ...] = ()
    """First id and the id after the last of each run of ids that have no probability."""
    fingerprint: str | None = None
    """The fingerprint that the client expects; another one is refused with 409."""


class LogprobResponse(_Wire):
    """One row per sequence, in order; one number, in nats, per completion id."""

    fingerprint: str
    """A hash of the model's configuration and weights."""
    request_id: str | None
    logprobs: tuple[tuple[Number, ...], ...]


class Info(_Wire):
    """What a service is."""

    service: Literal["rewards", "executor", "reference"]
    title: str
    """The rewards, or the model's folder."""
    fingerprint: str
    version: str
    """The version of textgym."""
    max_items: int
    """Samples or sequences that one request may hold."""
    max_body_bytes: int


class Health(_Wire):
    """That the service answers."""

    status: Literal["ok"] = "ok"


class Problem(_Wire):
    """Why a request was refused."""

    error: str
    """A word for programs, such as `too_large`."""
    message: str
    """What was wrong, which value, and what to do."""


def encodable(text: str) -> str:
    """Return text that has a form in UTF-8; what a program printed need not."""
    return text.encode("utf-8", "replace").decode() if not text.isascii() else text


def samples_of(request: ScoreRequest) -> Sequence[Sample]:
    """Return the samples of a request."""
    return [each.sample() for each in request.samples]
