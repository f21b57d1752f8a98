"""Episodes with tools as they are learnt from: what a tool says is read and never trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from textgym_agents.core.advantages import gae
from textgym_agents.core.buffer import Evaluation, MemoryBuffer
from textgym_agents.core.config import PPOConfig
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.cold_start import (
    Demonstration,
    DialogueDemonstrator,
    PoolDemonstrator,
    demonstration_batch,
    make_demonstrator,
)
from textgym_agents.lm.config import (
    ColdStartConfig,
    EnvConfig,
    PolicyConfig,
    RolloutConfig,
    TrainConfig,
)
from textgym_agents.lm.engine import Generation
from textgym_agents.lm.envs import make_envs
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.rollout import collect
from textgym_agents.lm.texts import decode, encode
from textgym_agents.lm.transcript import Rollout

ENV = EnvConfig(
    id="textgym:TextGenTools-v0",
    prompts=[{"source": "arithmetic", "config": {"below": 10}}],
    reward="math",
    kwargs={"tools": ["calculator"], "describe_tools": False, "split": "all", "max_turns": 3},
)
LIMITS = RolloutConfig(num_episodes=2, num_envs=2, max_new_tokens=32, max_length=96)
SUM = 34  # 4+3


@pytest.fixture(scope="module")
def network() -> PolicyValueNetwork:
    return PolicyValueNetwork.from_config(PolicyConfig(), seed=0)


class Scripted:
    """An engine that says texts, each with the end token."""

    policy_version = 0

    def __init__(self, network: PolicyValueNetwork, said: Sequence[str]) -> None:
        self.network = network
        self.said = iter(said)

    def generate(self, prompts: Sequence[Sequence[int]], **_: Any) -> list[Generation]:
        return [self._say(text) for text in [next(self.said) for _ in prompts]]

    def _say(self, text: str) -> Generation:
        ids = [*encode(self.network, [text])[0], self.network.tokenizer.eos_token_id]
        return Generation(ids, [-0.5] * len(ids), "stop")

    def sync(self, policy_version: int) -> dict[str, float]:
        return {}

    def close(self) -> None:
        """Do nothing."""


def play(network: PolicyValueNetwork, said: Sequence[str]) -> Rollout:
    envs = make_envs(ENV, 2)
    try:
        return collect(
            envs,
            Scripted(network, said),
            network,
            LIMITS,
            seed=0,
            generator=torch.Generator(),
            options={"prompt_index": SUM},
        )
    finally:
        envs.close()


SAID = ("calculator: 4+3", "calculator: 4+", "7", "7")


def test_what_a_tool_says_is_no_action(network: PolicyValueNetwork) -> None:
    rollout = play(network, SAID)
    first, second = rollout.transcripts
    end = network.tokenizer.eos_token
    assert decode(network, first.ids) == f"4+3=calculator: 4+3{end}\n7\n7{end}"
    said = [i for i, is_action in zip(first.ids, first.is_action, strict=True) if is_action]
    assert decode(network, said) == f"calculator: 4+3{end}7{end}"
    assert sum(first.rewards) == first.rewards[-1] == 1.0
    assert "Error: not an arithmetic expression" in decode(network, second.ids)
    assert (second.info["tool_calls"], second.info["tool_errors"]) == (1, 1)
    record = first.record()
    assert (record["completion"], record["turns"]) == ("7", 2)
    assert [turn["role"] for turn in record["dialogue"]] == ["assistant", "tool", "assistant"]
    metrics = rollout.metrics()
    assert metrics["rollout/turns"] == 2.0
    assert metrics["rollout/tool_calls"] == 1.0
    assert metrics["rollout/tool_errors"] == 0.5


def test_advantages_step_over_what_a_tool_says(network: PolicyValueNetwork) -> None:
    """They are those of the same actions with nothing in between."""
    buffer = MemoryBuffer()
    for transcript in play(network, SAID).transcripts:
        buffer.add(transcript.episode())
    mask = buffer.batch.action_mask
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(mask.shape, generator=generator)  # also off the mask, where none is read
    config = PPOConfig(gamma=0.9, gae_lambda=0.8, whiten_advantages=False)
    buffer.record(Evaluation(torch.zeros_like(values), values, values, torch.zeros(2)))
    buffer.compute_returns_and_advantages(config)
    batch = buffer.batch
    assert batch.advantages[~mask].abs().max() == 0
    assert batch.returns[~mask].abs().max() == 0
    for row in range(2):
        actions = mask[row]
        alone = gae(
            batch.rewards[row, actions][None], values[row, actions][None],
            torch.ones(1, int(actions.sum()), dtype=torch.bool), torch.zeros(1), gamma=0.9, lam=0.8,
        )  # fmt: skip
        torch.testing.assert_close(batch.advantages[row, actions], alone[0])


def test_no_gradient_comes_from_what_a_tool_says(network: PolicyValueNetwork) -> None:
    """The loss does not see the probabilities of the tool's words."""
    batch = demonstration_batch(
        network, [Demonstration("4+3=", "calculator: 4+3", ("\n7\n", "7"))], max_length=96
    )
    end = network.tokenizer.eos_token
    ids, mask = batch.input_ids[0], batch.action_mask[0]
    assert decode(network, ids.tolist()) == f"4+3=calculator: 4+3{end}\n7\n7{end}"
    assert decode(network, ids[mask].tolist()) == f"calculator: 4+3{end}7{end}"
    with torch.no_grad():
        logprobs = network.evaluate(batch).logprobs[0]
    assert bool((logprobs[~mask] == 0).all())
    assert bool((logprobs[mask] < 0).all())


