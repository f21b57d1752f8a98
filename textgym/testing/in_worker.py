"""What the check of a reward runs in worker processes."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from textgym.reward import Reward
from textgym.sample import Sample
from textgym.score import Score


def show(reward: Reward, _: None) -> str:
    """Return what the reward looks like; that it can be asked is what is checked."""
    return repr(reward)


def score(reward: Reward, sample: Sample) -> Score:
    """Return the score of a sample that is alone, a number as a score."""
    has_single = type(reward).score is not Reward.score
    result: Any = reward.score(sample) if has_single else reward.score_batch([sample])[0]
    return _as_score(result)


def score_batch(reward: Reward, samples: list[Sample]) -> list[Score]:
    """Return what `score_batch` itself returns, numbers as scores."""
    results: Iterable[Any] = reward.score_batch(samples)
    return [_as_score(result) for result in results]


def find_impurities(reward: Reward, sample: Sample) -> list[str]:
    """Return what scoring a sample changes apart from its score."""
    sample = replace(sample, prompt=sample.prompt.model_copy(deep=True))
    random.random(), np.random.random()  # away from where the reward may put them every time
    before = _state(sample)
    reward.score_batch([sample])
    after = _state(sample)
    return [what for what in before if before[what] != after[what]]


def _as_score(result: Any) -> Score:
    return (
        replace(result, value=float(result.value))
        if isinstance(result, Score)
        else Score(float(result))
    )


def _state(sample: Sample) -> dict[str, object]:
    return {
        "the sample": repr(sample),
        "the state of `random`": random.getstate(),
        "the state of `numpy.random`": pickle.dumps(np.random.get_state()),
    }
