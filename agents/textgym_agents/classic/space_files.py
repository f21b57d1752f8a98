"""Gymnasium spaces as JSON, so that a saved agent can be loaded without its environment."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Space, spaces

from textgym.errors import ConfigError
from textgym_agents.env_source import advice_on


def space_to_json(space: Space[Any]) -> dict[str, Any]:
    """Return a description of a space.

    Raises:
        ConfigError: a kind of space that no agent here can use.
    """
    if isinstance(space, spaces.Box):
        bounds = {"low": space.low.tolist(), "high": space.high.tolist()}
        return {"kind": "box", "dtype": str(space.dtype), "shape": list(space.shape), **bounds}
    if isinstance(space, spaces.Discrete):
        return {"kind": "discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {
            "kind": "multi_discrete", "nvec": space.nvec.tolist(), "start": space.start.tolist(),
        }  # fmt: skip
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "multi_binary", "shape": list(space.shape)}
    if isinstance(space, spaces.Dict):
        parts = {name: space_to_json(part) for name, part in space.spaces.items()}
        return {"kind": "dict", "spaces": parts}
    raise ConfigError(
        f"the space {space} is none of Box, Discrete, MultiDiscrete, MultiBinary and Dict of "
        f"these.{advice_on(space)}"
    )


def space_from_json(data: dict[str, Any]) -> Space[Any]:
    """Return the space that `space_to_json` described."""
    kind = data["kind"]
    if kind == "box":
        dtype, shape = np.dtype(data["dtype"]), tuple(data["shape"])
        low, high = (np.array(data[name], dtype).reshape(shape) for name in ("low", "high"))
        return spaces.Box(low, high, shape, dtype)
    if kind == "discrete":
        return spaces.Discrete(data["n"], start=data["start"])
    if kind == "multi_discrete":
        return spaces.MultiDiscrete(data["nvec"], start=data["start"])
    if kind == "multi_binary":
        return spaces.MultiBinary(data["shape"])
    parts = {name: space_from_json(part) for name, part in data["spaces"].items()}
    return spaces.Dict(parts)
