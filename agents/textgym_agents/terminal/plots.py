"""Curves in text: a plot of braille dots, two by four to a character."""

from __future__ import annotations

from collections.abc import Sequence

_EMPTY = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of the dots of a character, by row and column."""


def braille_plot(
    x: Sequence[float], y: Sequence[float | None], *, width: int, height: int
) -> list[str]:
    """Return the lines of a plot, top to bottom; the curve fills the box.

    Args:
        x: ascending.
        y: None where there is a gap.
        width: characters.
        height: lines.
    """
    points = [(a, b) for a, b in zip(x, y, strict=True) if b is not None]
    cells = [[0] * width for _ in range(height)]
    if points and width > 0 and height > 0:
        columns = _scaled([a for a, _ in points], 2 * width - 1)
        rows = _scaled([-b for _, b in points], 4 * height - 1)
        dots = list(zip(columns, rows, strict=True))
        for start, stop in zip(dots, dots[1:] or dots, strict=False):
            for column, row in _between(start, stop):
                cells[row // 4][column // 2] |= _DOTS[row % 4][column % 2]
    return ["".join(chr(_EMPTY + bits) for bits in line) for line in cells]


def _scaled(values: Sequence[float], most: int) -> list[int]:
    """Return values as whole numbers from 0 to `most`; equal ones stand in the middle."""
    low, high = min(values), max(values)
    if high <= low:
        return [most // 2] * len(values)
    return [round((value - low) / (high - low) * most) for value in values]


def _between(start: tuple[int, int], stop: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the dots of a line."""
    count = max(abs(stop[0] - start[0]), abs(stop[1] - start[1]), 1)
    return [
        (
            start[0] + round((stop[0] - start[0]) * i / count),
            start[1] + round((stop[1] - start[1]) * i / count),
        )
        for i in range(count + 1)
    ]
