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
from textgym_agents.core.targets import compute_targets, spread_over_actions


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
    teaches_policy: bool = True
    """False: the episode has a part in the value's loss alone."""

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
    logprobs: Tensor | None
    """log pi_old; None where the policy is still pi_old when it evaluates the batch."""
    values: Tensor
    """V under theta_old."""
    advantages: Tensor
    returns: Tensor
    policy_mask: Tensor | None = None
    """bool: True on actions that teach the policy, where these are not all."""
    reference_logprobs: Tensor | None = None
    """log pi_ref, where the loss holds a KL term."""
    engine_weights: Tensor | None = None
    """Weights of the policy's loss, where the engine's samples are corrected for."""
    cut_states: Tensor | None = None
    """(B, T, d): what the frozen layers of a policy make of each sequence, where they are kept."""

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for field in fields(self):
            if (x := getattr(self, field.name)) is not None:
                yield field.name, x

    def rows(self, index: Tensor) -> Batch:
        """Return the rows `index`, trimmed to their longest sequence."""
        length = int(self.attention_mask[index].sum(dim=1).max())
        chosen = {name: x[index] for name, x in self._tensors()}
        return replace(self, **{k: x[:, :length] if x.dim() > 1 else x for k, x in chosen.items()})

    def lengths_to_read(self) -> Tensor:
        """Return (B,): how many tokens of each sequence its scores depend on, at least one.

        Nothing asks what follows the last action, but for episodes that were cut.
        """
        columns = torch.arange(self.input_ids.shape[1], device=self.input_ids.device)
        last_action = torch.where(self.action_mask, columns, 0).amax(dim=1)
        lengths = torch.where(self.is_truncated, self.attention_mask.sum(dim=1), last_action)
        return lengths.clamp(min=1)

    def whitened(self) -> Batch:
        """Return the batch with advantages whitened over its own actions."""
        mask = self.action_mask if self.policy_mask is None else self.policy_mask
        return replace(self, advantages=masked_whiten(self.advantages, mask))

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return replace(self, **{name: x.to(device) for name, x in self._tensors()})

    def share(self, rank: int, size: int) -> Batch | None:
        """Return the rows that process `rank` of `size` works on; None if there are too few.

        Rows are dealt by length, so that all processes have about as many tokens.
        """
        order = torch.argsort(self.attention_mask.sum(dim=1), descending=True, stable=True)
        mine = order[rank::size]
        return self.rows(mine) if len(mine) else None

    def micro_batches(self, max_tokens: int | None) -> Iterator[Batch]:
        """Split into batches of at most `max_tokens` padded tokens, similar lengths together."""
        parts = self.rows_within(max_tokens)
        if len(parts) == 1:
            yield self
        else:
            yield from map(self.rows, parts)

    def rows_within(self, max_tokens: int | None) -> list[Tensor]:
        """Return the rows of each micro-batch; a sequence that is too long has one of its own."""
        lengths = self.attention_mask.sum(dim=1)
        if max_tokens is None or int(lengths.max()) * len(lengths) <= max_tokens:
            return [torch.arange(len(lengths), device=lengths.device)]
        order = torch.argsort(lengths, descending=True, stable=True)
        parts, start = [], 0
        while start < len(order):
            stop = start + max(1, max_tokens // int(lengths[order[start]]))
            parts.append(order[start:stop])
            start = stop
        return parts


class MemoryBuffer:
    """The episodes of one rollout, and the advantages and returns of their actions."""

    def __init__(self) -> None:
        self.episodes: list[Episode] = []
        self._batch: Batch | None = None
        self._bootstrap = torch.zeros(0)
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

    def keep_cut_states(self, states: Tensor) -> None:
        """Store what the frozen layers make of `batch` (B, T, d); the policy goes on from there."""
        self._batch = replace(self.batch, cut_states=states)

    def record(
        self,
        old: Evaluation | None,
        *,
        kl_penalty: Tensor | None = None,
        reference_logprobs: Tensor | None = None,
        engine_weights: Tensor | None = None,
    ) -> None:
        """Store what the behaviour policy says of the rollout, under theta_old.

        Args:
            old: evaluation of `batch`. None where one step is all that the rollout is for: the
                policy is theta_old when it takes it, and its own evaluation serves.
            kl_penalty: (B, T), nats times beta, taken off the rewards of the action tokens.
            reference_logprobs: (B, T), for a KL term of the loss.
            engine_weights: (B, T), of the policy's loss.
        """
        batch = replace(
            self.batch, reference_logprobs=reference_logprobs, engine_weights=engine_weights
        )
        rewards = batch.rewards
        if kl_penalty is not None:
            penalty = torch.where(batch.action_mask, kl_penalty, torch.zeros_like(kl_penalty))
            rewards = rewards - penalty
        if old is None:
            self._batch = replace(batch, logprobs=None, rewards=rewards)
            return
        self._batch = replace(batch, logprobs=old.logprobs, values=old.values, rewards=rewards)
        self._bootstrap = torch.where(batch.is_truncated, old.bootstrap, 0.0)

    def compute_returns_and_advantages(
        self, config: PPOConfig, sample_advantages: Tensor | None = None
    ) -> None:
        """Fill in advantages and returns; see `compute_targets`.

        Args:
            config: of the estimator, the discount and the whitening.
            sample_advantages: (B,), for estimators with one advantage per sample.
        """
        batch = self.batch
        if sample_advantages is None:
            advantages, returns = compute_targets(
                batch.rewards,
                batch.values,
                batch.action_mask,
                self._bootstrap,
                config,
                policy_mask=batch.policy_mask,
            )
        else:
            advantages = spread_over_actions(sample_advantages, batch.action_mask, config)
            returns = torch.zeros_like(advantages)
        self._batch = replace(batch, advantages=advantages, returns=returns)
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
    teaches = torch.tensor([e.teaches_policy for e in episodes])
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
        policy_mask=None if bool(teaches.all()) else mask & teaches.unsqueeze(1),
    )
