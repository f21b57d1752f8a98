"""GAE with gaps, ends and cut-offs, against the definition as a double sum (T1, T2, T3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from textgym_agents.core import advantages

RATES = [(1.0, 1.0), (0.99, 0.95), (0.9, 0.0), (0.97, 1.0)]
PROPERTY = settings(deadline=None, max_examples=30)
SEEDS = st.integers(0, 2**32 - 1)
EXACT = {"rtol": 0.0, "atol": 1e-10}


@dataclass(frozen=True)
class Case:
    """What `gae` takes; float64."""

    rewards: Tensor
    values: Tensor
    mask: Tensor
    bootstrap: Tensor

    def gae(self, gamma: float, lam: float | Tensor, **options: Any) -> Tensor:
        return advantages.gae(
            self.rewards,
            self.values,
            self.mask,
            self.bootstrap,
            gamma=gamma,
            lam=lam,
            **options,
        )


def random_case(seed: int, *, rows: int = 4, length: int = 12, density: float = 0.6) -> Case:
    """Return rewards on actions, NaN off them, and a bootstrap for about half of the rows."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mask = torch.rand(rows, length, generator=generator) < density
    is_truncated = torch.rand(rows, generator=generator) < 0.5
    return Case(
        torch.where(mask, normal(rows, length), torch.nan),
        torch.where(mask, normal(rows, length), torch.nan),
        mask,
        torch.where(is_truncated, normal(rows), 0.0),
    )


def deltas(case: Case, row: int, gammas: list[float]) -> list[float]:
    """Return delta_k = r_k + gamma_k V_{k+1} - V_k over the actions of one row."""
    on = case.mask[row]
    rewards, values = case.rewards[row][on].tolist(), case.values[row][on].tolist()
    following = [*values[1:], float(case.bootstrap[row])]
    rows = zip(rewards, gammas, following[: len(values)], values, strict=True)
    return [r + g * v_next - v for r, g, v_next, v in rows]


def gae_by_definition(case: Case, gammas: Tensor, lams: Tensor) -> Tensor:
    """Return A_k = sum over l >= k of (product over i in k..l-1 of gamma_i lambda_i) delta_l."""
    result = torch.zeros_like(case.rewards)
    for row, on in enumerate(case.mask):
        g, lam = gammas[row][on].tolist(), lams[row][on].tolist()
        delta = deltas(case, row, g)
        for k, j in enumerate(on.nonzero().flatten().tolist()):
            total, weight = 0.0, 1.0
            for i in range(k, len(delta)):
                total += weight * delta[i]
                weight *= g[i] * lam[i]
            result[row, j] = total
    return result


def check_equals_double_sum() -> None:
    for seed in range(12):
        case = random_case(seed)
        for gamma, lam in RATES:
            gammas = torch.full_like(case.rewards, gamma)
            expected = gae_by_definition(case, gammas, torch.full_like(gammas, lam))
            torch.testing.assert_close(case.gae(gamma, lam), expected, **EXACT)


def check_gaps_do_not_matter() -> None:
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        dense = random_case(seed, rows=1, length=6, density=2.0)
        gaps = torch.randint(0, 65, (7,), generator=generator).tolist()
        at = [sum(gaps[: k + 1]) + k for k in range(6)]  # where action k lies now
        length = sum(gaps) + 6

        def spread(x: Tensor, off: float, at: list[int] = at, length: int = length) -> Tensor:
            wide = torch.full((1, length), off, dtype=x.dtype)
            wide[0, at] = x[0]
            return wide

        wide = replace(
            dense,
            rewards=spread(dense.rewards, 5.0),
            values=spread(dense.values, torch.nan),
            mask=spread(dense.mask, 0.0),
        )
        for gamma, lam in RATES:
            result = wide.gae(gamma, lam)
            torch.testing.assert_close(result[:, at], dense.gae(gamma, lam), **EXACT)
            assert result.count_nonzero() <= 6


