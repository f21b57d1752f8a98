"""What all agents with a table of action values share: the table, acting, saving and loading."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Hashable
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import gymnasium
import numpy as np

from textgym.errors import ConfigError
from textgym.seeding import Purpose, derive_seed
from textgym_agents.agent import AgentConfig
from textgym_agents.agent_files import read_config, write_manifest
from textgym_agents.tabular.arrays import Floats
from textgym_agents.tabular.states import action_count, check_observations, observation_key

ConfigT = TypeVar("ConfigT", bound=AgentConfig)
TABLE_FILE = "table.npz"


class TableAgent(Generic[ConfigT]):
    """Acts greedily by a table that grows with what has been seen.

    Rows are Python lists: one number is read or written at a time, which they do several times
    faster than arrays.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[AgentConfig]]

    def __init__(self, config: ConfigT | None = None) -> None:
        self.config: ConfigT = config if config is not None else self.config_class()  # type: ignore[assignment]  # of the subclass's own type
        self.num_actions = 0
        self.rows: dict[Hashable, list[float]] = {}
        self.random = random.Random(0)

    def open_table(self, env: gymnasium.Env[Any, Any], seed: int) -> None:
        """Fit the table to an environment's spaces, and seed exploration.

        Raises:
            ConfigError: spaces that a table cannot have, or other ones than before.
        """
        num_actions = action_count(env.action_space)
        check_observations(env.observation_space)
        if self.rows and num_actions != self.num_actions:
            raise ConfigError(
                f"the agent knows {self.num_actions} actions, the environment has {num_actions}; "
                "make a new agent"
            )
        self.num_actions = num_actions
        self.random = random.Random(derive_seed(seed, Purpose.SAMPLING))

    def row(self, observation: Any) -> list[float]:
        """Return the values of the actions, a new row for what was never seen."""
        key = observation_key(observation)
        found = self.rows.get(key)
        if found is None:
            found = self.rows[key] = [self.initial_value] * self.num_actions
        return found

    @property
    def initial_value(self) -> float:
        """What an action is worth before it was tried."""
        return float(getattr(self.config, "initial_value", 0.0))

    def action_values(self, observation: Any) -> Floats:
        """Return Q of one observation, shape (A,); the initial value for what was never seen."""
        known = self.rows.get(observation_key(observation))
        return np.array(known if known is not None else [self.initial_value] * self.num_actions)

    def act(self, observation: Any, *, deterministic: bool = True) -> int:
        """Return the best action, the lowest of equal ones, or one as exploration ends up."""
        if not self.num_actions:
            raise ConfigError(f"the agent '{self.name}' has not learned yet: call learn or load")
        row = self.rows.get(observation_key(observation))
        if row is None:
            return 0 if deterministic else self.random.randrange(self.num_actions)
        return row.index(max(row)) if deterministic else self.explore(row, self.final_epsilon)

    @property
    def final_epsilon(self) -> float:
        """The share of random actions at the end of learning."""
        epsilon = getattr(self.config, "epsilon", None)
        return float(epsilon.end) if epsilon is not None else 0.0

    def explore(self, row: list[float], epsilon: float) -> int:
        """Return a random action with probability epsilon, else a random one of the best."""
        if self.random.random() < epsilon:
            return self.random.randrange(self.num_actions)
        best = max(row)
        if row.count(best) == 1:
            return row.index(best)
        return self.random.choice([a for a, value in enumerate(row) if value == best])

    def save(self, path: str | Path) -> None:
        """Write configuration and table into a folder."""
        folder = write_manifest(path, self.name, self.config)
        keys, values = list(self.rows), np.array(list(self.rows.values()), dtype=np.float64)
        arrays = {"num_actions": np.array(self.num_actions), "values": values}
        np.savez(folder / TABLE_FILE, keys=_key_array(keys), **arrays)  # type: ignore[arg-type]  # numpy's stub takes **arrays for its flag

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read an agent that `save` wrote."""
        agent = cls(read_config(path, cls.name, cls.config_class))  # type: ignore[arg-type]  # as in __init__
        file = Path(path) / TABLE_FILE
        try:
            with np.load(file, allow_pickle=False) as arrays:
                keys, values = arrays["keys"], arrays["values"]
                agent.num_actions = int(arrays["num_actions"])
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ConfigError(f"{file} holds no table: {error}") from None
        if len(keys) != len(values) or (values.size and values.shape[1:] != (agent.num_actions,)):
            raise ConfigError(f"{file} is damaged: {keys.shape} keys, {values.shape} values")
        rows = keys.tolist()
        agent.rows = {
            tuple(key) if isinstance(key, list) else key: row
            for key, row in zip(rows, values.tolist(), strict=True)
        }
        return agent


def _key_array(keys: list[Hashable]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return keys as integers (N,) or (N, L)."""
    try:
        return np.array(keys, dtype=np.int64)
    except ValueError:
        raise ConfigError(
            "observations that are tuples of arrays cannot be saved; flatten the observation space"
        ) from None
