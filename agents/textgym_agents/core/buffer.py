"""What one update consumes: episodes stored ragged, padded once when the rollout is complete.

Every per-token array is indexed by the position of the token that it scores (spec section 1):
entry j of `logprobs` is log pi(x_j | x_<j) and entry j of `values` is V(x_<j), which must not
depend on x_j. One record per episode takes O(T) memory; one observation per step would take
O(T^2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from textgym_agents.core.advantages import fold_rewards
from textgym_agents.core.config import PPOConfig
from textgym_agents.core.masked import masked_whiten
from textgym_agents.core.targets import compute_targets


@dataclass
class Episode:
    """One episode as the environment and the engine left it; arrays of one length L."""

    input_ids: Tensor
    """(L,) int64: prompt, then policy and environment tokens as they were sampled or encoded."""
    action_mask: Tensor
    """(L,) bool: True on tokens that the policy sampled: from provenance, not from `id != pad`."""
    rewards: Tensor
    """(L,) float: reward by the position at which it arrived."""
    terminated: bool
    """The task ended: nothing follows, no bootstrap."""
    truncated: bool
    """Cut for a reason outside the task: bootstrap from the state after the last token."""
    engine_logprobs: Tensor | None = None
    """(L,) float32: what the generation engine said of its own samples, 0 off the mask."""

    def __post_init__(self) -> None:
        if self.terminated == self.truncated:
            raise ValueError(
                f"an episode is either terminated or truncated; got both as {self.terminated}"
            )

    @property
    def num_actions(self) -> int:
        """How many tokens the policy sampled."""
        return int(self.action_mask.sum())


class Evaluation(NamedTuple):
    """What a policy says of a batch; (B, T) float32, zero off the action mask."""

    logprobs: Tensor
    values: Tensor
    entropy: Tensor
    bootstrap: Tensor
    """(B,): V of the state after the last token of each truncated sequence."""


@dataclass(frozen=True)
class Batch:
    """Right-padded sequences; every tensor is (B, T) unless said otherwise."""

    input_ids: Tensor
    attention_mask: Tensor
    """bool: True on tokens, False on padding."""
    action_mask: Tensor
    """bool: True on tokens that the policy sampled."""
    rewards: Tensor
    """On action tokens (folded), the KL penalty taken off."""
    is_truncated: Tensor
    """(B,) bool."""
    logprobs: Tensor
    """log pi_old."""
    values: Tensor
    """V under theta_old."""
    advantages: Tensor
    returns: Tensor

    def rows(self, index: Tensor) -> Batch:
        """Return the rows `index`, trimmed to their longest sequence."""
        length = int(self.attention_mask[index].sum(dim=1).max())
        chosen = {}
        for field in fields(self):
            x: Tensor = getattr(self, field.name)[index]
            chosen[field.name] = x[:, :length] if x.dim() > 1 else x
        return Batch(**chosen)

    def whitened(self) -> Batch:
        """Return the batch with advantages whitened over its own actions."""
        return replace(self, advantages=masked_whiten(self.advantages, self.action_mask))

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return Batch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def share(self, rank: int, size: int) -> Batch | None:
        """Return the rows that process `rank` of `size` works on; None if there are too few.

        Rows are dealt by length, so that all processes have about as many tokens.
        """
        order = torch.argsort(self.attention_mask.sum(dim=1), descending=True, stable=True)
        mine = order[rank::size]
        return self.rows(mine) if len(mine) else None

    def micro_batches(self, max_tokens: int | None) -> Iterator[Batch]:
        """Split into batches of at most `max_tokens` padded tokens, similar lengths together."""
        lengths = self.attention_mask.sum(dim=1)
        if max_tokens is None or int(lengths.max()) * len(lengths) <= max_tokens:
            yield self
            return
        order = torch.argsort(lengths, descending=True, stable=True)
        start = 0
        while start < len(order):
            longest = int(lengths[order[start]])
            stop = start + max(1, max_tokens // longest)
            yield self.rows(order[start:stop])
            start = stop


class MemoryBuffer:
    """The episodes of one rollout, and the advantages and returns of their actions."""

    def __init__(self) -> None:
        self.episodes: list[Episode] = []
        self._batch: Batch | None = None
        self._whitens_minibatches = False

    def __len__(self) -> int:
        return len(self.episodes)

    def add(self, episode: Episode) -> None:
        """Append one episode that was scored; a failed one has no place here."""
        if not bool(torch.isfinite(episode.rewards).all()):
            raise ValueError("an episode with a reward that is not finite cannot be trained on")
        self.episodes.append(episode)
        self._batch = None

    @property
    def batch(self) -> Batch:
        """The whole rollout, right-padded; built once."""
        if self._batch is None:
            self._batch = collate(self.episodes)
        return self._batch

    def record(self, old: Evaluation, *, kl_penalty: Tensor | None = None) -> None:
        """Store what the behaviour policy says of the rollout, under theta_old.

        Args:
            old: evaluation of `batch`.
            kl_penalty: (B, T), nats times beta, taken off the rewards of the action tokens.
        """
        rewards = self.batch.rewards
        if kl_penalty is not None:
            penalty = torch.where(self.batch.action_mask, kl_penalty, torch.zeros_like(kl_penalty))
            rewards = rewards - penalty
        self._batch = replace(self.batch, logprobs=old.logprobs, values=old.values, rewards=rewards)
        self._bootstrap = torch.where(self.batch.is_truncated, old.bootstrap, 0.0)

    def compute_returns_and_advantages(self, config: PPOConfig) -> None:
        """Fill in advantages and returns; see `compute_targets`."""
        batch = self.batch
        targets = compute_targets(
            batch.rewards, batch.values, batch.action_mask, self._bootstrap, config
        )
        self._batch = replace(batch, advantages=targets.advantages, returns=targets.returns)
        self._whitens_minibatches = config.whiten_advantages and config.whiten_over == "minibatch"

    def minibatches(self, batch_size: int, generator: torch.Generator) -> list[Batch]:
        """Return one epoch: every episode once, in random order, `batch_size` at a time."""
        order = torch.randperm(len(self), generator=generator)
        batches = [self.batch.rows(rows) for rows in order.split(batch_size)]
        return [b.whitened() for b in batches] if self._whitens_minibatches else batches


def collate(episodes: list[Episode]) -> Batch:
    """Return episodes right-padded; what the policy is to say of them is still zero."""
    ids = pad_sequence([e.input_ids for e in episodes], batch_first=True)
    mask = pad_sequence([e.action_mask for e in episodes], batch_first=True)
    rewards = pad_sequence([e.rewards.float() for e in episodes], batch_first=True)
    lengths = torch.tensor([len(e.input_ids) for e in episodes])
    zeros = torch.zeros_like(rewards)
    return Batch(
        input_ids=ids.long(),
        attention_mask=torch.arange(ids.shape[1]) < lengths.unsqueeze(1),
        action_mask=mask,
        rewards=fold_rewards(rewards, mask),
        is_truncated=torch.tensor([e.truncated for e in episodes]),
        logprobs=zeros,
        values=zeros,
        advantages=zeros,
        returns=zeros,
    )
