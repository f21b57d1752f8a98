"""DQN, A2C and PPO of Stable-Baselines3, TRPO and MaskablePPO of sb3-contrib, as agents.

Theirs are the algorithms, the networks, and the seeding of the global generators. Ours are the
environments, the reports, and the files: weights are safetensors, and nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Self
from zipfile import BadZipFile

import numpy as np
import sb3_contrib
import stable_baselines3
from pydantic import NonNegativeInt
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from textgym.errors import ConfigError
from textgym_agents.agent import (
    ACTION_MASKS,
    WHOLE,
    AgentConfig,
    OnMetrics,
    Part,
    check_count,
)
from textgym_agents.agent_files import read_config, write_manifest
from textgym_agents.classic.agent import (
    NETWORK_FILE,
    OPTIMIZER_FILE,
    STATE_FILE,
    STATISTICS_FILE,
    one_thread,
)
from textgym_agents.classic.envs import make_vector_env, resets_in_same_step
from textgym_agents.classic.reports import Reports
from textgym_agents.classic.sb3.callback import PartIsOver, ReportingCallback, make_logger
from textgym_agents.classic.sb3.config import SB3Config
from textgym_agents.classic.sb3.saved_state import (
    cut_episodes,
    load_replay,
    read_counters,
    read_statistics,
    restore_counters,
    restore_statistics,
    save_replay,
)
from textgym_agents.classic.sb3.vec_env import NativeVecEnv, SpacesOnly
from textgym_agents.classic.space_files import space_from_json, space_to_json
from textgym_agents.core.optimizer_state import optimizer_tensors, restore_optimizer
from textgym_agents.env_source import EnvSource, make_env, spec_of
from textgym_agents.episode_statistics import EpisodeStatistics


class SB3State(AgentConfig):
    """What a saved agent knows besides its weights."""

    observation_space: dict[str, Any]
    action_space: dict[str, Any]
    seed: NonNegativeInt
    counters: dict[str, int | float]
    """See `saved_state.COUNTERS`."""


class SB3Agent:
    """An algorithm of Stable-Baselines3; it is made when the first environment tells its spaces."""

    name: ClassVar[str]
    algorithm: ClassVar[type[BaseAlgorithm]]

    def __init__(self, config: SB3Config | None = None) -> None:
        self.config = config or SB3Config()
        self.model: BaseAlgorithm | None = None
        self.seed = 0
        self._normalize: VecNormalize | None = None

    @property
    def num_steps(self) -> int:
        """Environment steps learnt from."""
        return self.model.num_timesteps if self.model is not None else 0

    def learn(
        self,
        env: EnvSource,
        *,
        total_steps: int,
        seed: int = 0,
        on_metrics: OnMetrics | None = None,
        part: Part = WHOLE,
    ) -> None:
        """Learn for a number of environment steps; a second call goes on where the first ended.

        Args:
            env: an environment, a spec, or an id; copies of it are made and closed.
            total_steps: summed over the copies; algorithms with rollouts finish the last one.
            seed: of the copies and of the global generators, which Stable-Baselines3 seeds.
            on_metrics: told of progress now and then, and once at the end.
            part: where this call stands in a longer stretch of learning.

        Raises:
            ConfigError: a budget that is no positive integer, a space or a setting that the
                algorithm does not know.
        """
        check_count("total_steps", total_steps)
        envs = self._wrap(make_sb3_env(env, self.config))
        with closing(envs), one_thread():
            is_first = self.model is None
            with self._explained():
                model = self._prepare(envs, seed)
                statistics = EpisodeStatistics()
                reports = Reports(on_metrics, statistics, part.whole(total_steps))
                model.set_logger(make_logger(reports))
                callback = ReportingCallback(reports, statistics, total_steps)
            with suppress(PartIsOver):
                model.learn(
                    total_steps + part.after,
                    callback=callback,
                    log_interval=1,
                    reset_num_timesteps=is_first,
                )
            cut_episodes(model)
            model.logger.dump()
            reports.finish()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except ConfigError:
            raise
        except (AssertionError, TypeError, ValueError, NotImplementedError) as error:
            raise ConfigError(f"{self.name}: {error}") from error

    def _wrap(self, envs: VecEnv) -> VecEnv:
        config = self.config
        if not (config.normalize_observations or config.normalize_rewards):
            return envs
        before = self._normalize
        self._normalize = VecNormalize(
            envs,
            norm_obs=config.normalize_observations,
            norm_reward=config.normalize_rewards,
            gamma=config.gamma,
        )
        if before is not None:
            self._normalize.obs_rms, self._normalize.ret_rms = before.obs_rms, before.ret_rms
        return self._normalize

    def _prepare(self, envs: VecEnv, seed: int) -> BaseAlgorithm:
        if self.model is None:
            for space in (envs.observation_space, envs.action_space):
                space_to_json(space)
            make: Any = self.algorithm
            self.seed = seed
            self.model = make(
                self.config.policy, envs, seed=seed, device="cpu", **self.config.arguments()
            )
        else:
            self.model.set_env(envs)
            self.model.set_random_seed(seed)
        return self.model

    def act(self, observation: Any, *, deterministic: bool = True) -> Any:
        """Return the action for one observation: the best known, or one sampled."""
        return self._predict(observation, deterministic=deterministic)

    def _predict(self, observation: Any, **how: Any) -> Any:
        """Return the action of the algorithm, which is told how by its own arguments."""
        if self.model is None:
            raise ConfigError(f"{self.name} has not learnt anything: call learn() or load() first")
        if self._normalize is not None:
            observation = self._normalize.normalize_obs(np.asarray(observation))
        action, _ = self.model.predict(observation, **how)
        return int(action) if np.ndim(action) == 0 else action

    def save(self, path: str | Path) -> None:
        """Write configuration, weights, optimiser, statistics, and the replay buffer of DQN."""
        if self.model is None:
            raise ConfigError(f"{self.name} has not learnt anything: there is nothing to save")
        folder = write_manifest(path, self.name, self.config)
        state = SB3State(
            observation_space=space_to_json(self.model.observation_space),
            action_space=space_to_json(self.model.action_space),
            seed=self.seed,
            counters=read_counters(self.model),
        )
        (folder / STATE_FILE).write_text(json.dumps(state.model_dump(), indent=2) + "\n")
        weights = {n: x.clone().contiguous() for n, x in self.model.policy.state_dict().items()}
        save_file(weights, folder / NETWORK_FILE)
        save_file(optimizer_tensors(self.model.policy.optimizer), folder / OPTIMIZER_FILE)
        save_file(read_statistics(self._normalize), folder / STATISTICS_FILE)
        save_replay(folder, self.model)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read an agent that `save` wrote."""
        folder = Path(path)
        agent = cls(read_config(folder, cls.name, SB3Config))
        try:
            state = SB3State.model_validate(json.loads((folder / STATE_FILE).read_text()))
            agent._rebuild(state)
            assert agent.model is not None
            agent.model.policy.load_state_dict(load_file(folder / NETWORK_FILE))
            restore_optimizer(agent.model.policy.optimizer, load_file(folder / OPTIMIZER_FILE))
            restore_statistics(agent._normalize, load_file(folder / STATISTICS_FILE))
            load_replay(folder, agent.model)
        except (
            OSError, EOFError, ValueError, KeyError, RuntimeError, SafetensorError, BadZipFile,
        ) as error:  # fmt: skip
            raise ConfigError(f"{folder} holds no complete '{cls.name}' agent: {error}") from error
        return agent

    def _rebuild(self, state: SB3State) -> None:
        """Make the algorithm on environments that know their spaces and nothing else."""
        spaces = space_from_json(state.observation_space), space_from_json(state.action_space)
        envs = self._wrap(SpacesOnly(self.config.num_envs, *spaces))
        restore_counters(self._prepare(envs, state.seed), state.counters)