def test_dialogues_are_demonstrated_where_they_are_known(network: PolicyValueNetwork) -> None:
    config = ColdStartConfig(wrong_share=0.5)
    pool = make_envs(ENV, 1).unwrapped.pool
    demonstrator = make_demonstrator(config, pool)
    assert isinstance(demonstrator, DialogueDemonstrator)
    rng = np.random.default_rng(0)
    drawn = [demonstrator.draw(rng) for _ in range(400)]
    right = [d for d in drawn if eval(d.prompt[:-1]) == int((d.completion, *d.rest)[-1])]
    assert len(right) / 400 == pytest.approx(0.5, abs=0.08)
    for shown in right:
        assert (shown.completion, len(shown.rest)) == (f"calculator: {shown.prompt[:-1]}", 2)
    without = ENV.model_copy(update={"kwargs": {**ENV.kwargs, "tools": []}})
    plain = make_demonstrator(config, make_envs(without, 1).unwrapped.pool)
    rng, again = np.random.default_rng(1), np.random.default_rng(1)
    same = PoolDemonstrator(plain.pool, 0.5)  # type: ignore[union-attr]  # no file is given
    assert [plain.draw(rng) for _ in range(20)] == [same.draw(again) for _ in range(20)]


def test_a_run_learns_to_call(tmp_path: Path) -> None:
    """A few updates on scripted episodes: the share of calls rises, guesses become rare."""
    config = TrainConfig(
        env=ENV,
        rollout=RolloutConfig(num_episodes=32, num_envs=32, max_new_tokens=32, max_length=96),
        ppo=PPOConfig(batch_size=32, update_epochs=2, gamma=1.0),
        threads=1,
    )
    network = PolicyValueNetwork.from_config(PolicyConfig(), seed=1)
    agent = PPOAgent(network, config)
    agent.plan(3 * 32)
    envs = make_envs(ENV, 32)

    def call_minus_guess() -> float:
        prompt = encode(network, ["4+3="])[0]
        call, guess = (encode(network, [text])[0][0] for text in ("c", "9"))
        with torch.no_grad():
            hidden = network.hidden_states(torch.tensor([prompt]))[:, -1]
            logits = network.next_logits(hidden)[0]
        return float(logits[call] - logits[guess])

    before = call_minus_guess()
    for iteration in range(3):
        said = [*["calculator: 4+3"] * 16, *["9"] * 16, *["7"] * 16]
        rollout = collect(
            envs, Scripted(network, said), network, config.rollout, seed=0,
            generator=torch.Generator(), options={"prompt_index": SUM},
        )  # fmt: skip
        assert [sum(t.rewards) for t in rollout.transcripts] == [1.0] * 16 + [0.0] * 16
        agent.update(rollout, iteration=iteration, progress=iteration / 3)
    envs.close()
    assert call_minus_guess() > before
