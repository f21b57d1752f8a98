"""The reward `remote`: whatever a service of `textgym serve` scores with, as a reward here.

A service that is down, slow, restarted or replaced costs failed samples and never wrong ones:
answers are matched to their request by id and length, checked against the range that the service
declares, and refused where the service is no longer the one that answered first. A request is
repeated under the same id, so that a service that did the work already does not do it again.

It runs in the caller's process (`inline`): every request has its own deadline.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import ClassVar, Literal

from pydantic import Field, ValidationError
from pydantic_core import PydanticSerializationError

from textgym.background_loop import background_loop
from textgym.http_calls import (
    BaseUrl,
    CallError,
    CallerSpec,
    JsonCaller,
    Retry,
    UnusableAnswerError,
    json_caller,
)
from textgym.reward import Isolation, Reward
from textgym.sample import Sample
from textgym.score import Score
from textgym.serve.wire import ScoreRequest, ScoreResponse, WireSample

_SPLIT_STATUSES = (413, 422)
"""Refusals that may be the fault of one sample, or of their number."""
_TOLERANCE = 1e-9


class RemoteReward(Reward):
    """The scores of a service.

    It declares what holds for any service: no range, not deterministic, no steps. Steps that come
    with the scores are kept, but no prefix is asked about for them.
    """

    name: ClassVar[str] = "remote"
    range: ClassVar[tuple[float, float]] = (-math.inf, math.inf)  # the service declares its own
    deterministic: ClassVar[bool] = False  # what stands behind the URL can change
    isolation: ClassVar[Isolation] = "inline"
    time_limit: ClassVar[float] = 600.0  # what a check waits for; requests have their own

    url: BaseUrl
    """The service, such as `http://127.0.0.1:8080`."""
    service: Literal["rewards", "executor"] = "rewards"
    """What is asked for: `/v1/score` or `/v1/execute`."""
    token_env: str | None = None
    """The environment variable that holds the bearer token; None sends none. The token itself is
    in no configuration, log, error or pickle."""
    fingerprint: str | None = None
    """What the service must be, as it prints when it starts; None takes the first answer's."""
    allow_change: bool = False
    """Go on with a service that changes during a run instead of failing the samples."""
    batch_size: int = Field(default=64, ge=1, le=100_000)
    """Samples of one request."""
    concurrency: int = Field(default=4, ge=1, le=1024)
    """Requests at once."""
    retry: Retry = Retry(timeout=330.0)
    """How long a request may take and how often it is tried."""

    def score(self, sample: Sample) -> Score:
        """Return the service's score of one sample."""
        [score] = self.score_batch([sample])
        return score

    def score_batch(self, samples: Sequence[Sample]) -> list[Score]:
        """Return the service's scores, in order."""
        return background_loop().run(self._score_all(samples))

    async def _score_all(self, samples: Sequence[Sample]) -> list[Score]:
        client = background_loop().keep(("remote", self), lambda: _Client(self))
        size = self.batch_size
        batches = [samples[i : i + size] for i in range(0, len(samples), size)]
        scored = await asyncio.gather(*(client.score(batch) for batch in batches))
        return [score for scores in scored for score in scores]


@dataclass
class _Client:
    """Talks to one service and remembers which it is. Used on the background loop only."""

    reward: RemoteReward

    def __post_init__(self) -> None:
        reward = self.reward
        self._caller: JsonCaller = json_caller(
            CallerSpec(
                reward.url, reward.token_env, reward.retry, reward.concurrency, None,
                "the reward 'remote'",
            )
        )  # fmt: skip
        self._path = "/v1/execute" if reward.service == "executor" else "/v1/score"
        self._fingerprint = reward.fingerprint

    async def score(self, samples: Sequence[Sample]) -> list[Score]:
        """Return one score per sample, in order."""
        started = perf_counter()
        try:
            body = _body(samples, None if self.reward.allow_change else self._fingerprint)
        except (PydanticSerializationError, ValidationError, ValueError) as error:
            if len(samples) > 1:
                return await self._halves(samples)
            reason = f"the sample has no exact form as JSON: {_one_line(error)}"
            return [Score.unscored(reason)]
        try:
            return await self._post(body, samples)
        except CallError as error:
            if len(samples) > 1 and error.status in _SPLIT_STATUSES:
                return await self._halves(samples)
            seconds = (perf_counter() - started) / len(samples)
            return [Score.failed(error.kind, str(error), seconds=seconds) for _ in samples]

    async def _halves(self, samples: Sequence[Sample]) -> list[Score]:
        """Score in two requests, so that one sample that is refused costs only itself."""
        middle = len(samples) // 2
        first, second = await asyncio.gather(
            self.score(samples[:middle]), self.score(samples[middle:])
        )
        return [*first, *second]

    async def _post(self, body: bytes, samples: Sequence[Sample]) -> list[Score]:
        request_id = hashlib.sha256(body).hexdigest()
        response = await self._caller.post(
            self._path,
            body,
            _reader(request_id, len(samples)),
            headers={"X-Request-Id": request_id},
        )
        self._check_fingerprint(response.fingerprint)
        return [_in_range(wire.score(), response) for wire in response.scores]

    def _check_fingerprint(self, found: str) -> None:
        if self._fingerprint is None or self.reward.allow_change:
            self._fingerprint = found
        elif found != self._fingerprint:
            raise CallError(
                "unavailable",
                f"{self.reward.url} is now {found} and was {self._fingerprint}: its rewards, their "
                "versions or their configuration have changed during the run. Start the old "
                "service again, or set allow_change=True",
            )


def _body(samples: Sequence[Sample], fingerprint: str | None) -> bytes:
    request = ScoreRequest(
        samples=tuple(WireSample.of(sample) for sample in samples), fingerprint=fingerprint
    )
    text = request.model_dump_json(exclude_defaults=True)
    if any(word in text for word in ("null", "NaN", "Infinity")):
        json.dumps(request.model_dump(), allow_nan=False)  # raises for a nan, written as null above
    return text.encode()


def _reader(request_id: str, num_samples: int) -> Callable[[object], ScoreResponse]:
    """Return what takes an answer for the answer to this very request."""

    def read(answer: object) -> ScoreResponse:
        try:
            response = ScoreResponse.model_validate(answer)
            for each in response.scores:
                each.score()
        except (ValidationError, ValueError) as error:
            raise UnusableAnswerError(_one_line(error)) from None
        if response.request_id != request_id:
            raise UnusableAnswerError(f"it answers the request {response.request_id!r}")
        if len(response.scores) != num_samples:
            raise UnusableAnswerError(f"{len(response.scores)} scores for {num_samples} samples")
        return response

    return read


def _in_range(score: Score, response: ScoreResponse) -> Score:
    if not score.is_scored:
        return score
    low = -math.inf if response.low is None else response.low
    high = math.inf if response.high is None else response.high
    slack = _TOLERANCE * max(1.0, abs(score.value))
    if low - slack <= score.value <= high + slack:
        return score
    reason = f"the service answered {score.value!r}, outside its range {low:g} to {high:g}"
    return replace(score, value=math.nan, status="failed", kind="out_of_range", reason=reason)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
