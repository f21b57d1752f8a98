"""Saved policies: ordinary Hugging Face folders that load back equal, also after a move."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from textgym_agents.core.buffer import Batch
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.config import FullMode, LastLayersMode, LoraMode, PolicyConfig, TrainConfig
from textgym_agents.lm.network import PolicyValueNetwork

MakePolicy = Callable[..., PolicyValueNetwork]
RandomBatch = Callable[..., Batch]
LORA = LoraMode(rank=2, alpha=4)
MODES = [FullMode(), LORA, LastLayersMode(k=1)]


@pytest.fixture
def plain_folder(
    make_model: Callable[..., PreTrainedModel], make_policy: MakePolicy, tmp_path: Path
) -> Path:
    """A model's folder that textgym has not written."""
    folder = tmp_path / "model"
    make_model(num_rows=40).save_pretrained(folder)
    make_policy().tokenizer.save_pretrained(folder)
    return folder


def scores(network: PolicyValueNetwork, batch: Batch) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return tuple(network.evaluate(batch))


def assert_same(first: PolicyValueNetwork, second: PolicyValueNetwork, batch: Batch) -> None:
    for x, y in zip(scores(first, batch), scores(second, batch), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.kind)
@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_a_policy_loads_back_equal(
    make_policy: MakePolicy, random_batch: RandomBatch, tmp_path: Path, kind: str, mode: FullMode
) -> None:
    network = make_policy(kind, PolicyConfig(mode=mode))
    network.save(tmp_path / "policy")
    loaded = PolicyValueNetwork.load(tmp_path / "policy")
    assert_same(network, loaded, random_batch())
    assert float(loaded.value_head.weight.detach().abs().max()) > 0
    assert loaded.config == network.config
    assert [p.shape for p in loaded.trainable()] == [p.shape for p in network.trainable()]
    assert loaded.tokenizer.get_vocab() == network.tokenizer.get_vocab()


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.kind)
def test_the_folder_opens_with_transformers(
    make_policy: MakePolicy, random_batch: RandomBatch, tmp_path: Path, mode: FullMode
) -> None:
    network = make_policy(config=PolicyConfig(mode=mode), num_rows=40)
    network.save(tmp_path)
    lm = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = random_batch().input_ids
    with torch.no_grad():
        theirs, ours = lm(input_ids=ids).logits, network.lm(input_ids=ids).logits
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)  # by another matrix product


def test_a_base_is_written_once_for_all_checkpoints_of_a_run(
    make_policy: MakePolicy, random_batch: RandomBatch, tmp_path: Path
) -> None:
    run, moved = tmp_path / "run", tmp_path / "elsewhere"
    network = make_policy(config=PolicyConfig(mode=LORA))
    network.save_base(run / "base")
    network.save(run / "checkpoints" / "iteration-0000003" / "policy")
    assert not (run / "checkpoints" / "iteration-0000003" / "policy" / "base").exists()
    run.rename(moved)
    loaded = PolicyValueNetwork.load(moved / "checkpoints" / "iteration-0000003" / "policy")
    assert_same(network, loaded, random_batch())


def test_the_base_of_a_moved_run_is_its_own(
    make_policy: MakePolicy, random_batch: RandomBatch, tmp_path: Path
) -> None:
    """A new run in the old place does not become the base of the moved one."""
    run, moved = tmp_path / "run", tmp_path / "moved"
    first, second = (make_policy(config=PolicyConfig(mode=LORA), seed=s) for s in (0, 1))
    for network, place in ((first, run), (second, run)):
        network.save_base(place / "base")
        network.save(place / "checkpoints" / "x" / "policy")
        if network is first:
            run.rename(moved)
    loaded = PolicyValueNetwork.load(moved / "checkpoints" / "x" / "policy")
    assert_same(first, loaded, random_batch())


