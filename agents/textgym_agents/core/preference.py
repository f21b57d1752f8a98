"""Losses on pairs of completions of which one is preferred.

Rafailov et al. 2023, arXiv:2305.18290. With l the log-probability of a completion given its prompt,
summed over its tokens (the end token is one of them) at temperature 1, the log ratios
r = l_policy - l_reference of both completions are compared: Delta = r(chosen) - r(rejected).
beta * r is the reward that the policy implies, up to a term of the prompt.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import softplus


class LogRatios(NamedTuple):
    """log pi_policy - log pi_reference, summed over the tokens of each completion; (B,) nats."""

    chosen: Tensor
    rejected: Tensor

    @classmethod
    def of(
        cls, chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor
    ) -> LogRatios:
        """Return the ratios of summed log-probabilities (B,) under policy and reference."""
        return cls(chosen - ref_chosen, rejected - ref_rejected)


def implicit_rewards(ratios: LogRatios, *, beta: float) -> LogRatios:
    """Return beta * r of both completions: the reward whose best policy the policy is (eq. 5)."""
    return LogRatios(beta * ratios.chosen, beta * ratios.rejected)


def dpo_loss(ratios: LogRatios, *, beta: float = 0.1, label_smoothing: float = 0.0) -> Tensor:
    """Return the DPO loss of each pair (B,): -log sigmoid(beta * Delta) (eq. 7).

    Args:
        ratios: of the pairs.
        beta: how far the policy may go from the reference for the same reward.
        label_smoothing: s in [0, 0.5), the share of pairs whose preference is thought to be the
            wrong way round: (1 - s) softplus(-beta Delta) + s softplus(beta Delta).
    """
    x = beta * (ratios.chosen - ratios.rejected)
    return (1 - label_smoothing) * softplus(-x) + label_smoothing * softplus(x)


def ipo_loss(
    ratios: LogRatios, chosen_lengths: Tensor, rejected_lengths: Tensor, *, beta: float = 0.1
) -> Tensor:
    """Return the IPO loss of each pair (B,): (Delta - 1 / (2 beta))^2 on means per token.

    Azar et al. 2023, arXiv:2310.12036, eq. 17, with the log ratios divided by the lengths.

    Args:
        ratios: of the pairs.
        chosen_lengths: (B,), tokens of each chosen completion.
        rejected_lengths: (B,).
        beta: the paper's tau.
    """
    delta = ratios.chosen / chosen_lengths - ratios.rejected / rejected_lengths
    return (delta - 1 / (2 * beta)) ** 2
