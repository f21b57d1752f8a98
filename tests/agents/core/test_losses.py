"""The terms of the objective and their aggregation (T4, T5, the closed form of T11)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from textgym_agents.core import losses
from textgym_agents.core.losses import Aggregation, Totals

SEEDS = st.integers(0, 2**32 - 1)
PROPERTY = settings(deadline=None, max_examples=30)
RATIOS = [0.5, 0.79, 1.0, 1.21, 1.3, 4.0]
AGGREGATIONS: list[Aggregation] = [
    "token_mean",
    "seq_mean_token_mean",
    "seq_mean_token_sum",
    "token_sum_const",
]


class Clip(NamedTuple):
    low: float
    high: float
    dual: float | None


CLIPS = [Clip(0.2, 0.2, None), Clip(0.2, 0.28, None), Clip(0.1, 0.5, 3.0), Clip(0.2, 0.2, 1.5)]


def loss_at(ratio: float, advantage: float, clip: Clip) -> float:
    """Return the loss of one token, float64."""
    d = torch.tensor([ratio], dtype=torch.float64).log()
    a = torch.tensor([advantage], dtype=torch.float64)
    loss = losses.policy_loss(d, a, clip_low=clip.low, clip_high=clip.high, dual_clip=clip.dual)
    return float(loss)


def gradient_by_table(ratio: float, advantage: float, clip: Clip) -> float:
    """Return dL/d ell as spec 4.5 tabulates it."""
    if advantage > 0 and ratio > 1 + clip.high:
        return 0.0
    if advantage < 0 and ratio < 1 - clip.low:
        return 0.0
    if advantage < 0 and clip.dual is not None and ratio > clip.dual:
        return 0.0
    return -ratio * advantage


def check_gradient_table() -> None:
    for ratio in RATIOS:
        for advantage in (1.7, -0.6, 0.0):
            for clip in CLIPS:
                ell = torch.tensor(ratio, dtype=torch.float64).log().item()
                step = 1e-6
                up, down = (
                    loss_at(
                        float(torch.tensor(ell + h, dtype=torch.float64).exp()), advantage, clip
                    )
                    for h in (step, -step)
                )
                expected = gradient_by_table(ratio, advantage, clip)
                numeric = (up - down) / (2 * step)
                assert numeric == pytest.approx(expected, abs=1e-7), (ratio, advantage, clip)
                d = torch.tensor([ell], dtype=torch.float64, requires_grad=True)
                a = torch.tensor([advantage], dtype=torch.float64)
                losses.policy_loss(
                    d, a, clip_low=clip.low, clip_high=clip.high, dual_clip=clip.dual
                ).sum().backward()
                assert d.grad is not None
                assert float(d.grad) == pytest.approx(expected, abs=1e-12), (ratio, advantage)


def check_gradient_at_ratio_1() -> None:
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(3, 5, 7, generator=generator, dtype=torch.float64)
        ids = torch.randint(0, 7, (3, 5, 1), generator=generator)
        mask = torch.rand(3, 5, generator=generator) < 0.7
        a = torch.randn(3, 5, generator=generator, dtype=torch.float64)
        totals = Totals.of(mask)
        for clip in CLIPS:
            z = logits.clone().requires_grad_()
            ell = z.log_softmax(-1).gather(2, ids).squeeze(2)
            loss = losses.policy_loss(
                ell - ell.detach(),
                a,
                clip_low=clip.low,
                clip_high=clip.high,
                dual_clip=clip.dual,
            )
            losses.aggregate(loss, mask, totals, "token_mean").backward()
            plain = logits.clone().requires_grad_()
            ell = plain.log_softmax(-1).gather(2, ids).squeeze(2)
            (-(mask * a * ell).sum() / mask.sum()).backward()
            torch.testing.assert_close(z.grad, plain.grad, rtol=1e-6, atol=1e-12)


def check_aggregation_closed_form() -> None:
    # Sequences of 2 and 8 action tokens, loss 1 on the short and 3 on the long one, constant 16.
    # token_mean (2 + 24) / 10 = 2.6; seq_mean_token_mean (1 + 3) / 2 = 2;
    # seq_mean_token_sum (2 + 24) / 2 = 13; token_sum_const 26 / (2 * 16) = 0.8125.
    # The mean of the two micro-batches' token means would be 2, not 2.6.
    golden = dict(zip(AGGREGATIONS, [2.6, 2.0, 13.0, 0.8125], strict=True))
    mask = torch.arange(8) < torch.tensor([[2], [8]])
    loss = torch.where(mask, torch.tensor([[1.0], [3.0]]), torch.nan)
    totals = Totals.of(mask, 16)
    for how, expected in golden.items():
        whole = losses.aggregate(loss, mask, totals, how)
        parts = [losses.aggregate(loss[i : i + 1], mask[i : i + 1], totals, how) for i in (0, 1)]
        assert float(whole) == pytest.approx(expected, rel=1e-6), how
        assert float(sum(parts)) == pytest.approx(expected, rel=1e-6), how


def check_value_loss_golden() -> None:
    # V = 2, R = 5, V_old = 1: error 9. Clipped to V_old + 0.5 = 1.5: (1.5 - 5)^2 = 12.25, the
    # larger one counts. Where R = 1.2 the clipped error (0.3)^2 = 0.09 is below (0.8)^2 = 0.64.
    # V = 0.8 has moved by less than 0.5, so nothing is clipped: (0.8 - 0)^2 = 0.64.
    values, old = torch.tensor([2.0, 2.0, 0.8]), torch.ones(3)
    returns = torch.tensor([5.0, 1.2, 0.0])

    def loss(*, half: bool, clip: float | None = None) -> list[float]:
        result: list[float] = losses.value_loss(values, returns, old, half=half, clip=clip).tolist()
        return result

    assert loss(half=False) == pytest.approx([9.0, 0.64, 0.64])
    assert loss(half=True) == pytest.approx([4.5, 0.32, 0.32])
    assert loss(half=False, clip=0.5) == pytest.approx([12.25, 0.64, 0.64])
    assert loss(half=True, clip=0.5) == pytest.approx([6.125, 0.32, 0.32])


def test_policy_loss_at_ratio_1_has_the_gradient_of_the_plain_objective() -> None:
    """T4: -sum m A ell / N, for any sign of A and any clip."""
    check_gradient_at_ratio_1()


def test_policy_loss_gradient_table() -> None:
    """T5, by finite differences and by autograd."""
    check_gradient_table()


def test_policy_loss_golden() -> None:
    # rho 1.5, A 2, clip 0.2: min(3, 2.4) = 2.4. rho 0.5, A -2: min(-1, -1.6) = -1.6.
    # rho 5, A -2: min(-10, -2.4) = -10, and dual clip 3 bounds it: max(-10, -6) = -6.
    assert loss_at(1.5, 2.0, CLIPS[0]) == pytest.approx(-2.4)
    assert loss_at(0.5, -2.0, CLIPS[0]) == pytest.approx(1.6)
    assert loss_at(5.0, -2.0, CLIPS[0]) == pytest.approx(10.0)
    assert loss_at(5.0, -2.0, Clip(0.2, 0.2, 3.0)) == pytest.approx(6.0)
    assert loss_at(5.0, 2.0, Clip(0.2, 0.2, 3.0)) == pytest.approx(-2.4)


def test_value_loss_golden() -> None:
    check_value_loss_golden()


@given(seed=SEEDS)
@PROPERTY
def test_value_loss_clip_is_never_below_the_plain_loss(seed: int) -> None:
    values, returns, old = torch.randn(3, 20, generator=torch.Generator().manual_seed(seed))
    plain = losses.value_loss(values, returns, old, half=False)
    assert (losses.value_loss(values, returns, old, half=False, clip=0.3) >= plain).all()


def test_aggregate_closed_form_with_lengths_2_and_8() -> None:
    """T11."""
    check_aggregation_closed_form()


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_aggregate_leaves_out_a_sequence_without_actions(how: Aggregation) -> None:
    # One action in all, loss 3: every mean is 3, and the constant 4 makes it 0.75.
    mask = torch.tensor([[False, True], [False, False]])
    loss = torch.tensor([[torch.nan, 3.0], [torch.nan, torch.inf]])
    expected = 0.75 if how == "token_sum_const" else 3.0
    assert float(losses.aggregate(loss, mask, Totals.of(mask, 4), how)) == expected
    alone = losses.aggregate(loss[:1], mask[:1], Totals.of(mask[:1], 4), how)
    assert float(alone) == expected


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_aggregate_of_nothing_is_zero(how: Aggregation) -> None:
    mask = torch.zeros(2, 3, dtype=torch.bool)
    loss = torch.full((2, 3), torch.nan)
    assert float(losses.aggregate(loss, mask, Totals.of(mask), how)) == 0


def test_totals_count_tokens_and_sequences_with_actions() -> None:
    mask = torch.tensor([[True, False, True], [False, False, False], [True, True, True]])
    assert Totals.of(mask, 9) == Totals(num_tokens=5, num_sequences=2, max_new_tokens=9)


def check_clip_counts() -> None:
    # Ratios 0.5, 1, 1.5, 4 with A = 1, -1, 0, and off the mask. With clip 0.2 and dual 3: A > 0 is
    # cut at 1.5 and 4 (high 2), A < 0 at 0.5 (low 1) and at 4 (dual 1); A = 0 has nothing to cut.
    ratios = torch.tensor([0.5, 1.0, 1.5, 4.0]).repeat(4, 1)
    a = torch.tensor([[1.0], [-1.0], [0.0], [-1.0]]).expand(4, 4)
    mask = torch.tensor([[True], [True], [True], [False]]).expand(4, 4)

    def counts(dual: float | None) -> list[int]:
        found = losses.clip_counts(
            ratios.log(), a, mask, clip_low=0.2, clip_high=0.2, dual_clip=dual
        )
        return [int(count) for count in found]

    assert counts(3.0) == [1, 2, 1]
    assert counts(None) == [1, 2, 0]


def test_clip_counts_where_the_gradient_is_cut() -> None:
    check_clip_counts()


@given(seed=SEEDS)
@PROPERTY
def test_clip_counts_equal_the_tokens_without_gradient(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    d = torch.randn(4, 6, generator=generator, dtype=torch.float64).requires_grad_()
    a = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    mask = torch.rand(4, 6, generator=generator) < 0.7
    for clip in CLIPS:
        options: dict[str, Any] = {
            "clip_low": clip.low, "clip_high": clip.high, "dual_clip": clip.dual
        }  # fmt: skip
        (grad,) = torch.autograd.grad(losses.policy_loss(d, a, **options).sum(), d)
        cut = losses.clip_counts(d.detach(), a, mask, **options)
        assert int(sum(cut)) == int(((grad == 0) & mask).sum())


REAL_POLICY_LOSS, REAL_VALUE_LOSS = losses.policy_loss, losses.value_loss


def unclipped(d: Tensor, a: Tensor, **_: Any) -> Tensor:
    return -d.exp() * a


def clipped_on_the_wrong_side(
    d: Tensor, a: Tensor, *, clip_low: float, clip_high: float, dual_clip: float | None = None
) -> Tensor:
    ratio = d.exp()
    return -torch.max(ratio * a, ratio.clamp(1 - clip_low, 1 + clip_high) * a)


def clipped_everywhere(
    d: Tensor, a: Tensor, *, clip_low: float, clip_high: float, dual_clip: float | None = None
) -> Tensor:
    return -d.exp().clamp(1 - clip_low, 1 + clip_high) * a


def clip_bounds_swapped(d: Tensor, a: Tensor, **options: Any) -> Tensor:
    low, high = options.pop("clip_low"), options.pop("clip_high")
    return REAL_POLICY_LOSS(d, a, clip_low=min(high, 0.99), clip_high=low, **options)


def dual_clip_of_every_sign(
    d: Tensor, a: Tensor, *, dual_clip: float | None = None, **options: Any
) -> Tensor:
    loss = REAL_POLICY_LOSS(d, a, dual_clip=None, **options)
    return loss if dual_clip is None else -torch.max(-loss, dual_clip * a)


def maximised_loss(d: Tensor, a: Tensor, **options: Any) -> Tensor:
    return -REAL_POLICY_LOSS(d, a, **options)


def hidden_half(*args: Tensor, half: bool, **options: Any) -> Tensor:
    return REAL_VALUE_LOSS(*args, half=True, **options)


def value_clip_by_min(
    values: Tensor, returns: Tensor, old: Tensor, *, half: bool, clip: float | None = None
) -> Tensor:
    plain = REAL_VALUE_LOSS(values, returns, old, half=half)
    near = values if clip is None else old + (values - old).clamp(-clip, clip)
    return torch.min(plain, REAL_VALUE_LOSS(near, returns, old, half=half))


def mean_of_the_micro_batch(loss: Tensor, mask: Tensor, totals: Totals, how: Aggregation) -> Tensor:
    return loss[mask].mean()


@pytest.mark.parametrize(
    ("name", "mutant", "check"),
    [
        ("policy_loss", unclipped, check_gradient_table),
        ("policy_loss", clipped_on_the_wrong_side, check_gradient_table),
        ("policy_loss", clipped_everywhere, check_gradient_table),
        ("policy_loss", clip_bounds_swapped, check_gradient_table),
        ("policy_loss", dual_clip_of_every_sign, check_gradient_table),
        ("policy_loss", maximised_loss, check_gradient_at_ratio_1),
        ("value_loss", hidden_half, check_value_loss_golden),
        ("value_loss", value_clip_by_min, check_value_loss_golden),
        ("aggregate", mean_of_the_micro_batch, check_aggregation_closed_form),
    ],
)
def test_mutant_is_caught(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    mutant: Callable[..., Tensor],
    check: Callable[[], None],
) -> None:
    """T28: clips on the wrong side, hidden halves, means of means."""
    monkeypatch.setattr(losses, name, mutant)
    with pytest.raises(AssertionError):
        check()
