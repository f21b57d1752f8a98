"""Estimators as choices: the table of what each brings, baselines, ratios, rewards to go."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from textgym_agents.core import losses, update
from textgym_agents.core.baselines import MovingBaseline, others_advantages, sample_advantages
from textgym_agents.core.buffer import Batch, Episode, Evaluation, MemoryBuffer
from textgym_agents.core.config import ClipConfig, PPOConfig, ValueConfig
from textgym_agents.core.estimators import GroupEstimator, ReinforceEstimator
from textgym_agents.core.losses import Totals
from textgym_agents.core.overlong import overlong_penalty
from textgym_agents.core.step_stats import Accumulated, StepStats

SEEDS = st.integers(0, 2**32 - 1)
PROPERTY = settings(deadline=None, max_examples=25)
NAN = math.nan

TABLE = {
    # kind: ratio, clip, aggregation, form of the KL, whitens, epochs
    "gae": ("token", (0.2, 0.2), "token_mean", "k1_in_reward", True, 4),
    "grpo": ("token", (0.2, 0.2), "seq_mean_token_mean", "k3_in_loss", False, 4),
    "dr_grpo": ("token", (0.2, 0.2), "token_sum_const", "k3_in_loss", False, 4),
    "dapo": ("token", (0.2, 0.28), "token_mean", "k3_in_loss", False, 4),
    "rloo": ("none", (0.2, 0.2), "seq_mean_token_sum", "k1_in_score", False, 1),
    "reinforce": ("none", (0.2, 0.2), "seq_mean_token_sum", "k1_in_score", False, 1),
    "reinforce_pp": ("token", (0.2, 0.2), "token_mean", "k1_in_reward", True, 4),
}


def config_of(kind: str, **values: Any) -> PPOConfig:
    return PPOConfig(**{"estimator": {"kind": kind}, **values})


@pytest.mark.parametrize("kind", TABLE)
def test_an_estimator_brings_its_row_of_the_table(kind: str) -> None:
    """Spec 4.13."""
    config = config_of(kind)
    found = (
        config.ratio,
        (config.clip.low, config.clip.high),
        config.aggregation,
        config.kl_penalty.form,
        config.whiten_advantages,
        config.update_epochs,
    )
    assert found == TABLE[kind]
    assert config.gamma == (0.99 if kind == "gae" else 1.0)
    assert config.has_critic == (kind == "gae")
    assert config.kl_penalty.beta == 0


def test_a_configuration_wins_over_the_row() -> None:
    config = config_of(
        "grpo",
        aggregation="token_mean",
        whiten_advantages=True,
        kl_penalty={"beta": 0.1},
        clip=ClipConfig(dual=3.0),
    )
    assert (config.aggregation, config.whiten_advantages) == ("token_mean", True)
    assert (config.kl_penalty.beta, config.kl_penalty.form) == (0.1, "k3_in_loss")
    assert config_of("dapo", clip=ClipConfig(dual=3.0)).clip == ClipConfig(high=0.28, dual=3.0)
    assert config_of("dapo", clip={"high": 0.2}).clip.high == 0.2


@pytest.mark.parametrize("kind", TABLE)
def test_a_resolved_configuration_reads_back_equal(kind: str) -> None:
    config = config_of(kind)
    assert PPOConfig.model_validate(config.model_dump(mode="json")) == config


def test_rloo_takes_the_ratio_of_the_sequence_in_several_epochs() -> None:
    config = config_of("rloo", update_epochs=2)
    assert (config.ratio, config.aggregation) == ("sequence_sum", "seq_mean_token_mean")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"estimator": {"kind": "grpo"}, "gamma": 0.99}, "gamma is 0.99, .* gamma 1 alone"),
        ({"estimator": {"kind": "reinforce"}, "gamma": 0.9}, "gamma is 0.9, .* reinforce"),
        ({"estimator": {"kind": "grop"}}, "grpo"),
        ({"estimator": {"kind": "grpo", "baseline": "moving"}}, "Extra inputs"),
        ({"estimator": {"kind": "reinforce", "decay": 1.0}}, "less than 1"),
        (
            {"estimator": {"kind": "grpo"}, "kl_penalty": {"form": "k1_in_reward"}},
            "form is k1_in_reward, which the estimator grpo does not read; take k1_in_score",
        ),
        (
            {"kl_penalty": {"form": "k1_in_score"}},
            "form is k1_in_score, which the estimator gae does not read; take k1_in_reward",
        ),
        ({"kl_penalty": {"form": "k3_in_loss"}}, "With gae take k2_in_loss"),
        ({"kl_penalty": {"form": "k1_in_loss"}}, "k1_in_reward"),
        ({"kl_penalty": {"adaptive": True}}, "adaptive is on but beta is 0"),
        ({"kl_penalty": {"beta": 0.1, "entropy_floor": True}}, "set adaptive to true"),
        ({"ratio": "none", "update_epochs": 2}, "ratio is none, but update_epochs is 2"),
        ({"estimator": {"kind": "rloo"}, "update_epochs": 2, "ratio": "none"}, "second pass"),
        ({"ratio": "sequence_mean"}, "sequence_mean, .* take seq_mean_token_mean"),
    ],
)
def test_combinations_that_mean_nothing_are_rejected(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PPOConfig(**values)


# Baselines ---------------------------------------------------------------------------------------


def check_moving_baseline() -> None:
    # Rollout 1: 1, 0, 5 in domain a, so the others average 2.5, 3, 0.5: -1.5, -3, 4.5. b = 2.
    # Rollout 2: 3 and 1: 1, -1 from b = 2; then b = 0.9 * 2 + 0.1 * 2 = 2.
    # Rollout 3: 6: 4; then b = 1.8 + 0.6 = 2.4. Rollout 4: 2.4: 0.
    baseline = MovingBaseline()
    steps = [([1.0, 0, 5], [-1.5, -3, 4.5], 2.0), ([3.0, 1], [1, -1], 2.0), ([6.0], [4], 2.4)]
    for scores, expected, after in steps:
        found = baseline.advantages(torch.tensor(scores), ["a"] * len(scores), decay=0.9)
        assert found.tolist() == pytest.approx(expected)
        assert baseline.means == {"a": pytest.approx(after)}


def test_moving_baseline_hand_computed() -> None:
    check_moving_baseline()


def test_moving_baseline_keeps_domains_apart_and_leaves_out_missing_scores() -> None:
    baseline = MovingBaseline({"a": 1.0})
    scores = torch.tensor([4.0, 10.0, NAN, 2.0, 20.0, NAN])
    found = baseline.advantages(scores, ["a", "b", "a", "a", "b", "c"], decay=0.5)
    assert found.tolist() == pytest.approx([3, -10, 0, 1, 10, 0])
    assert baseline.means == pytest.approx({"a": 0.5 * 1 + 0.5 * 3, "b": 15.0})


def test_moving_baseline_goes_on_from_what_was_saved() -> None:
    first = MovingBaseline()
    first.advantages(torch.tensor([1.0, 3.0]), ["a", "a"], decay=0.5)
    second = MovingBaseline(first.means)
    scores = torch.tensor([5.0])
    assert second.advantages(scores, ["a"], decay=0.5) == first.advantages(scores, ["a"], decay=0.5)
    assert second.means == first.means


def test_others_advantages_golden() -> None:
    # 1, 2, 6 with a gap: the others average 4, 3.5 and 1.5.
    found = others_advantages(torch.tensor([1.0, NAN, 2.0, 6.0]))
    assert found.tolist() == pytest.approx([-3, 0, -1.5, 4.5])
    assert others_advantages(torch.tensor([7.0])).tolist() == [0.0]
    assert others_advantages(torch.tensor([NAN, NAN])).tolist() == [0.0, 0.0]


def test_sample_advantages_dispatches_by_estimator() -> None:
    scores = torch.tensor([[1.0, 0, 0, 1], [0.0, 0, 0, 2]], dtype=torch.float64)
    domains = ["a"] * 4 + ["b"] * 4

    def of(estimator: Any) -> Tensor:
        return sample_advantages(scores, domains, estimator, MovingBaseline({"a": 0.0, "b": 1.0}))

    centred = torch.tensor([[0.5, -0.5, -0.5, 0.5], [-0.5, -0.5, -0.5, 1.5]]).double()
    std = torch.tensor([[0.5], [0.75**0.5]], dtype=torch.float64)
    torch.testing.assert_close(of(GroupEstimator(kind="dr_grpo")), centred)
    torch.testing.assert_close(of(GroupEstimator(kind="grpo")), centred / (std + 1e-4))
    torch.testing.assert_close(of(GroupEstimator(kind="dapo")), centred / (std + 1e-4))
    torch.testing.assert_close(of(GroupEstimator(kind="rloo")), centred * 4 / 3)
    moved = torch.tensor([[1.0, 0, 0, 1], [-1, -1, -1, 1]]).double()
    torch.testing.assert_close(of(ReinforceEstimator()), moved)
    others = (scores - scores.mean()) * 8 / 7
    torch.testing.assert_close(of(ReinforceEstimator(baseline="others")), others)


# Ratios ------------------------------------------------------------------------------------------

MASK = torch.tensor([[False, True, True, True], [False, True, False, True]])
D = torch.tensor([[9.0, 0.1, 0.3, -0.1], [9.0, -0.2, 9.0, 0.6]])


def check_sequence_ratios() -> None:
    # Row 1: sum 0.3, mean 0.1. Row 2: sum 0.4, mean 0.2.
    for ratio, expected in (("sequence_sum", (0.3, 0.4)), ("sequence_mean", (0.1, 0.2))):
        found = losses.log_ratio_used(D, MASK, ratio)
        for row, on, value in zip(found, MASK, expected, strict=True):
            assert row[on].tolist() == pytest.approx([value] * int(on.sum()))


def test_sequence_ratios_golden() -> None:
    check_sequence_ratios()


def test_the_sum_of_log_ratios_is_bounded() -> None:
    d = torch.full((1, 50), 10.0)
    assert losses.log_ratio_used(d, None, "sequence_sum").unique().tolist() == [20.0]


def test_no_ratio_has_value_1_and_the_gradient_of_the_logarithm() -> None:
    d = D.clone().requires_grad_()
    used = losses.log_ratio_used(d, MASK, "none")
    assert used.detach().abs().max() == 0
    advantages = torch.tensor([[1.0, 2, 3, 4], [-1, -2, -3, -4]])
    loss = losses.policy_loss(used, advantages, clip_low=0.2, clip_high=0.2)
    loss.sum().backward()
    assert d.grad is not None
    torch.testing.assert_close(d.grad, -advantages)


def batch_of(mask: Tensor, advantages: Tensor, logprobs: Tensor | None) -> Batch:
    zeros = torch.zeros(mask.shape, dtype=torch.float64)
    return Batch(
        input_ids=zeros.long(),
        attention_mask=torch.ones_like(mask),
        action_mask=mask,
        rewards=zeros,
        is_truncated=torch.zeros(len(mask), dtype=torch.bool),
        logprobs=logprobs,
        values=zeros,
        advantages=torch.where(mask, advantages.unsqueeze(1), 0.0),
        returns=zeros + 5.0,
    )


def gradient(config: PPOConfig, batch: Batch, ell: Tensor, totals: Totals | None = None) -> Tensor:
    """Return the gradient of `ppo_loss` on the log-probabilities, with a value far from right."""
    leaf = ell.clone().requires_grad_()
    values = torch.zeros_like(ell).requires_grad_()
    loss, _ = update.ppo_loss(
        Evaluation(leaf, values, torch.zeros_like(ell), ell[:, 0]),
        batch,
        config,
        totals or Totals.of(batch.action_mask, 8),
    )
    found, of_values = torch.autograd.grad(loss, (leaf, values), allow_unused=True)
    assert (of_values is None) == (not config.has_critic)
    return found


@given(seed=SEEDS)
@PROPERTY
def test_rloo_has_one_gradient_with_and_without_ratio_where_the_ratio_is_1(seed: int) -> None:
    """The sum over tokens without a ratio, the mean over sequences with that of the sequence."""
    generator = torch.Generator().manual_seed(seed)
    ell = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    advantages = torch.randn(2, generator=generator, dtype=torch.float64)
    batch = batch_of(MASK, advantages, ell)
    one, several = (
        gradient(config_of("rloo", update_epochs=n, entropy_coef=0.0), batch, ell) for n in (1, 2)
    )
    expected = -torch.where(MASK, advantages.unsqueeze(1), 0.0) / 2  # the exact policy gradient
    torch.testing.assert_close(one, expected)
    torch.testing.assert_close(several, expected)


@pytest.mark.parametrize("kind", [kind for kind in TABLE if kind != "gae"])
def test_the_value_has_no_part_without_a_critic(kind: str) -> None:
    """Whatever the configuration of the value says; `gradient` asserts it."""
    config = config_of(kind, value=ValueConfig(coef=0.5))
    ell = torch.zeros(2, 4, dtype=torch.float64)
    gradient(config, batch_of(MASK, torch.ones(2).double(), ell), ell)


@pytest.mark.parametrize("kind", ["grpo", "rloo", "reinforce", "dapo"])
def test_the_own_evaluation_serves_as_that_of_theta_old(kind: str) -> None:
    """One step per rollout needs no pass before it: same gradient to the bit."""
    generator = torch.Generator().manual_seed(0)
    ell = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    batch = batch_of(MASK, torch.tensor([1.5, -0.5]).double(), ell)
    config = config_of(kind, update_epochs=1, entropy_coef=0.0)
    without = gradient(config, replace(batch, logprobs=None), ell)
    assert torch.equal(without, gradient(config, batch, ell))
    assert without.abs().max() > 0


def test_what_each_aggregation_makes_of_lengths() -> None:
    # Lengths 3 and 2, advantages 1 and 1: a token of each row weighs, by estimator,
    # 1/2 * 1/3 and 1/2 * 1/2; 1/(2 * 8); 1/5; 1/2.
    ell = torch.zeros(2, 4, dtype=torch.float64)
    batch = batch_of(MASK, torch.ones(2, dtype=torch.float64), ell)
    for kind, (first, second) in {
        "grpo": (1 / 6, 1 / 4),
        "dr_grpo": (1 / 16, 1 / 16),
        "dapo": (1 / 5, 1 / 5),
        "rloo": (1 / 2, 1 / 2),
    }.items():
        found = -gradient(config_of(kind, entropy_coef=0.0), batch, ell)
        expected = torch.where(MASK, torch.tensor([[first], [second]]).double(), 0.0)
        torch.testing.assert_close(found, expected)


# KL in the loss ----------------------------------------------------------------------------------


def check_kl_in_the_loss() -> None:
    """T13, through `ppo_loss`: k2 pulls along KL(policy || ref), k3 along KL(ref || policy)."""
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        theta, ref = torch.randn(2, 6, generator=generator, dtype=torch.float64)
        log_ref = ref.log_softmax(-1)

        def divergence(p: Tensor, q: Tensor) -> Tensor:
            return (p.exp() * (p - q)).sum()

        z = theta.clone().requires_grad_()
        ell = z.log_softmax(-1)
        reverse, forward = (
            torch.autograd.grad(x, z, retain_graph=True)[0]
            for x in (divergence(ell, log_ref), divergence(log_ref, ell))
        )
        p = theta.softmax(-1)
        for kind, form, wanted in (
            ("gae", "k2_in_loss", reverse),
            ("grpo", "k2_in_loss", reverse),
            ("dapo", "k3_in_loss", forward),
        ):
            config = config_of(
                kind,
                kl_penalty={"beta": 0.7, "form": form},
                entropy_coef=0.0,
                value=ValueConfig(coef=0.0),
                aggregation="token_mean",
            )
            total = torch.zeros_like(theta)
            for action in range(6):  # one sequence of one action each, weighed by its probability
                z = theta.clone().requires_grad_()
                one = z.log_softmax(-1)[action].view(1, 1)
                batch = batch_of(torch.ones(1, 1, dtype=torch.bool), torch.zeros(1).double(), one)
                batch = replace(batch, logprobs=None, reference_logprobs=log_ref[action].view(1, 1))
                zeros = torch.zeros_like(one)
                new = Evaluation(one, zeros, zeros, zeros[:, 0])
                loss, _ = update.ppo_loss(new, batch, config, Totals.of(batch.action_mask))
                total += p[action] * torch.autograd.grad(loss, z)[0]
            torch.testing.assert_close(total, 0.7 * wanted, rtol=1e-9, atol=1e-12)


def test_kl_in_the_loss_on_enumerated_categoricals() -> None:
    check_kl_in_the_loss()


@pytest.mark.parametrize("garbage", [7.0, -1e30, math.inf, NAN])
@pytest.mark.parametrize("ratio", ["token", "sequence_mean", "sequence_sum", "none"])
def test_what_is_off_the_mask_does_not_matter(garbage: float, ratio: Any) -> None:
    """In the reference, in the engine's weights, and for the ratios of sequences."""
    generator = torch.Generator().manual_seed(0)
    ell, old, ref = torch.randn(3, 2, 4, generator=generator, dtype=torch.float64)
    config = config_of(
        "grpo", ratio=ratio, update_epochs=1, kl_penalty={"beta": 0.3}, entropy_coef=0.0
    )
    batch = batch_of(MASK, torch.tensor([1.5, -0.5]).double(), old)
    batch = replace(batch, reference_logprobs=ref, engine_weights=torch.full_like(ell, 0.5))
    clean = gradient(config, batch, ell)
    assert clean.abs().max() > 0
    for name in ("logprobs", "reference_logprobs", "engine_weights", "advantages"):
        dirty = replace(batch, **{name: torch.where(MASK, getattr(batch, name), garbage)})
        assert torch.equal(gradient(config, dirty, ell), clean)
    assert torch.equal(gradient(config, batch, torch.where(MASK, ell, garbage)), clean)


