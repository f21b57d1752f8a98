"""The cache with spare room holds what transformers' own holds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, Qwen2Config

from textgym_agents.lm.kv_cache import ROOM, GrowingLayer, make_cache

BATCH, HEADS, WIDTH = 4, 2, 8


def config(**changes: object) -> Qwen2Config:
    return Qwen2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        **changes,
    )


def states(length: int, *, rows: int = BATCH, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, rows, HEADS, length, WIDTH)
    keys, values = torch.randn(shape, generator=generator)
    return keys, values


@pytest.mark.parametrize("first", [1, 5, ROOM, 3 * ROOM])
def test_appending_gives_what_concatenating_gives(first: int) -> None:
    ours, theirs = make_cache(config()), DynamicCache(config=config())
    for step in range(3 * ROOM):
        new = states(first if step == 0 else 1, seed=step)
        for layer in (0, 1):
            got, wanted = ours.update(*new, layer), theirs.update(*new, layer)
            assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
        assert ours.get_seq_length() == theirs.get_seq_length() == first + step


def test_rows_that_leave_take_their_states_along() -> None:
    ours, theirs = make_cache(config()), DynamicCache(config=config())
    keep = torch.tensor([3, 1])
    for cache in (ours, theirs):
        cache.update(*states(5), 0)
        cache.batch_select_indices(keep)
        cache.update(*states(1, rows=2, seed=1), 0)
    for name in ("keys", "values"):
        assert torch.equal(getattr(ours.layers[0], name), getattr(theirs.layers[0], name))
    assert ours.layers[0].keys.shape == (2, HEADS, 6, WIDTH)


def test_most_tokens_move_nothing() -> None:
    cache = make_cache(config())
    cache.update(*states(10), 0)
    where = cache.layers[0].keys.data_ptr()
    for step in range(ROOM):
        cache.update(*states(1, seed=step), 0)
    assert cache.layers[0].keys.data_ptr() == where


def test_layers_with_a_sliding_window_stay_as_they_are() -> None:
    sliding = config(
        use_sliding_window=True,
        sliding_window=4,
        layer_types=["full_attention", "sliding_attention"],
    )
    full, windowed = make_cache(sliding).layers
    assert type(full) is GrowingLayer
    assert windowed.is_sliding
