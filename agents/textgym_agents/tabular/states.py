"""Which observations and actions a table can hold, and as which keys."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from textgym.errors import ConfigError
from textgym_agents.env_source import advice_on, space_name


def action_count(space: Space[Any]) -> int:
    """Return the number of actions.

    Raises:
        ConfigError: the actions are no numbers 0, 1, 2, ...
    """
    if isinstance(space, spaces.Discrete):
        if space.start != 0:
            raise ConfigError(f"the actions start at {space.start}; a table needs them from 0 on")
        return int(space.n)
    if isinstance(space, spaces.Box):
        raise ConfigError(
            f"the action space {space_name(space)} is continuous; a tabular agent needs Discrete "
            "actions. Take one with a network, such as ppo."
        )
    raise ConfigError(f"a tabular agent needs Discrete actions, not {space}.{advice_on(space)}")


def check_observations(space: Space[Any]) -> None:
    """Raise ConfigError unless observations can be the keys of a table."""
    if not _is_countable(space):
        raise ConfigError(
            f"a table cannot have observations of {space_name(space)} as keys; it takes Discrete, "
            "MultiDiscrete, MultiBinary, Box of integers, and Tuple of these. Take an agent with a "
            "network, such as ppo or sb3:dqn."
        )


def _is_countable(space: Space[Any]) -> bool:
    if isinstance(space, spaces.Tuple):
        return all(_is_countable(part) for part in space.spaces)
    if isinstance(space, spaces.Box):
        return bool(np.issubdtype(space.dtype, np.integer))
    return isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)


def observation_key(observation: Any) -> Hashable:
    """Return an observation as a key: a number, or a tuple of numbers."""
    if isinstance(observation, np.ndarray):
        flat = observation.reshape(-1).tolist()
        return tuple(flat) if observation.ndim else flat[0]
    if isinstance(observation, tuple):
        return tuple(observation_key(part) for part in observation)
    return int(observation)
