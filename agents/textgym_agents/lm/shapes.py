"""The embedded models by name; to know them takes no torch."""

from __future__ import annotations

from typing import NamedTuple


class Shape(NamedTuple):
    """The sizes of an embedded model."""

    hidden_size: int
    intermediate_size: int
    num_layers: int


BUILT_IN = {"tiny": Shape(96, 384, 3), "small": Shape(128, 512, 4)}
"""By name; `small` has attention heads of 32 numbers, the fewest that vLLM computes on a CPU."""
