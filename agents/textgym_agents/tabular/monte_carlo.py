"""Monte Carlo control: values are means of whole returns, and nothing is bootstrapped.

On-policy, epsilon-greedy, first-visit or every-visit; Sutton and Barto 2018, section 5.4. The table
changes at the end of each episode. An episode that a time limit cut has no whole return: what
would have followed is estimated by the largest Q of the last state, the one place where this agent
bootstraps.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any, Literal, Self

import gymnasium
import numpy as np
from pydantic import Field, PositiveInt

from textgym.errors import ConfigError
from textgym_agents.agent import WHOLE, AgentConfig, OnMetrics, Part, check_count
from textgym_agents.env_source import EnvSource, opened
from textgym_agents.episode_statistics import EpisodeStatistics
from textgym_agents.tabular.schedules import AnySchedule, Schedule
from textgym_agents.tabular.states import observation_key
from textgym_agents.tabular.table_agent import TableAgent


class MonteCarloConfig(AgentConfig):
    """Monte Carlo control."""

    gamma: float = Field(default=0.99, ge=0, le=1)
    """Discount per step."""
    visit: Literal["first", "every"] = "first"
    """Whether only the first visit of a state and action in an episode counts, or each."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Step size; None takes the mean of all returns, early and poor ones among them."""
    epsilon: AnySchedule = Schedule(start=1.0, end=0.05, share=0.5)
    """Share of random actions: a number, or a schedule."""
    initial_value: float = Field(default=0.0, allow_inf_nan=False)
    """Q of what was never tried."""
    max_episode_steps: PositiveInt = 10_000
    """Steps after which an episode without an end is cut, as by a time limit."""


Step = tuple[Hashable, list[float], int, float]
"""Key and row of the state, action, reward."""
COUNTS_FILE = "counts.npy"


class MonteCarloAgent(TableAgent[MonteCarloConfig]):
    """Learns from whole episodes."""

    name = "monte_carlo"
    config_class = MonteCarloConfig

    def __init__(self, config: MonteCarloConfig | None = None) -> None:
        super().__init__(config)
        self.counts: dict[Hashable, list[int]] = {}
        """How many returns each value of a row is the mean of."""

    def learn(
        self,
        env: EnvSource,
        *,
        total_steps: int,
        seed: int = 0,
        on_metrics: OnMetrics | None = None,
        part: Part = WHOLE,
    ) -> None:
        """Learn for a number of steps; the last episode is cut where they end."""
        check_count("total_steps", total_steps)
        with opened(env) as game:
            self.open_table(game, seed)
            self._loop(game, total_steps, seed, on_metrics, part)

    def _loop(
        self,
        env: gymnasium.Env[Any, Any],
        total_steps: int,
        seed: int,
        on_metrics: OnMetrics | None,
        part: Part,
    ) -> None:
        statistics, done, next_report = EpisodeStatistics(), 0, 0
        before, whole = part.before, part.whole(total_steps)
        first_seed: int | None = seed
        while done < total_steps:
            epsilon = self.config.epsilon.at((before + done) / whole)
            limit = min(self.config.max_episode_steps, whole - before - done)
            observation, _ = env.reset(seed=first_seed)
            episode, rest, info = self._play(env, observation, epsilon, limit)
            first_seed = None
            done += len(episode)
            self._update(episode, rest)
            statistics.add(sum(step[3] for step in episode), len(episode), info)
            if on_metrics is not None and (done >= next_report or done >= total_steps):
                own = {"monte_carlo/epsilon": epsilon}
                own["monte_carlo/num_states"] = float(len(self.rows))
                on_metrics(done, statistics.take() | own)
                next_report = done + max(1, whole // 50)

    def _play(
        self, env: gymnasium.Env[Any, Any], observation: Any, epsilon: float, limit: int
    ) -> tuple[list[Step], float, dict[str, Any]]:
        """Play one episode; return its steps, what is left after the last one, and its info."""
        episode: list[Step] = []
        info: dict[str, Any] = {}
        while len(episode) < limit:
            row = self.row(observation)
            action = self.explore(row, epsilon)
            key = observation_key(observation)
            observation, reward, terminated, truncated, info = env.step(action)
            episode.append((key, row, action, float(reward)))
            if terminated:
                return episode, 0.0, info
            if truncated:
                break
        return episode, max(self.row(observation)), info

    def _update(self, episode: list[Step], rest: float) -> None:
        """Move Q of each visit that counts towards the return that followed it."""
        config, target = self.config, rest
        firsts: dict[tuple[Hashable, int], int] = {}
        for index, (key, _, action, _) in enumerate(episode):
            firsts.setdefault((key, action), index)
        for index in range(len(episode) - 1, -1, -1):
            key, row, action, reward = episode[index]
            target = reward + config.gamma * target
            if config.visit == "first" and firsts[key, action] != index:
                continue
            counts = self._counts_of(key)
            counts[action] += 1
            row[action] += (config.learning_rate or 1 / counts[action]) * (target - row[action])

    def _counts_of(self, key: Hashable) -> list[int]:
        return self.counts.setdefault(key, [0] * self.num_actions)

    def save(self, path: str | Path) -> None:
        """Write configuration, table and counts into a folder."""
        super().save(path)
        counts = np.array([self._counts_of(key) for key in self.rows], dtype=np.int64)
        np.save(Path(path) / COUNTS_FILE, counts)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read an agent that `save` wrote."""
        agent = super().load(path)
        file = Path(path) / COUNTS_FILE
        try:
            counts = np.load(file, allow_pickle=False).tolist()
            agent.counts = dict(zip(agent.rows, counts, strict=True))
        except (OSError, EOFError, ValueError) as error:
            raise ConfigError(f"{file} does not hold the counts of the table: {error}") from None
        return agent
