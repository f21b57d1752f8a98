"""Generation: token ids in, sampled ids with their log-probabilities out.

An engine samples from softmax(logits / temperature) over the legal ids and from nothing else: the
generation settings that ship with a model (top-p, top-k, repetition penalty) would make the
recorded log-probabilities those of another distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from textgym.sample import FinishReason
from textgym_agents.lm.kv_cache import make_cache
from textgym_agents.lm.network import PolicyValueNetwork, sample_ids

COMPACT_SHARE = 0.25


class Generation(NamedTuple):
    """One completion as it was sampled, or why there is none."""

    token_ids: list[int]
    """The end token included, if it was sampled."""
    logprobs: list[float]
    """Of each token under the distribution it was drawn from; nats."""
    finish_reason: FinishReason
    policy_version: int = 0
    """Updates that the weights it was sampled from have seen."""
    failure: str | None = None
    """`kind: what happened` where the engine has no completion to show; None if it has."""


class GenerationEngine(Protocol):
    """What the trainer needs of an engine."""

    @property
    def policy_version(self) -> int:
        """Updates that the engine's weights have seen."""
        ...

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: Sequence[int],
        temperature: float,
        generator: torch.Generator,
    ) -> list[Generation]:
        """Sample one completion per prompt; temperature 0 takes the most likely id.

        A completion that could not be had is returned with its `failure`, and costs no other one.
        """
        ...

    def sync(self, policy_version: int) -> dict[str, float]:
        """Bring the engine's weights up to date with the trainer's.

        Args:
            policy_version: updates that the trainer's weights have seen.

        Returns:
            Metrics of the transfer.

        Raises:
            EngineError: the engine could not be reached, or samples from another policy.
        """
        ...

    def close(self) -> None:
        """Release what the engine holds; the next call takes it again."""
        ...


class TransformersEngine:
    """Samples from the network that is being trained, with a key-value cache, in one batch.

    Sequences that have ended leave the batch once they are a quarter of it.
    """

    def __init__(self, network: PolicyValueNetwork) -> None:
        self.network = network
        self.policy_version = 0

    def sync(self, policy_version: int) -> dict[str, float]:
        """Note the version: the weights are the trainer's own."""
        self.policy_version = policy_version
        return {}

    def close(self) -> None:
        """Do nothing: nothing is held."""

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: Sequence[int],
        temperature: float,
        generator: torch.Generator,
    ) -> list[Generation]:
        """Sample one completion per prompt.

        Args:
            prompts: token ids; none may be empty.
            max_new_tokens: limit per prompt, at least 1; the end token counts.
            temperature: 0 takes the most likely id and reports its log-probability at 1.
            generator: of the samples.
        """
        state = _Decoding(self.network, prompts, max_new_tokens)
        while state.is_running:
            logits = self.network.next_logits(state.hidden, temperature or 1.0)
            ids = logits.argmax(-1) if temperature == 0 else sample_ids(logits, generator)
            logprobs = logits.log_softmax(-1).gather(1, ids.unsqueeze(1)).squeeze(1)
            state.append(ids, logprobs)
        return state.results(self.policy_version)


class _Decoding:
    """The rows of a batch that are still being written, with their cache."""

    def __init__(
        self,
        network: PolicyValueNetwork,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: Sequence[int],
    ) -> None:
        device = network.device
        self.network = network
        self.stop_ids = torch.tensor(sorted(network.stop_ids), device=device)
        self.limits = torch.tensor(max_new_tokens, device=device)
        self.cache: Any = make_cache(network.lm.config)
        self.rows = torch.arange(len(prompts), device=device)
        self.is_live = torch.ones(len(prompts), dtype=torch.bool, device=device)
        self.steps: list[tuple[Tensor, Tensor, Tensor]] = []
        self.has_stopped = torch.zeros(len(prompts), dtype=torch.bool, device=device)
        self._prefill(prompts, device)

    def _prefill(self, prompts: Sequence[Sequence[int]], device: torch.device) -> None:
        longest = max(len(p) for p in prompts)
        ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=device)
        lengths = torch.tensor([len(p) for p in prompts], device=device)
        self.positions = lengths - 1
        self.mask: Tensor | None = None
        arguments: dict[str, Any] = {}
        if int(lengths.min()) < longest:  # left padding: it leaves with the cache
            self.mask = torch.arange(longest, device=device) >= (longest - lengths).unsqueeze(1)
            positions = (self.mask.cumsum(1) - 1).clamp(min=0)
            arguments = {"attention_mask": self.mask, "position_ids": positions}
        hidden = self.network.hidden_states(ids, past_key_values=self.cache, **arguments)
        self.hidden = hidden[:, -1]

    @property
    def is_running(self) -> bool:
        """Whether any row is still being written."""
        return bool(self.is_live.any())

    def append(self, ids: Tensor, logprobs: Tensor) -> None:
        """Take one sampled id per row, and read the next hidden states."""
        rows = self.rows[self.is_live]
        self.steps.append((rows, ids[self.is_live], logprobs[self.is_live]))
        has_stopped = torch.isin(ids, self.stop_ids)
        self.has_stopped[self.rows] |= has_stopped & self.is_live
        self.is_live &= ~has_stopped & (self.limits[self.rows] > len(self.steps))
        if not self.is_running:
            return
        if float(self.is_live.float().mean()) <= 1 - COMPACT_SHARE:
            ids = self._compact(ids)
        self._decode(ids)

    def _compact(self, ids: Tensor) -> Tensor:
        keep = self.is_live.nonzero().squeeze(1)
        self.cache.batch_select_indices(keep)
        self.rows, self.positions = self.rows[keep], self.positions[keep]
        self.mask = None if self.mask is None else self.mask[keep]
        self.is_live = self.is_live[keep]
        return ids[keep]

    def _decode(self, ids: Tensor) -> None:
        self.positions = self.positions + 1
        arguments: dict[str, Any] = {"position_ids": self.positions.unsqueeze(1)}
        if self.mask is not None:
            self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
            arguments["attention_mask"] = self.mask
        hidden = self.network.hidden_states(
            ids.unsqueeze(1), past_key_values=self.cache, **arguments
        )
        self.hidden = hidden[:, -1]

    def results(self, policy_version: int) -> list[Generation]:
        """Return the completions in the order of the prompts."""
        tokens: list[list[int]] = [[] for _ in range(len(self.limits))]
        logprobs: list[list[float]] = [[] for _ in range(len(self.limits))]
        for rows, ids, values in self.steps:
            for row, token, value in zip(rows.tolist(), ids.tolist(), values.tolist(), strict=True):
                tokens[row].append(token)
                logprobs[row].append(value)
        return [
            Generation(ids, values, "stop" if stopped else "length", policy_version)
            for ids, values, stopped in zip(
                tokens, logprobs, self.has_stopped.tolist(), strict=True
            )
        ]
