"""PPO on a text MDP whose optimum is known: the trainer as it is, judged by enumeration.

The first turn must forgo a sure 0.05 for an answer of the environment, which the second turn must
listen to; the optimum at gamma 0.99 is 0.86625, and a uniform policy is worth 0.0248.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from textgym.seeding import Purpose, derive_seed
from textgym_agents.core.config import KLStopConfig, OptimizerConfig, PPOConfig, ValueConfig
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.config import EnvConfig, PolicyConfig, RolloutConfig, TrainConfig
from textgym_agents.lm.envs import make_envs
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.rollout import collect
from textgym_agents.lm.transcript import Rollout, Transcript

MakePolicy = Callable[..., PolicyValueNetwork]
GAMMA = 0.99
ITERATIONS = 150
LEGAL_IDS = tuple(range(7))
CONFIG = TrainConfig(
    env=EnvConfig(id="textgym:ToyTwoTurn-v0"),
    policy=PolicyConfig(legal_ids=LEGAL_IDS),
    rollout=RolloutConfig(num_episodes=128, num_envs=128, max_new_tokens=1, max_length=8),
    ppo=PPOConfig(
        batch_size=64,
        update_epochs=4,
        gamma=GAMMA,
        gae_lambda=0.95,
        value_lambda=0.95,
        entropy_coef=0.05,  # with 0.01 some seeds lose the rare answer and stay at 0.95
        value=ValueConfig(coef=0.5, half=True),
        kl_stop=KLStopConfig(target=0.01, statistic="seed", compare="abs", min_tokens=1),
        optimizer=OptimizerConfig(
            learning_rate=1e-3, schedule="linear", eps=1e-5, max_grad_norm=0.5
        ),
    ),
)


def action_probabilities(
    network: PolicyValueNetwork, states: list[tuple[int, ...]]
) -> NDArray[np.float64]:
    """Return the probabilities (9, 7) of the actions in each state."""
    rows = []
    with torch.no_grad():
        for state in states:
            hidden = network.hidden_states(torch.tensor([state]))[:, -1]
            rows.append(network.next_logits(hidden)[0, : len(LEGAL_IDS)].double().softmax(-1))
    return torch.stack(rows).numpy()


def share_of_optimum(make_policy: MakePolicy, seed: int) -> float:
    """Train for all iterations and return the policy's value over the optimal one."""
    network = make_policy(
        config=CONFIG.policy, seed=seed, head_std=0.0, std=0.02, bias_std=0.0, hidden_size=64,
        intermediate_size=128, head_dim=16,
    )  # fmt: skip
    agent = PPOAgent(network, CONFIG.model_copy(update={"seed": seed}))
    envs = make_envs(CONFIG.env, CONFIG.rollout.num_envs)
    for iteration in range(ITERATIONS):
        sampling = derive_seed(seed, Purpose.SAMPLING, iteration)
        rollout = collect(
            envs,
            agent.engine,
            network,
            CONFIG.rollout,
            seed=derive_seed(seed, Purpose.ROLLOUT_ENV, iteration, 0),
            generator=torch.Generator().manual_seed(sampling),
        )
        agent.update(rollout, iteration=iteration, progress=iteration / ITERATIONS)
    solution: Any = envs.unwrapped
    policy = action_probabilities(network, solution.states())
    envs.close()
    share: float = solution.policy_value(policy, GAMMA) / solution.optimal_value(GAMMA)
    return share


@pytest.mark.slow
def test_the_trainer_solves_it(make_policy: MakePolicy) -> None:
    """About one run in eight loses one prompt's rare answer, which is worth 0.048 of the optimum.

    Which one it is hangs on the last bits of a matrix product, and so on the processor.
    """
    shares = sorted(share_of_optimum(make_policy, seed) for seed in range(3))
    assert shares[0] >= 0.94
    assert shares[1] >= 0.97


@pytest.mark.slow
def test_bootstrapping_past_the_end_is_caught(
    make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Rollout.scored

    def ends_forgotten(rollout: Rollout) -> list[Transcript]:
        for transcript in rollout.transcripts:
            transcript.terminated, transcript.truncated = False, True
        return original(rollout)

    monkeypatch.setattr(Rollout, "scored", ends_forgotten)
    assert share_of_optimum(make_policy, 0) < 0.97


def test_the_measure_knows_the_optimum_and_a_uniform_policy() -> None:
    envs: Any = make_envs(CONFIG.env, 1).unwrapped
    assert envs.optimal_value(GAMMA) == pytest.approx(0.86625)
    uniform = np.full((9, 7), 1 / 7)
    assert envs.policy_value(uniform, GAMMA) == pytest.approx(0.0248, abs=1e-4)


def test_an_untrained_policy_is_far_from_the_optimum(make_policy: MakePolicy) -> None:
    envs: Any = make_envs(CONFIG.env, 1).unwrapped
    network = make_policy(config=CONFIG.policy, std=0.02)
    policy = action_probabilities(network, envs.states())
    assert envs.policy_value(policy, GAMMA) == pytest.approx(0.0248, abs=0.01)