# Rewards to go, length, values on all ------------------------------------------------------------


def episodes(*rewards: list[float]) -> MemoryBuffer:
    """Return a buffer of episodes; a gap of one environment token before the last action."""
    memory = MemoryBuffer()
    for row in rewards:
        mask = torch.ones(len(row) + 2, dtype=torch.bool)
        mask[0] = mask[-2] = False
        placed = torch.zeros(len(mask))
        placed[mask] = torch.tensor(row)
        ids = torch.zeros(len(mask), dtype=torch.long)
        memory.add(Episode(ids, mask, placed, terminated=True, truncated=False))
    return memory


def test_reinforce_pp_takes_the_whitened_reward_to_go() -> None:
    # What a critic would have said, 7 everywhere, has no part in it.
    memory = episodes([1.0, 0, 2], [0.0, 4])
    penalty = torch.ones(2, 5)
    noise = torch.full((2, 5), 7.0)
    memory.record(Evaluation(noise, noise, noise, noise[:, 0]), kl_penalty=penalty)
    memory.compute_returns_and_advantages(config_of("reinforce_pp", whiten_advantages=False))
    # Less a penalty of 1 each: 0, -1, 1 and -1, 3; to go 0, 0, 1 and 2, 3.
    mask = memory.batch.action_mask
    assert memory.batch.advantages[mask].tolist() == [0, 0, 1, 2, 3]
    memory.compute_returns_and_advantages(config_of("reinforce_pp"))
    whitened = memory.batch.advantages[mask]
    # Mean 1.2, population variance (1.44 + 1.44 + 0.04 + 0.64 + 3.24) / 5 = 1.36.
    expected = (torch.tensor([0.0, 0, 1, 2, 3]) - 1.2) / 1.36**0.5
    torch.testing.assert_close(whitened, expected)
    assert not memory.batch.advantages[~mask].any()


