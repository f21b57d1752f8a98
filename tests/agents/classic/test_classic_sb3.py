"""Stable-Baselines3 behind our face: the adapter equals `DummyVecEnv`, the agents keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from textgym.errors import ConfigError
from textgym_agents.agent import Agent, evaluate
from textgym_agents.agent_files import agent_class, load_agent
from textgym_agents.classic.envs import make_vector_env
from textgym_agents.env_source import make_env, spec_of

pytest.importorskip("stable_baselines3")
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from textgym_agents.classic.sb3.config import SB3Config
from textgym_agents.classic.sb3.vec_env import NativeVecEnv

DOOR = "ClassicDoor-v0"
NAMES = ("sb3:ppo", "sb3:a2c", "sb3:dqn", "sb3:trpo", "sb3:maskable_ppo")
SETTINGS: dict[str, Any] = {
    "sb3:ppo": {"n_steps": 32, "learning_rate": "linear:0.001"},
    "sb3:dqn": {"learning_starts": 50, "buffer_size": 500},
    "sb3:trpo": {"n_steps": 32, "policy_kwargs": {"activation_fn": "relu", "net_arch": [16]}},
    "sb3:maskable_ppo": {"n_steps": 32},
}


def both(spec: EnvSpec, num_envs: int) -> tuple[NativeVecEnv, DummyVecEnv]:
    native = NativeVecEnv(make_vector_env(spec, num_envs))
    return native, DummyVecEnv([lambda: Monitor(make_env(spec))] * num_envs)


@pytest.mark.parametrize("cutoff", ["terminal", "truncate"])
def test_the_adapter_equals_dummy_vec_env(sums: EnvSpec, cutoff: str) -> None:
    ours, theirs = both(spec_of(sums, length_cutoff=cutoff), 6)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    rng = np.random.default_rng(0)
    for each in (ours, theirs):
        each.seed(7)
    assert (ours.reset() == theirs.reset()).all()
    assert ours.reset_infos == theirs.reset_infos
    num_cut = 0
    for _ in range(60):
        actions = rng.integers(ours.action_space.n, size=6)  # type: ignore[attr-defined]  # Discrete
        observations, rewards, dones, infos = ours.step(actions)
        expected = theirs.step(actions)
        assert (observations == expected[0]).all()
        assert (rewards == expected[1]).all()
        assert rewards.dtype == np.float32
        assert (dones == expected[2]).all()
        for done, info, other in zip(dones, infos, expected[3], strict=True):
            if not done:
                assert info == {}
                continue
            assert (info["terminal_observation"] == other["terminal_observation"]).all()
            assert info["TimeLimit.truncated"] == other["TimeLimit.truncated"]
            assert info["is_success"] == other["is_success"]
            assert info["status"] == other["status"]
            for key in ("r", "l"):
                assert info["episode"][key] == other["episode"][key]
            num_cut += info["TimeLimit.truncated"]
    assert (num_cut > 0) == (cutoff == "truncate")


def test_the_adapter_answers_what_sb3_asks(sums: EnvSpec) -> None:
    ours, theirs = both(sums, 3)
    assert ours.has_attr("action_masks")
    assert not ours.has_attr("no_such_attribute")
    masks, expected = ours.env_method("action_masks"), theirs.env_method("action_masks")
    assert (np.stack(masks) == np.stack(expected)).all()
    assert len(ours.env_method("action_masks", indices=[0, 2])) == 2
    assert ours.get_attr("render_mode") == [None] * 3
    assert ours.get_attr("num_prompts", indices=1) == [25]
    assert ours.env_is_wrapped(Monitor) == [True] * 3
    ours.set_attr("note", 5)
    assert ours.get_attr("note") == [5] * 3
    with pytest.raises(ConfigError, match="shared by all rows"):
        ours.set_attr("note", 6, indices=[0])
    with pytest.raises(AttributeError, match="no method 'fly'"):
        ours.env_method("fly")
    ours.close()


def test_the_adapter_wants_environments_that_reset_in_the_same_step() -> None:
    with pytest.raises(ConfigError, match="same_step"):
        NativeVecEnv(make_vector_env("CartPole-v1", 2))


@pytest.mark.parametrize("name", NAMES)
def test_a_wrapped_agent_learns_and_is_the_same_after_a_file(
    name: str, sums: EnvSpec, tmp_path: Path
) -> None:
    make: Any = agent_class(name)
    agent = make(SB3Config(num_envs=4, settings=SETTINGS.get(name, {})))
    assert isinstance(agent, Agent)
    log: list[tuple[int, dict[str, float]]] = []
    agent.learn(sums, total_steps=256, on_metrics=lambda n, m: log.append((n, dict(m))))
    steps, metrics = log[-1]
    assert steps == agent.num_steps >= 256
    assert {"rollout/reward", "rollout/length", "rollout/success"} <= set(metrics)
    assert any(key.startswith("train/") for _, row in log for key in row)
    agent.save(tmp_path)
    loaded: Any = load_agent(tmp_path)
    assert type(loaded) is type(agent)
    assert loaded.num_steps == agent.num_steps
    results = [evaluate(each, sums, num_episodes=20, seed=1) for each in (agent, loaded)]
    assert (results[0].returns == results[1].returns).all()
    assert (results[0].lengths == results[1].lengths).all()
    loaded.learn(sums, total_steps=128)
    assert 128 <= loaded.num_steps - agent.num_steps < 256  # whole rollouts
    assert not any(path.suffix in (".zip", ".pkl", ".pth") for path in tmp_path.rglob("*"))


def test_normalised_environments_keep_their_statistics(tmp_path: Path) -> None:
    make: Any = agent_class("sb3:ppo")
    config = SB3Config(
        settings={"n_steps": 64}, normalize_observations=True, normalize_rewards=True
    )
    agent = make(config)
    agent.learn("Pendulum-v1", total_steps=256)
    agent.save(tmp_path)
    loaded: Any = load_agent(tmp_path)
    observation = np.array([1.0, 0.2, 3.0], np.float32)
    assert (loaded.act(observation) == agent.act(observation)).all()
    assert agent.act(observation).shape == (1,)


def test_native_and_dummy_environments_are_chosen_as_asked(sums: EnvSpec) -> None:
    make: Any = agent_class("sb3:a2c")
    chosen = {}
    for kind in ("auto", "native", "dummy"):
        agent = make(SB3Config(vec_env=kind))  # type: ignore[arg-type]  # one of the three
        agent.learn(sums, total_steps=10)
        chosen[kind] = type(agent.model.env)
    assert chosen == {"auto": NativeVecEnv, "native": NativeVecEnv, "dummy": DummyVecEnv}
    agent = make(SB3Config())
    agent.learn("CartPole-v1", total_steps=10)
    assert type(agent.model.env) is DummyVecEnv
    with pytest.raises(ConfigError, match="no vector environment of its own"):
        make(SB3Config(vec_env="native")).learn("Pendulum-v1", total_steps=10)


@pytest.mark.parametrize(
    ("name", "config", "env", "message"),
    [
        ("sb3:dqn", {}, "Pendulum-v1", "sb3:dqn: .*Discrete"),
        ("sb3:ppo", {"settings": {"lerning_rate": 1}}, "CartPole-v1", "lerning_rate"),
        ("sb3:ppo", {"settings": {"learning_rate": "linear:x"}}, "CartPole-v1", "linear:0.001"),
        (
            "sb3:ppo",
            {"settings": {"policy_kwargs": {"activation_fn": "tanj"}}},
            "CartPole-v1",
            "Did you mean 'tanh'",
        ),
        ("sb3:ppo", {"policy": "NoPolicy"}, "CartPole-v1", "sb3:ppo: .*NoPolicy"),
    ],
)
def test_what_the_algorithm_refuses_is_one_clear_error(
    name: str, config: dict[str, Any], env: str, message: str
) -> None:
    make: Any = agent_class(name)
    with pytest.raises(ConfigError, match=message):
        make(SB3Config(**config)).learn(env, total_steps=10)


def test_budgets_and_text_spaces_are_refused() -> None:
    make: Any = agent_class("sb3:ppo")
    with pytest.raises(ConfigError, match="total_steps is -5"):
        make().learn("CartPole-v1", total_steps=-5)
    with pytest.raises(ConfigError, match="action_mode='token'"):
        make().learn(spec_of("textgym:TextGen-v0", action_mode="text"), total_steps=5)
    with pytest.raises(ConfigError, match="has not learnt"):
        make().act(np.zeros(4))


def test_masked_actions_are_never_taken(sums: EnvSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    vector: Any = gymnasium.make_vec("TextGen-v0", 1, **sums.kwargs).unwrapped
    mask = np.zeros((4, vector.single_action_space.n), bool)
    mask[:, [2, 12]] = True
    monkeypatch.setattr(type(vector), "action_masks", lambda self: mask)
    make: Any = agent_class("sb3:maskable_ppo")
    agent = make(SB3Config(num_envs=4, settings={"n_steps": 32}))
    taken: set[int] = set()
    step = NativeVecEnv.step_async
    monkeypatch.setattr(
        NativeVecEnv, "step_async", lambda env, a: (taken.update(a.tolist()), step(env, a))[1]
    )
    agent.learn(sums, total_steps=256)
    assert taken == {2, 12}
    observation, _ = make_env(sums).reset(seed=0)
    only = np.zeros(mask.shape[1], bool)
    only[5] = True
    assert agent.act(observation, deterministic=False, action_masks=only) == 5


def test_masks_are_passed_at_every_step_of_an_evaluation() -> None:
    """An agent that is told which door is open never tries another; one that is not soon does."""
    make: Any = agent_class("sb3:maskable_ppo")
    told = make(SB3Config(settings={"n_steps": 24, "batch_size": 24}))
    told.learn(DOOR, total_steps=48)
    for deterministic in (True, False):
        result = evaluate(told, DOOR, num_episodes=20, seed=3, deterministic=deterministic)
        assert result.returns.tolist() == [6.0] * 20
    limited = gymnasium.wrappers.TimeLimit(make_env(DOOR), 4)  # a wrapper passes the method on
    assert evaluate(told, limited, num_episodes=3, seed=3).mean == 4.0
    untold = agent_class("random")()
    untold.learn(DOOR, total_steps=1)
    with pytest.raises(ValueError, match="is closed"):
        evaluate(untold, DOOR, num_episodes=20, seed=3)


def test_masks_that_nobody_offers_are_one_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"no method action_masks\(\).*take sb3:ppo"):
        agent_class("sb3:maskable_ppo")().learn("CartPole-v1", total_steps=10)
