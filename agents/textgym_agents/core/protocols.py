"""What the update needs of a policy, of a rollout and of its minibatches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from textgym_agents.core.buffer import Evaluation


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
