"""What a network reads and writes, of which Gymnasium spaces, in a form that a file can keep."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import DTypeLike, NDArray

from textgym.errors import ConfigError
from textgym_agents.agent import AgentConfig
from textgym_agents.env_source import advice_on, space_name


class ObservationSpec(AgentConfig):
    """How an observation becomes an array of fixed shape."""

    kind: Literal["vector", "ids", "categories"]
    """`vector` holds numbers, `ids` a sequence of tokens, `categories` one index per variable."""
    size: int
    """Entries of an observation."""
    counts: tuple[int, ...] = ()
    """`ids`: (vocabulary,). `categories`: values of each variable."""
    starts: tuple[int, ...] = ()
    """`categories`: the lowest value of each variable."""

    @property
    def dtype(self) -> DTypeLike:
        """Type of the entries."""
        return np.float32 if self.kind == "vector" else np.int64

    def encode(self, observations: Any) -> NDArray[Any]:
        """Return N observations as an array (N, size)."""
        array = np.asarray(observations, self.dtype)
        array = array.reshape(len(array), self.size)
        return array - np.array(self.starts) if any(self.starts) else array


class ActionSpec(AgentConfig):
    """How the policy's output becomes an action."""

    kind: Literal["discrete", "continuous"]
    """One of n, or a vector of real numbers."""
    size: int
    """n, or the length of the vector."""
    start: int = 0
    """`discrete`: the lowest action."""
    shape: tuple[int, ...] = ()
    """`continuous`: shape that the environment expects."""
    low: tuple[float, ...] = ()
    """`continuous`: lowest values; -inf where there is none."""
    high: tuple[float, ...] = ()
    """`continuous`: highest values."""

    @property
    def array(self) -> tuple[tuple[int, ...], DTypeLike]:
        """Shape and type of an action in a buffer."""
        return ((), np.int64) if self.kind == "discrete" else ((self.size,), np.float32)

    def decode(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Return N sampled actions as the environment takes them: clipped to its bounds."""
        if self.kind == "discrete":
            return actions + self.start if self.start else actions
        bounds = np.array(self.low, np.float32), np.array(self.high, np.float32)
        clipped: NDArray[Any] = np.clip(actions, *bounds)
        return clipped.reshape(len(actions), *self.shape)


def observation_spec(space: Space[Any], *, reads_ids: bool, agent: str) -> ObservationSpec:
    """Return how an agent reads the observations of a space.

    Raises:
        ConfigError: it cannot.
    """
    if reads_ids:
        if _is_ids(space):
            assert isinstance(space, spaces.Box)
            return ObservationSpec(
                kind="ids", size=space.shape[0], counts=(int(space.high.max()) + 1,)
            )
        raise ConfigError(
            f"{agent}: a network that reads tokens needs observations that are a row of ids, a "
            f"one-dimensional integer Box from 0 on; got {space_name(space)}."
            + (advice_on(space) or " Take network.kind 'mlp'.")
        )
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        return ObservationSpec(kind="vector", size=math.prod(space.shape))
    if isinstance(space, spaces.Discrete):
        return ObservationSpec(
            kind="categories", size=1, counts=(int(space.n),), starts=(int(space.start),)
        )
    if isinstance(space, spaces.MultiDiscrete):
        counts, starts = space.nvec.ravel().tolist(), space.start.ravel().tolist()
        return ObservationSpec(
            kind="categories", size=len(counts), counts=tuple(counts), starts=tuple(starts)
        )
    raise ConfigError(
        f"{agent} cannot read observations of the space {space}; it takes Box, Discrete, "
        f"MultiDiscrete and MultiBinary.{advice_on(space)}"
    )


def action_spec(space: Space[Any], *, agent: str) -> ActionSpec:
    """Return how an agent acts in a space.

    Raises:
        ConfigError: it cannot.
    """
    if isinstance(space, spaces.Discrete):
        return ActionSpec(kind="discrete", size=int(space.n), start=int(space.start))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return ActionSpec(
            kind="continuous",
            size=math.prod(space.shape),
            shape=space.shape,
            low=tuple(space.low.ravel().tolist()),
            high=tuple(space.high.ravel().tolist()),
        )
    raise ConfigError(
        f"{agent} cannot act in the space {space_name(space)}; it takes Discrete and real-valued "
        f"Box.{advice_on(space)}"
    )


def _is_ids(space: Space[Any]) -> bool:
    return (
        isinstance(space, spaces.Box)
        and np.issubdtype(space.dtype, np.integer)
        and len(space.shape) == 1
        and bool((space.low == 0).all())
    )
