"""Generalised advantage estimation over action positions, with gaps, ends and cut-offs.

Schulman et al. 2016, arXiv:1506.02438, eq. 16. Environment tokens between two actions carry no
reward, no value and no decay: the recursion steps from action to action. Letting it step through
the gap instead decays credit by (gamma * lambda) per environment token and reads V = 0 inside it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

DiscountUnit = Literal["token", "turn"]


def fold_rewards(rewards: Tensor, mask: Tensor) -> Tensor:
    """Move each reward that arrives on an environment token to the last action before it.

    Args:
        rewards: (B, T).
        mask: (B, T) bool; True on action tokens.

    Returns:
        (B, T), zero where `mask` is False. A reward before the first action goes to that action.
    """
    carry = torch.zeros_like(rewards[:, 0])
    folded = torch.zeros_like(rewards)
    for t in reversed(range(rewards.shape[1])):
        total = rewards[:, t] + carry
        folded[:, t] = torch.where(mask[:, t], total, torch.zeros_like(total))
        carry = torch.where(mask[:, t], torch.zeros_like(total), total)
    first = mask.int().argmax(dim=1, keepdim=True)
    lead = torch.where(mask.any(dim=1), carry, torch.zeros_like(carry))
    return folded.scatter_add(1, first, lead.unsqueeze(1))


def turn_ends(mask: Tensor) -> Tensor:
    """Return (B, T) bool: True on the last action token of each turn."""
    following = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
    return mask & ~following


def gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    bootstrap: Tensor,
    *,
    gamma: float,
    lam: float | Tensor,
    discount_unit: DiscountUnit = "token",
) -> Tensor:
    """Return advantages (B, T), zero where `mask` is False.

    Args:
        rewards: (B, T), the reward caused by the token at that position (see `fold_rewards`).
        values: (B, T), V(s_t) before the token at that position.
        mask: (B, T) bool; True on action tokens.
        bootstrap: (B,), V of the state after the last token if the episode was truncated, else 0.
        gamma: discount per `discount_unit`.
        lam: lambda, one for all or (B,) per sequence.
        discount_unit: `turn` discounts only on the last action token of a turn.
    """
    lam = torch.as_tensor(lam, dtype=rewards.dtype, device=rewards.device).expand(len(rewards))
    discounts = torch.full_like(rewards, gamma)
    lambdas = lam.unsqueeze(1).expand_as(rewards)
    if discount_unit == "turn":
        ends = turn_ends(mask)
        discounts = torch.where(ends, discounts, torch.ones_like(discounts))
        lambdas = torch.where(ends, lambdas, torch.ones_like(lambdas))
    advantages = torch.zeros_like(rewards)
    carry = torch.zeros_like(bootstrap)
    next_value = bootstrap
    for t in reversed(range(rewards.shape[1])):
        m, g = mask[:, t], discounts[:, t]
        delta = rewards[:, t] + g * next_value - values[:, t]  # delta_k: GAE eq. 9
        advantage = delta + g * lambdas[:, t] * carry  # A_k: GAE eq. 16
        advantages[:, t] = torch.where(m, advantage, torch.zeros_like(advantage))
        carry = torch.where(m, advantage, carry)
        next_value = torch.where(m, values[:, t], next_value)
    return advantages


def length_adaptive_lambda(lengths: Tensor) -> Tensor:
    """Return lambda = clip(1 - 1 / (0.05 K), 0.95, 1) for K action tokens (arXiv:2504.05118)."""
    return (1.0 - 1.0 / (0.05 * lengths.clamp(min=1))).clamp(0.95, 1.0)
