"""Kullback-Leibler statistics, the early stop of an update, and the controller of the KL penalty.

With d = log pi_new(a) - log pi_old(a) on actions of pi_old and rho = e^d (Schulman 2020,
"Approximating KL divergence", joschu.net/blog/kl-approx.html):

* `k1` = -d and `k3` = rho - 1 - d estimate KL(old || new); `k2` = d^2 / 2 is biased and low in
  variance;
* `seed` = -d * rho estimates -KL(new || old): it is never positive in expectation, so a test
  `seed > target` can only fire from noise. Its magnitude is compared instead, unless `signed`
  asks for the literal rule.

The distance to a frozen reference, KL(policy || reference), has three places (spec 4.2):

* `k1_in_reward`: beta * k1 is taken off the reward of each action token;
* `k1_in_score`: its sum over the sample is taken off the score, before a baseline is;
* `k2_in_loss`: beta * k2 is added to the loss, and with samples of the policy its gradient is that
  of the KL. `k3_in_loss` is GRPO's, whose gradient is that of KL(reference || policy). k1 in the
  loss would have no gradient at all, in expectation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from textgym.errors import ConfigError
from textgym_agents.processes import ONE, Processes

KLStatistic = Literal["seed", "k1", "k2", "k3"]
KLForm = Literal["k1_in_reward", "k1_in_score", "k2_in_loss", "k3_in_loss"]
MAX_LOG_RATIO = 20.0
MIN_STOP_TOKENS = 512
HORIZON_SEQUENCES = 10_000.0


def log_ratio(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """Return log rho, clamped to +-20 so that its exponential stays finite."""
    return (logprobs - old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def kl_per_token(statistic: KLStatistic, d: Tensor) -> Tensor:
    """Return the per-token KL statistic of the log ratios `d`; nats."""
    if statistic == "seed":
        return -d * d.exp()
    if statistic == "k1":
        return -d
    if statistic == "k2":
        return d**2 / 2
    return d.exp() - 1 - d


def kl_loss(form: KLForm, logprobs: Tensor, reference: Tensor) -> Tensor:
    """Return the per-token KL term of the loss, for actions of the policy; nats.

    With x = log pi_theta - log pi_ref: k2 = x^2 / 2, k3 = e^-x - 1 + x.
    """
    return kl_per_token("k2" if form == "k2_in_loss" else "k3", log_ratio(reference, logprobs))


@dataclass
class KLStop:
    """Decides, before each optimiser step, whether the policy has left the trust region.

    The statistic is the running mean over the minibatches of the current epoch. It is judged once
    it covers `min_tokens` action tokens, or at the end of the epoch: on 64 it fires from noise
    alone.
    """

    target: float | None
    statistic: KLStatistic
    compare: Literal["abs", "signed"] = "abs"
    min_tokens: int = MIN_STOP_TOKENS
    processes: Processes = ONE
    _sum: float = field(default=0.0, init=False)
    _tokens: int = field(default=0, init=False)

    def start_epoch(self) -> None:
        """Forget the minibatches of the epoch before."""
        self._sum, self._tokens = 0.0, 0

    def should_stop(self, d: Tensor, *, is_last: bool) -> bool:
        """Add one minibatch of log ratios (N,) and say whether to stop before its step.

        With several processes `d` is this one's share, and all of them decide the same.
        """
        if self.target is None:
            return False
        nats = float(kl_per_token(self.statistic, d).sum())
        added = self.processes.sum(torch.tensor([nats, len(d)], dtype=torch.float64))
        self._sum += float(added[0])
        self._tokens += int(added[1])
        if self._tokens == 0 or (self._tokens < self.min_tokens and not is_last):
            return False
        value = self._sum / self._tokens
        return (abs(value) if self.compare == "abs" else value) > self.target


@dataclass
class AdaptiveKLController:
    """Keeps KL(policy || reference) near a target by moving the penalty beta.

    Ziegler et al. 2019, arXiv:1909.08593, section 2.2: beta <- beta * (1 + clip(KL / KL* - 1, -0.2,
    0.2) * n / h) after a rollout of n sequences. KL is in nats per sequence, not per token.
    """

    beta: float
    target_nats_per_sequence: float = 6.0
    horizon_sequences: float = HORIZON_SEQUENCES
    beta_min: float = 1e-4
    beta_max: float = 1.0

    def __post_init__(self) -> None:
        if self.target_nats_per_sequence <= 0 or self.horizon_sequences <= 0:
            raise ConfigError(
                f"the KL target ({self.target_nats_per_sequence}) and the horizon "
                f"({self.horizon_sequences}) must be positive; switch the penalty off with beta 0"
            )

    def update(
        self, kl_nats_per_sequence: float, num_sequences: int, *, target_scale: float = 1.0
    ) -> float:
        """Move beta after a rollout and return it; a KL that is not finite leaves it alone.

        Args:
            kl_nats_per_sequence: mean over the sequences of the KL summed over their actions.
            num_sequences: n.
            target_scale: factor of the target, of an `EntropyFloor`.
        """
        if not math.isfinite(kl_nats_per_sequence):
            return self.beta
        target = self.target_nats_per_sequence * target_scale
        error = max(-0.2, min(0.2, kl_nats_per_sequence / target - 1))
        beta = self.beta * (1 + error * num_sequences / self.horizon_sequences)
        self.beta = max(self.beta_min, min(self.beta_max, beta))
        return self.beta


FIRST_ROLLOUTS = 5
FLOOR_SHARE = 0.5
MIN_TARGET_SCALE = 0.1


@dataclass
class EntropyFloor:
    """Draws the policy back to its reference where its entropy falls too low.

    The floor H* is half the mean entropy of the first five rollouts. With entropy H the target of
    the KL is scaled by clip(H / H*, 0.1, 1): below the floor it shrinks, so beta rises, and the
    policy is pulled towards the reference, whose entropy is higher.
    """

    first: list[float] = field(default_factory=list)
    """Entropies of the first rollouts, at most five; nats per token."""

    def target_scale(self, entropy: float) -> float:
        """Take in the mean entropy of a rollout and return the factor of the KL target."""
        if len(self.first) < FIRST_ROLLOUTS:
            self.first.append(entropy)
        floor = FLOOR_SHARE * sum(self.first) / len(self.first)
        return max(MIN_TARGET_SCALE, min(1.0, entropy / floor)) if floor > 0 else 1.0