class SB3PPOAgent(SB3Agent):
    """PPO."""

    name: ClassVar[str] = "sb3:ppo"
    algorithm = stable_baselines3.PPO


class SB3A2CAgent(SB3Agent):
    """Advantage actor-critic."""

    name: ClassVar[str] = "sb3:a2c"
    algorithm = stable_baselines3.A2C


class SB3DQNAgent(SB3Agent):
    """Deep Q-learning."""

    name: ClassVar[str] = "sb3:dqn"
    algorithm = stable_baselines3.DQN


class SB3TRPOAgent(SB3Agent):
    """Trust region policy optimisation."""

    name: ClassVar[str] = "sb3:trpo"
    algorithm = sb3_contrib.TRPO


class SB3MaskablePPOAgent(SB3Agent):
    """PPO that never takes an action which the environment's `action_masks` rules out."""

    name: ClassVar[str] = "sb3:maskable_ppo"
    algorithm = sb3_contrib.MaskablePPO
    takes_action_masks: ClassVar[bool] = True

    def _prepare(self, envs: VecEnv, seed: int) -> BaseAlgorithm:
        if not (isinstance(envs.unwrapped, SpacesOnly) or envs.has_attr(ACTION_MASKS)):
            raise ConfigError(
                f"{self.name}: the environment has no method {ACTION_MASKS}(), which says what is "
                "allowed; take sb3:ppo where every action is"
            )
        return super()._prepare(envs, seed)

    def act(
        self,
        observation: Any,
        *,
        deterministic: bool = True,
        action_masks: np.ndarray[Any, Any] | None = None,
    ) -> Any:
        """Return the action for one observation, out of those that a mask (A,) allows."""
        return self._predict(observation, deterministic=deterministic, action_masks=action_masks)


def make_sb3_env(env: EnvSource, config: SB3Config) -> VecEnv:
    """Make the environments of a wrapped agent, as `SB3Config.vec_env` says.

    Raises:
        ConfigError: a native one was asked for and there is none that resets in the same step.
    """
    spec = spec_of(env)
    is_native = config.vec_env != "dummy" and spec.vector_entry_point is not None
    if is_native and not spec.additional_wrappers:
        envs = make_vector_env(spec, config.num_envs)
        if resets_in_same_step(envs) or config.vec_env == "native":
            return NativeVecEnv(envs)
        envs.close()
    elif config.vec_env == "native":
        raise ConfigError(
            f"vec_env is 'native', but '{spec.id}' has no vector environment of its own; take "
            "'auto' or 'dummy'"
        )
    return DummyVecEnv([lambda: Monitor(make_env(spec))] * config.num_envs)
