"""What REINFORCE, actor-critic and PPO share: a network, its optimiser, and the loop.

An iteration collects a rollout, scores it once under theta_old, computes advantages, and hands it
to the update that trains language models too. Every stream of random numbers is derived from the
seed, its purpose and the number of the update: a run is a function of its configuration.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from pydantic import NonNegativeInt
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from textgym.errors import ConfigError
from textgym.seeding import Purpose, derive_seed, stream
from textgym_agents.agent import WHOLE, AgentConfig, OnMetrics, Part, check_count
from textgym_agents.agent_files import read_config, write_manifest
from textgym_agents.classic.collector import Collector
from textgym_agents.classic.config import PolicyGradientConfig
from textgym_agents.classic.envs import AnyVectorEnv, make_vector_env
from textgym_agents.classic.networks import ActorCriticNetwork
from textgym_agents.classic.normalize import (
    ObservationNormalizer,
    RewardNormalizer,
    RunningStatistics,
)
from textgym_agents.classic.optimizer import FlatAdamW
from textgym_agents.classic.reports import Reports
from textgym_agents.classic.spaces import (
    ActionSpec,
    ObservationSpec,
    action_spec,
    observation_spec,
)
from textgym_agents.core.buffer import Evaluation
from textgym_agents.core.optimizer_state import optimizer_tensors, restore_optimizer
from textgym_agents.core.steps import StepBuffer
from textgym_agents.core.update import explained_variance, ppo_update
from textgym_agents.env_source import EnvSource
from textgym_agents.episode_statistics import EpisodeStatistics

NETWORK_FILE = "network.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
STATISTICS_FILE = "statistics.safetensors"
STATE_FILE = "state.json"
EVALUATION_ROWS = 1 << 14

ConfigT = TypeVar("ConfigT", bound=PolicyGradientConfig)


class AgentState(AgentConfig):
    """What a saved agent knows besides its weights."""

    observation: ObservationSpec
    action: ActionSpec
    seed: NonNegativeInt
    num_steps: NonNegativeInt
    num_updates: NonNegativeInt


class PolicyGradientAgent(ABC, Generic[ConfigT]):
    """A policy and a value function that learn from rollouts of their own.

    The network is made when the first environment tells its spaces.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[PolicyGradientConfig]]

    def __init__(self, config: ConfigT | None = None) -> None:
        self.config: ConfigT = config or self.config_class()  # type: ignore[assignment]  # its own
        self.network: ActorCriticNetwork | None = None
        self.state: AgentState | None = None

    @property
    def num_steps(self) -> int:
        """Environment steps learnt from."""
        return self.state.num_steps if self.state else 0

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
            total_steps: actions taken, summed over the copies. The last rollout of the whole is cut
                to what is left, and left out where that is less than half of it: a few steps teach
                little, in many epochs. Whole episodes are not cut; they may exceed the budget.
            seed: of the copies, of sampling and of initial weights.
            on_metrics: told of progress now and then, and once at the end.
            part: where this call stands in a longer stretch of learning.

        Raises:
            ConfigError: a budget that is no positive integer, or a space the agent cannot handle.
        """
        check_count("total_steps", total_steps)
        envs = make_vector_env(env, self.config.num_envs)
        with closing(envs), one_thread():
            self._prepare(envs, seed)
            self._learn(envs, total_steps, seed, on_metrics, part)

    def _prepare(self, envs: AnyVectorEnv, seed: int) -> None:
        """Make the network for the spaces, or check that it is made for them."""
        reads_ids = self.config.network.kind != "mlp"
        observation = observation_spec(
            envs.single_observation_space, reads_ids=reads_ids, agent=self.name
        )
        action = action_spec(envs.single_action_space, agent=self.name)
        if self.state is None:
            self._build(
                AgentState(
                    observation=observation, action=action, seed=seed, num_steps=0, num_updates=0
                )
            )
        elif (self.state.observation, self.state.action) != (observation, action):
            raise ConfigError(
                f"{self.name} has learnt with {self.state.observation} and {self.state.action}; it "
                f"cannot go on with {observation} and {action}"
            )

    def _build(self, state: AgentState) -> None:
        self.state = state
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(state.seed, Purpose.MODEL))
            self.network = ActorCriticNetwork(
                state.observation,
                state.action,
                self.config.network,
                has_value=self.config.has_value,
            )
        self.optimizer = FlatAdamW(
            self.network, learning_rate=self.config.learning_rate, eps=self.config.adam_eps
        )
        config = self.config
        if config.normalize_observations and state.observation.kind != "vector":
            raise ConfigError(
                f"{self.name}: normalize_observations needs observations that are numbers, not "
                f"{state.observation.kind}"
            )
        size = state.observation.size
        self._observations = ObservationNormalizer(size) if config.normalize_observations else None
        self._rewards = RewardNormalizer(config.gamma) if config.normalize_rewards else None
        self._act_rng = stream(state.seed, Purpose.EVALUATION)

    def _statistics(self) -> dict[str, RunningStatistics]:
        """Return the running statistics that the agent keeps, by name."""
        kept = {"observations": self._observations, "rewards": self._rewards}
        return {name: x.statistics for name, x in kept.items() if x is not None}

    def _learn(
        self,
        envs: AnyVectorEnv,
        total_steps: int,
        seed: int,
        on_metrics: OnMetrics | None,
        part: Part,
    ) -> None:
        assert self.state is not None
        statistics = EpisodeStatistics()
        collector = Collector(
            envs,
            self.state.observation,
            self.state.action,
            statistics,
            normalize_observations=self._observations,
            normalize_rewards=self._rewards,
        )
        collector.reset(derive_seed(seed, Purpose.ROLLOUT_ENV, self.state.num_updates))
        buffer = self._make_buffer(collector)
        done, whole = part.before, part.whole(total_steps)
        end, left_out = done + total_steps, self._rollout_steps() / 2
        reports = Reports(on_metrics, statistics, whole)
        while not done or (done < end and whole - done >= left_out):
            rng = stream(seed, Purpose.SAMPLING, self.state.num_updates)
            self._collect(collector, buffer, rng, whole - done)
            num_steps = buffer.num_played
            metrics = self._update(buffer, seed, done / whole)
            done += num_steps
            self.state = self.state.model_copy(
                update={
                    "num_steps": self.state.num_steps + num_steps,
                    "num_updates": self.state.num_updates + 1,
                }
            )
            reports.add(num_steps, metrics)
        reports.finish()

    @abstractmethod
    def _make_buffer(self, collector: Collector) -> StepBuffer:
        """Return the buffer that holds the rollouts."""

    @abstractmethod
    def _collect(
        self, collector: Collector, buffer: StepBuffer, rng: np.random.Generator, num_left: int
    ) -> None:
        """Fill the buffer for one update; `num_left` steps of the budget are left."""

    @abstractmethod
    def _rollout_steps(self) -> int:
        """Return how many steps a whole rollout has; 1 where it has whole episodes."""

    def _update(self, buffer: StepBuffer, seed: int, progress: float) -> dict[str, float]:
        """Learn from a rollout and return the metrics of the update."""
        assert self.network is not None
        assert self.state is not None
        if not len(buffer):
            return {"ppo/skipped_updates": 1.0}
        config = self.config.update_config(progress)
        buffer.record(*self._score(buffer))
        buffer.compute_returns_and_advantages(config)
        rate = self.config.rate(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        metrics = ppo_update(
            self.network,
            self.optimizer,
            buffer,
            config,
            generator=torch.Generator().manual_seed(
                derive_seed(seed, Purpose.SHUFFLING, self.state.num_updates)
            ),
        )
        if self.config.has_value:
            batch = buffer.actions_only()
            metrics["ppo/explained_variance"] = explained_variance(
                batch.values, batch.returns, None
            )
        return {**metrics, "ppo/learning_rate": rate}

    @torch.no_grad()
    def _score(self, buffer: StepBuffer) -> tuple[Evaluation, torch.Tensor]:
        """Return what theta_old says of the rollout, and V after its last steps."""
        assert self.network is not None
        size = self.config.max_update_rows or EVALUATION_ROWS
        parts = [self.network.evaluate(part) for part in buffer.batch.split(size)]
        old = Evaluation(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
        ends = torch.from_numpy(buffer.end_observations()).split(size)
        return old, torch.cat([self.network.values(part) for part in ends])

    def act(self, observation: Any, *, deterministic: bool = True) -> Any:
        """Return the action for one observation: the most probable one, or a sample."""
        if self.network is None or self.state is None:
            raise ConfigError(f"{self.name} has not learnt anything: call learn() or load() first")
        encoded = self.state.observation.encode(np.asarray(observation)[None])
        if self._observations is not None:
            encoded = self._observations(encoded)
        with torch.inference_mode():
            outputs = self.network.outputs(torch.from_numpy(encoded)).numpy()
        distribution = self.network.distribution
        if deterministic:
            actions = distribution.mode(outputs)
        else:
            actions = distribution.sample(outputs, distribution.draw_noise(self._act_rng, (1,)))
        action = self.state.action.decode(actions)[0]
        return int(action) if self.state.action.kind == "discrete" else action

    def save(self, path: str | Path) -> None:
        """Write configuration, weights, optimiser and statistics into a folder."""
        if self.network is None or self.state is None:
            raise ConfigError(f"{self.name} has not learnt anything: there is nothing to save")
        folder = write_manifest(path, self.name, self.config)
        (folder / STATE_FILE).write_text(json.dumps(self.state.model_dump(), indent=2) + "\n")
        weights = {name: x.clone() for name, x in self.network.state_dict().items()}
        save_file(weights, folder / NETWORK_FILE)
        save_file(optimizer_tensors(self.optimizer), folder / OPTIMIZER_FILE)
        save_file(
            {n: torch.from_numpy(x.state()) for n, x in self._statistics().items()},
            folder / STATISTICS_FILE,
        )

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read an agent that `save` wrote."""
        folder = Path(path)
        config: Any = read_config(folder, cls.name, cls.config_class)
        agent = cls(config)
        try:
            state = AgentState.model_validate(json.loads((folder / STATE_FILE).read_text()))
            agent._build(state)
            assert agent.network is not None
            agent.network.load_state_dict(load_file(folder / NETWORK_FILE))
            restore_optimizer(agent.optimizer, load_file(folder / OPTIMIZER_FILE))
            for name, saved in load_file(folder / STATISTICS_FILE).items():
                agent._statistics()[name].restore(saved.numpy())
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ConfigError(f"{folder} holds no complete '{cls.name}' agent: {error}") from error
        return agent


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: on networks of this size a second one costs more than it brings."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
