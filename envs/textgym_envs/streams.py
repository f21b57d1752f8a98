"""Which prompt each episode gets: a counter and a hash, never a generator that is carried along.

Episode e of seed s has the stream key `mix64(s)`, and its prompt is a pure function of (key, e).
So a scalar environment and row i of a vector environment that were seeded alike see the same
prompts, in whatever order their episodes end, and a stream resumes from two integers. Both classes
ask the source for a block of future episodes at a time, because hashing arrays is far cheaper.
"""

from __future__ import annotations

import operator
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from gymnasium.error import Error

from textgym.errors import ConfigError
from textgym.sample import FinishReason
from textgym.seeding import mix64, mix64_array
from textgym_envs.arrays import Bools, Floats, Ints, Keys

_BLOCK = 64
_UNIT = 2.0**-53


class Turn(NamedTuple):
    """What was said after a prompt: by the policy, or by a tool to it."""

    role: Literal["assistant", "tool"]
    content: str
    token_ids: tuple[int, ...] = ()
    """As sampled, where they are known."""
    finish_reason: FinishReason = "stop"
    is_error: bool = False
    """Whether a tool says that it cannot serve a call."""


class EpisodeState(NamedTuple):
    """One environment between two steps: enough to continue it anywhere, the same for all."""

    stream_key: int
    episode: int
    prompt_index: int
    token_ids: tuple[int, ...]
    """What followed the prompt."""
    is_over: bool
    turns: tuple[Turn, ...] = ()
    """The dialogue after the prompt, in environments that have one."""


class Draws(Protocol):
    """What draws prompts: `PromptPool`, or the three prompts of an exactly solvable task."""

    def __len__(self) -> int: ...

    def draw_array(self, keys: Keys, episodes: Ints) -> Ints:
        """Return the prompt index of each (stream key, episode)."""
        ...


class LevelledPool(Protocol):
    """What a curriculum needs of a prompt pool."""

    @property
    def num_levels(self) -> int:
        """How many levels there are."""
        ...

    def __len__(self) -> int: ...

    def draw_array(self, keys: Keys, episodes: Ints, *, level: int | None = None) -> Ints:
        """Return the prompt index of each (stream key, episode) at a level."""
        ...


class LevelDraws:
    """The draws of one environment at a level of a curriculum; others of one pool have theirs."""

    def __init__(self, pool: LevelledPool) -> None:
        self._pool = pool
        self.level: int | None = None
        """None draws from all levels alike."""

    def __len__(self) -> int:
        return len(self._pool)

    def draw_array(self, keys: Keys, episodes: Ints) -> Ints:
        """Return the prompt index of each (stream key, episode)."""
        return self._pool.draw_array(keys, episodes, level=self.level)

    def set_level(self, level: int | None) -> None:
        """Draw at another level.

        Raises:
            ConfigError: there is no such level.
        """
        if level is not None and not 0 <= level < self._pool.num_levels:
            raise ConfigError(
                f"level {level}: the prompt sources have the levels 0 to "
                f"{self._pool.num_levels - 1}; give them a `level` each"
            )
        self.level = level


def stream_key(seed: int | None) -> int:
    """Return the key of a seed, or a fresh random one without a seed."""
    return secrets.randbits(64) if seed is None else mix64(seed)


class EpisodeStream:
    """The prompts of one environment."""

    def __init__(self, draws: Draws) -> None:
        self._draws = draws
        self._block: list[int] = []
        self._block_start = 0
        self.key: int | None = None
        self.episode = 0

    def seek(self, key: int, episode: int) -> None:
        """Stand at an episode of a stream."""
        self.key, self.episode = key, episode
        self._block = []

    def draw_anew(self) -> None:
        """Forget the draws of future episodes: what draws them has changed."""
        self._block = []

    def next_index(self, seed: int | None, options: Mapping[str, Any] | None) -> int:
        """Begin the next episode, or the first one of `seed`, and return its prompt index."""
        if seed is not None or self.key is None:
            self.seek(stream_key(seed), 0)
        else:
            self.episode += 1
        if options and options.get("prompt_index") is not None:
            return forced_index(options["prompt_index"], len(self._draws))
        offset = self.episode - self._block_start
        if not 0 <= offset < len(self._block):
            self._refill()
            offset = 0
        return self._block[offset]

    def _refill(self) -> None:
        assert self.key is not None
        keys = np.full(_BLOCK, self.key, dtype=np.uint64)
        episodes = np.arange(self.episode, self.episode + _BLOCK, dtype=np.int64)
        self._block = self._draws.draw_array(keys, episodes).tolist()
        self._block_start = self.episode


