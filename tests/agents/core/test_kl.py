"""KL statistics on distributions that can be enumerated, the early stop, the controller (T13, T15).

Categoricals over a handful of ids give every expectation and gradient exactly: E[f] is the sum of
p(a) f(a), without sampling noise.
"""

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
from textgym_agents.core import kl
from textgym_agents.core.config import KLPenaltyConfig

SEEDS = st.integers(0, 2**32 - 1)
PROPERTY = settings(deadline=None, max_examples=30)
CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def two_policies(seed: int, num_ids: int = 7) -> tuple[Tensor, Tensor]:
    """Return the logits of two different categoricals; float64."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, num_ids, generator=generator, dtype=torch.float64)
    return logits[0], logits[1]


def divergence(logits: Tensor, other: Tensor) -> Tensor:
    """Return KL(logits || other) by enumeration."""
    log_p, log_q = logits.log_softmax(-1), other.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum()


def gradient(loss: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    logits = at.clone().requires_grad_()
    loss(logits).backward()
    assert logits.grad is not None
    return logits.grad


def check_expectations() -> None:
    for seed in range(10):
        old, new = two_policies(seed)
        d = kl.log_ratio(new.log_softmax(-1), old.log_softmax(-1))
        p_old = old.softmax(-1)

        def mean(statistic: kl.KLStatistic, d: Tensor = d, p: Tensor = p_old) -> Tensor:
            return (p * kl.kl_per_token(statistic, d)).sum()

        torch.testing.assert_close(mean("seed"), -divergence(new, old), **CLOSE)
        torch.testing.assert_close(mean("k1"), divergence(old, new), **CLOSE)
        torch.testing.assert_close(mean("k3"), divergence(old, new), **CLOSE)
        assert mean("seed") < 0 < mean("k1")


def check_gradients() -> None:
    """Actions come from the policy that learns, so `old` is the policy and `new` the reference."""
    for seed in range(10):
        theta, ref = two_policies(seed)
        reverse = gradient(lambda z, ref=ref: divergence(z, ref), theta)
        forward = gradient(lambda z, ref=ref: divergence(ref, z), theta)

        def in_loss(statistic: kl.KLStatistic, theta: Tensor = theta, ref: Tensor = ref) -> Tensor:
            def loss(z: Tensor) -> Tensor:
                d = kl.log_ratio(ref.log_softmax(-1), z.log_softmax(-1))
                return (theta.softmax(-1) * kl.kl_per_token(statistic, d)).sum()

            return gradient(loss, theta)

        def k1_as_a_reward(z: Tensor, theta: Tensor = theta, ref: Tensor = ref) -> Tensor:
            ell = z.log_softmax(-1)
            penalty = kl.kl_per_token("k1", kl.log_ratio(ref.log_softmax(-1), ell)).detach()
            return -(theta.softmax(-1) * -penalty * ell).sum()  # REINFORCE on the reward -k1

        assert in_loss("k1").abs().max() < 1e-12
        torch.testing.assert_close(in_loss("k2"), reverse, **CLOSE)
        torch.testing.assert_close(in_loss("k3"), forward, **CLOSE)
        torch.testing.assert_close(gradient(k1_as_a_reward, theta), reverse, **CLOSE)


def log_ratios_of(num_tokens: int) -> Tensor:
    """Return d of a policy that has moved from (1/2, 1/2) to (0.8, 0.2), actions in proportion.

    The statistic `seed` is -(0.8 log 1.6 + 0.2 log 0.4) = -0.1927, the true -KL(new || old).
    """
    return torch.tensor([1.6, 0.4], dtype=torch.float64).log().repeat(num_tokens // 2)


def check_stop_sees_a_negative_statistic() -> None:
    stop = kl.KLStop(0.01, "seed")
    assert stop.should_stop(log_ratios_of(512), is_last=False)


def check_stop_waits_for_512_tokens() -> None:
    stop = kl.KLStop(0.01, "k3")
    stop.start_epoch()
    assert not stop.should_stop(log_ratios_of(256), is_last=False)
    assert not stop.should_stop(log_ratios_of(256)[1:], is_last=False)
    assert stop.should_stop(log_ratios_of(2)[1:], is_last=False)


def test_kl_expectations_on_enumerated_categoricals() -> None:
    """T13: E[seed] = -KL(new || old); E[k1] = E[k3] = KL(old || new)."""
    check_expectations()


def test_kl_gradients_on_enumerated_categoricals() -> None:
    """T13: k1 none, k2 reverse, k3 forward, k1 in the reward reverse."""
    check_gradients()


def test_kl_per_token_golden() -> None:
    # d = log 2: rho = 2. seed -2 log 2 = -1.386; k1 -0.693; k2 0.2402; k3 2 - 1 - 0.693 = 0.307.
    d = torch.tensor(math.log(2.0))
    golden = {"seed": -1.386294, "k1": -0.693147, "k2": 0.240227, "k3": 0.306853}
    for statistic, expected in golden.items():
        assert float(kl.kl_per_token(statistic, d)) == pytest.approx(expected, abs=1e-5)


@given(d=st.floats(-25, 25))
@PROPERTY
def test_k2_and_k3_are_never_negative(d: float) -> None:
    x = torch.tensor(d, dtype=torch.float64)
    assert kl.kl_per_token("k2", x) >= 0
    assert kl.kl_per_token("k3", x) >= -1e-15  # rounding of 1 + d


@pytest.mark.parametrize("statistic", ["seed", "k1", "k2", "k3"])
def test_kl_of_equal_policies_is_zero(statistic: kl.KLStatistic) -> None:
    assert float(kl.kl_per_token(statistic, torch.zeros(()))) == 0


def test_log_ratio_is_clamped_so_that_the_ratio_stays_finite() -> None:
    d = kl.log_ratio(torch.tensor([0.0, -1e4, -1.0]), torch.tensor([-1e4, 0.0, -2.0]))
    assert d.tolist() == [20.0, -20.0, 1.0]
    assert kl.kl_per_token("k3", d).isfinite().all()


def test_stop_compares_the_magnitude() -> None:
    """T13: the seed statistic is negative when the policy has moved."""
    check_stop_sees_a_negative_statistic()


def test_stop_signed_never_fires_however_far_the_policy_has_moved() -> None:
    stop = kl.KLStop(0.01, "seed", "signed")
    assert not stop.should_stop(log_ratios_of(512), is_last=True)


def test_stop_signed_fires_on_a_statistic_that_grows() -> None:
    assert kl.KLStop(0.01, "k3", "signed").should_stop(log_ratios_of(512), is_last=True)


def test_stop_waits_for_512_tokens() -> None:
    check_stop_waits_for_512_tokens()


def test_stop_judges_fewer_tokens_at_the_end_of_the_epoch() -> None:
    assert kl.KLStop(0.01, "k3").should_stop(log_ratios_of(4), is_last=True)


def test_stop_takes_the_mean_over_the_epoch() -> None:
    # k3 of the moved policy is 0.5 (0.6 - log 1.6) + 0.5 (-0.6 - log 0.4) = 0.2231; with as many
    # tokens that have not moved the running mean is 0.1116.
    moved, still = log_ratios_of(512), torch.zeros(512, dtype=torch.float64)
    for target, stops in [(0.111, True), (0.112, False)]:
        stop = kl.KLStop(target, "k3")
        assert not stop.should_stop(still, is_last=False)
        assert stop.should_stop(moved, is_last=False) is stops


def test_stop_fires_above_the_target_and_not_at_it() -> None:
    d = torch.full((512,), -0.5)  # k1 = 0.5
    assert not kl.KLStop(0.5, "k1").should_stop(d, is_last=True)
    assert kl.KLStop(0.49, "k1").should_stop(d, is_last=True)


def test_stop_forgets_the_epoch_before() -> None:
    stop = kl.KLStop(0.01, "k3")
    assert stop.should_stop(log_ratios_of(512), is_last=True)
    stop.start_epoch()
    assert not stop.should_stop(torch.zeros(2), is_last=True)


def test_stop_without_tokens_or_target_does_not_fire() -> None:
    assert not kl.KLStop(0.01, "k3").should_stop(torch.zeros(0), is_last=True)
    assert not kl.KLStop(None, "k3").should_stop(log_ratios_of(512), is_last=True)


def check_controller_sequence() -> None:
    # Target 6, horizon 1000, 100 sequences a rollout: a step is beta (1 + 0.1 e).
    # KL 12: e = clip(1) = 0.2, beta 0.05 * 1.02 = 0.051. KL 6.6: e = 0.1, beta * 1.01 = 0.05151.
    # KL 6: unchanged. KL 0: e = clip(-1) = -0.2, beta * 0.98 = 0.0504798.
    controller = kl.AdaptiveKLController(0.05, 6.0, 1000.0)
    for measured, expected in [(12.0, 0.051), (6.6, 0.05151), (6.0, 0.05151), (0.0, 0.0504798)]:
        assert controller.update(measured, 100) == pytest.approx(expected, rel=1e-9)
        assert controller.beta == pytest.approx(expected, rel=1e-9)


def test_controller_hand_computed_sequence() -> None:
    """T15."""
    check_controller_sequence()


@given(measured=st.floats(0, 1e6), num_sequences=st.integers(1, 10_000))
@PROPERTY
def test_controller_moves_by_at_most_a_fifth(measured: float, num_sequences: int) -> None:
    """T15: saturation at +-20 % for a whole horizon of sequences."""
    controller = kl.AdaptiveKLController(0.05)
    beta = controller.update(measured, num_sequences)
    assert 0.8 * 0.05 - 1e-12 <= beta <= 1.2 * 0.05 + 1e-12
    assert (beta > 0.05) == (measured > 6.0) or beta == pytest.approx(0.05)


def test_controller_defaults_are_those_of_the_configuration() -> None:
    controller, config = kl.AdaptiveKLController(0.05), KLPenaltyConfig()
    assert controller.target_nats_per_sequence == config.target_nats_per_sequence == 6.0
    assert controller.horizon_sequences == 10_000.0
    assert (controller.beta_min, controller.beta_max) == (1e-4, 1.0)


def test_controller_stays_within_its_range() -> None:
    controller = kl.AdaptiveKLController(0.05, horizon_sequences=1.0)
    assert [controller.update(100.0, 50) for _ in range(3)] == [0.55, 1.0, 1.0]
    assert [controller.update(0.0, 50) for _ in range(2)] == [1e-4, 1e-4]


@pytest.mark.parametrize("target", [0.0, -1.0])
def test_controller_rejects_a_target_that_is_not_positive(target: float) -> None:
    """T15."""
    with pytest.raises(ConfigError, match="must be positive"):
        kl.AdaptiveKLController(0.05, target)
    with pytest.raises(ConfigError, match="must be positive"):
        kl.AdaptiveKLController(0.05, 6.0, target)


def test_controller_unit_is_nats_per_sequence() -> None:
    """T15: 100 tokens of 0.06 nats are on target; the mean per token would read as nearly none."""
    per_token = torch.full((4, 100), 0.06)
    controller = kl.AdaptiveKLController(0.05, target_nats_per_sequence=6.0)
    assert controller.update(float(per_token.sum(dim=1).mean()), 4) == pytest.approx(0.05)


@pytest.mark.parametrize("measured", [math.nan, math.inf])
def test_controller_ignores_a_kl_that_is_not_finite(measured: float) -> None:
    assert kl.AdaptiveKLController(0.05).update(measured, 100) == 0.05


def check_entropy_floor() -> None:
    # First rollouts 4, 2, 3, 3, 3: H0 = 3, floor 1.5. 0.75 is half of it, 0.1 would be 0.067.
    floor = kl.EntropyFloor()
    assert [floor.target_scale(x) for x in (4.0, 2.0, 3.0, 3.0, 3.0)] == [1.0] * 5
    for entropy, expected in ((3.0, 1.0), (1.5, 1.0), (0.75, 0.5), (0.1, 0.1), (9.0, 1.0)):
        assert floor.target_scale(entropy) == pytest.approx(expected)
    assert floor.first == [4.0, 2.0, 3.0, 3.0, 3.0]


def test_entropy_floor_hand_computed() -> None:
    """Spec 4.11: the target shrinks below half of the entropy at the start."""
    check_entropy_floor()


def test_entropy_below_the_floor_raises_beta() -> None:
    """A KL that was on target is above it once the target has shrunk."""
    controller = kl.AdaptiveKLController(0.05, 6.0, 1000.0)
    assert controller.update(6.0, 100, target_scale=1.0) == pytest.approx(0.05)
    assert controller.update(6.0, 100, target_scale=0.5) == pytest.approx(0.05 * 1.02)


def test_entropy_floor_of_a_policy_without_entropy() -> None:
    assert kl.EntropyFloor().target_scale(0.0) == 1.0


REAL_KL, REAL_CONTROLLER_UPDATE = kl.kl_per_token, kl.AdaptiveKLController.update


def kl_with(**mutants: Callable[[Tensor], Tensor]) -> Callable[[kl.KLStatistic, Tensor], Tensor]:
    def mutated(statistic: kl.KLStatistic, d: Tensor) -> Tensor:
        return mutants[statistic](d) if statistic in mutants else REAL_KL(statistic, d)

    return mutated


def signed_stop(self: kl.KLStop, d: Tensor, *, is_last: bool) -> bool:
    return float(kl.kl_per_token(self.statistic, d).mean()) > (self.target or 0.0)


def stop_on_any_minibatch(self: kl.KLStop, d: Tensor, *, is_last: bool) -> bool:
    return abs(float(kl.kl_per_token(self.statistic, d).mean())) > (self.target or 0.0)


def update_without_clip(self: kl.AdaptiveKLController, measured: float, n: int) -> float:
    error = measured / self.target_nats_per_sequence - 1
    self.beta *= 1 + error * n / self.horizon_sequences
    return self.beta


def update_downwards(self: kl.AdaptiveKLController, measured: float, n: int) -> float:
    return REAL_CONTROLLER_UPDATE(self, 2 * self.target_nats_per_sequence - measured, n)


def floor_that_follows(self: kl.EntropyFloor, entropy: float) -> float:
    self.first.append(entropy)
    return max(0.1, min(1.0, 2 * entropy * len(self.first) / sum(self.first)))


@pytest.mark.parametrize(
    ("target", "name", "mutant", "check"),
    [
        (kl.EntropyFloor, "target_scale", floor_that_follows, check_entropy_floor),
        (kl.KLStop, "should_stop", signed_stop, check_stop_sees_a_negative_statistic),
        (kl.KLStop, "should_stop", stop_on_any_minibatch, check_stop_waits_for_512_tokens),
        (kl, "kl_per_token", kl_with(seed=lambda d: d * d.exp()), check_expectations),
        (kl, "kl_per_token", kl_with(seed=lambda d: -d), check_expectations),
        (kl, "kl_per_token", kl_with(k1=lambda d: d), check_expectations),
        (kl, "kl_per_token", kl_with(k3=lambda d: (-d).exp() - 1 + d), check_expectations),
        (kl, "kl_per_token", kl_with(k3=lambda d: (-d).exp() - 1 + d), check_gradients),
        (kl, "kl_per_token", kl_with(k2=lambda d: d**2), check_gradients),
        (kl.AdaptiveKLController, "update", update_without_clip, check_controller_sequence),
        (kl.AdaptiveKLController, "update", update_downwards, check_controller_sequence),
    ],
)
def test_mutant_is_caught(
    monkeypatch: pytest.MonkeyPatch,
    target: Any,
    name: str,
    mutant: Callable[..., Any],
    check: Callable[[], None],
) -> None:
    """T28: the signed stop (training does not show it), wrong estimators, a wrong controller."""
    monkeypatch.setattr(target, name, mutant)
    with pytest.raises(AssertionError):
        check()
