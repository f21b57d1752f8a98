"""Training the top layers from kept hidden states is training them from the ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from textgym_agents.core.buffer import Batch, Episode, MemoryBuffer, collate
from textgym_agents.core.config import KLPenaltyConfig, OptimizerConfig, PPOConfig
from textgym_agents.core.losses import Totals
from textgym_agents.core.update import ppo_loss
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.config import LastLayersMode, PolicyConfig, RolloutConfig, TrainConfig
from textgym_agents.lm.measure import evaluate_in_parts, states_in_parts
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.transcript import Rollout, Transcript

MakePolicy = Callable[..., PolicyValueNetwork]
RandomBatch = Callable[..., Batch]
Gradients = Callable[[PolicyValueNetwork, Tensor], dict[str, Tensor]]
MakeEpisode = Callable[..., Episode]
TOP = PolicyConfig(mode=LastLayersMode(k=1))


def loss_of(network: PolicyValueNetwork, batch: Batch) -> Tensor:
    config = PPOConfig(entropy_coef=0.1)
    return ppo_loss(network.evaluate(batch), batch, config, Totals.of(batch.action_mask))[0]


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_kept_states_change_neither_scores_nor_gradients(
    make_policy: MakePolicy, random_batch: RandomBatch, gradients: Gradients,
    kind: str, precision: str, checkpointing: bool,
) -> None:  # fmt: skip
    config = TOP.model_copy(
        update={"precision": precision, "gradient_checkpointing": checkpointing}
    )
    network, batch = make_policy(kind, config), random_batch(7)
    assert network.num_top == 1
    kept = replace(batch, cut_states=states_in_parts(network, batch, 40))
    for x, y in zip(network.evaluate(batch), network.evaluate(kept), strict=True):
        torch.testing.assert_close(x, y, atol=1e-6, rtol=0)
    wanted = gradients(network, loss_of(network, batch))
    for name, g in gradients(network, loss_of(network, kept)).items():
        torch.testing.assert_close(g, wanted[name], atol=1e-6, rtol=1e-6)


def test_the_layers_below_are_not_run_again(
    make_policy: MakePolicy, random_batch: RandomBatch
) -> None:
    network, batch = make_policy(config=TOP), random_batch(4)
    kept = replace(batch, cut_states=states_in_parts(network, batch))
    runs = {"layers.0": 0, "layers.1": 0, "embed_tokens": 0}
    for name in runs:
        module = network.trunk.get_submodule(name)
        module.register_forward_hook(lambda *_, name=name: runs.update({name: runs[name] + 1}))
    with torch.no_grad():
        network.evaluate(kept)
        network.frozen_copy().evaluate(kept)
    assert (runs["layers.0"], runs["embed_tokens"]) == (0, 0)
    assert runs["layers.1"] > 0
    assert len(network.trunk.layers) == 2  # the cut leaves the model as it is


def test_the_reference_shares_the_kept_states(
    make_policy: MakePolicy, random_batch: RandomBatch
) -> None:
    network, batch = make_policy(config=TOP), random_batch(5)
    kept = replace(batch, cut_states=states_in_parts(network, batch))
    reference = network.frozen_copy()
    shared = {id(p) for p in network.parameters()} & {id(p) for p in reference.parameters()}
    assert shared == {id(p) for p in network.lm.parameters() if not p.requires_grad}
    before = reference.evaluate(kept).logprobs
    with torch.no_grad():
        for p in network.trainable():
            p.add_(0.1)
    assert torch.equal(reference.evaluate(kept).logprobs, before)
    torch.testing.assert_close(reference.evaluate(batch).logprobs, before, atol=1e-6, rtol=0)
    assert not torch.allclose(network.evaluate(kept).logprobs, before, atol=1e-3)


def updated(network: PolicyValueNetwork, rollout: Rollout) -> dict[str, float]:
    config = TrainConfig(
        policy=network.config,
        rollout=RolloutConfig(num_episodes=4, max_new_tokens=8),
        ppo=PPOConfig(
            batch_size=2,
            kl_penalty=KLPenaltyConfig(beta=0.1),
            optimizer=OptimizerConfig(learning_rate=1e-2),
        ),
    )
    agent = PPOAgent(network, config)
    agent.start_reference()
    agent.update(rollout, iteration=0, progress=0.0)
    return agent.update(rollout, iteration=1, progress=0.0)


def test_an_update_is_the_same_with_and_without(make_policy: MakePolicy) -> None:
    generator = torch.Generator().manual_seed(0)
    transcripts = []
    for n in (3, 8, 5, 6):
        transcript = Transcript("", [9, 10, 11][: n % 3 + 1])
        ids = torch.randint(0, 7, (n,), generator=generator).tolist()
        transcript.add_observation(ids)
        transcript.is_action[-n:] = [True] * n
        transcript.rewards[-1] = n % 2
        transcript.terminated = True
        transcripts.append(transcript)
    found = []
    for is_cut in (True, False):
        network = make_policy(config=TOP)
        network.num_top = int(is_cut)
        metrics = updated(network, Rollout(transcripts))
        found.append((metrics, [p.detach() for p in network.parameters()]))
    assert found[0][0]["kl/reference_nats_per_token"] != 0.0
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-4, nan_ok=True)
    for x, y in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-4)


def test_states_are_computed_once_per_rollout(
    make_policy: MakePolicy, episode: MakeEpisode
) -> None:
    memory = MemoryBuffer()
    for action in ([1, 2, 6], [3, 6]):
        memory.add(episode([9, 10], action))
    network = make_policy(config=TOP)
    memory.keep_cut_states(states_in_parts(network, memory.batch))
    memory.record(evaluate_in_parts(network, memory.batch))
    memory.compute_returns_and_advantages(PPOConfig())
    for batch in memory.minibatches(1, torch.Generator().manual_seed(0)):
        assert batch.cut_states is not None
        whole = memory.batch.input_ids.tolist().index([*batch.input_ids[0].tolist(), 0][:5])
        assert memory.batch.cut_states is not None
        width = batch.cut_states.shape[1]
        assert torch.equal(batch.cut_states[0], memory.batch.cut_states[whole, :width])


@pytest.mark.parametrize("kind", ["gemma3_text", "gpt2"])
def test_an_architecture_that_cannot_be_cut_runs_whole(make_policy: MakePolicy, kind: str) -> None:
    config = PolicyConfig() if kind == "gpt2" else TOP
    assert make_policy(kind, config).num_top == 0


@pytest.mark.parametrize(
    ("mode", "count"),
    [
        (LastLayersMode(), 4), (LastLayersMode(k=7), 7), (LastLayersMode(share=0.1), 2),
        (LastLayersMode(share=0.01), 1), (LastLayersMode(share=1.0), 24),
    ],
)  # fmt: skip
def test_layers_are_counted_or_shared_out(mode: LastLayersMode, count: int) -> None:
    assert mode.count(24) == count


def test_all_layers_leave_nothing_to_keep(make_policy: MakePolicy) -> None:
    assert make_policy(config=PolicyConfig(mode=LastLayersMode(share=1.0))).num_top == 0


def test_a_number_and_a_share_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"k \(2\) and share \(0\.1\) both say how many layers"):
        LastLayersMode(k=2, share=0.1)


def test_packed_lengths_of_an_episode_that_was_cut(make_policy: MakePolicy) -> None:
    ids, mask = torch.tensor([9, 1, 2, 3]), torch.tensor([False, True, True, False])
    cut = Episode(ids, mask, torch.zeros(4), terminated=False, truncated=True)
    ended = Episode(ids, mask, torch.zeros(4), terminated=True, truncated=False)
    assert collate([cut, ended]).lengths_to_read().tolist() == [4, 2]