def check_observation_rewards_go_to_the_action_before() -> None:
    # Actions at 1, 2, 5; 0, 3, 4 and 6 are the environment's. The reward of position 0 has no
    # action before it and goes to the first: 1 + 2 = 3. Position 2 gets 4 + 8 + 16 = 28.
    mask = torch.tensor([[False, True, True, False, False, True, False]])
    rewards = torch.tensor([[1.0, 2, 4, 8, 16, 32, 64]], dtype=torch.float64)
    folded = advantages.fold_rewards(rewards, mask)
    assert folded.tolist() == [[0, 3, 28, 0, 0, 96, 0]]
    values = torch.full_like(rewards, 0.5)
    emitted_late = Case(folded, values, mask, torch.zeros(1, dtype=torch.float64))
    at_once = replace(emitted_late, rewards=torch.tensor([[0, 3, 28, 0, 0, 96, 0]]).double())
    assert torch.equal(emitted_late.gae(0.9, 0.8), at_once.gae(0.9, 0.8))


def check_truncation_adds_the_bootstrap_alone() -> None:
    for seed in range(12):
        case = random_case(seed)
        terminated = replace(case, bootstrap=torch.zeros_like(case.bootstrap))
        for gamma, lam in RATES:
            difference = case.gae(gamma, lam) - terminated.gae(gamma, lam)
            later = case.mask.flip(1).cumsum(1).flip(1) - 1  # K - k at action k
            decay = torch.full_like(difference, gamma * lam) ** later.clamp(min=0)
            expected = decay * gamma * case.bootstrap.unsqueeze(1) * case.mask
            torch.testing.assert_close(difference, expected, **EXACT)


def test_gae_golden() -> None:
    # gamma 0.9, lambda 0.5, V = (0.5, 0.25), r = (0, 1), an environment token in between.
    # Terminated: delta_2 = 1 - 0.25 = 0.75; delta_1 = 0.9 * 0.25 - 0.5 = -0.275;
    #   A_1 = -0.275 + 0.45 * 0.75 = 0.0625.
    # Truncated with V = 2 to follow: delta_2 = 1 + 1.8 - 0.25 = 2.55;
    #   A_1 = -0.275 + 0.45 * 2.55 = 0.8725.
    case = Case(
        torch.tensor([[0.0, 0, 1], [0, 0, 1]], dtype=torch.float64),
        torch.tensor([[0.5, 9, 0.25], [0.5, 9, 0.25]], dtype=torch.float64),
        torch.tensor([[True, False, True]] * 2),
        torch.tensor([0.0, 2.0], dtype=torch.float64),
    )
    expected = torch.tensor([[0.0625, 0, 0.75], [0.8725, 0, 2.55]], dtype=torch.float64)
    torch.testing.assert_close(case.gae(0.9, 0.5), expected)


def test_gae_equals_the_double_sum() -> None:
    """T1."""
    check_equals_double_sum()


@given(seed=SEEDS)
@PROPERTY
def test_gae_with_lambda_1_is_the_return_minus_the_value(seed: int) -> None:
    """T1: discounted return, plus the discounted bootstrap of a truncated episode."""
    case, gamma = random_case(seed), 0.97
    result = case.gae(gamma, 1.0)
    for row, on in enumerate(case.mask):
        rewards, values = case.rewards[row][on], case.values[row][on]
        for k, advantage in enumerate(result[row][on].tolist()):
            tail = [*rewards[k:].tolist(), float(case.bootstrap[row])]
            discounted = sum(gamma**i * r for i, r in enumerate(tail))
            assert advantage == pytest.approx(discounted - float(values[k]), abs=1e-10)


