"""The one face of every agent that learns in a Gymnasium environment, from a table to a network.

An agent is made from a frozen configuration, learns in an environment that it is given, and acts,
saves and loads. What it measures while it learns goes to a callback; run directories, bars and
plots are the business of whoever passes one. This module loads neither torch nor scipy.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import gymnasium
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from textgym.errors import ConfigError
from textgym_agents.env_source import EnvSource, opened

ACTION_MASKS = "action_masks"
"""The method of an environment, scalar or vector, that returns which actions are allowed now."""
TAKES_MASKS = "takes_action_masks"
"""The attribute of an agent whose `act` has an argument `action_masks`."""

OnMetrics = Callable[[int, Mapping[str, float]], None]
"""Called with the environment steps done so far and the metrics since the last call.

It may raise: `learn` then ends, and the agent is as its last update left it. Keys that all agents
share: `rollout/reward` (undiscounted return of an episode), `rollout/length`, `rollout/success`,
each a mean over the episodes that ended since the last call and left out where there is none, and
`rollout/num_episodes`; see `textgym_agents.episode_statistics`. Others are `name-of-agent/metric`.
"""


class AgentConfig(BaseModel):
    """Base of the agents' configurations: frozen, no unknown fields, documented field by field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True)
class Part:
    """Which part of a longer stretch of learning one call of `learn` is.

    The whole has `before + total_steps + after` steps; schedules run over the whole. A rollout or
    an episode is not cut where a part ends but only where the whole ends, so a part may take some
    steps more than it was given.
    """

    before: int = 0
    """Steps of the whole that earlier calls took."""
    after: int = 0
    """Steps of the whole that are left to later calls."""

    def whole(self, total_steps: int) -> int:
        """Return the steps of the whole, from those of the part."""
        return self.before + total_steps + self.after


WHOLE = Part()


@runtime_checkable
class Agent(Protocol):
    """What every agent can do."""

    @property
    def config(self) -> AgentConfig:
        """The configuration that the agent was made from."""
        ...

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

        What a call does is a function of its arguments and of what `save` writes: environments
        begin new episodes and every generator is derived from `seed`. So a loaded agent goes on
        exactly as the saved one would have.

        Args:
            env: an environment, a spec, or an id, which is then made and closed.
            total_steps: calls of `step`, summed over parallel environments.
            seed: of the environment, of exploration and of initial weights.
            on_metrics: told of progress now and then, and once at the end.
            part: where this call stands in a longer stretch of learning.

        Raises:
            ConfigError: a budget that is no positive integer, or a space the agent cannot handle.
        """
        ...

    def act(self, observation: Any, *, deterministic: bool = True) -> Any:
        """Return the action for one observation: the best known, or one sampled as in learning."""
        ...

    def save(self, path: str | Path) -> None:
        """Write the agent into a folder."""
        ...

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read an agent that `save` wrote."""
        ...


@runtime_checkable
class ActsInBatches(Protocol):
    """What an agent can do whose actions are much cheaper together."""

    def act_batch(self, observations: NDArray[Any]) -> NDArray[Any]:
        """Return the best known actions of several observations, one per row."""
        ...


@dataclass(frozen=True)
class EvaluationResult:
    """Episodes played without learning."""

    returns: NDArray[np.float64]
    """Undiscounted return of each scored episode."""
    lengths: NDArray[np.int64]
    """Steps of each scored episode."""
    successes: NDArray[np.float64]
    """1.0 or 0.0 for each scored episode whose last info says `is_success`; may be shorter."""
    num_unscored: int = 0
    """Episodes left out because their reward failed or abstained: they are not worth 0.0."""

    @property
    def mean(self) -> float:
        """Mean return; nan without episodes."""
        return float(self.returns.mean()) if self.returns.size else float("nan")

    @property
    def std(self) -> float:
        """Standard deviation of the returns over episodes, with n - 1; nan below two episodes."""
        return float(self.returns.std(ddof=1)) if self.returns.size > 1 else float("nan")

    def metrics(self) -> dict[str, float]:
        """Return the numbers that a run directory keeps; nan where something is not known."""
        nan = float("nan")
        return {
            "evaluation/reward": self.mean,
            "evaluation/reward_std": self.std,
            "evaluation/length": float(self.lengths.mean()) if self.lengths.size else nan,
            "evaluation/success": float(self.successes.mean()) if self.successes.size else nan,
            "evaluation/num_episodes": float(self.returns.size),
            "evaluation/num_unscored": float(self.num_unscored),
        }


def evaluate(
    agent: Agent,
    env: EnvSource,
    *,
    num_episodes: int,
    seed: int,
    deterministic: bool = True,
    max_episode_steps: int = 10_000,
) -> EvaluationResult:
    """Play whole episodes and return what came of them.

    Args:
        agent: acts; it does not learn. One with a true attribute `takes_action_masks` is told what
            the method `action_masks` of the environment, or of a wrapper, returns.
        env: an environment, a spec, or an id.
        num_episodes: how many.
        seed: of the first reset; the following episodes go on in the environment's own stream.
        deterministic: whether the agent takes its best action or samples.
        max_episode_steps: cut an episode here; a poor policy may never end one that has no limit.
    """
    check_count("num_episodes", num_episodes)
    check_count("max_episode_steps", max_episode_steps)
    returns: list[float] = []
    lengths: list[int] = []
    successes: list[float] = []
    with opened(env) as game:
        act = _policy_of(agent, game, deterministic)
        for episode in range(num_episodes):
            observation, _ = game.reset(seed=seed if episode == 0 else None)
            total, length, is_over = 0.0, 0, False
            info: dict[str, Any] = {}
            while not is_over:
                observation, reward, terminated, truncated, info = game.step(act(observation))
                total, length = total + float(reward), length + 1
                is_over = terminated or truncated or length >= max_episode_steps
            if info.get("status", "scored") != "scored":
                continue
            returns.append(total)
            lengths.append(length)
            if "is_success" in info:
                successes.append(float(info["is_success"]))
    return EvaluationResult(
        np.array(returns, dtype=np.float64),
        np.array(lengths, dtype=np.int64),
        np.array(successes, dtype=np.float64),
        num_episodes - len(returns),
    )


def _policy_of(
    agent: Agent, env: gymnasium.Env[Any, Any], deterministic: bool
) -> Callable[[Any], Any]:
    """Return the function from an observation to the action that the agent takes now."""
    act: Callable[..., Any] = partial(agent.act, deterministic=deterministic)
    if getattr(agent, TAKES_MASKS, False) and env.has_wrapper_attr(ACTION_MASKS):
        masks = env.get_wrapper_attr(ACTION_MASKS)
        return lambda observation: act(observation, action_masks=masks())
    return act


def check_count(name: str, value: Any) -> int:
    """Return a budget, or raise ConfigError where it is no positive integer."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ConfigError(f"{name} is {value!r}; it must be a positive integer") from None
    if isinstance(value, bool) or number <= 0:
        raise ConfigError(f"{name} is {value!r}; it must be a positive integer")
    return number
