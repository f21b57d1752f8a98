"""Array types, and the one operation on them that several modules need."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]
Texts = NDArray[np.object_]
AnyScalar = TypeVar("AnyScalar", bound=np.generic)


def extended(array: NDArray[AnyScalar], more: int) -> NDArray[AnyScalar]:
    """Return a copy of an array with `more` rows of undefined content after its own."""
    return np.concatenate([array, np.empty((more, *array.shape[1:]), dtype=array.dtype)])


def row_items(array: Ints) -> NDArray[np.void]:
    """Return a view in which each row of a C-contiguous matrix is one item.

    Copying chosen rows is then a one-dimensional operation, which numpy does twice as fast.
    """
    if not array.size:
        return np.empty(len(array), dtype=np.void)
    return array.view(np.dtype((np.void, array.shape[1] * array.itemsize)))[:, 0]
