"""The PPO update: Algorithm 1 of Schulman et al. 2017 (arXiv:1707.06347) on masked sequences.

The loop does not know what the policy is: an MLP on a control task and a language model go
through the same lines. Left out on purpose: the penalty on the distance to a reference policy,
which belongs in the reward (see `MemoryBuffer.record`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from textgym_agents.core.buffer import Batch, Evaluation, MemoryBuffer
from textgym_agents.core.config import PPOConfig
from textgym_agents.core.kl import KLStop, kl_per_token, log_ratio
from textgym_agents.core.losses import Totals, aggregate, clip_counts, policy_loss, value_loss
from textgym_agents.core.masked import masked_mean, masked_std, masked_sum


class ActorCritic(Protocol):
    """What the update needs of a policy."""

    def evaluate(self, batch: Batch, *, value_grad_to_trunk: float = 1.0) -> Evaluation:
        """Return log-probabilities, values and entropy of the batch's actions, with gradients."""
        ...


class StepStats:
    """Sums over the steps of one update, turned into means once, at the end."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self.num_tokens = 0
        self.num_steps = 0
        self.num_skipped = 0
        self.was_stopped = False
        self.first_ratio_error: float | None = None

    def add_sums(self, sums: dict[str, Tensor], num_tokens: int) -> None:
        """Add sums over the action tokens of one micro-batch."""
        for name, value in zip(sums, torch.stack(list(sums.values())).tolist(), strict=True):
            self._sums[name] = self._sums.get(name, 0.0) + value
        self.num_tokens += num_tokens

    def add_step(self, norms: dict[str, float]) -> None:
        """Add one optimiser step that was taken."""
        self.num_steps += 1
        for name, value in norms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def means(self, num_planned: int) -> dict[str, float]:
        """Return the metrics of the update; token means are over evaluated action tokens."""
        steps, tokens = max(self.num_steps, 1), max(self.num_tokens, 1)
        means = {
            f"ppo/{name}": total / (steps if name.startswith("grad_norm") else tokens)
            for name, total in self._sums.items()
        }
        means["ppo/steps_done_share"] = self.num_steps / max(num_planned, 1)
        means["ppo/skipped_steps"] = float(self.num_skipped)
        means["ppo/kl_stopped"] = float(self.was_stopped)
        if self.first_ratio_error is not None:
            means["ppo/first_ratio_error"] = self.first_ratio_error
        return means


def ppo_update(
    policy: ActorCritic,
    optimizer: Optimizer,
    buffer: MemoryBuffer,
    config: PPOConfig,
    *,
    generator: torch.Generator,
    max_new_tokens: int = 1,
    device: torch.device | None = None,
    on_step: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Improve `policy` on one rollout and return the metrics of the update.

    Args:
        policy: evaluated on minibatches; its parameters are those of `optimizer`.
        optimizer: its parameter groups carry a `name`, by which gradient norms are reported.
        buffer: with `record` and `compute_returns_and_advantages` done.
        config: the constants.
        generator: shuffles the episodes.
        max_new_tokens: the constant of the aggregation `token_sum_const`.
        device: where minibatches are moved to; None leaves them.
        on_step: called after each minibatch, e.g. to show progress.
    """
    stop = KLStop(
        config.kl_stop.target,
        config.kl_stop.statistic,
        config.kl_stop.compare,
        config.kl_stop.min_tokens,
    )
    stats = StepStats()
    per_epoch = math.ceil(len(buffer) / config.batch_size)
    for _ in range(config.update_epochs):
        stop.start_epoch()
        batches = buffer.minibatches(config.batch_size, generator)
        for i, batch in enumerate(batches):
            totals = Totals.of(batch.action_mask, max_new_tokens)
            optimizer.zero_grad(set_to_none=True)
            d = _accumulate(policy, batch, config, totals, stats, device)
            if stop.should_stop(d, is_last=i == len(batches) - 1):
                stats.was_stopped = True  # outside the trust region: stop before the step
                return stats.means(config.update_epochs * per_epoch)
            _step(optimizer, config.optimizer.max_grad_norm, stats)
            if on_step is not None:
                on_step()
    return stats.means(config.update_epochs * per_epoch)