def test_reinforce_pp_discounts() -> None:
    memory = episodes([1.0, 2, 4])
    zeros = torch.zeros(1, 5)
    memory.record(Evaluation(zeros, zeros, zeros, zeros[:, 0]))
    config = config_of("reinforce_pp", gamma=0.5, whiten_advantages=False)
    memory.compute_returns_and_advantages(config)
    assert memory.batch.advantages[memory.batch.action_mask].tolist() == [3.0, 4.0, 4.0]


@pytest.mark.parametrize("whitens", [False, True])
def test_sample_advantages_hold_for_every_action(whitens: bool) -> None:
    memory = episodes([0.0, 0, 0], [0.0, 0])
    memory.record(None)
    config = config_of("grpo", whiten_advantages=whitens)
    memory.compute_returns_and_advantages(config, torch.tensor([2.0, -1.0]))
    mask = memory.batch.action_mask
    found = memory.batch.advantages[mask]
    plain = torch.tensor([2.0, 2, 2, -1, -1])
    expected = (plain - plain.mean()) / plain.std(correction=0) if whitens else plain
    torch.testing.assert_close(found, expected)
    assert not memory.batch.advantages[~mask].any()
    assert memory.batch.logprobs is None


def test_overlong_penalty_golden() -> None:
    # T = 10, b = 4, p = 0.5: free up to 6 tokens, then an eighth a token, 0.5 at 10 and beyond.
    lengths = torch.tensor([1, 6, 7, 8, 10, 12], dtype=torch.float64)
    found = overlong_penalty(lengths, cap=10, buffer=4, penalty=0.5)
    assert found.tolist() == pytest.approx([0, 0, -0.125, -0.25, -0.5, -0.5])


