"""The PPO update: Algorithm 1 of Schulman et al. 2017 (arXiv:1707.06347) on masked sequences.

The loop does not know what the policy is: an MLP on a control task and a language model go
through the same lines, and so do estimators with and without a critic. The distance to a
reference policy belongs in the reward (see `MemoryBuffer.record`); a term of the loss it is where
`kl_penalty.form` asks for that.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from textgym_agents.core.buffer import Evaluation
from textgym_agents.core.config import PPOConfig
from textgym_agents.core.guard import StepGuard
from textgym_agents.core.kl import KLStatistic, KLStop, kl_loss, kl_per_token, log_ratio
from textgym_agents.core.losses import (
    Totals,
    aggregate,
    clip_counts,
    log_ratio_used,
    policy_loss,
    value_loss,
)
from textgym_agents.core.masked import masked, masked_mean, masked_std, masked_sum, num_counted
from textgym_agents.processes import ONE, Processes

LOGGED_KL: tuple[KLStatistic, ...] = ("seed", "k1", "k3")


class TrainingBatch(Protocol):
    """What the update needs of a batch, whatever its policy reads; every tensor is (B, T)."""

    @property
    def action_mask(self) -> Tensor | None:
        """bool: True on actions; None where every entry is one."""
        ...

    @property
    def policy_mask(self) -> Tensor | None:
        """bool: True on actions that teach the policy; None where all do."""
        ...

    @property
    def logprobs(self) -> Tensor | None:
        """Log-probabilities under theta_old; None where the policy still is theta_old."""
        ...

    @property
    def reference_logprobs(self) -> Tensor | None:
        """Log-probabilities under the reference, for a KL term of the loss."""
        ...

    @property
    def engine_weights(self) -> Tensor | None:
        """Weights of the policy's loss, which correct for the engine that sampled."""
        ...

    @property
    def values(self) -> Tensor:
        """V under theta_old."""
        ...

    @property
    def advantages(self) -> Tensor:
        """Of the actions."""
        ...

    @property
    def returns(self) -> Tensor:
        """Targets of the values."""
        ...

    def micro_batches(self, max_tokens: int | None) -> Iterator[Self]:
        """Split into batches of at most `max_tokens` padded entries."""
        ...

    def share(self, rank: int, size: int) -> Self | None:
        """Return the rows that process `rank` of `size` works on; None if there are too few."""
        ...

    def to(self, device: torch.device) -> Self:
        """Return the batch on a device."""
        ...


AnyBatch = TypeVar("AnyBatch", bound=TrainingBatch)
ReadBatch = TypeVar("ReadBatch", bound=TrainingBatch, contravariant=True)
MadeBatch = TypeVar("MadeBatch", bound=TrainingBatch, covariant=True)


class Rollout(Protocol[MadeBatch]):
    """What the update needs of a rollout whose advantages and returns are filled in."""

    def __len__(self) -> int: ...

    def minibatches(self, batch_size: int, generator: torch.Generator) -> Sequence[MadeBatch]:
        """Return one epoch: every row once, in random order, `batch_size` at a time."""
        ...


class ActorCritic(Protocol[ReadBatch]):
    """What the update needs of a policy."""

    def evaluate(self, batch: ReadBatch, *, value_grad_to_trunk: float = 1.0) -> Evaluation:
        """Return log-probabilities, values and entropy of the batch's actions, with gradients."""
        ...


class Terms(NamedTuple):
    """What the loss of a micro-batch is made of; (B, T)."""

    policy_loss: Tensor
    value_loss: Tensor | None
    """None without a critic."""
    entropy: Tensor
    log_ratios: Tensor
    advantages: Tensor
    mask: Tensor | None
    """Actions that teach the policy; None where every entry is one."""
    value_mask: Tensor | None
    """Actions that teach the value; None where every entry is one."""
    kl_loss: Tensor | None
    """None where the loss has no KL term."""

    def detached(self) -> Terms:
        """Return the terms without their graph."""
        return Terms._make(x.detach() if x is not None and x.requires_grad else x for x in self)

    def sums(self, config: PPOConfig) -> dict[str, Tensor]:
        """Return sums over the actions."""
        d, mask, clip = self.log_ratios, self.mask, config.clip
        used = log_ratio_used(d, mask, config.ratio)
        cut = clip_counts(
            used, self.advantages, mask, clip_low=clip.low, clip_high=clip.high, dual_clip=clip.dual
        )
        statistics = dict.fromkeys((*LOGGED_KL, config.kl_stop.statistic))
        sums = {
            "policy_loss": masked_sum(self.policy_loss, mask),
            "entropy": masked_sum(self.entropy, mask),
            **{f"kl_{name}": masked_sum(kl_per_token(name, d), mask) for name in statistics},
            "ratio": masked_sum(d.exp(), mask),
            "clip_low": cut.low,
            "clip_high": cut.high,
            "clip_dual": cut.dual,
        }
        if self.value_loss is not None:
            sums["value_loss"] = masked_sum(self.value_loss, self.value_mask)
        if self.kl_loss is not None:
            sums["kl_loss"] = masked_sum(self.kl_loss, mask)
        return sums


