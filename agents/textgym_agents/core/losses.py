"""The terms of the PPO objective, per token, and how they are summed up.

Schulman et al. 2017, arXiv:1707.06347. Conventions on which implementations disagree: the value
loss has no hidden factor 1/2 unless `half` is asked for; every mean is over the action tokens (or
sequences) of the whole optimiser step, so splitting a minibatch into micro-batches cannot change
a gradient.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from textgym_agents.core.kl import MAX_LOG_RATIO
from textgym_agents.core.masked import masked, masked_sum

Ratio = Literal["token", "sequence_mean", "sequence_sum", "none"]
Aggregation = Literal[
    "token_mean", "seq_mean_token_mean", "seq_mean_token_sum", "token_sum_const"
]  # fmt: skip


class Totals(NamedTuple):
    """What one optimiser step divides by, over all of its micro-batches (and processes)."""

    num_tokens: int
    """Action tokens."""
    num_sequences: int
    """Sequences with at least one action token."""
    max_new_tokens: int
    """The constant of `token_sum_const`."""
    num_value_tokens: int | None = None
    """Action tokens whose value is trained, where they are others than those of the policy."""

    def of_values(self) -> Totals:
        """Return the totals of the value's loss."""
        if self.num_value_tokens is None:
            return self
        return self._replace(num_tokens=self.num_value_tokens)

    @classmethod
    def of(cls, mask: Tensor, max_new_tokens: int = 1) -> Totals:
        """Count the (B, T) mask of a whole step."""
        return cls(int(mask.sum()), int(mask.any(dim=1).sum()), max_new_tokens)

    @classmethod
    def of_all(cls, x: Tensor, max_new_tokens: int = 1) -> Totals:
        """Count a whole step of (B, T) entries that are all actions."""
        return cls(x.numel(), len(x), max_new_tokens)


def log_ratio_used(d: Tensor, mask: Tensor | None, ratio: Ratio) -> Tensor:
    """Return the log of the ratio that each token's advantage is multiplied with (B, T).

    Args:
        d: (B, T), log pi_theta - log pi_old of each token.
        mask: (B, T) bool, True on action tokens.
        ratio: `token` is d itself. `sequence_mean` is the mean of d over the sequence (GSPO,
            arXiv:2507.18071, eq. 7), `sequence_sum` its sum, at each token of it. `none` is 0 with
            the gradient of d, so the loss has the gradient of -A log pi.
    """
    if ratio == "token":
        return d
    if ratio == "none":
        return d - d.detach()
    total = masked(d, mask).sum(dim=1, keepdim=True)
    if ratio == "sequence_mean":
        total = total / (d.shape[1] if mask is None else mask.sum(dim=1, keepdim=True).clamp(min=1))
    # Masked once more: garbage off the mask would come back to the sum as a gradient.
    return masked(total.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).expand_as(d), mask)


def policy_loss(
    d: Tensor,
    advantages: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> Tensor:
    """Return the clipped surrogate, negated, per token (PPO eq. 7).

    Args:
        d: log ratio log pi_theta - log pi_old, any shape (see `log_ratio_used`).
        advantages: same shape.
        clip_low: the ratio is clipped at 1 - clip_low from below,
        clip_high: and at 1 + clip_high from above (arXiv:2503.14476).
        dual_clip: bound c > 1 on the loss of a negative advantage (arXiv:1912.09729).
    """
    ratio = d.exp()  # r_t(theta): PPO eq. 6
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    objective = torch.min(ratio * advantages, clipped * advantages)  # PPO eq. 7
    if dual_clip is not None:
        bounded = torch.max(objective, dual_clip * advantages)
        objective = torch.where(advantages < 0, bounded, objective)
    return -objective


def value_loss(
    values: Tensor,
    returns: Tensor,
    old_values: Tensor,
    *,
    half: bool,
    clip: float | None = None,
) -> Tensor:
    """Return the squared error of the value per token; `clip` is in units of the return."""
    loss = (values - returns) ** 2
    if clip is not None:
        near = old_values + (values - old_values).clamp(-clip, clip)
        loss = torch.max(loss, (near - returns) ** 2)
    return loss / 2 if half else loss


def aggregate(loss: Tensor, mask: Tensor | None, totals: Totals, how: Aggregation) -> Tensor:
    """Sum a per-token loss (B, T) into this micro-batch's share of the step's loss; a scalar."""
    if how == "token_mean":
        return masked_sum(loss, mask) / max(totals.num_tokens, 1)
    if how == "seq_mean_token_sum":
        return masked_sum(loss, mask) / max(totals.num_sequences, 1)
    if how == "token_sum_const":
        return masked_sum(loss, mask) / max(totals.num_sequences * totals.max_new_tokens, 1)
    lengths = loss.shape[1] if mask is None else mask.sum(dim=1, keepdim=True).clamp(min=1)
    return masked_sum(loss / lengths, mask) / max(totals.num_sequences, 1)


class ClipFractions(NamedTuple):
    """Shares of action tokens whose policy gradient is cut, counted (not averaged)."""

    low: Tensor
    high: Tensor
    dual: Tensor


def clip_counts(
    d: Tensor,
    advantages: Tensor,
    mask: Tensor | None,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> ClipFractions:
    """Count the tokens at which each clip has cut the gradient; three scalars."""
    ratio, is_bad = d.exp(), advantages < 0
    low = (ratio < 1 - clip_low) & is_bad
    high = (ratio > 1 + clip_high) & (advantages > 0)
    dual = (ratio > dual_clip) & is_bad if dual_clip is not None else torch.zeros_like(is_bad)
    return ClipFractions(*(masked_sum(cut, mask) for cut in (low, high, dual)))