def test_a_moved_folder_with_its_base_inside_loads(
    make_policy: MakePolicy, random_batch: RandomBatch, tmp_path: Path
) -> None:
    network = make_policy(config=PolicyConfig(mode=LORA))
    network.save(tmp_path / "policy")
    (tmp_path / "policy").rename(tmp_path / "moved")
    assert_same(network, PolicyValueNetwork.load(tmp_path / "moved"), random_batch())


def test_an_adapter_on_a_cold_started_model_keeps_the_cold_start(
    plain_folder: Path, random_batch: RandomBatch, tmp_path: Path
) -> None:
    """The base is not the model that the configuration names: that has been trained since."""
    policy = PolicyConfig(model=str(plain_folder), mode=LORA)
    cold = policy.model_copy(update={"mode": FullMode()})
    network = PolicyValueNetwork.from_config(cold, seed=0)
    agent = PPOAgent(network, TrainConfig(policy=policy))
    with torch.no_grad():
        for p in network.trainable():
            p.add_(0.1)
    agent.end_cold_start()
    agent.save(tmp_path / "adapter")
    assert_same(network, PolicyValueNetwork.load(tmp_path / "adapter"), random_batch())


def test_an_adapter_on_a_plain_folder_refers_to_it(
    plain_folder: Path, random_batch: RandomBatch, tmp_path: Path
) -> None:
    config = PolicyConfig(model=str(plain_folder), mode=LORA)
    network = PolicyValueNetwork.from_config(config, seed=0)
    network.save(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "base").exists()
    recorded = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert recorded["base_model_name_or_path"] == str(plain_folder)
    assert_same(network, PolicyValueNetwork.load(tmp_path / "adapter"), random_batch())


def test_a_saved_full_policy_can_be_trained_with_an_adapter(
    make_policy: MakePolicy, random_batch: RandomBatch, tmp_path: Path
) -> None:
    full = make_policy()
    full.save(tmp_path)
    config = PolicyConfig(model=str(tmp_path), mode=LORA)
    network = PolicyValueNetwork.from_config(config, seed=0)
    assert network.peft is not None
    assert_same(full, network, random_batch())


def test_a_saved_adapter_stays_one_and_takes_the_other_settings(
    make_policy: MakePolicy, tmp_path: Path
) -> None:
    make_policy(config=PolicyConfig(mode=LORA, legal_ids=(1, 6))).save(tmp_path)
    config = PolicyConfig(model=str(tmp_path), precision="bf16")
    network = PolicyValueNetwork.from_config(config, seed=0)
    assert network.config.mode == LORA
    assert network.config.precision == "bf16"
    assert network.config.legal_ids == (1, 6)
    assert network.illegal is not None
    assert network.illegal.nonzero().squeeze(1).tolist() == [0, *range(2, 6), *range(7, 13)]


def test_the_tokenizer_reads_the_same_after_loading(tmp_path: Path) -> None:
    network = PolicyValueNetwork.from_config(PolicyConfig(), seed=0)
    network.save(tmp_path)
    loaded = PolicyValueNetwork.load(tmp_path)
    texts = ["e\u0301 \u00e9", " 12+3 =\n\n", "<|im_start|>user\nhi<|im_end|>\n", "\u0000\u200b"]
    encoded = [n.tokenizer(texts, add_special_tokens=False) for n in (network, loaded)]
    assert encoded[0]["input_ids"] == encoded[1]["input_ids"]
    ids = encoded[0]["input_ids"]
    assert [loaded.tokenizer.decode(x) for x in ids] == texts
    chat = [{"role": "user", "content": "hi"}]
    rendered = [
        n.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        for n in (network, loaded)
    ]
    assert rendered[0] == rendered[1]
    assert loaded.stop_ids == network.stop_ids


def test_an_agent_is_saved_and_loaded(
    tiny_policy: PolicyValueNetwork, random_batch: RandomBatch, tmp_path: Path
) -> None:
    agent = PPOAgent(tiny_policy, TrainConfig())
    agent.save(tmp_path)
    assert_same(tiny_policy, PPOAgent.load(tmp_path).network, random_batch())
