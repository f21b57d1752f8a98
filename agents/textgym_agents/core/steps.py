"""Rollouts of environments that run side by side, one row per environment and one column per step.

Where `MemoryBuffer` holds episodes as token ids, this holds observations and actions of any kind,
in arrays that are made once. Rows are cut after a number of steps and not at the ends of episodes,
so GAE is told of the ends inside them; for the update every step is a sequence of one action.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from textgym_agents.core.advantages import InnerEnds
from textgym_agents.core.buffer import Evaluation
from textgym_agents.core.config import PPOConfig
from textgym_agents.core.masked import whiten_rows
from textgym_agents.core.targets import compute_targets

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class StepBatch:
    """B steps, each an action of its own; every tensor that is not an input is (B, 1)."""

    observations: Tensor
    """(B, ...)."""
    actions: Tensor
    """(B,) int64, or (B, A) float32."""
    logprobs: Tensor
    """log pi_old."""
    values: Tensor
    """V under theta_old."""
    advantages: Tensor
    returns: Tensor
    action_mask: Tensor | None = field(default=None, init=False)
    """Every step is an action."""
    policy_mask: Tensor | None = field(default=None, init=False)
    """Every action teaches the policy."""
    reference_logprobs: Tensor | None = field(default=None, init=False)
    """There is no reference policy."""
    engine_weights: Tensor | None = field(default=None, init=False)
    """The policy itself has acted."""

    def __len__(self) -> int:
        return len(self.actions)

    def rows(self, index: Tensor | slice) -> StepBatch:
        """Return the steps `index`."""
        return StepBatch(*(x[index] for x in self._tensors()))

    def split(self, size: int) -> list[StepBatch]:
        """Return the steps in order, `size` at a time; they share the memory."""
        parts = zip(*(x.split(size) for x in self._tensors()), strict=True)
        return [StepBatch(*part) for part in parts]

    def whitened(self, size: int) -> StepBatch:
        """Return the batch with the advantages of every `size` steps whitened."""
        num_even = len(self) // size * size
        even, rest = self.advantages[:num_even], self.advantages[num_even:]
        parts = [whiten_rows(even.view(-1, size)).view(-1, 1)] if num_even else []
        parts += [whiten_rows(rest.T).T] if len(rest) else []
        return replace(self, advantages=torch.cat(parts))

    def share(self, rank: int, size: int) -> StepBatch | None:
        """Return the steps that process `rank` of `size` works on; None if there are too few."""
        mine = self.rows(slice(rank, None, size))
        return mine if len(mine) else None

    def to(self, device: torch.device) -> StepBatch:
        """Return the batch on a device."""
        return StepBatch(*(x.to(device) for x in self._tensors()))

    def micro_batches(self, max_tokens: int | None) -> Iterator[StepBatch]:
        """Split into batches of at most `max_tokens` steps."""
        return iter([self] if max_tokens is None else self.split(max_tokens))

    def _tensors(self) -> tuple[Tensor, ...]:
        return (
            self.observations, self.actions, self.logprobs, self.values, self.advantages,
            self.returns,
        )  # fmt: skip


class StepBuffer:
    """T steps of N environments, time first; a collector writes the arrays, one row per step.

    Args:
        num_steps: T.
        num_envs: N.
        observation: shape and dtype of one observation as the policy reads it.
        action: shape and dtype of one action.
    """

    def __init__(
        self,
        num_steps: int,
        num_envs: int,
        observation: tuple[tuple[int, ...], DTypeLike],
        action: tuple[tuple[int, ...], DTypeLike],
    ) -> None:
        self.num_envs = num_envs
        rows = (num_steps, num_envs)
        self.observations: NDArray[Any] = np.zeros(
            (num_steps + 1, num_envs, *observation[0]), observation[1]
        )
        """(T + 1, N, ...): what each action was taken on, and what the last one led to."""
        self.actions: NDArray[Any] = np.zeros((*rows, *action[0]), action[1])
        self.rewards = np.zeros(rows, np.float32)
        self.terminated: Bools = np.zeros(rows, np.bool_)
        self.truncated: Bools = np.zeros(rows, np.bool_)
        self.is_action: Bools = np.zeros(rows, np.bool_)
        """False on steps that only reset an environment, and on those that no reward judged."""
        self.final_observations: dict[tuple[int, int], NDArray[Any]] = {}
        """By (step, environment): the end of a truncated episode whose row shows the next one.

        Without an entry the end is the observation of the row's next step.
        """
        self.num_steps = 0
        """Steps of the current rollout; at most T."""
        self.num_played = 0
        """Actions of the current rollout, those that no reward judged included."""
        self._batch: StepBatch | None = None
        self._after = self._last_values = torch.zeros(0)
        self._whitens_minibatches = False

    @property
    def capacity(self) -> int:
        """T."""
        return len(self.rewards)

    def clear(self) -> None:
        """Begin a new rollout."""
        self.num_steps = 0
        self.final_observations.clear()
        self._batch = None

    def grow(self) -> None:
        """Double the number of steps there is room for."""
        more = self.capacity
        for name in ("observations", "actions", "rewards", "terminated", "truncated", "is_action"):
            old = getattr(self, name)
            extra = np.zeros((more, *old.shape[1:]), old.dtype)
            setattr(self, name, np.concatenate([old, extra]))

    def __len__(self) -> int:
        return int(self.is_action[: self.num_steps].sum())

    @property
    def batch(self) -> StepBatch:
        """All steps in the order of time, those that are no actions included."""
        if self._batch is None:
            observations = self.observations[: self.num_steps].reshape(
                -1, *self.observations.shape[2:]
            )
            actions = self.actions[: self.num_steps].reshape(-1, *self.actions.shape[2:])
            zeros = torch.zeros(len(actions), 1)
            self._batch = StepBatch(
                torch.from_numpy(observations), torch.from_numpy(actions), *(zeros,) * 4
            )
        return self._batch

    def end_observations(self) -> NDArray[Any]:
        """Return the observations (N + K, ...) after the last steps, and the K final ones."""
        last = self.observations[self.num_steps]
        return np.stack([*last, *self.final_observations.values()])

    def record(self, old: Evaluation, end_values: Tensor) -> None:
        """Store what the behaviour policy says of the rollout, under theta_old.

        Args:
            old: evaluation of `batch`.
            end_values: (N + K,), V of `end_observations()`.
        """
        self._batch = replace(self.batch, logprobs=old.logprobs, values=old.values)
        last, final = end_values[: self.num_envs], end_values[self.num_envs :]
        values = old.values.view(self.num_steps, self.num_envs)
        self._after = torch.cat([values[1:], last.unsqueeze(0)])
        for (step, env), value in zip(self.final_observations, final, strict=True):
            self._after[step, env] = value
        self._last_values = last

    def compute_returns_and_advantages(self, config: PPOConfig) -> None:
        """Fill in advantages and returns; see `compute_targets`."""
        rewards, terminated, truncated, mask = (
            torch.from_numpy(x[: self.num_steps]).T
            for x in (self.rewards, self.terminated, self.truncated, self.is_action)
        )
        ends = InnerEnds(
            (terminated | truncated) & mask, torch.where(terminated, 0.0, self._after.T)
        )
        values = self.batch.values.view(self.num_steps, self.num_envs).T
        targets = compute_targets(rewards, values, mask, self._last_values, config, inner_ends=ends)
        self._batch = replace(
            self.batch,
            advantages=targets.advantages.T.reshape(-1, 1),
            returns=targets.returns.T.reshape(-1, 1),
        )
        self._whitens_minibatches = config.whiten_advantages and config.whiten_over == "minibatch"

    def actions_only(self) -> StepBatch:
        """Return the steps that are actions, in the order of time."""
        return self.batch.rows(self._action_index())

    def _action_index(self) -> Tensor:
        return torch.from_numpy(self.is_action[: self.num_steps].ravel().nonzero()[0])

    def minibatches(self, batch_size: int, generator: torch.Generator) -> Sequence[StepBatch]:
        """Return one epoch: every action once, in random order, `batch_size` at a time."""
        actions = self._action_index()
        epoch = self.batch.rows(actions[torch.randperm(len(actions), generator=generator)])
        if self._whitens_minibatches:
            epoch = epoch.whitened(batch_size)
        return epoch.split(batch_size)
