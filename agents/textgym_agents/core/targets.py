"""What a rollout teaches: advantages for the policy, returns for the value function."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from textgym_agents.core.advantages import InnerEnds, gae, length_adaptive_lambda
from textgym_agents.core.config import PPOConfig
from textgym_agents.core.masked import masked_whiten


class Targets(NamedTuple):
    """(B, T), zero off the actions."""

    advantages: Tensor
    returns: Tensor


def compute_targets(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    bootstrap: Tensor,
    config: PPOConfig,
    *,
    inner_ends: InnerEnds | None = None,
    policy_mask: Tensor | None = None,
) -> Targets:
    """Return advantages and returns: GAE, then whitening after the returns are stored.

    The arguments are those of `gae`; `policy_mask` is that of the actions whose advantages are
    whitened and used, where these are not all.
    """
    if not config.has_critic:
        return Targets(rewards_to_go(rewards, mask, config), torch.zeros_like(rewards))

    def estimate(lam: float | Tensor) -> Tensor:
        return gae(
            rewards,
            values,
            mask,
            bootstrap,
            gamma=config.gamma,
            lam=lam,
            discount_unit=config.discount_unit,
            inner_ends=inner_ends,
        )

    lam: float | Tensor
    if config.gae_lambda == "length_adaptive":
        lam = length_adaptive_lambda(mask.sum(dim=1))
    else:
        lam = config.gae_lambda
    targets = estimate(config.value_lambda)
    is_same = isinstance(lam, float) and lam == config.value_lambda
    advantages = targets if is_same else estimate(lam)
    returns = torch.where(mask, targets + values, 0.0)
    if config.whiten_advantages and config.whiten_over == "rollout":
        advantages = masked_whiten(advantages, mask if policy_mask is None else policy_mask)
    return Targets(advantages, returns)


def rewards_to_go(rewards: Tensor, mask: Tensor, config: PPOConfig) -> Tensor:
    """Return the discounted sum of the rewards from each action on (B, T), whitened if asked.

    It is GAE with lambda 1 and V = 0.
    """
    sums = gae(
        rewards,
        torch.zeros_like(rewards),
        mask,
        torch.zeros_like(rewards[:, 0]),
        gamma=config.gamma,
        lam=1.0,
        discount_unit=config.discount_unit,
    )
    whitens = config.whiten_advantages and config.whiten_over == "rollout"
    return masked_whiten(sums, mask) if whitens else sums


def spread_over_actions(advantages: Tensor, mask: Tensor, config: PPOConfig) -> Tensor:
    """Return the advantage of each sample (B,) at each of its actions (B, T), whitened if asked."""
    spread = torch.where(mask, advantages.to(torch.float32).unsqueeze(1), 0.0)
    whitens = config.whiten_advantages and config.whiten_over == "rollout"
    return masked_whiten(spread, mask) if whitens else spread
