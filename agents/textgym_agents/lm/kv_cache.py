"""A key-value cache that does not copy itself at every token.

transformers' `DynamicCache` concatenates: each token moves the whole cache, quadratic in the length
of a completion. Here the layers have spare room, and what attention reads is a view.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

ROOM = 64
"""Positions of spare room at least; half of the positions where that is more."""


class GrowingLayer(DynamicLayer):
    """The keys and values of one layer, (B, heads, T, d), at the start of larger tensors."""

    _stores: tuple[Tensor, Tensor]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append the states of new tokens and return those of all."""
        key_states, value_states = _as_attention_reads(key_states, value_states)
        length = self.get_seq_length()
        total = length + key_states.shape[-2]
        if length == 0 or total > self._stores[0].shape[-2]:
            self._grow(key_states, value_states, room_for(total))
        for store, states in zip(self._stores, (key_states, value_states), strict=True):
            store[..., length:total, :] = states
        return self._show(total)

    def _grow(self, key_states: Tensor, value_states: Tensor, capacity: int) -> None:
        keys, values = self.keys, self.values
        self.lazy_initialization(key_states, value_states)
        self._stores = (
            _with_room(keys, key_states, capacity),
            _with_room(values, value_states, capacity),
        )

    def _show(self, length: int) -> tuple[Tensor, Tensor]:
        keys, values = self._stores
        shown = keys[..., :length, :], values[..., :length, :]
        self.keys, self.values = shown
        return shown

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these rows of the batch."""
        length = self.get_seq_length()
        if length:
            keys, values = self._stores
            self._stores = (keys[indices], values[indices])
            self._show(length)


def room_for(length: int) -> int:
    """Return how many positions a cache is given when it must hold `length` of them."""
    return length + max(ROOM, length // 2)


def _as_attention_reads(*states: Tensor) -> list[Tensor]:
    """Return states in the type that attention computes in; rotated keys are in float32."""
    device = states[0].device.type
    if torch.is_autocast_enabled(device):
        return [x.to(torch.get_autocast_dtype(device)) for x in states]
    return list(states)


def _with_room(old: Tensor | None, new: Tensor, capacity: int) -> Tensor:
    """Return storage for states like `new` that begins with the old ones."""
    store = new.new_empty(*new.shape[:2], capacity, new.shape[-1])
    if old is not None:
        store[..., : old.shape[-2], :] = old
    return store


def make_cache(config: PreTrainedConfig) -> DynamicCache:
    """Return an empty cache for a model; layers with a sliding window stay transformers' own."""
    cache = DynamicCache(config=config)
    cache.layers = [
        GrowingLayer() if type(layer) is DynamicLayer else layer  # type: ignore[no-untyped-call]
        for layer in cache.layers
    ]
    return cache
