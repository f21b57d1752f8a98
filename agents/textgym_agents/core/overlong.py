"""What a completion near its limit of length costs: the soft overlong punishment of DAPO."""

from __future__ import annotations

from torch import Tensor


def overlong_penalty(num_actions: Tensor, *, cap: int, buffer: int, penalty: float) -> Tensor:
    """Return what is added to the score: 0 up to `cap - buffer` actions, then falling to -penalty.

    Yu et al. 2025, arXiv:2503.14476, eq. 13: min(max(K - (T - b), 0) / b, 1) * p is taken off.

    Args:
        num_actions: K, any shape: tokens that the policy sampled; what the environment said in
            between does not count.
        cap: T, where the whole penalty is charged.
        buffer: b, tokens over which it rises.
        penalty: p.
    """
    return -((num_actions - (cap - buffer)) / buffer).clamp(0.0, 1.0) * penalty
