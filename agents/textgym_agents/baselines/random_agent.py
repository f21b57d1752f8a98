"""The agent that learns nothing: where every other one starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import gymnasium
from pydantic import NonNegativeInt

from textgym.errors import ConfigError
from textgym.seeding import Purpose, derive_seed
from textgym_agents.agent import WHOLE, AgentConfig, OnMetrics, Part, check_count
from textgym_agents.agent_files import read_config, write_manifest
from textgym_agents.classic.space_files import space_from_json, space_to_json
from textgym_agents.env_source import EnvSource, opened


class RandomConfig(AgentConfig):
    """A random policy has nothing to choose but the space, which it learns."""

    action_space: dict[str, Any] | None = None
    """The actions as JSON; taken from the environment."""
    seed: NonNegativeInt = 0
    """Of the draws; that of the last `learn`."""


class RandomAgent:
    """Draws every action uniformly from the action space."""

    name = "random"

    def __init__(self, config: RandomConfig | None = None) -> None:
        self.config = config or RandomConfig()
        self._space: gymnasium.Space[Any] | None = None
        if self.config.action_space is not None:
            self._space = space_from_json(self.config.action_space)
            self._space.seed(derive_seed(self.config.seed, Purpose.SAMPLING))

    def learn(
        self,
        env: EnvSource,
        *,
        total_steps: int,
        seed: int = 0,
        on_metrics: OnMetrics | None = None,
        part: Part = WHOLE,
    ) -> None:
        """Take over the action space; the budget stays unspent."""
        del part
        check_count("total_steps", total_steps)
        with opened(env) as game:
            self.config = RandomConfig(action_space=space_to_json(game.action_space), seed=seed)
        self._space = space_from_json(self.config.action_space or {})
        self._space.seed(derive_seed(seed, Purpose.SAMPLING))
        if on_metrics is not None:
            on_metrics(0, {})

    def act(self, observation: Any, *, deterministic: bool = True) -> Any:
        """Return a random action; there is no other."""
        del observation, deterministic
        if self._space is None:
            raise ConfigError("random has no action space yet: call learn() or load() first")
        action = self._space.sample()
        return int(action) if isinstance(self._space, gymnasium.spaces.Discrete) else action

    def save(self, path: str | Path) -> None:
        """Write the action space into a folder."""
        write_manifest(path, self.name, self.config)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read an agent that `save` wrote."""
        return cls(read_config(path, cls.name, RandomConfig))