class EpisodeStreams:
    """The prompts of the rows of a vector environment; row i is the stream of its own seed."""

    def __init__(self, draws: Draws, num_envs: int) -> None:
        self._draws = draws
        self.keys: Keys = np.array([stream_key(None) for _ in range(num_envs)], dtype=np.uint64)
        self._block: Ints = np.zeros((num_envs, _BLOCK), dtype=np.int64)
        self._flat = self._block.reshape(-1)
        # Cursors are positions in the flat block, and cursor - origin is the episode.
        self._lasts: Ints = np.arange(1, num_envs + 1, dtype=np.int64) * _BLOCK - 1
        self._cursors = self._lasts.copy()
        self._origins = self._cursors + 1
        self._num_safe = 0
        """How many more calls cannot bring any row to the end of its block."""

    @property
    def episodes(self) -> Ints:
        """The number of the current episode of each row; -1 before the first."""
        return self._cursors - self._origins

    def seek(self, row: int, key: int, episode: int) -> None:
        """Let a row stand at an episode of a stream; its next one is `episode + 1`."""
        self.keys[row] = key
        self._cursors[row] = self._lasts[row]
        self._origins[row] = self._lasts[row] - episode
        self._num_safe = 0

    def draw_anew(self) -> None:
        """Forget the draws of future episodes: what draws them has changed."""
        for row, episode in enumerate(self.episodes.tolist()):
            self.seek(row, int(self.keys[row]), episode)

    def next_indices(self, rows: Ints, mask: Bools) -> Ints:
        """Begin the next episode of `rows`, which `mask` marks, and return their prompt indices."""
        if self._num_safe == 0:
            self._refill()
        self._num_safe -= 1
        self._cursors += mask
        return self._flat.take(self._cursors.take(rows))

    def _refill(self) -> None:
        """Draw anew, if a row is at its end, for all that are past the middle: seldom, and many."""
        left = self._lasts - self._cursors
        if left.min() == 0:
            rows = np.flatnonzero(left <= _BLOCK // 2)
            episodes = self.episodes[rows] + 1
            grid = (episodes[:, None] + np.arange(_BLOCK)).reshape(-1)
            drawn = self._draws.draw_array(np.repeat(self.keys[rows], _BLOCK), grid)
            self._block[rows] = drawn.reshape(-1, _BLOCK)
            self._cursors[rows] = self._lasts[rows] - _BLOCK
            self._origins[rows] = self._cursors[rows] - episodes + 1
            left[rows] = _BLOCK
        self._num_safe = int(left.min())


def chance(key: Keys, episode: Ints, move: Ints | int = 0) -> Floats:
    """Return one uniform number in [0, 1) per episode, for its `move`-th move of chance."""
    counters = np.asarray(move + 1, dtype=np.uint64)
    bits: Keys = mix64_array(key, episode.astype(np.uint64), counters) >> np.uint64(11)
    return bits.astype(np.float64) * _UNIT


def chance_of(key: int, episode: int, move: int) -> float:
    """Return what `chance` returns for one episode."""
    return (mix64(key, episode, move + 1) >> 11) * _UNIT


def row_seeds(seed: int | Sequence[int | None] | None, num_envs: int) -> list[int | None]:
    """Return one seed per row: `seed + i` as Gymnasium does, the given list, or None for all."""
    if seed is None:
        return [None] * num_envs
    listed = range(seed, seed + num_envs) if isinstance(seed, int) else seed
    seeds: list[int | None] = [*listed]
    if len(seeds) != num_envs:
        raise ValueError(f"got {len(seeds)} seeds for {num_envs} environments")
    for value in seeds:
        if value is not None and (not isinstance(value, int) or value < 0):
            raise Error(f"a seed must be a Python integer of at least 0, got {value!r}")
    return seeds


def forced_index(value: Any, num_prompts: int) -> int:
    """Check the option `prompt_index` of a reset."""
    try:
        index = operator.index(value)
    except TypeError:
        raise ConfigError(f"options['prompt_index'] must be an integer, got {value!r}") from None
    if not 0 <= index < num_prompts:
        raise ConfigError(
            f"options['prompt_index'] is {index}; this environment has the prompts 0 to "
            f"{num_prompts - 1}"
        )
    return index