class Accumulated(NamedTuple):
    """What the backward passes over a minibatch leave besides gradients."""

    loss: Tensor
    """A scalar; over several processes the losses of their shares add up to that of the step."""
    parts: list[Terms]
    """Of the micro-batches."""


def joined(parts: Sequence[Terms]) -> Terms:
    """Return the terms of several micro-batches without masks as those of one."""
    columns = zip(*parts, strict=True)
    return Terms._make(None if x[0] is None else torch.cat(x) for x in columns)


class StepStats:
    """Sums over the steps of one update, turned into means once, at the end.

    Args:
        config: of the update.
        processes: each adds its share of every step, and gets the means over all.
    """

    def __init__(self, config: PPOConfig, processes: Processes = ONE) -> None:
        self._config = config
        self._processes = processes
        self._sums: dict[str, float] = {}
        self._norms: dict[str, float] = {}
        self._unmasked: list[Terms] = []
        self.num_tokens = 0
        self.num_value_tokens = 0
        self.num_steps = 0
        self.num_skipped = 0
        self.was_stopped = False
        self.first_ratio_error: float | None = None

    def add(self, done: Accumulated) -> Tensor:
        """Add a minibatch and return the log ratios (N,) of its action tokens."""
        log_ratios = [torch.zeros(0)]
        for terms in done.parts:
            self._add_terms(terms)
            d, mask = terms.log_ratios, terms.mask
            log_ratios.append(d.flatten() if mask is None else d[mask])
        d = torch.cat(log_ratios[1:] or log_ratios)
        if self.first_ratio_error is None:
            self.first_ratio_error = float((d.exp() - 1).abs().max()) if len(d) else 0.0
        return d

    def _add_terms(self, terms: Terms) -> None:
        """Add one micro-batch.

        Small tensors without a mask are kept until the end and summed up together: on a minibatch
        of 64 steps the sums would cost as much as the loss.
        """
        num_tokens = num_counted(terms.log_ratios, terms.mask)
        is_same = terms.value_mask is terms.mask
        self.num_tokens += num_tokens
        self.num_value_tokens += (
            num_tokens if is_same else num_counted(terms.log_ratios, terms.value_mask)
        )
        if terms.mask is None:
            self._unmasked.append(terms)
        else:
            self._add_sums(terms)

    def _add_sums(self, terms: Terms) -> None:
        sums = terms.sums(self._config)
        for name, value in zip(sums, torch.stack(list(sums.values())).tolist(), strict=True):
            self._sums[name] = self._sums.get(name, 0.0) + value

    def add_step(self, norms: dict[str, float]) -> None:
        """Add one optimiser step that was taken."""
        self.num_steps += 1
        for name, value in norms.items():
            self._norms[name] = self._norms.get(name, 0.0) + value

    def means(self, num_planned: int) -> dict[str, float]:
        """Return the metrics of the update; token means are over evaluated action tokens."""
        if self._unmasked:
            self._add_sums(joined(self._unmasked))
            self._unmasked.clear()
        own = (self._sums, self.num_tokens, self.num_value_tokens, self.first_ratio_error)
        counted = self._processes.gather(own)
        num_tokens = max(sum(tokens for _, tokens, _, _ in counted), 1)
        num_value_tokens = max(sum(tokens for _, _, tokens, _ in counted), 1)
        sums: Counter[str] = Counter()
        for each, *_ in counted:
            sums.update(each)
        means = {
            f"ppo/{name}": total / (num_value_tokens if name == "value_loss" else num_tokens)
            for name, total in sums.items()
        }
        steps = max(self.num_steps, 1)
        means |= {f"ppo/{name}": total / steps for name, total in self._norms.items()}
        means["ppo/steps_done_share"] = self.num_steps / max(num_planned, 1)
        means["ppo/skipped_steps"] = float(self.num_skipped)
        means["ppo/kl_stopped"] = float(self.was_stopped)
        errors = [error for *_, error in counted if error is not None]
        if errors:
            means["ppo/first_ratio_error"] = max(errors)
        return means


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
    stop = KLStop(
        config.kl_stop.target,
        config.kl_stop.statistic,
        config.kl_stop.compare,
        config.kl_stop.min_tokens,
        processes,
    )
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
