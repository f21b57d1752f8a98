"""Advantages from groups: several samples of one prompt judge each other, without a critic.

Scores are (P, G): P prompts, G samples each. A score that is not finite could not be judged; it is
left out of every statistic and its advantage is 0, so the caller must mask its tokens as well. The
advantage of a sample holds for each of its action tokens, hence for a discount of 1 only. Standard
deviations are those of the population. Left out: the moving-average baseline of REINFORCE, which
compares a sample with earlier rollouts and not with its group.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from textgym.errors import ConfigError
from textgym_agents.core.masked import MIN_STD


class GroupStats(NamedTuple):
    """Statistics of each group over all of its finite scores."""

    mean: Tensor
    """(P,); 0 without a finite score."""
    std: Tensor
    """(P,), of the population."""
    num_scored: Tensor
    """(P,) int64."""
    is_scored: Tensor
    """(P, G) bool."""


class Selection(NamedTuple):
    """The samples of each group that are trained on."""

    is_low: Tensor
    """(P, G) bool: the k worst of a kept group."""
    is_high: Tensor
    """(P, G) bool: the k best of a kept group; never one of the worst."""
    is_kept: Tensor
    """(P,) bool: the group has 2k finite scores or more, and they differ."""


def group_stats(scores: Tensor) -> GroupStats:
    """Return the statistics of scores (P, G), in float64: equal scores must have no spread.

    Raises:
        ConfigError: G is 1; a sample cannot be compared with itself.
    """
    if scores.dim() != 2:
        raise ConfigError(
            f"scores have the shape {tuple(scores.shape)}; give (prompts, samples per prompt)"
        )
    if scores.shape[1] < 2:
        raise ConfigError(
            f"groups of {scores.shape[1]}: an advantage within a group needs at least 2 samples "
            "of each prompt; draw more, or use the estimator gae"
        )
    is_scored = scores.isfinite()
    num_scored = is_scored.sum(dim=1)
    count = num_scored.clamp(min=1)
    mean = torch.where(is_scored, scores.double(), 0.0).sum(dim=1) / count
    squares = (scores.double() - mean.unsqueeze(1)) ** 2
    variance = torch.where(is_scored, squares, 0.0).sum(dim=1) / count
    return GroupStats(mean, variance.sqrt(), num_scored, is_scored)


def group_normalise(scores: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Return (S - mean) / (std + eps) within each group (P, G): the GRPO advantage with eps 1e-4.

    Shao et al. 2024, arXiv:2402.03300, section 4.1.2. The division gives every prompt the same
    weight, whatever its difficulty; `dr_grpo_advantages` leaves it out.
    """
    stats = group_stats(scores)
    centred = scores.double() - stats.mean.unsqueeze(1)
    return _scored(centred / (stats.std.unsqueeze(1) + eps), stats, scores)


def grpo_advantages(scores: Tensor) -> Tensor:
    """Return (S - mean) / (std + 1e-4) within each group (P, G); arXiv:2402.03300."""
    return group_normalise(scores, eps=1e-4)


def dr_grpo_advantages(scores: Tensor) -> Tensor:
    """Return S - mean within each group (P, G); Liu et al. 2025, arXiv:2503.20783."""
    stats = group_stats(scores)
    return _scored(scores.double() - stats.mean.unsqueeze(1), stats, scores)


def rloo_advantages(scores: Tensor) -> Tensor:
    """Return S - mean of the group's other scores (P, G); Ahmadian et al. 2024, arXiv:2402.14740.

    The mean of the others makes it n / (n - 1) * (S - mean of all n); a lone score gets 0.
    """
    stats = group_stats(scores)
    n = stats.num_scored.unsqueeze(1)
    centred = scores.double() - stats.mean.unsqueeze(1)
    return _scored(centred * n / (n - 1).clamp(min=1), stats, scores)


def select_best_worst(scores: Tensor, k: int, generator: torch.Generator) -> Selection:
    """Return the k worst and the k best samples of each group; ties are broken at random.

    A group whose scores are all equal, or with fewer than 2k finite ones, is dropped whole. With
    k = 0 nothing is selected and `is_kept` is the rule of dynamic sampling (arXiv:2503.14476).
    What is trained on is the score normalised over the whole group, not over the selection.

    Args:
        scores: (P, G).
        k: how many from each end.
        generator: draws the order among equal scores; on the CPU.
    """
    if k < 0 or 2 * k > scores.shape[-1]:
        raise ConfigError(
            f"k is {k}; the {k} worst and the {k} best of {scores.shape[-1]} samples must be "
            "disjoint: choose k between 0 and half the group"
        )
    stats = group_stats(scores)
    is_kept = (stats.std >= MIN_STD) & (stats.num_scored >= 2 * k)
    ranks = _ranks(torch.where(stats.is_scored, scores, torch.inf), generator)
    kept, n = is_kept.unsqueeze(1), stats.num_scored.unsqueeze(1)
    return Selection(kept & (ranks < k), kept & (ranks >= n - k) & (ranks < n), is_kept)


def _ranks(scores: Tensor, generator: torch.Generator) -> Tensor:
    """Return each sample's place in its group (P, G), 0 for the lowest; equal ones at random."""
    shuffled = torch.rand(scores.shape, generator=generator).argsort(dim=1).to(scores.device)
    order = shuffled.gather(1, scores.gather(1, shuffled).argsort(dim=1, stable=True))
    return order.argsort(dim=1)


def _scored(values: Tensor, stats: GroupStats, scores: Tensor) -> Tensor:
    return torch.where(stats.is_scored, values, 0.0).to(scores.dtype)
