"""The adapter: its base is the reference, bitwise, and comes back whatever happens."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from textgym.errors import ConfigError
from textgym_agents.core.buffer import Batch
from textgym_agents.lm.config import LoraMode, PolicyConfig
from textgym_agents.lm.network import PolicyValueNetwork

MakePolicy = Callable[..., PolicyValueNetwork]
RandomBatch = Callable[..., Batch]
LORA = PolicyConfig(mode=LoraMode(rank=4, alpha=8))


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_the_disabled_adapter_is_the_base_bitwise(
    make_policy: MakePolicy, random_batch: RandomBatch, kind: str
) -> None:
    adapted, base = make_policy(kind, LORA), make_policy(kind)
    batch = random_batch()
    with torch.no_grad():
        wanted = base.lm(input_ids=batch.input_ids).logits
        assert not torch.equal(adapted.lm(input_ids=batch.input_ids).logits, wanted)
        with adapted.reference():
            assert torch.equal(adapted.lm(input_ids=batch.input_ids).logits, wanted)
            inside = adapted.evaluate(batch)
        for x, y in zip(inside, base.evaluate(batch), strict=True):
            assert torch.equal(x, y)


def test_the_value_head_stays_active(
    lora_policy: PolicyValueNetwork, random_batch: RandomBatch
) -> None:
    with lora_policy.reference(), torch.no_grad():
        values = lora_policy.evaluate(random_batch()).values
    assert float(values.abs().max()) > 0.1


def test_the_adapter_comes_back_after_an_exception(
    lora_policy: PolicyValueNetwork, random_batch: RandomBatch
) -> None:
    batch = random_batch()
    before = lora_policy.evaluate(batch)
    trainable = [p.requires_grad for p in lora_policy.parameters()]
    with pytest.raises(RuntimeError, match="inside"), lora_policy.reference():
        raise RuntimeError("inside")
    after = lora_policy.evaluate(batch)
    for x, y in zip(before, after, strict=True):
        assert torch.equal(x, y)
    assert [p.requires_grad for p in lora_policy.parameters()] == trainable
    after.logprobs.sum().backward()
    assert all(p.grad is not None for p in lora_policy.trainable())


def test_a_new_adapter_is_at_distance_zero(
    make_policy: MakePolicy, random_batch: RandomBatch
) -> None:
    network = make_policy(config=LORA, adapter_std=0.0)
    batch = random_batch()
    with torch.no_grad():
        policy = network.evaluate(batch).logprobs
        with network.reference():
            assert torch.equal(network.evaluate(batch).logprobs, policy)


def test_the_adapter_is_on_every_linear_layer_and_nothing_else_learns(
    lora_policy: PolicyValueNetwork, random_batch: RandomBatch
) -> None:
    adapted = {
        name.split(".lora_")[0].rsplit(".", 1)[1]
        for name, p in lora_policy.lm.named_parameters()
        if p.requires_grad
    }
    assert adapted == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    assert all("lora_" in n for n, p in lora_policy.lm.named_parameters() if p.requires_grad)
    scores = lora_policy.evaluate(random_batch())
    (scores.logprobs.sum() + scores.values.sum()).backward()
    with_gradient = {n for n, p in lora_policy.named_parameters() if p.grad is not None}
    assert len(with_gradient) == 2 * 7 * 2 + 2
    assert {"value_head.weight", "value_head.bias"} <= with_gradient


def test_temperature_and_legal_ids_hold_in_the_reference(
    make_policy: MakePolicy, random_batch: RandomBatch
) -> None:
    legal = tuple(range(9))
    network = make_policy(config=LORA.model_copy(update={"legal_ids": legal}), num_rows=40)
    base = make_policy(config=PolicyConfig(legal_ids=legal), num_rows=40)
    network.temperature = base.temperature = 0.6
    with network.reference(), torch.no_grad():
        inside = network.evaluate(random_batch()).entropy
    assert torch.equal(inside, base.evaluate(random_batch()).entropy.detach())


def test_without_an_adapter_there_is_no_reference_inside(tiny_policy: PolicyValueNetwork) -> None:
    with pytest.raises(ConfigError, match="only a policy with an adapter"), tiny_policy.reference():
        pass
