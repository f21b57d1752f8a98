"""A native vector environment as the `VecEnv` that Stable-Baselines3 asks for.

`DummyVecEnv` steps scalar environments in a Python loop and copies every info deeply. Here one step
is one step of the vector environment, and an info is an empty dictionary except where an episode
ends. What `DummyVecEnv` with `Monitor` says there is said here as well: `terminal_observation`,
`TimeLimit.truncated`, `episode` (r, l, t), and what `info_keys` names.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from textgym.errors import ConfigError
from textgym_agents.agent import ACTION_MASKS
from textgym_agents.classic.envs import AnyVectorEnv, autoreset_mode

INFO_KEYS = ("is_success", "status")
Indices = int | Iterable[int] | None


class NativeVecEnv(VecEnv):
    """Plays a Gymnasium vector environment that resets in the step which ends an episode.

    Args:
        envs: closed with this one.
        info_keys: which keys of the final info an ended episode's info repeats.

    Raises:
        ConfigError: the vector environment resets at another time.
    """

    def __init__(self, envs: AnyVectorEnv, *, info_keys: Sequence[str] = INFO_KEYS) -> None:
        if autoreset_mode(envs) is not AutoresetMode.SAME_STEP:
            raise ConfigError(
                f"the vector environment has autoreset_mode {autoreset_mode(envs).value}; "
                "Stable-Baselines3 needs autoreset_mode='same_step'"
            )
        self.envs = envs
        self._info_keys = tuple(info_keys)
        self._returns = np.zeros(envs.num_envs)
        self._lengths = np.zeros(envs.num_envs, np.int64)
        self._started = time.time()
        self._actions: Any = None
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> Any:
        """Begin an episode in every row, with the seeds and options given before."""
        has_seeds = any(seed is not None for seed in self._seeds)
        options = self._options[0] if self._options and self._options[0] else None
        seeds: Any = list(self._seeds) if has_seeds else None  # one a row, as all of them allow
        observations, infos = self.envs.reset(seed=seeds, options=options)
        self._reset_seeds()
        self._reset_options()
        self._returns[:] = 0.0
        self._lengths[:] = 0
        rows = np.arange(self.num_envs)
        keys = [key for key in infos if f"_{key}" in infos]
        self.reset_infos = _rows_of(infos, keys, rows)
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Step all rows."""
        observations, rewards, terminated, truncated, infos = self.envs.step(self._actions)
        dones = terminated | truncated
        self._returns += rewards
        self._lengths += 1
        each: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if "final_obs" in infos:
            self._tell_ends(each, infos, dones, truncated & ~terminated)
        return observations, rewards.astype(np.float32), dones, each

    def _tell_ends(
        self,
        each: list[dict[str, Any]],
        infos: dict[str, Any],
        dones: NDArray[np.bool_],
        is_cut: NDArray[np.bool_],
    ) -> None:
        """Fill in the infos of the rows whose episode ended, and start their sums again."""
        rows = dones.nonzero()[0]
        final = infos.get("final_info", {})
        keys = [key for key in self._info_keys if key in final]
        seconds = round(time.time() - self._started, 6)
        columns = zip(
            rows.tolist(),
            infos["final_obs"][rows],
            is_cut[rows].tolist(),
            self._returns[rows].round(6).tolist(),
            self._lengths[rows].tolist(),
            _rows_of(final, keys, rows),
            strict=True,
        )
        for row, observation, cut, total, length, info in columns:
            info["terminal_observation"] = observation
            info["TimeLimit.truncated"] = cut
            info["episode"] = {"r": total, "l": length, "t": seconds}
            each[row] = info
        self._returns[rows] = 0.0
        self._lengths[rows] = 0

    def close(self) -> None:
        """Close the vector environment."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """Return an attribute that all rows share, once for each."""
        value = getattr(self.envs.unwrapped, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Set an attribute that all rows share."""
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ConfigError(
                f"'{attr_name}' is shared by all rows of a native vector environment; it cannot be "
                "set for some of them"
            )
        setattr(self.envs.unwrapped, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Return the rows of `action_masks()`; a vector environment has no methods of single rows.

        Raises:
            AttributeError: another method.
        """
        if method_name != ACTION_MASKS:
            raise AttributeError(
                f"a native vector environment has no method '{method_name}' of single rows; only "
                f"'{ACTION_MASKS}' is passed on"
            )
        masks = getattr(self.envs.unwrapped, ACTION_MASKS)(*method_args, **method_kwargs)
        return [masks[row] for row in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Indices = None) -> list[bool]:
        """Say that every row is in a `Monitor`, as its infos are, and in nothing else."""
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]


class SpacesOnly(VecEnv):
    """Environments that have spaces and cannot be played: enough to rebuild a saved algorithm."""

    def _refuse(self, *arguments: Any, **named: Any) -> Any:
        raise ConfigError("a loaded agent has no environment yet: learn() brings one")

    reset = step_async = step_wait = set_attr = env_method = _refuse

    def close(self) -> None:
        """Nothing is open."""

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """Know of no render mode, and of nothing else."""
        if attr_name != "render_mode":
            raise AttributeError(attr_name)
        return [None for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Indices = None) -> list[bool]:
        """Nothing is wrapped."""
        return [False for _ in self._get_indices(indices)]


def _rows_of(
    infos: dict[str, Any], keys: Sequence[str], rows: NDArray[np.integer]
) -> list[dict[str, Any]]:
    """Return the values of `keys` that are known, one dictionary per row."""
    each: list[dict[str, Any]] = [{} for _ in rows]
    for key in keys:
        values, known = infos[key], infos[f"_{key}"][rows].tolist()
        if isinstance(values, np.ndarray):
            pairs = zip(each, values[rows].tolist(), known, strict=True)
            for info, value, is_known in pairs:
                if is_known:
                    info[key] = value
    return each
