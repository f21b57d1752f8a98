"""Losses on preference pairs (T25)."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from textgym_agents.core import preference
from textgym_agents.core.preference import LogRatios

ZERO = torch.zeros(3, dtype=torch.float64)


def ratios_of(*deltas: float) -> LogRatios:
    """Return log ratios whose differences are given."""
    rejected = torch.tensor([0.7 * i for i in range(len(deltas))], dtype=torch.float64)
    return LogRatios(rejected + torch.tensor(deltas, dtype=torch.float64), rejected)


def check_golden() -> None:
    # beta 0.5, Delta 2: x = 1. -log sigmoid(1) = 0.313262; -log sigmoid(-1) = 1.313262.
    # Smoothed by 0.1: 0.9 * 0.313262 + 0.1 * 1.313262 = 0.413262.
    for smoothing, expected in ((0.0, 0.3132617), (0.1, 0.4132617)):
        loss = preference.dpo_loss(ratios_of(2.0), beta=0.5, label_smoothing=smoothing)
        assert float(loss[0]) == pytest.approx(expected, abs=1e-6)


def check_ipo_golden() -> None:
    # r(chosen) = 3 over 4 tokens, r(rejected) = 1 over 2: Delta = 0.75 - 0.5 = 0.25.
    # beta 0.5: (0.25 - 1)^2 = 0.5625.
    ratios = LogRatios(torch.tensor([3.0]), torch.tensor([1.0]))
    loss = preference.ipo_loss(ratios, torch.tensor([4]), torch.tensor([2]), beta=0.5)
    assert float(loss[0]) == pytest.approx(0.5625)


def check_ln_2_at_the_start() -> None:
    ell = torch.tensor([-3.0, -40.0, -1e4], dtype=torch.float64)
    ratios = LogRatios.of(ell, ell.flip(0), ell, ell.flip(0))
    for smoothing in (0.0, 0.2):
        loss = preference.dpo_loss(ratios, label_smoothing=smoothing)
        torch.testing.assert_close(loss, torch.full_like(loss, math.log(2)))


def test_dpo_loss_is_ln_2_before_the_policy_has_moved() -> None:
    """T25: whatever the lengths and the policy."""
    check_ln_2_at_the_start()


def test_dpo_loss_golden() -> None:
    check_golden()


def test_ipo_loss_golden() -> None:
    check_ipo_golden()


@pytest.mark.parametrize("delta", [-1e4, 1e4])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_loss_and_gradient_stay_finite_at_extreme_ratios(delta: float, smoothing: float) -> None:
    """T25: a naive log(1 + exp(x)) would overflow."""
    chosen = torch.tensor([delta], requires_grad=True)
    ratios = LogRatios(chosen, torch.zeros(1))
    loss = preference.dpo_loss(ratios, beta=1.0, label_smoothing=smoothing).sum()
    loss.backward()
    expected = max(-delta, 0.0) * (1 - smoothing) + max(delta, 0.0) * smoothing
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-6)
    assert chosen.grad is not None
    assert chosen.grad.isfinite().all()


def test_smoothing_makes_certainty_dear() -> None:
    """With s the loss has its minimum where the policy prefers the chosen one with 1 - s."""
    best = math.log(0.9 / 0.1)
    at = [
        float(preference.dpo_loss(ratios_of(x), beta=1.0, label_smoothing=0.1)[0])
        for x in (best - 0.1, best, best + 0.1)
    ]
    assert at[1] == min(at)


def test_implicit_rewards_are_the_scaled_log_ratios() -> None:
    chosen, rejected = torch.tensor([-5.0]), torch.tensor([-7.0])
    ratios = LogRatios.of(chosen, rejected, torch.tensor([-6.0]), torch.tensor([-6.5]))
    rewards = preference.implicit_rewards(ratios, beta=0.2)
    assert float(rewards.chosen[0]) == pytest.approx(0.2)
    assert float(rewards.rejected[0]) == pytest.approx(-0.1)


def test_the_gradient_raises_the_chosen_and_lowers_the_rejected() -> None:
    """arXiv:2305.18290, section 4: weighted by beta * sigmoid(-beta * Delta)."""
    parts = [torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (1.0, 0.5)]
    preference.dpo_loss(LogRatios(*parts), beta=0.1).sum().backward()
    weight = 0.1 / (1 + math.exp(0.1 * 0.5))
    found = [float(x.grad) for x in parts if x.grad is not None]
    assert found == pytest.approx([-weight, weight])


def swapped(ratios: LogRatios, *, beta: float = 0.1, label_smoothing: float = 0.0) -> Tensor:
    return REAL_DPO(LogRatios(*reversed(ratios)), beta=beta, label_smoothing=label_smoothing)


def without_reference(chosen: Tensor, rejected: Tensor, *_: Tensor) -> LogRatios:
    return LogRatios(chosen, rejected)


def by_sums(ratios: LogRatios, chosen: Tensor, rejected: Tensor, *, beta: float = 0.1) -> Tensor:
    return REAL_IPO(ratios, torch.ones_like(chosen), torch.ones_like(rejected), beta=beta)


REAL_DPO, REAL_IPO = preference.dpo_loss, preference.ipo_loss


@pytest.mark.parametrize(
    ("target", "name", "mutant", "check"),
    [
        (preference, "dpo_loss", swapped, check_golden),
        (preference, "ipo_loss", by_sums, check_ipo_golden),
        (LogRatios, "of", without_reference, check_ln_2_at_the_start),
    ],
)
def test_mutant_is_caught(
    monkeypatch: pytest.MonkeyPatch,
    target: object,
    name: str,
    mutant: Callable[..., object],
    check: Callable[[], None],
) -> None:
    """T28: the pair the wrong way round, sums in place of means, no reference."""
    monkeypatch.setattr(target, name, mutant)
    with pytest.raises(AssertionError):
        check()
