"""From a rollout to what an update consumes: the episodes to train on, and how they compare.

The statistics of a group are those of all its samples with a score, also of those that nobody
learns from; samples without a score have no part in anything.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from textgym_agents.core.baselines import MovingBaseline, sample_advantages
from textgym_agents.core.buffer import MemoryBuffer
from textgym_agents.core.config import PPOConfig
from textgym_agents.core.estimators import Estimator, GaeEstimator
from textgym_agents.core.groups import group_normalise
from textgym_agents.lm.collection import scores_of
from textgym_agents.lm.transcript import Rollout, Transcript


class Samples(NamedTuple):
    """The samples of the groups that were not dropped, B of which are trained on."""

    buffer: MemoryBuffer
    """The B episodes."""
    transcripts: list[Transcript]
    """Those that they are of."""
    scores: Tensor
    """(P, G) float64: with what their length has taken off; nan where there is none."""
    places: Tensor
    """(B,) int64: where each episode of the buffer stands in the flattened scores."""
    domains: list[str]
    """Of the P * G samples."""

    def advantages(
        self, estimator: Estimator, moving: MovingBaseline, *, penalty: Tensor | None = None
    ) -> Tensor:
        """Return the advantage (B,) of each episode by an estimator that compares samples.

        Args:
            estimator: the estimator.
            moving: baseline of `reinforce`; it moves on.
            penalty: (B,), taken off the scores before they are compared.
        """
        scores = self.scores.flatten()
        if penalty is not None:
            scores = scores.index_add(0, self.places, -penalty.to(scores.dtype))
        grid = scores.view_as(self.scores)
        return sample_advantages(grid, self.domains, estimator, moving).flatten()[self.places]


def gather_samples(rollout: Rollout, config: PPOConfig) -> Samples:
    """Return the samples of a rollout whose groups were not dropped."""
    kept = [t for t in rollout.transcripts if not t.is_dropped]
    scores, gae = scores_of(kept, rollout.group_size), _gae_of(config)
    teaches_values = gae is not None and gae.value_on == "all"
    rewards: list[float] | None = None
    if gae is not None and gae.group_reward:
        rewards = group_normalise(scores).flatten().tolist()
    buffer, places = MemoryBuffer(), []
    for i, transcript in enumerate(kept):
        if transcript.failure is None and (transcript.is_selected or teaches_values):
            reward = None if rewards is None else rewards[i]
            buffer.add(transcript.episode(terminal_reward=reward))
            places.append(i)
    index = torch.tensor(places, dtype=torch.int64)
    chosen = [kept[i] for i in places]
    return Samples(buffer, chosen, scores, index, [t.domain for t in kept])


def _gae_of(config: PPOConfig) -> GaeEstimator | None:
    return config.estimator if isinstance(config.estimator, GaeEstimator) else None