def _accumulate(
    policy: ActorCritic,
    batch: Batch,
    config: PPOConfig,
    totals: Totals,
    stats: StepStats,
    device: torch.device | None,
) -> Tensor:
    """Add the gradients of one minibatch and return the log ratios (N,) of its action tokens."""
    log_ratios = []
    for micro in batch.micro_batches(config.micro_batch_tokens):
        part = micro if device is None else micro.to(device)
        new = policy.evaluate(part, value_grad_to_trunk=config.value.grad_to_trunk)
        loss, sums = ppo_loss(new, part, config, totals)
        loss.backward()
        stats.add_sums(sums, int(part.action_mask.sum()))
        log_ratios.append(log_ratio(new.logprobs, part.logprobs).detach()[part.action_mask])
    d = torch.cat(log_ratios)
    if stats.first_ratio_error is None:
        stats.first_ratio_error = float((d.exp() - 1).abs().max()) if len(d) else 0.0
    return d


def ppo_loss(
    new: Evaluation, batch: Batch, config: PPOConfig, totals: Totals
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return this micro-batch's share of the step's loss, and sums over its action tokens."""
    mask = batch.action_mask
    # Garbage off the mask would reach the parameters as 0 * nan, through the square of the value.
    logprobs, values, entropy = (torch.where(mask, x, 0.0) for x in new[:3])
    d = log_ratio(logprobs, batch.logprobs)
    clip = config.clip
    l_clip = policy_loss(
        d, batch.advantages, clip_low=clip.low, clip_high=clip.high, dual_clip=clip.dual
    )
    l_vf = value_loss(
        values, batch.returns, batch.values, half=config.value.half, clip=config.value.clip
    )
    loss = aggregate(l_clip, mask, totals, config.aggregation)
    loss = loss + config.value.coef * aggregate(l_vf, mask, totals, "token_mean")
    loss = loss - config.entropy_coef * aggregate(entropy, mask, totals, "token_mean")  # eq. 9
    with torch.no_grad():
        cut = clip_counts(
            d, batch.advantages, mask, clip_low=clip.low, clip_high=clip.high, dual_clip=clip.dual
        )
        sums = {
            "policy_loss": masked_sum(l_clip, mask),
            "value_loss": masked_sum(l_vf, mask),
            "entropy": masked_sum(entropy, mask),
            "kl_seed": masked_sum(kl_per_token("seed", d), mask),
            "kl_k1": masked_sum(kl_per_token("k1", d), mask),
            "kl_k3": masked_sum(kl_per_token("k3", d), mask),
            "ratio": masked_sum(d.exp(), mask),
            "clip_low": cut.low,
            "clip_high": cut.high,
            "clip_dual": cut.dual,
        }
    return loss, sums


def _step(optimizer: Optimizer, max_grad_norm: float, stats: StepStats) -> None:
    groups: dict[str, list[Parameter]] = {}
    for group in optimizer.param_groups:
        params = groups.setdefault(str(group.get("name", "policy")), [])
        params += [p for p in group["params"] if p.grad is not None]
    norms = {
        name: get_total_norm([p.grad for p in params if p.grad is not None])
        for name, params in groups.items()
        if params
    }
    total = torch.linalg.vector_norm(torch.stack(list(norms.values())))
    if not bool(torch.isfinite(total)):
        stats.num_skipped += 1
        return
    clip_grads_with_norm_([p for ps in groups.values() for p in ps], max_grad_norm, total)
    optimizer.step()
    named = {f"grad_norm_{name}": float(norm) for name, norm in norms.items()}
    stats.add_step({"grad_norm": float(total), **named})


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """Return 1 - Var[R - V] / Var[R] over action tokens; nan where the returns do not vary."""
    spread = float(masked_std(returns, mask))
    if spread < 1e-8:
        return math.nan
    residual = returns - values
    mean = masked_mean(residual, mask)
    return 1.0 - float(masked_mean((residual - mean) ** 2, mask)) / spread**2
