"""Advantages and selection within groups (T16, T17)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from textgym.errors import ConfigError
from textgym_agents.core import groups

SEEDS = st.integers(0, 2**32 - 1)
PROPERTY = settings(deadline=None, max_examples=30)
NAN = math.nan
ESTIMATORS = [
    groups.group_normalise,
    groups.grpo_advantages,
    groups.dr_grpo_advantages,
    groups.rloo_advantages,
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_scores(seed: int, num_groups: int = 5, size: int = 16) -> Tensor:
    return torch.randn(num_groups, size, generator=seeded(seed), dtype=torch.float64)


def scores_of(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def check_normalise_golden() -> None:
    # 1, 3, 5, 7: mean 4, population variance (9 + 1 + 1 + 9) / 4 = 5. A NaN changes neither.
    root = 5**0.5
    for row in ([1.0, 3, 5, 7], [1.0, 3, NAN, 5, 7]):
        z = groups.group_normalise(scores_of(row))[0]
        expected = [0.0 if math.isnan(s) else (s - 4) / (root + 1e-6) for s in row]
        assert z.tolist() == pytest.approx(expected, rel=1e-12)
        grpo = groups.grpo_advantages(scores_of(row))[0]
        expected = [0.0 if math.isnan(s) else (s - 4) / (root + 1e-4) for s in row]
        assert grpo.tolist() == pytest.approx(expected, rel=1e-12)
        centred = groups.dr_grpo_advantages(scores_of(row))[0]
        assert centred.tolist() == [0.0 if math.isnan(s) else s - 4 for s in row]


def check_rloo_is_the_distance_to_the_mean_of_the_others() -> None:
    for seed in range(10):
        scores = random_scores(seed)
        advantages = groups.rloo_advantages(scores)
        size = scores.shape[1]
        by_mean = size / (size - 1) * (scores - scores.mean(dim=1, keepdim=True))
        torch.testing.assert_close(advantages, by_mean)
        assert advantages.sum(dim=1).abs().max() < 1e-12
        for row, result in zip(scores.tolist(), advantages.tolist(), strict=True):
            for i, score in enumerate(row):
                others = row[:i] + row[i + 1 :]
                assert result[i] == pytest.approx(score - sum(others) / len(others))


def check_selection_keeps_the_ends() -> None:
    for seed in range(10):
        scores = random_scores(seed)
        selection = groups.select_best_worst(scores, 2, seeded(seed))
        ordered = scores.sort(dim=1).values
        for row, low, high in zip(scores, selection.is_low, selection.is_high, strict=True):
            index = int((scores[:, 0] == row[0]).nonzero())
            assert sorted(row[low].tolist()) == ordered[index, :2].tolist()
            assert sorted(row[high].tolist()) == ordered[index, -2:].tolist()
        assert selection.is_kept.all()


def check_ties_are_broken_at_random() -> None:
    # One success, fifteen failures: the success is always among the best, and each failure is
    # among the worst in 2 / 15 of the draws (and never the first two every time).
    scores = torch.zeros(1, 16)
    scores[0, 3] = 1.0
    low, high = torch.zeros(16), torch.zeros(16)
    for seed in range(300):
        selection = groups.select_best_worst(scores, 2, seeded(seed))
        low, high = low + selection.is_low[0], high + selection.is_high[0]
    assert high[3] == 300
    assert low[3] == 0
    others = torch.arange(16) != 3
    assert (low[others] > 10).all()  # expected 40
    assert (high[others] > 3).all()  # expected 20


def test_normalise_golden() -> None:
    """T16: population statistics of the finite scores."""
    check_normalise_golden()


def test_rloo_identity_and_zero_sum() -> None:
    """T17."""
    check_rloo_is_the_distance_to_the_mean_of_the_others()


def test_rloo_golden() -> None:
    # 1, 0, 0, 1: the others of a 1 average 1/3, those of a 0 average 2/3.
    advantages = groups.rloo_advantages(scores_of([1.0, 0, 0, 1]))
    assert advantages[0].tolist() == pytest.approx([2 / 3, -2 / 3, -2 / 3, 2 / 3])


def test_rloo_leaves_a_failed_score_out_of_the_others() -> None:
    """T17: with a NaN the group is as if that sample had not been drawn."""
    with_nan = groups.rloo_advantages(scores_of([1.0, NAN, 0, 2]))[0]
    without = groups.rloo_advantages(scores_of([1.0, 0, 2]))[0]
    assert with_nan[[0, 2, 3]].tolist() == pytest.approx(without.tolist())
    assert with_nan[1] == 0


def test_selection_keeps_the_worst_and_the_best() -> None:
    """T16."""
    check_selection_keeps_the_ends()


def test_selection_breaks_ties_at_random() -> None:
    """T16: ties."""
    check_ties_are_broken_at_random()


def test_selection_is_a_function_of_the_seed() -> None:
    scores = torch.tensor([[0.0, 0, 0, 0, 1, 1, 1, 1]]).repeat(20, 1)
    first = groups.select_best_worst(scores, 2, seeded(1))
    again = groups.select_best_worst(scores, 2, seeded(1))
    other = groups.select_best_worst(scores, 2, seeded(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.is_low, other.is_low)


@given(seed=SEEDS, levels=st.integers(1, 4), size=st.integers(4, 16), data=st.data())
@PROPERTY
def test_selection_is_disjoint_and_of_size_k(
    seed: int, levels: int, size: int, data: st.DataObject
) -> None:
    """T16: many ties, some NaN, dropped groups among kept ones."""
    k = data.draw(st.integers(0, size // 2))
    scores = torch.randint(0, levels, (6, size), generator=seeded(seed)).double()
    scores[torch.rand(6, size, generator=seeded(seed + 1)) < 0.2] = torch.nan
    low, high, kept = groups.select_best_worst(scores, k, seeded(seed))
    assert not (low & high).any()
    assert not (scores.isnan() & (low | high)).any()
    for end in (low, high):
        assert torch.equal(end.sum(dim=1), torch.where(kept, k, 0))
    for row, is_low, is_high, is_kept in zip(scores, low, high, kept, strict=True):
        finite = row[row.isfinite()]
        spread = len(finite.unique()) > 1
        assert bool(is_kept) == (spread and len(finite) >= 2 * k)
        if is_kept and k:
            assert row[is_low].max() <= finite.sort().values[k - 1]
            assert row[is_high].min() >= finite.sort().values[-k]


@given(seed=SEEDS)
@PROPERTY
def test_groups_do_not_depend_on_the_order_of_samples(seed: int) -> None:
    """T16: permutation invariance; with ties the selected scores are the same, as a multiset."""
    order = torch.randperm(16, generator=seeded(seed))
    scores = random_scores(seed)
    for estimator in ESTIMATORS:
        torch.testing.assert_close(estimator(scores[:, order]), estimator(scores)[:, order])
    here = groups.select_best_worst(scores, 2, seeded(1))
    there = groups.select_best_worst(scores[:, order], 2, seeded(2))
    assert torch.equal(there.is_low, here.is_low[:, order])
    assert torch.equal(there.is_high, here.is_high[:, order])
    tied = scores.round()
    for end in ("is_low", "is_high"):
        a = getattr(groups.select_best_worst(tied, 2, seeded(1)), end)
        b = getattr(groups.select_best_worst(tied[:, order], 2, seeded(2)), end)
        chosen = [tied[a].view(5, 2).sort().values, tied[:, order][b].view(5, 2).sort().values]
        assert torch.equal(*chosen)


@pytest.mark.parametrize("value", [0.0, 0.1, 12345.678])
def test_a_group_of_equal_scores_is_dropped_and_has_no_advantage(value: float) -> None:
    """T16: all equal. Rounding of a float32 mean must not pass for a spread."""
    scores = torch.full((1, 16), value)
    assert not groups.select_best_worst(scores, 2, seeded()).is_kept.any()
    for estimator in ESTIMATORS:
        assert estimator(scores).abs().max() < 1e-5


def test_a_group_with_fewer_than_2k_scores_is_dropped() -> None:
    """T16."""
    scores = scores_of([1.0, 2, 3, NAN], [1.0, 2, 3, 4])
    low, high, kept = groups.select_best_worst(scores, 2, seeded())
    assert kept.tolist() == [False, True]
    assert not (low | high)[0].any()
    assert (low | high)[1].all()


def test_statistics_come_from_the_whole_group() -> None:
    # T16: one success in 16. mean 1/16, std sqrt(15) / 16 = 0.2421; z is +3.873 and -0.258. Kept:
    # the success and three failures, whose z sum to 3.098; recomputed on the four it would be 0.
    scores = torch.zeros(1, 16, dtype=torch.float64)
    scores[0, 5] = 1.0
    selection = groups.select_best_worst(scores, 2, seeded())
    kept = groups.group_normalise(scores)[selection.is_low | selection.is_high]
    assert len(kept) == 4
    assert float(kept.sum()) == pytest.approx(12 / 15**0.5, abs=1e-4)
    assert float(kept.max()) == pytest.approx(15**0.5, abs=1e-4)


def test_kept_samples_of_gaussian_groups_are_twice_as_far_out() -> None:
    # Spec 4.12: mean |z| is 1.60 on the kept 4 of 16, 0.81 on all.
    scores = random_scores(0, num_groups=4000)
    selection = groups.select_best_worst(scores, 2, seeded())
    z = groups.group_normalise(scores).abs()
    assert float(z[selection.is_low | selection.is_high].mean()) == pytest.approx(1.60, abs=0.02)
    assert float(z.mean()) == pytest.approx(0.81, abs=0.01)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_advantages_of_failed_scores_are_zero_and_finite(
    estimator: Callable[[Tensor], Tensor],
) -> None:
    """T16: NaN and inf; a group without a score, and one with a single score."""
    scores = scores_of([NAN, NAN, NAN], [2.0, NAN, math.inf], [1.0, 2, -math.inf])
    advantages = estimator(scores)
    assert advantages.isfinite().all()
    assert (advantages[:2] == 0).all()
    assert advantages[2, 2] == 0
    assert advantages[2, 0] == -advantages[2, 1] < 0


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_group_of_one_is_an_error(estimator: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ConfigError, match=r"groups of 1: .* at least 2 samples"):
        estimator(torch.zeros(3, 1))
    with pytest.raises(ConfigError, match=r"scores have the shape \(3,\)"):
        estimator(torch.zeros(3))


@pytest.mark.parametrize("k", [-1, 3])
def test_selection_rejects_ends_that_overlap(k: int) -> None:
    with pytest.raises(ConfigError, match=f"k is {k}; .* must be disjoint"):
        groups.select_best_worst(torch.zeros(1, 5), k, seeded())


def test_advantages_keep_the_dtype() -> None:
    for estimator in ESTIMATORS:
        assert estimator(torch.tensor([[0.0, 1.0]])).dtype == torch.float32


REAL_SELECT = groups.select_best_worst
REAL_NORMALISE = groups.group_normalise


def normalise_by_sample_std(scores: Tensor, *, eps: float = 1e-6) -> Tensor:
    n = scores.isfinite().sum(dim=1, keepdim=True)
    return REAL_NORMALISE(scores, eps=eps) * ((n - 1) / n).sqrt()


def nan_scored_0(scores: Tensor, *, eps: float = 1e-6) -> Tensor:
    return REAL_NORMALISE(scores.nan_to_num(), eps=eps)


def rloo_against_its_own_mean(scores: Tensor) -> Tensor:
    return groups.dr_grpo_advantages(scores)


def ranks_in_order(scores: Tensor, generator: torch.Generator) -> Tensor:
    return scores.argsort(dim=1, stable=True).argsort(dim=1)


def ends_swapped(scores: Tensor, k: int, generator: torch.Generator) -> groups.Selection:
    return REAL_SELECT(-scores, k, generator)


@pytest.mark.parametrize(
    ("name", "mutant", "check"),
    [
        ("group_normalise", normalise_by_sample_std, check_normalise_golden),
        ("group_normalise", nan_scored_0, check_normalise_golden),
        (
            "rloo_advantages",
            rloo_against_its_own_mean,
            check_rloo_is_the_distance_to_the_mean_of_the_others,
        ),
        ("_ranks", ranks_in_order, check_ties_are_broken_at_random),
        ("select_best_worst", ends_swapped, check_selection_keeps_the_ends),
    ],
)
def test_mutant_is_caught(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    mutant: Callable[..., Any],
    check: Callable[[], None],
) -> None:
    """T28: other statistics, other ends."""
    monkeypatch.setattr(groups, name, mutant)
    with pytest.raises(AssertionError):
        check()
