"""The agent: step by step equals the fused pass, and an update moves what it should."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from textgym.errors import ConfigError, PromptError
from textgym_agents.core.buffer import Batch, Episode, collate
from textgym_agents.core.config import KLPenaltyConfig, OptimizerConfig, PPOConfig, ValueConfig
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.config import (
    LastLayersMode,
    LoraMode,
    PolicyConfig,
    RolloutConfig,
    TrainConfig,
)
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.samples import gather_samples
from textgym_agents.lm.transcript import Rollout, Transcript

MakePolicy = Callable[..., PolicyValueNetwork]
MakeEpisode = Callable[..., Episode]
LORA = LoraMode(rank=2, alpha=4)


def agent_of(network: PolicyValueNetwork, **ppo: object) -> PPOAgent:
    rollout = RolloutConfig(num_episodes=8, num_envs=8, max_new_tokens=8, max_length=64)
    config = PPOConfig(**{"batch_size": 8, "update_epochs": 1, **ppo})
    return PPOAgent(network, TrainConfig(rollout=rollout, ppo=config, policy=network.config))


def transcripts_of(episodes: list[Episode]) -> Rollout:
    """Return a rollout of finished episodes."""
    transcripts = []
    for each in episodes:
        transcript = Transcript("", each.input_ids.tolist())
        transcript.is_action = each.action_mask.tolist()
        transcript.rewards = each.rewards.tolist()
        transcript.terminated, transcript.truncated = each.terminated, each.truncated
        transcripts.append(transcript)
    return Rollout(transcripts)


def varied_rollout(episode: MakeEpisode) -> Rollout:
    """Return eight episodes that hold every id."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.stack([torch.randperm(13, generator=generator) for _ in range(8)]).tolist()
    return transcripts_of([episode(x[:4], x[4:], float(i)) for i, x in enumerate(ids)])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_choose_action_equals_the_fused_pass(
    any_policy: PolicyValueNetwork, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = agent_of(any_policy)
    any_policy.temperature = temperature
    num_read: list[int] = []
    original = any_policy.hidden_states

    def watch(input_ids: torch.Tensor, **cache: object) -> torch.Tensor:
        num_read.append(input_ids.shape[1])
        return original(input_ids, **cache)

    monkeypatch.setattr(any_policy, "hidden_states", watch)
    generator = torch.Generator().manual_seed(0)
    ids, is_action, steps = [9, 3, 7], [False] * 3, []
    for turn in range(3):
        for _ in range(4):
            step = agent.choose_action(ids, generator=generator)
            steps.append(step)
            ids, is_action = [*ids, int(step.action)], [*is_action, True]
        if turn < 2:  # a message of the environment
            ids, is_action = [*ids, 8, 10], [*is_action, False, False]
    assert num_read == [3, 1, 1, 1, 3, 1, 1, 1, 3, 1, 1, 1]
    monkeypatch.undo()
    mask = torch.tensor(is_action)
    each = Episode(torch.tensor(ids), mask, torch.zeros(len(ids)), True, False)
    with torch.no_grad():
        scores = any_policy.evaluate(collate([each]))
    for name, x in (
        ("logprob", scores.logprobs), ("value", scores.values), ("entropy", scores.entropy),
    ):  # fmt: skip
        got = torch.cat([getattr(step, name) for step in steps])
        torch.testing.assert_close(got, x[0, mask], atol=2e-5, rtol=0)


def test_choose_action_starts_anew_where_the_sequence_does(
    tiny_policy: PolicyValueNetwork,
) -> None:
    agent = agent_of(tiny_policy)

    def value(ids: list[int]) -> float:
        return float(agent.choose_action(ids, generator=torch.Generator()).value)

    fresh = {tuple(ids): value(ids) for ids in ([9, 1, 2], [10, 1, 2, 3], [9, 1], [9, 5, 2, 1])}
    for ids in ([9, 1], [9, 1, 2], [9, 1, 2], [9, 5, 2, 1], [10, 1, 2, 3]):
        assert value(ids) == pytest.approx(fresh[tuple(ids)], abs=1e-5)


def test_an_update_forgets_the_cache(tiny_policy: PolicyValueNetwork, episode: MakeEpisode) -> None:
    agent = agent_of(tiny_policy, optimizer=OptimizerConfig(learning_rate=0.05))
    agent.choose_action([9, 1, 2], generator=torch.Generator())
    agent.update(varied_rollout(episode), iteration=0, progress=0.0)
    after = agent.choose_action([9, 1, 2, 3], generator=torch.Generator())
    fresh = agent_of(tiny_policy).choose_action([9, 1, 2, 3], generator=torch.Generator())
    assert torch.equal(after.value, fresh.value)


MODES: dict[str, dict[str, Any]] = {
    "tied": {"std": 0.02},
    "untied": {"std": 0.02, "tied": False},
    "lora": {"std": 0.02, "config": PolicyConfig(mode=LORA)},
    "last_k": {"std": 0.02, "config": PolicyConfig(mode=LastLayersMode(k=1))},
    "checkpointing": {
        "std": 0.02, "config": PolicyConfig(mode=LORA, gradient_checkpointing=True),
    },
    "bf16": {"std": 0.02, "config": PolicyConfig(precision="bf16")},
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_one_small_step_moves_the_master_weights(
    make_policy: MakePolicy, episode: MakeEpisode, mode: str
) -> None:
    """With weights in bfloat16 most of the step would be rounded away."""
    network = make_policy(**MODES[mode])
    agent = agent_of(network)
    assert agent.config.ppo.optimizer.learning_rate == 1e-5
    params = [*network.trainable(), *network.value_head.parameters()]
    frozen = [p for p in network.parameters() if not p.requires_grad]
    before = [p.detach().clone() for p in params]
    before_frozen = [p.clone() for p in frozen]
    metrics = agent.update(varied_rollout(episode), iteration=0, progress=0.0)
    assert metrics["ppo/steps_done_share"] == 1.0
    total = sum(p.numel() for p in params)
    changed = sum(int((p != q).sum()) for p, q in zip(params, before, strict=True))
    assert all(p.dtype == torch.float32 for p in params)
    assert changed >= 0.99 * total
    assert all(torch.equal(p, q) for p, q in zip(frozen, before_frozen, strict=True))
    rounded = sum(
        int((p.bfloat16() != q.bfloat16()).sum()) for p, q in zip(params, before, strict=True)
    )
    assert rounded < 0.5 * total


def test_untied_embeddings_of_ids_that_do_not_occur_stay(
    make_policy: MakePolicy, episode: MakeEpisode
) -> None:
    network = make_policy(tied=False)
    before = network.lm.get_input_embeddings().weight.detach().clone()
    rollout = transcripts_of([episode([9], [i % 3, 6], float(i)) for i in range(8)])
    agent_of(network).update(rollout, iteration=0, progress=0.0)
    is_same = (network.lm.get_input_embeddings().weight == before).all(dim=1)
    assert is_same.nonzero().squeeze(1).tolist() == [3, 4, 5, 6, 7, 8, 10, 11, 12]


def test_the_ratio_is_one_at_first_and_the_engine_agrees(
    tiny_policy: PolicyValueNetwork, episode: MakeEpisode
) -> None:
    agent = agent_of(tiny_policy, micro_batch_tokens=30, batch_size=4)
    metrics = agent.update(varied_rollout(episode), iteration=0, progress=0.0)
    assert metrics["ppo/first_ratio_error"] < 1e-5
    assert metrics["ppo/ratio"] == pytest.approx(1.0, abs=1e-2)


def test_the_end_of_an_episode_is_not_bootstrapped(
    make_policy: MakePolicy, episode: MakeEpisode
) -> None:
    """A terminated episode's last target is its reward, whatever the value of the last state."""
    returns = {}
    for head_std in (0.0, 5.0):
        agent = agent_of(make_policy(head_std=head_std))
        buffer = _prepared(agent, [episode([9, 1], [2, 6], 0.5), episode([10], [3], 2.0)])
        returns[head_std] = [float(buffer.returns[0, 3]), float(buffer.returns[1, 1])]
    assert returns[0.0] == returns[5.0] == pytest.approx([0.5, 2.0])


def test_a_truncated_episode_is_bootstrapped_from_its_last_state(
    make_policy: MakePolicy, episode: MakeEpisode
) -> None:
    network = make_policy(head_std=1.0)
    ended = episode([9, 1], [2, 4], 0.5)
    cut = Episode(ended.input_ids, ended.action_mask, ended.rewards, False, True)
    batch = _prepared(agent_of(network), [ended, cut])
    with torch.no_grad():
        v = float(network.values_of(network.hidden_states(ended.input_ids.unsqueeze(0))[0, -1]))
    assert float(batch.returns[0, 3]) == pytest.approx(0.5)
    assert float(batch.returns[1, 3]) == pytest.approx(0.5 + 0.99 * v, abs=1e-5)


def _prepared(agent: PPOAgent, episodes: list[Episode]) -> Batch:
    samples = gather_samples(transcripts_of(episodes), agent.config.ppo)
    agent._prepare(samples, agent.config.ppo)
    return samples.buffer.batch


@pytest.mark.parametrize("mode", [None, LORA, LastLayersMode(k=1)])
def test_the_penalty_measures_the_distance_to_the_start(
    make_policy: MakePolicy, episode: MakeEpisode, mode: LoraMode | None
) -> None:
    config = PolicyConfig() if mode is None else PolicyConfig(mode=mode)
    network = make_policy(config=config, adapter_std=0.0)
    penalty = KLPenaltyConfig(beta=0.5, adaptive=True, horizon_sequences=10)
    agent = agent_of(network, kl_penalty=penalty, optimizer=OptimizerConfig(learning_rate=0.02))
    agent.start_reference()
    assert (agent.reference is None) == (mode == LORA)
    rollout = varied_rollout(episode)
    first = agent.update(rollout, iteration=0, progress=0.0)
    assert first["kl/reference_nats_per_sequence"] == pytest.approx(0.0, abs=1e-4)
    assert first["kl/beta"] == 0.5
    second = agent.update(rollout, iteration=1, progress=0.0)
    assert abs(second["kl/reference_nats_per_sequence"]) > 1e-3
    assert second["kl/reference_nats_per_token"] * 9 == pytest.approx(
        second["kl/reference_nats_per_sequence"], rel=1e-4
    )
    assert second["kl/beta"] == pytest.approx(0.5 * (1 - 0.2 * 8 / 10))  # far below the target


def test_the_penalty_is_taken_off_the_reward(make_policy: MakePolicy, episode: MakeEpisode) -> None:
    network = make_policy(head_std=0.0)
    agent = agent_of(network, kl_penalty=KLPenaltyConfig(beta=0.5))
    agent.start_reference()
    with torch.no_grad():
        for p in network.trainable():
            p.mul_(1.1)
    each = episode([9, 1], [2, 4], 0.5)
    batch = _prepared(agent, [each])
    reference = agent.reference
    assert reference is not None
    with torch.no_grad():
        scored = collate([each])
        nats = network.evaluate(scored).logprobs - reference.evaluate(scored).logprobs
    assert float(nats.abs().max()) > 1e-3
    torch.testing.assert_close(batch.rewards[0], each.rewards - 0.5 * nats[0])


def test_a_value_warmup_moves_the_value_head_alone(
    tiny_policy: PolicyValueNetwork, episode: MakeEpisode
) -> None:
    agent = agent_of(tiny_policy, value=ValueConfig(warmup_iterations=1))
    trunk = [p.detach().clone() for p in tiny_policy.trainable()]
    head = tiny_policy.value_head.weight.detach().clone()
    agent.update(varied_rollout(episode), iteration=0, progress=0.0)
    assert all(torch.equal(p, q) for p, q in zip(tiny_policy.trainable(), trunk, strict=True))
    assert not torch.equal(tiny_policy.value_head.weight, head)
    agent.update(varied_rollout(episode), iteration=1, progress=0.0)
    assert not torch.equal(tiny_policy.trainable()[0], trunk[0])


def test_the_schedule_falls_linearly(tiny_policy: PolicyValueNetwork, episode: MakeEpisode) -> None:
    agent = agent_of(tiny_policy, optimizer=OptimizerConfig(schedule="linear", learning_rate=1e-3))
    rates = [
        agent.update(varied_rollout(episode), iteration=i, progress=i / 4)["ppo/learning_rate"]
        for i in range(4)
    ]
    assert rates == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])


