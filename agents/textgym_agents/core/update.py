"""The PPO update: Algorithm 1 of Schulman et al. 2017 (arXiv:1707.06347) on masked sequences.

The loop does not know what the policy is: an MLP on a control task and a language model go
through the same lines, and so do estimators with and without a critic. The distance to a
reference policy belongs in the reward (see `MemoryBuffer.record`); a term of the loss it is where
`kl_penalty.form` asks for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from textgym_agents.core.buffer import Evaluation
from textgym_agents.core.config import PPOConfig
from textgym_agents.core.guard import StepGuard
from textgym_agents.core.kl import KLStop, kl_loss, log_ratio
from textgym_agents.core.losses import (
    Totals,
    aggregate,
    log_ratio_used,
    policy_loss,
    value_loss,
)
from textgym_agents.core.masked import masked, masked_mean, masked_std
from textgym_agents.core.protocols import ActorCritic, AnyBatch, Rollout, TrainingBatch
from textgym_agents.core.step_stats import Accumulated, StepStats, Terms
from textgym_agents.processes import ONE, Processes


def ppo_update(
    policy: ActorCritic[AnyBatch],
    optimizer: Optimizer,
    buffer: Rollout[AnyBatch],
    config: PPOConfig,
    *,
    generator: torch.Generator,
    max_new_tokens: int = 1,
    device: torch.device | None = None,
    on_step: Callable[[], None] | None = None,
    guard: StepGuard | None = None,
    processes: Processes = ONE,
) -> dict[str, float]:
    """Improve `policy` on one rollout and return the metrics of the update.

    Args:
        policy: evaluated on minibatches; its parameters are those of `optimizer`.
        optimizer: its parameter groups carry a `name`, by which gradient norms are reported.
        buffer: with `record` and `compute_returns_and_advantages` done.
        config: the constants; `kl_penalty.beta` is that of this update.
        generator: shuffles the episodes.
        max_new_tokens: the constant of the aggregation `token_sum_const`.
        device: where minibatches are moved to; None leaves them.
        on_step: called after each minibatch, e.g. to show progress.
        guard: counts steps that are not finite over several updates; None over this one alone.
        processes: each has the same policy and buffer, and does a share of every minibatch.

    Raises:
        NotFiniteError: too many steps in a row were not finite.
    """
    guard = guard or StepGuard(config.optimizer.max_skipped_steps)
    stop = _kl_stop(config, processes)
    stats = StepStats(config, processes)
    per_epoch = math.ceil(len(buffer) / config.batch_size)
    for _ in range(config.update_epochs):
        stop.start_epoch()
        batches = buffer.minibatches(config.batch_size, generator)
        for i, batch in enumerate(batches):
            totals = _totals(batch, max_new_tokens)
            optimizer.zero_grad(set_to_none=True)
            done = _accumulate(policy, _own_share(batch, processes), config, totals, device)
            is_finite = bool(processes.sum(done.loss).isfinite())
            if is_finite:
                d = stats.add(done)
                if stop.should_stop(d, is_last=i == len(batches) - 1):
                    stats.was_stopped = True  # outside the trust region: stop before the step
                    return stats.means(config.update_epochs * per_epoch)
                processes.sum_gradients(p for g in optimizer.param_groups for p in g["params"])
            if is_finite and _step(optimizer, config.optimizer.max_grad_norm, stats):
                guard.take()
            else:
                stats.num_skipped += 1
                guard.skip(batch)
            if on_step is not None:
                on_step()
    return stats.means(config.update_epochs * per_epoch)


def _kl_stop(config: PPOConfig, processes: Processes) -> KLStop:
    given = config.kl_stop
    return KLStop(given.target, given.statistic, given.compare, given.min_tokens, processes)


def _totals(batch: TrainingBatch, max_new_tokens: int) -> Totals:
    mask, policy_mask = batch.action_mask, batch.policy_mask
    if mask is None:
        return Totals.of_all(batch.advantages, max_new_tokens)
    if policy_mask is None:
        return Totals.of(mask, max_new_tokens)
    return Totals.of(policy_mask, max_new_tokens)._replace(num_value_tokens=int(mask.sum()))


def _own_share(batch: AnyBatch, processes: Processes) -> AnyBatch | None:
    return batch if processes.size == 1 else batch.share(processes.rank, processes.size)


def _accumulate(
    policy: ActorCritic[AnyBatch],
    batch: AnyBatch | None,
    config: PPOConfig,
    totals: Totals,
    device: torch.device | None,
) -> Accumulated:
    """Add the gradients of one minibatch, or of a share of it; None is one without rows."""
    parts: list[Terms] = []
    total = torch.zeros((), device=device)
    for micro in () if batch is None else batch.micro_batches(config.micro_batch_tokens):
        part = micro if device is None else micro.to(device)
        new = policy.evaluate(part, value_grad_to_trunk=config.value.grad_to_trunk)
        loss, terms = ppo_loss(new, part, config, totals)
        loss.backward()
        total = total + loss.detach()
        parts.append(terms)
    return Accumulated(total, parts)


def ppo_loss(
    new: Evaluation, batch: TrainingBatch, config: PPOConfig, totals: Totals
) -> tuple[Tensor, Terms]:
    """Return this micro-batch's share of the step's loss, and what it is made of."""
    mask = batch.action_mask
    policy_mask = mask if batch.policy_mask is None else batch.policy_mask
    # Garbage off the mask would reach the parameters as 0 * nan, through the square of the value.
    logprobs, values, entropy = (masked(x, mask) for x in new[:3])
    old_logprobs = logprobs.detach() if batch.logprobs is None else batch.logprobs
    d = log_ratio(logprobs, old_logprobs)
    clip = config.clip
    l_clip = policy_loss(
        log_ratio_used(d, policy_mask, config.ratio),
        batch.advantages,
        clip_low=clip.low,
        clip_high=clip.high,
        dual_clip=clip.dual,
    )
    if batch.engine_weights is not None:
        l_clip = batch.engine_weights * l_clip
    loss = aggregate(l_clip, policy_mask, totals, config.aggregation)
    l_vf, l_kl = None, None
    if config.has_critic:
        l_vf = value_loss(
            values, batch.returns, batch.values, half=config.value.half, clip=config.value.clip
        )
        loss = loss + config.value.coef * aggregate(l_vf, mask, totals.of_values(), "token_mean")
    if config.entropy_coef > 0:
        s = aggregate(entropy, policy_mask, totals, "token_mean")
        loss = loss - config.entropy_coef * s  # PPO eq. 9
    if batch.reference_logprobs is not None:
        l_kl = kl_loss(config.kl_penalty.form, logprobs, batch.reference_logprobs)
        loss = loss + config.kl_penalty.beta * aggregate(l_kl, policy_mask, totals, "token_mean")
    terms = Terms(l_clip, l_vf, entropy, d, batch.advantages, policy_mask, mask, l_kl)
    return loss, terms.detached()


def _step(optimizer: Optimizer, max_grad_norm: float, stats: StepStats) -> bool:
    """Take a step with the gradients clipped, and return whether they were finite."""
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
        return False
    if float(total) + 1e-6 > max_grad_norm:  # else the clip multiplies by 1
        clip_grads_with_norm_([p for ps in groups.values() for p in ps], max_grad_norm, total)
    optimizer.step()
    named = {f"grad_norm_{name}": float(norm) for name, norm in norms.items()}
    stats.add_step({"grad_norm": float(total), **named})
    return True


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor | None) -> float:
    """Return 1 - Var[R - V] / Var[R] over action tokens; nan where the returns do not vary."""
    spread = float(masked_std(returns, mask))
    if spread < 1e-8:
        return math.nan
    residual = returns - values
    mean = masked_mean(residual, mask)
    return 1.0 - float(masked_mean((residual - mean) ** 2, mask)) / spread**2