def check_values_of_unselected_samples() -> None:
    """The policy's loss is that of the selected alone, the value's that of all."""
    memory = episodes([1.0, 1], [0.0, 0, 3], [2.0])
    memory.episodes[1].teaches_policy = False
    generator = torch.Generator().manual_seed(0)
    ell, values, entropy = torch.randn(3, 3, 5, generator=generator)
    memory.record(Evaluation(ell, values, entropy, torch.zeros(3)))
    config = PPOConfig(gamma=1.0, entropy_coef=0.1)
    memory.compute_returns_and_advantages(config)
    batch = memory.batch
    assert batch.policy_mask is not None
    assert not batch.policy_mask[1].any()
    taught = batch.advantages[batch.policy_mask]
    assert float(taught.mean()) == pytest.approx(0, abs=1e-6)
    new = Evaluation(*(x.clone().requires_grad_() for x in (ell, values, entropy)), ell[:, 0])
    loss, terms = update.ppo_loss(new, batch, config, update._totals(batch, 1))
    grads = torch.autograd.grad(loss, new[:3])
    num_taught, num_all = int(batch.policy_mask.sum()), int(batch.action_mask.sum())
    assert (num_taught, num_all) == (3, 6)
    for grad in (grads[0], grads[2]):
        assert not grad[1].any()
    torch.testing.assert_close(grads[0][batch.policy_mask], -taught / 3)
    residual = (values - batch.returns)[batch.action_mask]
    torch.testing.assert_close(grads[1][batch.action_mask], 0.5 * 2 * residual / 6)
    stats = StepStats(config)
    stats.add(Accumulated(loss.detach(), [terms]))
    means = stats.means(1)
    assert means["ppo/value_loss"] == pytest.approx(float((residual**2).mean()))
    assert means["ppo/entropy"] == pytest.approx(float(entropy[batch.policy_mask].mean()))