def test_updates_shuffle_by_seed_and_iteration(
    make_policy: MakePolicy, episode: MakeEpisode
) -> None:
    def weights(iteration: int) -> torch.Tensor:
        network = make_policy()
        agent = agent_of(network, batch_size=2)
        agent.update(varied_rollout(episode), iteration=iteration, progress=0.0)
        return network.head_weight.detach()

    torch.manual_seed(0)
    first = weights(1)
    torch.manual_seed(1)
    assert torch.equal(weights(1), first)
    assert not torch.equal(weights(2), first)


@pytest.fixture
def ending_agent(make_policy: MakePolicy) -> PPOAgent:
    """An agent that can only say `3`, `4` or the end."""
    return agent_of(make_policy(config=PolicyConfig(legal_ids=(3, 4, 6))))


def test_act_answers_a_text(ending_agent: PPOAgent) -> None:
    greedy = ending_agent.act("AB1")
    assert greedy == ending_agent.act("AB1")
    assert greedy.token_ids == ending_agent.act("AB1").token_ids
    samples = {
        ending_agent.act("AB1", generator=torch.Generator().manual_seed(i)) for i in range(20)
    }
    assert len(samples) > 3
    for sample in (greedy, *samples):
        assert 1 <= len(sample.token_ids) <= 8
        said = "".join("012345"[i] for i in sample.token_ids if i != 6)
        assert sample == said
        assert (sample.token_ids[-1] == 6) == (sample.finish_reason == "stop")


@pytest.mark.parametrize("text", ["", "A" * 64, "A" * 65])
def test_act_needs_room(ending_agent: PPOAgent, text: str) -> None:
    with pytest.raises(PromptError, match=rf"has {len(text)} tokens; it needs at least 1, and"):
        ending_agent.act(text)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_an_optimizer_of_8_bits_says_what_it_needs(tiny_policy: PolicyValueNetwork) -> None:
    message = r"adamw_8bit needs an NVIDIA GPU.*no GPU that torch can use\. Take 'adamw'"
    with pytest.raises(ConfigError, match=message):
        agent_of(tiny_policy, optimizer=OptimizerConfig(kind="adamw_8bit"))
