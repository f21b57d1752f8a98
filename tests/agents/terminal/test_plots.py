"""Plots in braille: dots stand where the values are."""

from __future__ import annotations

import pytest

from textgym_agents.terminal.plots import braille_plot


def dots(lines: list[str]) -> set[tuple[int, int]]:
    """Return the (column, row) of each dot, by the order of dots that Unicode gives them."""
    order = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))
    return {
        (2 * column + dx, 4 * row + dy)
        for row, line in enumerate(lines)
        for column, character in enumerate(line)
        for bit, (dx, dy) in enumerate(order)
        if (ord(character) - 0x2800) >> bit & 1
    }


def test_a_rising_line_is_a_diagonal() -> None:
    found = dots(braille_plot([0, 1], [0, 1], width=4, height=2))
    assert found == {(i, 7 - i) for i in range(8)}


def test_a_curve_passes_through_its_values() -> None:
    found = dots(braille_plot([0, 1, 2], [1, 0, 1], width=4, height=2))
    assert {(0, 0), (7, 0)} <= found
    assert any(row == 7 for _, row in found)
    assert {column for column, _ in found} == set(range(8))


@pytest.mark.parametrize(("x", "y"), [([0], [3.0]), ([0, 1], [None, 3.0]), ([5, 5], [3.0, 3.0])])
def test_a_single_value_is_a_dot(x: list[float], y: list[float | None]) -> None:
    assert len(dots(braille_plot(x, y, width=4, height=2))) == 1


def test_nothing_is_an_empty_box() -> None:
    lines = braille_plot([], [], width=3, height=2)
    assert lines == [chr(0x2800) * 3] * 2
