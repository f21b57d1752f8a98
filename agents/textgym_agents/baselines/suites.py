"""What `textgym baselines` runs: tasks, the agents that play each, their settings and budgets.

Of ours and of Stable-Baselines3 the same PPO has the same numbers, so that a difference in the
table is one of the implementations. Those for the control tasks are the ones of RL Baselines3 Zoo
(https://github.com/DLR-RM/rl-baselines3-zoo) without state-dependent exploration.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PositiveInt

from textgym.errors import ConfigError, UnknownNameError, did_you_mean
from textgym_agents.env_source import SUCCESSORS

Settings = dict[str, JsonValue]
ALL = "all"


class Task(BaseModel):
    """One environment, its budget, and the settings of the agents that play it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    env: str
    """Gymnasium id; it names the task."""
    suite: str
    """The suite that it is part of."""
    budget: PositiveInt
    """Environment steps of one run."""
    agents: dict[str, Settings]
    """Settings by agent."""
    env_kwargs: dict[str, JsonValue] = Field(default_factory=dict)
    """Keyword arguments of the environment."""
    evaluation_episodes: PositiveInt = 50
    """Episodes of each evaluation."""
    best: float | None = None
    """The return that counts as 1 in the aggregate, for an environment that tells neither its
    optimum (`exact_solution()`) nor a `reward_threshold`."""


def _ppo(
    *,
    num_envs: int,
    num_steps: int,
    batch_size: int,
    update_epochs: int,
    learning_rate: float,
    gamma: float,
    gae_lambda: float,
    entropy_coef: float = 0.0,
    linear_rate: bool = False,
    linear_clip: bool = False,
    normalize: bool = False,
    network: Settings | None = None,
) -> dict[str, Settings]:
    """Return the same PPO for ours and for Stable-Baselines3, which has no other `network`."""
    shared: Settings = {
        "num_envs": num_envs,
        "normalize_observations": normalize,
        "normalize_rewards": normalize,
    }
    ours: Settings = {
        "num_steps": num_steps,
        "batch_size": batch_size,
        "update_epochs": update_epochs,
        "learning_rate": learning_rate,
        "learning_rate_schedule": "linear" if linear_rate else "constant",
        "clip_schedule": "linear" if linear_clip else "constant",
        "gamma": gamma,
        "gae_lambda": gae_lambda,
        "entropy_coef": entropy_coef,
        **({} if network is None else {"network": network}),
    }
    theirs: Settings = {
        "n_steps": num_steps,
        "batch_size": batch_size,
        "n_epochs": update_epochs,
        "learning_rate": f"linear:{learning_rate}" if linear_rate else learning_rate,
        "clip_range": "linear:0.2" if linear_clip else 0.2,
        "gamma": gamma,
        "gae_lambda": gae_lambda,
        "ent_coef": entropy_coef,
    }
    return {"ppo": shared | ours, "sb3:ppo": shared | {"settings": theirs}}


_TABULAR: dict[str, Settings] = {
    "monte_carlo": {},
    "sarsa": {},
    "expected_sarsa": {},
    "q_learning": {},
}


def _text_ppo(*, linear_rate: bool = False) -> dict[str, Settings]:
    return _ppo(
        num_envs=256, num_steps=16, batch_size=1024, update_epochs=4, learning_rate=1e-3,
        gamma=1.0, gae_lambda=0.95, entropy_coef=0.1, linear_rate=linear_rate,
        network={"kind": "embedding", "hidden": [128, 128]},
    )  # fmt: skip


