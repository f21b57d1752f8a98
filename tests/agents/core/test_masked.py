"""Masked statistics: what is off the mask cannot be seen (T12)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from textgym_agents.core import masked

GARBAGE = [7.0, -1e30, float("inf"), float("nan")]


def random_masked(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 9, generator=generator, dtype=torch.float64) * 3 + 5
    return x, torch.rand(4, 9, generator=generator) < 0.6


def check_whitened_has_mean_0_and_std_1() -> None:
    for seed in range(10):
        x, mask = random_masked(seed)
        white = masked.masked_whiten(x, mask)
        # With the 1e-8 in the divisor the standard deviation is std / (std + 1e-8).
        assert white[mask].mean().abs() < 1e-9
        assert (white[mask].std(correction=0) - 1).abs() < 1e-7
        assert (white[~mask] == 0).all()


def check_pads_do_not_matter() -> None:
    for seed in range(3):
        x, mask = random_masked(seed)
        for garbage in GARBAGE:
            dirty = torch.where(mask, x, garbage)
            for statistic in (masked.masked_sum, masked.masked_mean, masked.masked_std):
                torch.testing.assert_close(statistic(dirty, mask), statistic(x, mask))
            torch.testing.assert_close(
                masked.masked_whiten(dirty, mask), masked.masked_whiten(x, mask)
            )


def check_pads_get_no_gradient() -> None:
    x, mask = random_masked(0)
    for garbage in GARBAGE:
        for statistic in (masked.masked_sum, masked.masked_mean):
            dirty = torch.where(mask, x, garbage).requires_grad_()
            statistic(dirty, mask).backward()
            expected = 1.0 if statistic is masked.masked_sum else 1.0 / int(mask.sum())
            torch.testing.assert_close(dirty.grad, mask.double() * expected)


def test_whiten_has_mean_0_and_std_1_on_the_mask() -> None:
    """T12."""
    check_whitened_has_mean_0_and_std_1()


def test_whiten_ignores_pads_even_nan() -> None:
    """T12."""
    check_pads_do_not_matter()


def test_sum_and_mean_give_pads_no_gradient() -> None:
    check_pads_get_no_gradient()


def test_statistics_golden() -> None:
    # On the mask: 1, 2, 6. Mean 3; variance ((-2)^2 + (-1)^2 + 3^2) / 3 = 14 / 3.
    x = torch.tensor([[1.0, 2.0, 99.0], [6.0, 99.0, 99.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert masked.masked_sum(x, mask) == 9
    assert masked.masked_mean(x, mask) == 3
    assert float(masked.masked_std(x, mask)) == pytest.approx((14 / 3) ** 0.5)
    white = masked.masked_whiten(x, mask)
    expected = torch.tensor([[-2.0, -1, 0], [3, 0, 0]]) / (14 / 3) ** 0.5
    torch.testing.assert_close(white, expected)


@pytest.mark.parametrize("num_masked", [0, 1])
def test_whiten_with_fewer_than_two_entries_is_zero(num_masked: int) -> None:
    """T12: N = 0 and N = 1 have no scale."""
    mask = torch.zeros(2, 3, dtype=torch.bool)
    mask[0, :num_masked] = True
    white = masked.masked_whiten(torch.full((2, 3), 5.0), mask)
    assert torch.equal(white, torch.zeros(2, 3))


@given(value=st.floats(-1e3, 1e3), n=st.integers(2, 40))
@settings(deadline=None, max_examples=30)
def test_whiten_without_spread_only_takes_the_mean_off(value: float, n: int) -> None:
    """T12: zero variance. Rounding noise must not be blown up to unit size."""
    x = torch.full((1, n), value, dtype=torch.float64)
    white = masked.masked_whiten(x, torch.ones(1, n, dtype=torch.bool))
    assert white.abs().max() < 1e-9


def test_mean_of_an_empty_mask_is_zero() -> None:
    empty = torch.zeros(2, 2, dtype=torch.bool)
    assert masked.masked_mean(torch.full((2, 2), torch.nan), empty) == 0


def whiten_over_pads(x: Tensor, mask: Tensor) -> Tensor:
    return (x - x.mean()) / (x.std(correction=0) + 1e-8) * mask


def sum_by_multiplication(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask).sum()


def mean_over_pads(x: Tensor, mask: Tensor) -> Tensor:
    return masked.masked_sum(x, mask) / mask.numel()


def sample_std(x: Tensor, mask: Tensor) -> Tensor:
    return x[mask].std(correction=1)


@pytest.mark.parametrize(
    ("name", "mutant", "check"),
    [
        ("masked_whiten", whiten_over_pads, check_whitened_has_mean_0_and_std_1),
        ("masked_whiten", whiten_over_pads, check_pads_do_not_matter),
        ("masked_sum", sum_by_multiplication, check_pads_do_not_matter),
        ("masked_mean", mean_over_pads, check_whitened_has_mean_0_and_std_1),
        ("masked_mean", mean_over_pads, check_pads_get_no_gradient),
        ("masked_std", sample_std, check_whitened_has_mean_0_and_std_1),
    ],
)
def test_mutant_is_caught(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    mutant: Callable[..., Tensor],
    check: Callable[[], None],
) -> None:
    """T28: whitening over pads and its kin."""
    monkeypatch.setattr(masked, name, mutant)
    with pytest.raises(AssertionError):
        check()
