"""Every estimator without a critic learns the text MDP whose optimum is known.

Thirty rollouts of 128 episodes: far from the optimum still, but far above the 0.028 of a uniform
policy, and above the 0.057 of the greedy one that takes the sure reward of turn 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from textgym_agents.core import baselines
from textgym_agents.core.config import KLStopConfig, OptimizerConfig, PPOConfig
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.collection import Collector
from textgym_agents.lm.config import EnvConfig, PolicyConfig, RolloutConfig, TrainConfig
from textgym_agents.lm.envs import make_envs
from textgym_agents.lm.network import PolicyValueNetwork

MakePolicy = Callable[..., PolicyValueNetwork]
LEGAL_IDS = tuple(range(7))
NUM_EPISODES, ITERATIONS = 128, 30
LEARNT = 0.15
RUNS: dict[str, dict[str, Any]] = {
    "grpo": {"samples_per_prompt": 16},
    "dr_grpo": {"samples_per_prompt": 16},
    "dapo": {"samples_per_prompt": 16, "drop_equal": True},
    "rloo": {"samples_per_prompt": 16},
    "reinforce": {},
    "reinforce_pp": {},
}


def config_of(kind: str) -> TrainConfig:
    return TrainConfig(
        env=EnvConfig(id="textgym:ToyTwoTurn-v0"),
        policy=PolicyConfig(legal_ids=LEGAL_IDS),
        rollout=RolloutConfig(
            num_episodes=NUM_EPISODES,
            num_envs=NUM_EPISODES,
            max_new_tokens=1,
            max_length=8,
            **RUNS[kind],
        ),
        ppo=PPOConfig(
            estimator={"kind": kind},
            batch_size=NUM_EPISODES,
            update_epochs=1,
            entropy_coef=0.1,
            kl_stop=KLStopConfig(target=None),
            optimizer=OptimizerConfig(learning_rate=4e-3, schedule="linear", max_grad_norm=1.0),
        ),
    )


def share_of_optimum(network: PolicyValueNetwork, solution: Any) -> float:
    """Return the exact value of the policy over that of the best one, undiscounted."""
    rows = []
    with torch.no_grad():
        for state in solution.states():
            hidden = network.hidden_states(torch.tensor([state]))[:, -1]
            rows.append(network.next_logits(hidden)[0, : len(LEGAL_IDS)].double().softmax(-1))
    policy = torch.stack(rows).numpy()
    assert np.allclose(policy.sum(axis=1), 1.0)
    return float(solution.policy_value(policy, 1.0) / solution.optimal_value(1.0))


def trained_share(make_policy: MakePolicy, kind: str) -> float:
    config = config_of(kind)
    network = make_policy(
        config=config.policy, head_std=0.0, std=0.02, bias_std=0.0, hidden_size=64,
        intermediate_size=128, head_dim=16,
    )  # fmt: skip
    agent = PPOAgent(network, config)
    envs = make_envs(config.env, NUM_EPISODES)
    collector = Collector([envs], agent.engine, network, config.rollout, seed=0)
    assert share_of_optimum(network, envs.unwrapped) < 0.04
    for iteration in range(ITERATIONS):
        agent.update(
            collector.collect(iteration), iteration=iteration, progress=iteration / ITERATIONS
        )
    envs.close()
    return share_of_optimum(network, envs.unwrapped)


@pytest.mark.parametrize("kind", RUNS)
def test_an_estimator_without_a_critic_learns(make_policy: MakePolicy, kind: str) -> None:
    assert trained_share(make_policy, kind) > LEARNT


def test_advantages_of_the_wrong_sign_do_not_learn(
    make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = baselines.GROUP_ADVANTAGES["rloo"]
    monkeypatch.setitem(baselines.GROUP_ADVANTAGES, "rloo", lambda scores: -real(scores))
    assert trained_share(make_policy, "rloo") < LEARNT
