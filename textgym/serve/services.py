"""What a service computes: scores with a fixed rubric, or log-probabilities under a fixed model."""

from __future__ import annotations

import math
from typing import Literal, Protocol

import textgym
from textgym.scoring import Scorer
from textgym.serve.fingerprint import rubric_fingerprint
from textgym.serve.wire import Info, ScoreRequest, ScoreResponse, WireScore, samples_of

ServiceName = Literal["rewards", "executor", "reference", "chat"]


class Service(Protocol):
    """What every service has."""

    name: ServiceName
    title: str
    fingerprint: str
    deterministic: bool | None
    dense: bool | None

    def close(self) -> None:
        """End worker processes and free memory."""


class ScoringService:
    """Scores samples with a rubric that is fixed when the service starts.

    A prompt cannot choose what scores it beyond the routes of that rubric.
    """

    def __init__(self, scorer: Scorer, *, name: Literal["rewards", "executor"] = "rewards") -> None:
        self.name: ServiceName = name
        self.title = ", ".join(scorer.rubric.part_names)
        self.fingerprint = rubric_fingerprint(scorer.rubric)
        self._scorer = scorer
        self._low, self._high = scorer.rubric.range
        self.deterministic: bool | None = scorer.rubric.deterministic
        self.dense: bool | None = scorer.rubric.dense

    def score(self, request: ScoreRequest, request_id: str | None) -> ScoreResponse:
        """Return the scores of a request."""
        scores = self._scorer.score_batch(samples_of(request))
        return ScoreResponse(
            fingerprint=self.fingerprint,
            request_id=request_id,
            low=self._low if math.isfinite(self._low) else None,
            high=self._high if math.isfinite(self._high) else None,
            scores=tuple(WireScore.of(score) for score in scores),
        )

    def close(self) -> None:
        """End the worker processes."""
        self._scorer.close()


def info_of(service: Service, *, max_items: int, max_body_bytes: int) -> Info:
    """Return what a service says of itself."""
    return Info(
        service=service.name,
        title=service.title,
        fingerprint=service.fingerprint,
        version=textgym.__version__,
        max_items=max_items,
        max_body_bytes=max_body_bytes,
        deterministic=service.deterministic,
        dense=service.dense,
    )
