"""What the steps of an update add up to: its metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from textgym_agents.core.config import PPOConfig
from textgym_agents.core.kl import KLStatistic, kl_per_token
from textgym_agents.core.losses import clip_counts, log_ratio_used
from textgym_agents.core.masked import masked_sum, num_counted
from textgym_agents.processes import ONE, Processes

LOGGED_KL: tuple[KLStatistic, ...] = ("seed", "k1", "k3")


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