def test_the_value_can_learn_from_samples_that_the_policy_does_not() -> None:
    """T16: `value_on: all`."""
    check_values_of_unselected_samples()


def test_the_statistic_that_may_stop_is_logged() -> None:
    config = PPOConfig(kl_stop={"statistic": "k2"})
    batch = batch_of(MASK, torch.zeros(2).double(), torch.zeros(2, 4).double())
    zeros = torch.zeros(2, 4, dtype=torch.float64)
    _, terms = update.ppo_loss(
        Evaluation(zeros + 0.2, zeros, zeros, zeros[:, 0]), batch, config, Totals.of(MASK)
    )
    sums = terms.sums(config)
    assert float(sums["kl_k2"]) == pytest.approx(5 * 0.02)
    assert {"kl_seed", "kl_k1", "kl_k3"} < set(sums)


def test_clip_fractions_are_those_of_the_ratio_that_is_used() -> None:
    """A token may leave the bounds while its sequence does not."""
    d = torch.tensor([[0.5, -0.5, 0.0]], dtype=torch.float64)
    mask = torch.ones(1, 3, dtype=torch.bool)
    batch = batch_of(mask, torch.ones(1).double(), torch.zeros_like(d))
    counts = {}
    for ratio in ("token", "sequence_mean"):
        config = PPOConfig(ratio=ratio, aggregation="seq_mean_token_mean")
        new = Evaluation(d, torch.zeros_like(d), torch.zeros_like(d), d[:, 0])
        _, terms = update.ppo_loss(new, batch, config, Totals.of(mask))
        counts[ratio] = float(terms.sums(config)["clip_high"])
    assert counts == {"token": 1.0, "sequence_mean": 0.0}


