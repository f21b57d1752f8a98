"""Sequences packed in one row say what each says alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from textgym_agents.core.buffer import Batch
from textgym_agents.lm.config import LoraMode, PolicyConfig
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.packing import GROUP_SHARE, Packing, attention

MakePolicy = Callable[..., PolicyValueNetwork]
RandomBatch = Callable[..., Batch]
Gradients = Callable[[PolicyValueNetwork, Tensor], dict[str, Tensor]]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any))
@settings(max_examples=60, deadline=None)
def test_every_token_has_one_place(sizes: list[int]) -> None:
    packing = Packing.of(torch.tensor(sizes), 10)
    flat = [i * 10 + t for i, size in enumerate(sizes) for t in range(size)]
    assert sorted(packing.sources.tolist()) == flat
    for i, size in enumerate(sizes):
        own = packing.sources[packing.starts[i] : packing.starts[i] + size]
        assert own.tolist() == [i * 10 + t for t in range(size)]
    assert (packing.sources % 10).tolist() == packing.positions.tolist()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_groups_follow_each_other_and_hold_similar_lengths(sizes: list[int]) -> None:
    packing = Packing.of(torch.tensor(sizes), 40)
    end = 0
    for group in packing.groups:
        assert group.start == end
        end = group.stop
        assert group.stop - group.start >= GROUP_SHARE * group.longest * group.num_sequences
    assert end == sum(sizes)
    assert sum(group.num_sequences for group in packing.groups) == len(sizes)


def test_equal_lengths_are_one_group_without_copies() -> None:
    packing = Packing.of(torch.tensor([7, 7, 7]), 9)
    (group,) = packing.groups
    assert group.places is None
    states = torch.randn(4, 21, 8)
    assert group.spread(states).data_ptr() == states.data_ptr()


@pytest.mark.parametrize("num_key_heads", [1, 2, 4])
def test_attention_stays_within_its_sequence(num_key_heads: int) -> None:
    sizes = [5, 2, 9, 9, 1]
    packing = Packing.of(torch.tensor(sizes), 9)
    total = sum(sizes)
    query = torch.randn(1, 4, total, 8)
    key, value = torch.randn(2, 1, num_key_heads, total, 8)
    module = torch.nn.Module()
    packed, _ = attention(module, query, key, value, None, packing=packing)
    for start, size in zip(packing.starts.tolist(), sizes, strict=True):
        own = slice(start, start + size)
        wanted = functional.scaled_dot_product_attention(
            *(x[:, :, own] for x in (query, key, value)), is_causal=True, enable_gqa=True
        )
        torch.testing.assert_close(packed[0, own], wanted[0].transpose(0, 1))


def test_a_new_token_sees_what_its_mask_shows() -> None:
    query = torch.randn(3, 4, 1, 8)
    key, value = torch.randn(2, 3, 2, 11, 8)
    mask = torch.rand(3, 1, 1, 11) < 0.7
    mask[..., -1] = True
    got, _ = attention(torch.nn.Module(), query, key, value, mask, scaling=0.3)
    wanted = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=0.3, enable_gqa=True
    )
    torch.testing.assert_close(got, wanted.transpose(1, 2))


@pytest.mark.parametrize("mode", [None, LoraMode(rank=2)])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_packed_and_padded_agree(
    make_policy: MakePolicy, random_batch: RandomBatch, gradients: Gradients,
    mode: LoraMode | None, precision: str,
) -> None:  # fmt: skip
    config = PolicyConfig(precision=precision, **({} if mode is None else {"mode": mode}))
    network, batch = make_policy(config=config, std=0.1), random_batch(9)
    assert network.packs
    found = []
    for packs in (True, False):
        network.packs = packs
        scores = network.evaluate(batch)
        loss = scores.logprobs.sum() + scores.values.square().sum() + scores.entropy.sum()
        found.append(([x.detach() for x in scores], gradients(network, loss)))
    tolerance = 2e-5 if precision == "float32" else 5e-2
    for x, y in zip(found[0][0], found[1][0], strict=True):
        torch.testing.assert_close(x, y, atol=tolerance, rtol=0)
    for name, g in found[0][1].items():
        assert float((g - found[1][1][name]).norm()) <= tolerance * float(g.norm()) + 1e-6, name


def test_rows_without_actions_cost_one_token(
    tiny_policy: PolicyValueNetwork, random_batch: RandomBatch
) -> None:
    batch = random_batch(4)
    batch.action_mask[1:3] = False
    batch.is_truncated[1:3] = False
    assert batch.lengths_to_read()[1:3].tolist() == [1, 1]
    scores = tiny_policy.evaluate(batch)
    assert bool((scores.logprobs[1:3] == 0).all())
    assert bool((scores.logprobs[0] != 0).any())


@pytest.mark.parametrize(
    ("kind", "packs"),
    [("qwen2", True), ("qwen3", True), ("llama", True), ("gpt2", True), ("gemma3_text", False)],
)
def test_which_architectures_pack(make_policy: MakePolicy, kind: str, packs: bool) -> None:
    assert make_policy(kind).packs is packs


def test_a_saved_model_keeps_no_trace_of_our_attention(
    tiny_policy: PolicyValueNetwork, tmp_path: Path
) -> None:
    tiny_policy.save(tmp_path)
    assert "packed" not in (tmp_path / "config.json").read_text()
