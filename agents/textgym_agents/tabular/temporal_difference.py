"""Sarsa, expected Sarsa and Q-learning: one loop, three estimates of what comes next.

    Q(s, a) <- Q(s, a) + alpha (r + gamma * next - Q(s, a))

`next` is Q(s', a') of the action that is then taken (Sarsa: Rummery and Niranjan 1994), its mean
over the exploring policy (expected Sarsa: van Seijen et al. 2009), or max_a Q(s', a) (Q-learning:
Watkins 1989). Sutton and Barto 2018, sections 6.4 to 6.6. It is 0 where the episode terminated;
where a time limit truncated it, the next state has its value as ever.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import gymnasium
from pydantic import Field

from textgym_agents.agent import WHOLE, AgentConfig, OnMetrics, Part, check_count
from textgym_agents.env_source import EnvSource, opened
from textgym_agents.episode_statistics import EpisodeStatistics
from textgym_agents.tabular.schedules import AnySchedule, Schedule, constant
from textgym_agents.tabular.table_agent import TableAgent

TDConfigT = TypeVar("TDConfigT", bound="TDConfig")


class TDConfig(AgentConfig):
    """What the temporal-difference agents have in common."""

    gamma: float = Field(default=0.99, ge=0, le=1)
    """Discount per step."""
    learning_rate: AnySchedule = constant(0.1)
    """Step size alpha: a number, or a schedule. 1.0 suits a game without chance."""
    epsilon: AnySchedule = Schedule(start=1.0, end=0.05, share=0.5)
    """Share of random actions: a number, or a schedule."""
    initial_value: float = Field(default=0.0, allow_inf_nan=False)
    """Q of what was never tried; above every return, it makes the agent try everything."""


class SarsaConfig(TDConfig):
    """Sarsa."""


class ExpectedSarsaConfig(TDConfig):
    """Expected Sarsa."""


class QLearningConfig(TDConfig):
    """Q-learning."""


class TDAgent(TableAgent[TDConfigT]):
    """The loop; a subclass says what the next state is worth."""

    acts_before_update: ClassVar[bool] = False
    """Whether the next action is chosen before the update that needs it."""

    def next_value(self, row: list[float], action: int, epsilon: float) -> float:
        """Return the estimate of what follows a state.

        Args:
            row: Q of the next state.
            action: the next action, where it is chosen before the update.
            epsilon: share of random actions.
        """
        raise NotImplementedError

    def learn(
        self,
        env: EnvSource,
        *,
        total_steps: int,
        seed: int = 0,
        on_metrics: OnMetrics | None = None,
        part: Part = WHOLE,
    ) -> None:
        """Learn for a number of steps; see `textgym_agents.agent.Agent`."""
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
        config, statistics = self.config, EpisodeStatistics()
        before, whole = part.before, part.whole(total_steps)
        report_every = max(1, min(whole // 50, 10_000))
        epsilon, alpha = config.epsilon.at(before / whole), config.learning_rate.at(before / whole)
        row = self.row(env.reset(seed=seed)[0])
        action, total, length, error_sum = self.explore(row, epsilon), 0.0, 0, 0.0
        for step in range(1, total_steps + 1):
            observation, reward, terminated, truncated, info = env.step(action)
            total, length = total + float(reward), length + 1
            next_row, next_action, target = row, 0, float(reward)
            if not terminated:
                next_row = self.row(observation)
                if self.acts_before_update:
                    next_action = self.explore(next_row, epsilon)
                target += config.gamma * self.next_value(next_row, next_action, epsilon)
            error = target - row[action]
            row[action] += alpha * error
            error_sum += abs(error)
            if terminated or truncated:
                statistics.add(total, length, info)
                next_row, total, length = self.row(env.reset()[0]), 0.0, 0
            if not self.acts_before_update or length == 0:
                next_action = self.explore(next_row, epsilon)
            row, action = next_row, next_action
            progress = (before + step) / whole
            epsilon, alpha = config.epsilon.at(progress), config.learning_rate.at(progress)
            if on_metrics is not None and (step % report_every == 0 or step == total_steps):
                num_steps = step % report_every or report_every
                own = {"td/error": error_sum / num_steps, "td/epsilon": epsilon}
                own |= {"td/learning_rate": alpha, "td/num_states": float(len(self.rows))}
                on_metrics(step, statistics.take() | own)
                error_sum = 0.0


class SarsaAgent(TDAgent[SarsaConfig]):
    """Learns the value of the policy it follows, exploration included."""

    name = "sarsa"
    config_class = SarsaConfig
    acts_before_update = True

    def next_value(self, row: list[float], action: int, epsilon: float) -> float:
        """Return Q of the action that is taken next."""
        return row[action]


class ExpectedSarsaAgent(TDAgent[ExpectedSarsaConfig]):
    """Sarsa with the mean over its next action in place of a sample of it."""

    name = "expected_sarsa"
    config_class = ExpectedSarsaConfig

    def next_value(self, row: list[float], action: int, epsilon: float) -> float:
        """Return the mean of Q under the epsilon-greedy policy."""
        return epsilon * sum(row) / len(row) + (1.0 - epsilon) * max(row)


class QLearningAgent(TDAgent[QLearningConfig]):
    """Learns the value of the best policy while it follows another."""

    name = "q_learning"
    config_class = QLearningConfig

    def next_value(self, row: list[float], action: int, epsilon: float) -> float:
        """Return the largest Q."""
        return max(row)