# Mutants -----------------------------------------------------------------------------------------

REAL_USED, REAL_KL, REAL_TOTALS = losses.log_ratio_used, update.kl_loss, update._totals


def product_for_mean(d: Tensor, mask: Tensor, ratio: Any) -> Tensor:
    return REAL_USED(d, mask, "sequence_sum" if ratio == "sequence_mean" else ratio)


def over_the_gaps(d: Tensor, mask: Tensor, ratio: Any) -> Tensor:
    return REAL_USED(d, torch.ones_like(mask), ratio)


def reference_and_policy_exchanged(form: Any, logprobs: Tensor, reference: Tensor) -> Tensor:
    return REAL_KL(form, reference, logprobs)


def baseline_of_this_rollout(
    self: MovingBaseline, scores: Tensor, domains: list[str], *, decay: float
) -> Tensor:
    return others_advantages(scores)


def one_count_for_both(batch: Any, max_new_tokens: int) -> Totals:
    return REAL_TOTALS(batch, max_new_tokens)._replace(num_value_tokens=None)


@pytest.mark.parametrize(
    ("target", "name", "mutant", "check"),
    [
        (losses, "log_ratio_used", product_for_mean, check_sequence_ratios),
        (losses, "log_ratio_used", over_the_gaps, check_sequence_ratios),
        (update, "kl_loss", reference_and_policy_exchanged, check_kl_in_the_loss),
        (MovingBaseline, "advantages", baseline_of_this_rollout, check_moving_baseline),
        (update, "_totals", one_count_for_both, check_values_of_unselected_samples),
    ],
)
def test_mutant_is_caught(
    monkeypatch: pytest.MonkeyPatch,
    target: Any,
    name: str,
    mutant: Callable[..., Any],
    check: Callable[[], None],
) -> None:
    """T28: other ratios, another direction of the KL, another divisor."""
    monkeypatch.setattr(target, name, mutant)
    with pytest.raises(AssertionError):
        check()
