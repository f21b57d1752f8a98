"""The part that native vector environments share: seeds, the three autoreset modes, resets.

A subclass keeps the state of all rows in arrays and says how rows restart, how they advance, and
what they show. What `reset` and `step` return equals what `gymnasium.vector.SyncVectorEnv` returns
for the scalar environment, with two exceptions. `final_obs` of token mode is one dense array
instead of an object array of rows (it indexes alike, and is twice as fast). And in DISABLED mode a
row that has ended and was not reset is idle: its action is ignored, its reward is 0.0, its flags
stay as they are and it adds nothing to the infos.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import Space
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from textgym.errors import ConfigError, did_you_mean
from textgym.seeding import mix64
from textgym_envs.arrays import Bools, Floats, Ints
from textgym_envs.streams import Draws, EpisodeState, EpisodeStreams, forced_index, row_seeds

Infos = dict[str, Any]
_PICKLED = (
    "config", "render_mode", "num_envs", "autoreset_mode", "spec", "closed", "action_space",
    "_np_random", "_np_random_seed",
)  # fmt: skip
VectorStep = tuple[Any, Floats, Bools, Bools, Infos]


class Advance(NamedTuple):
    """What one step did to the rows that are not idle."""

    rewards: Floats
    terminated: Bools
    truncated: Bools
    infos: Infos
    """The final infos of the rows that ended; empty if none did."""
    ended: Bools
    """`terminated | truncated`."""


class NativeVectorEnv(VectorEnv[Any, Any, NDArray[Any]]):
    """Base of the vector environments; `_setup` takes what a subclass has built."""

    def _setup(
        self,
        num_envs: int,
        draws: Draws,
        single_spaces: tuple[Space[Any], Space[Any]],
        autoreset_mode: AutoresetMode | str,
    ) -> None:
        if num_envs < 1:
            raise ConfigError(f"num_envs={num_envs}: must be at least 1")
        self.num_envs = num_envs
        self.autoreset_mode = parse_autoreset_mode(autoreset_mode)
        self.metadata = {
            "render_modes": ["human", "ansi"],
            "render_fps": 4,
            "autoreset_mode": self.autoreset_mode,
        }
        self.single_observation_space, self.single_action_space = single_spaces
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._num_prompts = len(draws)
        self._streams = EpisodeStreams(draws, num_envs)
        self._terminated: Bools = np.zeros(num_envs, dtype=np.bool_)
        self._truncated: Bools = np.zeros(num_envs, dtype=np.bool_)
        self._over: Bools = np.zeros(num_envs, dtype=np.bool_)
        self._is_running = False

    @property
    def num_prompts(self) -> int:
        """How many prompts there are to draw from."""
        return self._num_prompts

    def _restart(self, rows: Ints, indices: Ints) -> None:
        """Begin the episodes of `rows` (k,) with the prompts `indices` (k,)."""
        raise NotImplementedError

    def _advance(self, actions: Any, idle: Bools | None) -> Advance:
        """Play one step of all rows but the `idle` ones, which must stay as they are."""
        raise NotImplementedError

    def _observe(self) -> Any:
        """Return the observations of all rows, sharing nothing with the state."""
        raise NotImplementedError

    def _final_observations(self, ended: Bools) -> Any:
        """Return `final_obs` before the rows that `ended` marks restart."""
        raise NotImplementedError

    def _reset_infos(self, mask: Bools) -> Infos:
        """Return the reset infos of the rows that `mask` marks."""
        raise NotImplementedError

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, Infos]:
        """Begin episodes in all rows, or in those of `options["reset_mask"]`.

        Args:
            seed: row i gets `seed + i`, or its entry of a list; None lets the streams go on.
            options: `reset_mask`, bool (num_envs,); `prompt_index`, an integer for all rows or an
                integer array (num_envs,). Anything else is ignored; nothing is changed in it.
        """
        if self.closed:
            raise ClosedEnvironmentError("the vector environment is closed; make a new one")
        if seed is None or isinstance(seed, int):
            super().reset(seed=seed)
        seeds = row_seeds(seed, self.num_envs)
        mask = self._reset_mask(options or {})
        for row in np.flatnonzero(mask).tolist():
            if (row_seed := seeds[row]) is not None:
                self._streams.seek(row, mix64(row_seed), -1)
        self._begin(mask, (options or {}).get("prompt_index"))
        self._terminated[mask] = self._truncated[mask] = self._over[mask] = False
        self._is_running = True
        return self._observe(), self._reset_infos(mask)

    def _reset_mask(self, options: dict[str, Any]) -> Bools:
        mask = options.get("reset_mask")
        if mask is None:
            return np.ones(self.num_envs, dtype=np.bool_)
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f"options['reset_mask'] must be a bool array, got {mask!r}")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"options['reset_mask'] must have the shape ({self.num_envs},) and mark at least "
                f"one row, got the shape {mask.shape} with {int(mask.sum())} marked"
            )
        if not self._is_running and not mask.all():
            raise ResetNeeded("the first reset() must reset all rows")
        return mask

    def _begin(self, mask: Bools, forced: Any = None) -> None:
        rows = mask.nonzero()[0]
        indices = self._streams.next_indices(rows, mask)
        if forced is not None:
            indices = _forced_indices(forced, rows, self.num_envs, self._num_prompts)
        self._restart(rows, indices)

    def step(self, actions: Any) -> VectorStep:
        """Advance every row by one action, as the autoreset mode says."""
        if not self._is_running:
            raise ResetNeeded("no episode is running: call reset() before step()")
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            return self._step_same(actions)
        idle = self._over.copy() if self._over.any() else None
        rewards, terminated, truncated, infos, _ = self._advance(actions, idle)
        if idle is not None and self.autoreset_mode is AutoresetMode.NEXT_STEP:
            self._begin(idle)
            infos.update(self._reset_infos(idle))
        elif idle is not None:
            terminated |= self._terminated & idle
            truncated |= self._truncated & idle
        self._terminated, self._truncated = terminated.copy(), truncated.copy()
        self._over = terminated | truncated
        return self._observe(), rewards, terminated, truncated, infos

    def _step_same(self, actions: Any) -> VectorStep:
        rewards, terminated, truncated, final_infos, ended = self._advance(actions, None)
        infos: Infos = {}
        if final_infos:
            infos["final_obs"] = self._final_observations(ended)
            infos["_final_obs"] = ended.copy()
            infos["final_info"], infos["_final_info"] = final_infos, ended.copy()
            self._begin(ended)
            infos.update(self._reset_infos(ended))
        return self._observe(), rewards, terminated, truncated, infos

    def get_state(self) -> list[EpisodeState]:
        """Return where each row stands, as the scalar environment's `get_state` does."""
        if not self._is_running:
            raise ResetNeeded("no episode has begun: call reset() before get_state()")
        keys, episodes = self._streams.keys.tolist(), self._streams.episodes.tolist()
        over = self._over.tolist()
        standing = self._standing()
        return [
            EpisodeState(key, episode, *where, is_over=is_over)
            for key, episode, where, is_over in zip(keys, episodes, standing, over, strict=True)
        ]

    def set_state(self, states: Sequence[EpisodeState]) -> None:
        """Let row i stand where `states[i]` was taken."""
        if len(states) != self.num_envs:
            raise ConfigError(f"got {len(states)} states for {self.num_envs} environments")
        for row, state in enumerate(states):
            self._streams.seek(row, state.stream_key, state.episode)
        indices = np.array([state.prompt_index for state in states], dtype=np.int64)
        self._restart(np.arange(self.num_envs), indices)
        self._over[:] = [state.is_over for state in states]
        self._restore(states)
        self._is_running = True

    def _standing(self) -> list[tuple[int, tuple[int, ...]]]:
        """Return the prompt index and the ids after the prompt, by row."""
        raise NotImplementedError

    def _restore(self, states: Sequence[EpisodeState]) -> None:
        """Go on from the beginning of the states' episodes to where they were, with the flags."""
        raise NotImplementedError

    def _transcripts(self) -> list[str]:
        """Return the transcript of each row."""
        raise NotImplementedError

    def render(self) -> tuple[str, ...] | None:
        """Return one transcript per row (`ansi`) or print them (`human`)."""
        if self.render_mode is None or not self._is_running:
            return None
        texts = tuple(self._transcripts())
        if self.render_mode == "ansi":
            return texts
        print("\n\n".join(texts))
        return None

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the configuration and where the rows stand; the rest is rebuilt."""
        kept = {name: value for name, value in self.__dict__.items() if name in _PICKLED}
        return kept | {"states": self.get_state() if self._is_running else None}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        states = kept.pop("states")
        action_space = kept.pop("action_space")
        self.__dict__.update(kept)
        self._open(kept["num_envs"], kept["autoreset_mode"])
        self.action_space = action_space
        if states is not None:
            self.set_state(states)

    def _open(self, num_envs: int, autoreset_mode: AutoresetMode | str) -> None:
        """Build everything that is not pickled, by way of `_setup`."""
        raise NotImplementedError


def parse_autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    """Return the mode of an enum member or of its name in any case: next_step, same_step, ..."""
    if isinstance(mode, AutoresetMode):
        return mode
    names = {member.name.lower(): member for member in AutoresetMode}
    spelt = str(mode).lower().replace("_", "").replace("-", "")
    for name, member in names.items():
        if name.replace("_", "") == spelt:
            return member
    hint = did_you_mean(str(mode).lower(), names)
    raise ConfigError(f"autoreset_mode={mode!r}: must be one of {', '.join(names)}.{hint}")


def _forced_indices(forced: Any, rows: Ints, num_envs: int, num_prompts: int) -> Ints:
    values = np.asarray(forced)
    if values.shape not in ((), (num_envs,)):
        raise ConfigError(
            f"options['prompt_index'] must be an integer or an array of shape ({num_envs},), got "
            f"the shape {values.shape}"
        )
    chosen = np.broadcast_to(values, num_envs)[rows].tolist()
    return np.array([forced_index(value, num_prompts) for value in chosen], dtype=np.int64)