TASKS = (
    Task(
        env="CartPole-v1",
        suite="classic",
        budget=100_000,
        agents={
            "random": {},
            "reinforce": {},
            "actor_critic": {},
            **_ppo(
                num_envs=8, num_steps=32, batch_size=256, update_epochs=20, learning_rate=1e-3,
                gamma=0.98, gae_lambda=0.8, linear_rate=True, linear_clip=True,
            ),
            "sb3:a2c": {"num_envs": 8},
            "sb3:trpo": {"num_envs": 2},
            "sb3:dqn": {
                "settings": {
                    "learning_rate": 2.3e-3, "batch_size": 64, "buffer_size": 100_000,
                    "learning_starts": 1000, "target_update_interval": 10, "train_freq": 256,
                    "gradient_steps": 128, "exploration_fraction": 0.16,
                    "exploration_final_eps": 0.04, "policy_kwargs": {"net_arch": [256, 256]},
                }
            },
        },
    ),
    Task(
        env="Acrobot-v1",
        suite="classic",
        budget=500_000,
        agents={
            "random": {},
            **_ppo(
                num_envs=16, num_steps=256, batch_size=64, update_epochs=4, learning_rate=3e-4,
                gamma=0.99, gae_lambda=0.94, normalize=True,
            ),
        },
        evaluation_episodes=300,  # over 50 the standard error would be 2
    ),
    Task(
        env="Pendulum-v1",
        suite="classic",
        budget=100_000,
        agents={
            "random": {},
            **_ppo(
                num_envs=4, num_steps=1024, batch_size=64, update_epochs=10, learning_rate=1e-3,
                gamma=0.9, gae_lambda=0.95,
            ),
        },
        best=-150.0,
    ),
    Task(
        env="FrozenLake-v1",
        suite="classic",
        budget=100_000,
        agents={"random": {}, "value_iteration": {}, **_TABULAR},
        evaluation_episodes=1000,
    ),
    Task(
        env="Taxi-v4",
        suite="classic",
        budget=200_000,
        agents={"random": {}, "value_iteration": {}, **_TABULAR},
        evaluation_episodes=200,
    ),
    Task(
        env="textgym:ToyTextSmall-v0",
        suite="text",
        budget=200_000,
        agents={
            "random": {}, "value_iteration": {}, **_TABULAR, **_text_ppo(), "lm:ppo": {},
            "sb3:dqn": {}, "sb3:a2c": {"num_envs": 16},
        },
        evaluation_episodes=500,
    ),
    Task(
        env="textgym:ToyTwoTurn-v0",
        suite="text",
        budget=100_000,
        agents={"random": {}, "value_iteration": {}, **_TABULAR, **_text_ppo(), "lm:ppo": {}},
        evaluation_episodes=500,
    ),
    Task(
        env="textgym:ToyText-v0",
        suite="text",
        budget=2_000_000,
        agents={
            "random": {}, "value_iteration": {}, "q_learning": {}, **_text_ppo(linear_rate=True),
            "sb3:dqn": {
                "num_envs": 64,
                "settings": {
                    "learning_rate": 1e-3, "gamma": 1.0, "batch_size": 256, "buffer_size": 200_000,
                    "learning_starts": 10_000, "train_freq": 1, "gradient_steps": 4,
                    "target_update_interval": 6_400, "exploration_fraction": 0.5,
                    "exploration_final_eps": 0.02, "policy_kwargs": {"net_arch": [128, 128]},
                },
            },
            "lm:ppo": {},
        },
        evaluation_episodes=500,
    ),
)  # fmt: skip
SUITES = tuple(dict.fromkeys(task.suite for task in TASKS))


def tasks_of(suite: str, *, envs: Sequence[str] = ()) -> list[Task]:
    """Return the tasks of a suite, or of all, or those of them that are named.

    Raises:
        UnknownNameError: there is no suite, or no task in it, of such a name.
    """
    if suite not in (*SUITES, ALL):
        raise UnknownNameError(
            f"no suite named '{suite}'.{did_you_mean(suite, [*SUITES, ALL])} There are: "
            f"{', '.join(SUITES)}, {ALL}."
        )
    tasks = [task for task in TASKS if suite in (task.suite, ALL)]
    known = {task_name(task.env): task for task in tasks}
    for name in envs:
        if task_name(name) not in known:
            raise UnknownNameError(
                f"the suite '{suite}' has no task '{name}'.{did_you_mean(name, known)} There are: "
                f"{', '.join(known)}."
            )
    return [known[task_name(name)] for name in envs] if envs else tasks


def task_name(env: str) -> str:
    """Return what a task is called in tables and folders: its id without the module."""
    return env.rpartition(":")[2]


def task_of(env: str) -> Task | None:
    """Return the task that a suite has for an environment; None if it has none."""
    name = SUCCESSORS.get(task_name(env), task_name(env))
    return next((task for task in TASKS if task_name(task.env) == name), None)


def settings_for(agent: str, env: str) -> Settings:
    """Return the settings that a suite has for an agent on an environment; none if it has none."""
    task = task_of(env)
    return task.agents.get(agent, {}) if task is not None else {}


def chosen_agents(tasks: Sequence[Task], names: Sequence[str]) -> list[str]:
    """Return the agents to run, in the order of the suites.

    Raises:
        ConfigError: a name that none of the tasks has settings for.
    """
    known = list(dict.fromkeys(agent for task in tasks for agent in task.agents))
    for name in names:
        if name not in known:
            raise ConfigError(
                f"--agents: no task here is for '{name}'.{did_you_mean(name, known)} There are: "
                f"{', '.join(known)}."
            )
    return [name for name in known if name in names] if names else known
