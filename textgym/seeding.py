"""Randomness: one seed per run, one independent stream per purpose.

`stream` derives generators with `numpy.random.SeedSequence([seed, purpose, *index])`; never
`seed + i`, with which neighbouring seeds share their data. `mix64` is a counter-based hash
(splitmix64; Steele, Lea and Flood, OOPSLA 2014): the same function for Python ints and numpy
arrays, so a scalar and a vector environment can draw the same prompts.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_M1 = 0xBF58476D1CE4E5B9
_M2 = 0x94D049BB133111EB


class Purpose(IntEnum):
    """What a random stream is for. The numbers are part of every saved run: append, never edit."""

    MODEL = 1
    DEMONSTRATIONS = 2
    COLD_START = 3
    ROLLOUT_ENV = 4
    SAMPLING = 5
    SHUFFLING = 6
    EVALUATION = 7
    TEMPLATE = 8
    SPLIT = 9
    PROMPTS = 10
    SEGMENT = 11
    TIES = 12


def stream(seed: int, purpose: Purpose, *index: int) -> np.random.Generator:
    """Return the generator of one purpose (and index, e.g. the iteration) of a run."""
    return np.random.default_rng(np.random.SeedSequence([seed, int(purpose), *index]))


def derive_seed(seed: int, purpose: Purpose, *index: int) -> int:
    """Return a 31-bit integer seed, for libraries that take nothing else."""
    words = np.random.SeedSequence([seed, int(purpose), *index]).generate_state(1)
    return int(words[0]) >> 1


def mix64(*values: int) -> int:
    """Hash integers to one uniform 64-bit integer; the order of the values matters."""
    h = 0
    for value in values:
        h = (h + value + _GAMMA) & _MASK
        h = ((h ^ (h >> 30)) * _M1) & _MASK
        h = ((h ^ (h >> 27)) * _M2) & _MASK
        h ^= h >> 31
    return h


def mix64_array(*values: NDArray[np.uint64] | int) -> NDArray[np.uint64]:
    """Hash elementwise like `mix64`; arrays and ints broadcast."""
    h: NDArray[np.uint64] = np.zeros(1, dtype=np.uint64)
    for value in values:
        word = np.uint64(value) if isinstance(value, int) else value
        h = h + word + np.uint64(_GAMMA)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(_M1)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(_M2)
        h = h ^ (h >> np.uint64(31))
    return h