@given(seed=SEEDS, gamma=st.floats(0.01, 1.0))
@PROPERTY
def test_gae_with_lambda_0_is_the_td_residual(seed: int, gamma: float) -> None:
    """T1."""
    case = random_case(seed)
    result = case.gae(gamma, 0.0)
    for row, on in enumerate(case.mask):
        residual = deltas(case, row, [gamma] * int(on.sum()))
        assert result[row][on].tolist() == pytest.approx(residual, abs=1e-10)


@given(seed=SEEDS, gamma=st.floats(0.01, 1.0), lam=st.floats(0.0, 1.0))
@PROPERTY
def test_gae_of_the_true_return_is_zero(seed: int, gamma: float, lam: float) -> None:
    case = random_case(seed)
    values = torch.zeros_like(case.values)
    carry = case.bootstrap
    for t in reversed(range(values.shape[1])):
        carry = torch.where(case.mask[:, t], case.rewards[:, t] + gamma * carry, carry)
        values[:, t] = carry
    assert replace(case, values=values).gae(gamma, lam).abs().max() < 1e-10


def test_gae_ignores_gaps() -> None:
    """T2: 0 to 64 environment tokens anywhere, with rewards and NaN values of their own."""
    check_gaps_do_not_matter()


def test_fold_rewards_moves_a_late_reward_to_the_action_before() -> None:
    """T2."""
    check_observation_rewards_go_to_the_action_before()


@given(seed=SEEDS, density=st.floats(0.0, 1.0))
@PROPERTY
def test_fold_rewards_keeps_the_sum_of_every_episode_that_acts(seed: int, density: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(5, 8, generator=generator) < density
    rewards = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    folded = advantages.fold_rewards(rewards, mask)
    expected = torch.where(mask.any(dim=1), rewards.sum(dim=1), 0.0)
    torch.testing.assert_close(folded.sum(dim=1), expected)
    assert (folded[~mask] == 0).all()


def test_gae_truncated_minus_terminated_is_the_decayed_bootstrap() -> None:
    """T3: (gamma lambda)^(K - k) gamma V, so termination ignores V and truncation does not."""
    check_truncation_adds_the_bootstrap_alone()


@given(seed=SEEDS)
@PROPERTY
def test_gae_of_a_row_does_not_depend_on_the_others(seed: int) -> None:
    """T3: nothing leaks across an episode's end, whatever stands beside it."""
    case = random_case(seed)
    together = case.gae(0.99, 0.95)
    for i in range(len(case.mask)):
        one = slice(i, i + 1)
        alone = Case(case.rewards[one], case.values[one], case.mask[one], case.bootstrap[one])
        assert torch.equal(alone.gae(0.99, 0.95), together[one])


@given(seed=SEEDS)
@PROPERTY
def test_gae_takes_a_lambda_per_sequence(seed: int) -> None:
    case = random_case(seed)
    lams = torch.tensor([0.0, 0.5, 0.95, 1.0], dtype=torch.float64)
    each = torch.cat([case.gae(0.9, float(lam))[i : i + 1] for i, lam in enumerate(lams)])
    torch.testing.assert_close(case.gae(0.9, lams), each, **EXACT)


def check_turns_discount_only_at_their_end() -> None:
    # gamma 0.5, lambda 1, V = 0, turns (a b) and (c d), reward 8 on d: inside a turn nothing is
    # lost, between the turns one factor 0.5. With gamma per token it would be 1, 2, 4, 8.
    case = Case(
        torch.tensor([[0.0, 0, 0, 0, 8]], dtype=torch.float64),
        torch.zeros(1, 5, dtype=torch.float64),
        torch.tensor([[True, True, False, True, True]]),
        torch.zeros(1, dtype=torch.float64),
    )
    by_turn = case.gae(0.5, 1.0, discount_unit="turn")
    assert by_turn.tolist() == [[4, 4, 0, 8, 8]]
    for seed in range(6):
        random = random_case(seed)
        ends = advantages.turn_ends(random.mask)
        ones = torch.ones_like(random.rewards)
        gammas, lams = torch.where(ends, 0.9 * ones, ones), torch.where(ends, 0.8 * ones, ones)
        result = random.gae(0.9, 0.8, discount_unit="turn")
        torch.testing.assert_close(result, gae_by_definition(random, gammas, lams), **EXACT)


def test_gae_by_turn_discounts_only_the_last_token_of_a_turn() -> None:
    check_turns_discount_only_at_their_end()


def test_turn_ends_marks_the_last_action_before_each_gap() -> None:
    mask = torch.tensor([[True, True, False, True], [False, True, False, False]])
    expected = [[False, True, False, True], [False, True, False, False]]
    assert advantages.turn_ends(mask).tolist() == expected


def test_length_adaptive_lambda_golden() -> None:
    # 1 - 1 / (0.05 K): K = 1 gives -19, clipped; 400 gives 0.95; 1000 gives 0.98; 2000 gives 0.99.
    lams = advantages.length_adaptive_lambda(torch.tensor([0, 1, 20, 400, 1000, 2000]))
    torch.testing.assert_close(lams, torch.tensor([0.95, 0.95, 0.95, 0.95, 0.98, 0.99]))


REAL_GAE, REAL_FOLD = advantages.gae, advantages.fold_rewards


def gae_through_the_gap(
    rewards: Tensor, values: Tensor, mask: Tensor, bootstrap: Tensor, **options: Any
) -> Tensor:
    span = (mask.cumsum(1) > 0) & (mask.flip(1).cumsum(1).flip(1) > 0)
    rewards, values = torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0)
    return torch.where(mask, REAL_GAE(rewards, values, span, bootstrap, **options), 0.0)


