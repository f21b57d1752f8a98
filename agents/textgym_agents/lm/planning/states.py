"""States of the text MDP as the network sees them, each read once.

A state is a prompt and the tokens written so far. To read one is to evaluate the network at its
last token; the keys and values of all tokens before it are kept, so a state that follows a known
one costs one token however the branches of a search grow. That is what a search is charged for.

Keys and values lie in one store, a slot per token. A batch of states is evaluated on a cache that
is gathered from the slots of their paths, padded on the left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from textgym.errors import ConfigError
from textgym_agents.lm.network import PolicyValueNetwork

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
FIRST_SLOTS = 4096


class State(NamedTuple):
    """A prompt and what was written after it."""

    problem: int
    """Which prompt of the search it belongs to."""
    ids: tuple[int, ...]
    """The written tokens."""
    value: float
    """V of the value head."""
    actions: Ints
    """The most likely next ids, the likeliest first."""
    priors: Floats
    """Their probabilities, which sum to 1."""
    drawn: list[int]
    """Next ids that were drawn from all of them, as many as were asked for."""
    drawn_logprobs: list[float]
    """Their log-probabilities; nats."""
    slots: Ints
    """Where the keys and values of prompt and `ids` are."""


class StateReader:
    """Reads states with the network of a policy, and counts the tokens.

    Args:
        network: policy and value head.
        num_actions: how many of the most likely next ids a state has.
        temperature: of the probabilities.
        max_rows: states in one forward pass at most.

    Raises:
        ConfigError: the architecture keeps other things than the keys and values of all tokens.
    """

    def __init__(
        self,
        network: PolicyValueNetwork,
        *,
        num_actions: int,
        temperature: float = 1.0,
        max_rows: int = 256,
    ) -> None:
        layers = DynamicCache(config=network.lm.config).layers
        if any(type(layer) is not DynamicLayer for layer in layers):
            raise ConfigError(
                f"{type(network.lm).__name__} has layers with a window or a state of their own, "
                "whose cache cannot branch; planning needs full attention in every layer"
            )
        self.network = network
        self.num_actions, self.temperature, self.max_rows = num_actions, temperature, max_rows
        self.num_tokens: list[int] = []
        """Tokens read so far of each problem, those of the prompt included."""
        self._num_layers = len(layers)
        self._store: list[tuple[Tensor, Tensor]] = []  # per layer, each (slots, heads, d)
        self._num_slots = 0

    def begin(self, prompts: Sequence[Sequence[int]], draws: Floats | None = None) -> list[State]:
        """Read prompts, which become problems 0 to n - 1, and return their states.

        Args:
            prompts: token ids; none may be empty.
            draws: (n, k) uniform in [0, 1), for k next ids each; None draws none.
        """
        self.num_tokens = [len(prompt) for prompt in prompts]
        self._num_slots = 0
        states: list[State] = []
        for rows in self._parts(len(prompts)):
            part = [list(prompts[i]) for i in rows]
            empty = [np.empty(0, dtype=np.int64)] * len(part)
            hidden, slots = self._forward(part, empty)
            states += self._states(hidden, rows, [()] * len(part), slots, _of(draws, rows))
        return states

    def read(
        self, parents: Sequence[State], actions: Sequence[int], draws: Floats | None = None
    ) -> list[State]:
        """Return the states that follow when one id is written after each of some states.

        Args:
            parents: the states.
            actions: an id each.
            draws: (n, k) uniform in [0, 1), for k next ids each; None draws none.
        """
        states: list[State] = []
        for rows in self._parts(len(parents)):
            part = [parents[i] for i in rows]
            hidden, slots = self._forward([[actions[i]] for i in rows], [s.slots for s in part])
            problems = [state.problem for state in part]
            ids = [(*parents[i].ids, actions[i]) for i in rows]
            states += self._states(hidden, problems, ids, slots, _of(draws, rows))
            for problem in problems:
                self.num_tokens[problem] += 1
        return states

    def _parts(self, count: int) -> Iterator[range]:
        for start in range(0, count, self.max_rows):
            yield range(start, min(start + self.max_rows, count))

    @torch.no_grad()
    def _forward(
        self, new: Sequence[list[int]], known: Sequence[Ints]
    ) -> tuple[Tensor, list[Ints]]:
        """Read new ids after known tokens.

        Args:
            new: (B,) ids to read in each row.
            known: (B,) slots of the tokens before them.

        Returns:
            (B, d) hidden states of the last ids, and the slots of all tokens of each row.
        """
        device = self.network.device
        past, past_mask = _padded(known)
        ids, mask = _padded(new)
        cache = self._gathered(past)
        whole = torch.from_numpy(np.concatenate([past_mask, mask], axis=1)).to(device)
        positions = (whole.cumsum(1) - 1).clamp(min=0)[:, past.shape[1] :]
        hidden = self.network.hidden_states(
            torch.from_numpy(ids).to(device),
            past_key_values=cache,
            position_ids=positions,
            attention_mask=whole,
        )
        kept = self._keep(cache, past.shape[1], mask)
        ends = np.cumsum(mask.sum(axis=1))
        added = np.split(kept, ends[:-1])
        return hidden[:, -1], [np.concatenate(each) for each in zip(known, added, strict=True)]

    def _gathered(self, slots: Ints) -> DynamicCache:
        cache = DynamicCache(config=self.network.lm.config)
        if slots.shape[1]:
            index = torch.from_numpy(slots).to(self.network.device)
            for layer, (keys, values) in enumerate(self._store):
                cache.update(keys[index].transpose(1, 2), values[index].transpose(1, 2), layer)
        return cache

    def _keep(self, cache: DynamicCache, start: int, mask: NDArray[np.bool_]) -> Ints:
        """Store what was computed from position `start` on, and return the slots of the tokens."""
        first, self._num_slots = self._num_slots, self._num_slots + int(mask.sum())
        real = torch.from_numpy(mask).to(self.network.device)
        layers: list[Any] = cache.layers
        for layer in range(self._num_layers):
            states = layers[layer].keys, layers[layer].values
            new = [x[:, :, start:].transpose(1, 2)[real] for x in states]
            self._make_room(layer, new)
            for store, x in zip(self._store[layer], new, strict=True):
                store[first : self._num_slots] = x
        return np.arange(first, self._num_slots)

    def _make_room(self, layer: int, like: Sequence[Tensor]) -> None:
        if layer == len(self._store):
            self._store.append((like[0][:0], like[1][:0]))
        old = self._store[layer]
        if self._num_slots > len(old[0]):
            capacity = max(FIRST_SLOTS, 2 * len(old[0]), self._num_slots)
            grown = [x.new_empty(capacity, *x.shape[1:]) for x in like]
            for store, x in zip(grown, old, strict=True):
                store[: len(x)] = x
            self._store[layer] = grown[0], grown[1]

    @torch.no_grad()
    def _states(
        self,
        hidden: Tensor,
        problems: Sequence[int],
        ids: Sequence[tuple[int, ...]],
        slots: Sequence[Ints],
        draws: Floats | None,
    ) -> list[State]:
        logits = self.network.next_logits(hidden, self.temperature)
        values = self.network.values_of(hidden).tolist()
        p = logits.double().softmax(-1)
        drawn = _drawn(p, draws if draws is not None else np.empty((len(ids), 0)))
        log_p = p.log().gather(1, drawn).tolist()
        p, likely = p.topk(min(self.num_actions, p.shape[-1]))
        priors, actions = (p / p.sum(-1, keepdim=True)).cpu().numpy(), likely.cpu().numpy()
        is_legal = priors > 0
        return [
            State(
                problems[i], ids[i], values[i], actions[i][is_legal[i]], priors[i][is_legal[i]],
                drawn[i].tolist(), log_p[i], slots[i],
            )
            for i in range(len(ids))
        ]  # fmt: skip


def _drawn(p: Tensor, draws: Floats) -> Tensor:
    """Return the ids that uniform numbers (n, k) fall on, by probabilities (n, V)."""
    cumulated = p.cumsum(-1)
    total = cumulated[:, -1:]
    places = torch.from_numpy(draws).to(p) * total
    places = torch.minimum(places, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(cumulated, places, right=True)


def _of(draws: Floats | None, rows: range) -> Floats | None:
    return None if draws is None else draws[rows.start : rows.stop]


def _padded(rows: Sequence[Sequence[int] | Ints]) -> tuple[Ints, NDArray[np.bool_]]:
    """Return rows of integers padded on the left with 0, and where they are not padding."""
    longest = max(len(row) for row in rows)
    padded = np.zeros((len(rows), longest), dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=np.bool_)
    for i, row in enumerate(rows):
        if len(row):
            padded[i, longest - len(row) :] = row
            mask[i, longest - len(row) :] = True
    return padded, mask
