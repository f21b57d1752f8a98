"""Prompts by number: nothing is sampled and nothing is stored.

A prompt is the mixed-radix decoding of a number. A space of more numbers than are wanted is walked
with a stride that is coprime to it, so the prompts stay distinct and spread over the whole space.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")

_GOLDEN = 0.6180339887498949


def find_stride(space: int, limit: int) -> int:
    """Return the step from one prompt's number to the next, for `limit` prompts of a space.

    Args:
        space: how many numbers there are.
        limit: how many of them are wanted; a space that is no larger is walked in steps of 1.
    """
    if space <= limit:
        return 1
    stride = int(space * _GOLDEN)
    while math.gcd(stride, space) != 1:
        stride += 1
    return stride


def digits_of(number: int, radices: Iterable[int]) -> list[int]:
    """Return the digits of a number in mixed radix, the lowest first."""
    digits = []
    for radix in radices:
        number, digit = divmod(number, radix)
        digits.append(digit)
    return digits


def pick_distinct(items: Sequence[T], digits: Iterable[int]) -> list[T]:
    """Return distinct items: digit i, from 0 to below `len(items) - i`, chooses among the rest."""
    rest = list(items)
    return [rest.pop(digit) for digit in digits]