def gae_with_value_of_itself_next(
    rewards: Tensor, values: Tensor, mask: Tensor, bootstrap: Tensor, **options: Any
) -> Tensor:
    return REAL_GAE(rewards, values.nan_to_num().roll(1, dims=1), mask, bootstrap, **options)


def gae_without_lambda(*tensors: Tensor, gamma: float, lam: float | Tensor, **rest: Any) -> Tensor:
    return REAL_GAE(*tensors, gamma=gamma, lam=1.0, **rest)


def gae_that_ignores_the_bootstrap(
    rewards: Tensor, values: Tensor, mask: Tensor, bootstrap: Tensor, **options: Any
) -> Tensor:
    return REAL_GAE(rewards, values, mask, torch.zeros_like(bootstrap), **options)


def gae_always_by_token(*tensors: Tensor, discount_unit: str = "token", **rest: Any) -> Tensor:
    return REAL_GAE(*tensors, **rest)


def fold_that_drops(rewards: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, rewards, 0.0)


def fold_onto_the_next_action(rewards: Tensor, mask: Tensor) -> Tensor:
    return REAL_FOLD(rewards.flip(1), mask.flip(1)).flip(1)


@pytest.mark.parametrize(
    ("name", "mutant", "check"),
    [
        ("gae", gae_through_the_gap, check_gaps_do_not_matter),
        ("gae", gae_through_the_gap, check_equals_double_sum),
        ("gae", gae_with_value_of_itself_next, check_equals_double_sum),
        ("gae", gae_without_lambda, check_equals_double_sum),
        ("gae", gae_that_ignores_the_bootstrap, check_truncation_adds_the_bootstrap_alone),
        ("gae", gae_always_by_token, check_turns_discount_only_at_their_end),
        ("fold_rewards", fold_that_drops, check_observation_rewards_go_to_the_action_before),
        (
            "fold_rewards",
            fold_onto_the_next_action,
            check_observation_rewards_go_to_the_action_before,
        ),
    ],
)
def test_mutant_is_caught(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    mutant: Callable[..., Tensor],
    check: Callable[[], None],
) -> None:
    """T28: decay through the gap (training does not show it), and errors of the recursion."""
    monkeypatch.setattr(advantages, name, mutant)
    with pytest.raises(AssertionError):
        check()
