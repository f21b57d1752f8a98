"""One advantage per sample: its score less what other samples of the policy score.

`groups.py` compares a sample with others of its prompt; the moving baseline here compares it with
earlier rollouts, prompts of one domain with one another. Scores are (P, G): P prompts, G samples
each; one that is not finite could not be judged, and is left out of every statistic.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from textgym_agents.core.estimators import Estimator, ReinforceEstimator
from textgym_agents.core.groups import (
    dr_grpo_advantages,
    grpo_advantages,
    rloo_advantages,
)

GROUP_ADVANTAGES = {
    "grpo": grpo_advantages,
    "dapo": grpo_advantages,
    "dr_grpo": dr_grpo_advantages,
    "rloo": rloo_advantages,
}


class MovingBaseline:
    """The mean score of each domain, exponentially weighted over the rollouts.

    A rollout is judged by what came before it. In the first one that knows a domain, a sample is
    judged by the others of its domain.

    Args:
        means: by domain; grows with the rollouts.
    """

    def __init__(self, means: dict[str, float] | None = None) -> None:
        self.means = dict(means or {})

    def advantages(self, scores: Tensor, domains: Sequence[str], *, decay: float) -> Tensor:
        """Return score - b (N,), 0 where there is no score; then let b follow the scores.

        Args:
            scores: (N,).
            domains: of the N samples.
            decay: b <- decay * b + (1 - decay) * mean of the domain's scores in this rollout.
        """
        advantages = torch.zeros_like(scores)
        for domain in dict.fromkeys(domains):
            is_here = torch.tensor([d == domain for d in domains]) & scores.isfinite()
            if not bool(is_here.any()):
                continue
            here = scores[is_here]
            mean, known = float(here.mean()), self.means.get(domain)
            advantages[is_here] = others_advantages(here) if known is None else here - known
            self.means[domain] = mean if known is None else decay * known + (1 - decay) * mean
        return advantages


def others_advantages(scores: Tensor) -> Tensor:
    """Return each score (N,) less the mean of the others; 0 for a lone one or a missing one."""
    is_scored = scores.isfinite()
    n = int(is_scored.sum())
    mean = torch.where(is_scored, scores, 0.0).sum() / max(n, 1)
    return torch.where(is_scored, (scores - mean) * n / max(n - 1, 1), 0.0)


def sample_advantages(
    scores: Tensor, domains: Sequence[str], estimator: Estimator, moving: MovingBaseline
) -> Tensor:
    """Return the advantage of each sample (P, G) by an estimator that compares samples.

    Args:
        scores: (P, G).
        domains: of the P * G samples.
        estimator: one of `estimators.compares_samples`.
        moving: the baseline of `reinforce`; it moves on with the scores.
    """
    if not isinstance(estimator, ReinforceEstimator):
        return GROUP_ADVANTAGES[estimator.kind](scores)
    flat = scores.flatten()
    if estimator.baseline == "others":
        return others_advantages(flat).view_as(scores)
    return moving.advantages(flat, domains, decay=estimator.decay).view_as(scores)
