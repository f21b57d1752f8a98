"""The optimiser of a policy/value network: AdamW without weight decay, two named groups."""

from __future__ import annotations

from typing import Literal

import torch

from textgym.errors import ConfigError
from textgym_agents.lm.modes import missing_for_bitsandbytes
from textgym_agents.lm.network import PolicyValueNetwork


def make_optimizer(
    network: PolicyValueNetwork,
    *,
    learning_rate: float,
    eps: float = 1e-8,
    value_lr_mult: float = 1.0,
    kind: Literal["adamw", "adamw_8bit"] = "adamw",
) -> torch.optim.Optimizer:
    """Return AdamW over the trainable parameters and the value head.

    The value head is listed by itself: it is outside an adapter, and has a step size of its own.

    Raises:
        ConfigError: an 8-bit state is asked for where there is no GPU or no bitsandbytes.
    """
    groups = [
        {"params": network.trainable(), "name": "policy", "mult": 1.0},
        {"params": list(network.value_head.parameters()), "name": "value", "mult": value_lr_mult},
    ]
    betas = (0.9, 0.999)
    if kind == "adamw":
        return torch.optim.AdamW(
            groups, lr=learning_rate, betas=betas, eps=eps, weight_decay=0.0, fused=True
        )
    if missing := missing_for_bitsandbytes():
        raise ConfigError(
            "ppo.optimizer.kind: adamw_8bit needs an NVIDIA GPU and the package bitsandbytes; here "
            f"is {missing}. Take 'adamw', or run where there are both "
            "(pip install 'textgym[quantized]')"
        )
    import bitsandbytes

    quantized: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(
        groups, lr=learning_rate, betas=betas, eps=eps, weight_decay=0.0
    )
    return quantized


def set_learning_rate(
    optimizer: torch.optim.Optimizer, rate: float, *, freeze_policy: bool = False
) -> None:
    """Set the step size of every group; a frozen policy takes steps of 0."""
    for group in optimizer.param_groups:
        is_frozen = freeze_policy and group["name"] == "policy"
        group["lr"] = 0.0 if is_frozen else rate * group["mult"]
