"""Correction for an engine that samples from another distribution (T23)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from textgym_agents.core import correction, update
from textgym_agents.core.buffer import Batch, Evaluation
from textgym_agents.core.config import PPOConfig
from textgym_agents.core.correction import (
    Bypass,
    Correction,
    NoCorrection,
    SequenceMask,
    TokenMask,
    TokenTIS,
)
from textgym_agents.core.losses import Totals

NUM_ARMS = 5
# Log weights of two sequences, the second with one action less: w = 1.5, 4, 0.25 and 1, 0.9.
W = torch.tensor([[9.0, 1.5, 4.0, 0.25], [9.0, 1.0, 0.9, 9.0]])
MASK = torch.tensor([[False, True, True, True], [False, True, True, False]])


def bandit(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits of the policy, log mu of an engine, and the advantage of each arm."""
    generator = torch.Generator().manual_seed(seed)
    logits, engine, advantages = torch.randn(3, NUM_ARMS, generator=generator, dtype=torch.float64)
    return logits, engine.log_softmax(-1), advantages


def every_arm(log_mu: Tensor, old: Tensor, advantages: Tensor) -> Batch:
    """Return one sequence per arm, whose share in the loss its probability under mu will be."""
    on = torch.ones(NUM_ARMS, 1, dtype=torch.bool)
    zeros = torch.zeros(NUM_ARMS, 1, dtype=torch.float64)
    share = log_mu.exp().unsqueeze(1) * NUM_ARMS  # turns the mean over arms into that over mu
    return Batch(
        input_ids=zeros.long(),
        attention_mask=on,
        action_mask=on,
        rewards=zeros,
        is_truncated=on[:, 0],
        logprobs=old.unsqueeze(1),
        values=zeros,
        advantages=share * advantages.unsqueeze(1),
        returns=zeros,
    )


def policy_gradient(logits: Tensor, batch: Batch, log_w: Tensor | None, how: Correction) -> Tensor:
    """Return the gradient of the policy's loss on the logits, as `ppo_loss` gives it."""
    weights = None
    if log_w is not None:
        found = correction.engine_weights(log_w, batch.action_mask, how)
        weights = None if found is None else found.weights
    z = logits.clone().requires_grad_()
    ell = z.log_softmax(-1).unsqueeze(1)
    zeros = torch.zeros_like(ell)
    config = PPOConfig(estimator={"kind": "grpo"}, entropy_coef=0.0)
    loss, _ = update.ppo_loss(
        Evaluation(ell, zeros, zeros, zeros[:, 0]),
        replace(batch, engine_weights=weights),
        config,
        Totals.of(batch.action_mask),
    )
    (gradient,) = torch.autograd.grad(loss, z)
    return gradient


def check_the_weighted_gradient_is_exact() -> None:
    """Samples of mu, weighted with an untruncated w, give the gradient of the policy's own."""
    for seed in range(10):
        logits, log_mu, advantages = bandit(seed)
        old = logits.log_softmax(-1)
        log_w = (old - log_mu).unsqueeze(1)
        batch = every_arm(log_mu, old, advantages)
        found = policy_gradient(logits, batch, log_w, TokenTIS(cap=1e6))
        z = logits.clone().requires_grad_()
        (exact,) = torch.autograd.grad(-(z.softmax(-1) * advantages).sum(), z)
        torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-12)
        unweighted = policy_gradient(logits, batch, None, TokenTIS())
        assert (unweighted - exact).abs().max() > 1e-3


def check_weights() -> None:
    log_w = W.log()
    expected: list[tuple[Correction, list[list[float]], list[list[int]]]] = [
        (TokenTIS(), [[1, 1.5, 2, 0.25], [1, 1, 0.9, 1]], [[0, 0, 1, 0], [0, 0, 0, 0]]),
        (TokenTIS(cap=1.2), [[1, 1.2, 1.2, 0.25], [1, 1, 0.9, 1]], [[0, 1, 1, 0], [0, 0, 0, 0]]),
        (TokenMask(), [[1, 1.5, 0, 0], [1, 1, 0.9, 1]], [[0, 0, 1, 1], [0, 0, 0, 0]]),
        # Geometric means: (1.5 * 4 / 4) ** (1 / 3) = 1.145 and 0.9 ** (1 / 2) = 0.949.
        (SequenceMask(tolerance=0.1), [[1, 0, 0, 0], [1, 1, 1, 1]], [[0, 1, 1, 1], [0, 0, 0, 0]]),
        (SequenceMask(tolerance=0.15), [[1] * 4] * 2, [[0] * 4] * 2),
        (SequenceMask(tolerance=0.05), [[1, 0, 0, 0], [1, 0, 0, 1]], [[0, 1, 1, 1], [0, 1, 1, 0]]),
    ]
    for how, weights, is_cut in expected:
        found = correction.engine_weights(log_w, MASK, how)
        assert found is not None
        torch.testing.assert_close(found.weights, torch.tensor(weights, dtype=log_w.dtype))
        assert found.is_cut.int().tolist() == is_cut


def check_no_gradient_through_w() -> None:
    log_w = W.log().requires_grad_()
    for how in (TokenTIS(), TokenMask(), SequenceMask(tolerance=0.1)):
        found = correction.engine_weights(log_w, MASK, how)
        assert found is not None
        assert not found.weights.requires_grad


def test_the_untruncated_weighted_gradient_is_exact() -> None:
    """T23: on an enumerated bandit."""
    check_the_weighted_gradient_is_exact()


def test_weights_are_bounded_as_each_correction_says() -> None:
    check_weights()


def test_no_gradient_flows_through_the_weights() -> None:
    """T23."""
    check_no_gradient_through_w()


@pytest.mark.parametrize("how", [TokenTIS(), TokenMask(), SequenceMask(tolerance=0.01)])
def test_equal_distributions_are_not_touched(how: Correction) -> None:
    """T23: w = 1 is a no-op, to the bit."""
    logits, _, advantages = bandit(3)
    old = logits.log_softmax(-1)
    batch = every_arm(old, old, advantages)
    weighted = policy_gradient(logits, batch, torch.zeros(NUM_ARMS, 1), how)
    assert torch.equal(weighted, policy_gradient(logits, batch, None, how))


@pytest.mark.parametrize("how", [NoCorrection(), Bypass()])
def test_these_have_no_weights(how: Correction) -> None:
    assert correction.engine_weights(W.log(), MASK, how) is None


def test_value_entropy_and_kl_terms_are_left_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    ell, values, entropy, other = torch.randn(4, 2, 4, generator=generator)
    new = Evaluation(ell, values, entropy.abs(), torch.zeros(2))
    zeros = torch.zeros(2, 4)
    batch = Batch(
        input_ids=zeros.long(),
        attention_mask=torch.ones_like(MASK),
        action_mask=MASK,
        rewards=zeros,
        is_truncated=torch.zeros(2, dtype=torch.bool),
        logprobs=ell,
        values=values,
        advantages=zeros,
        returns=other,
        reference_logprobs=other,
    )
    config = PPOConfig(kl_penalty={"beta": 0.3, "form": "k2_in_loss"}, entropy_coef=0.1)
    weighted = replace(batch, engine_weights=torch.full((2, 4), 0.5))
    losses = [update.ppo_loss(new, b, config, Totals.of(MASK))[0] for b in (batch, weighted)]
    assert float(losses[0]) == float(losses[1]) != 0
    taught = replace(weighted, advantages=torch.ones(2, 4))
    whole = replace(batch, advantages=torch.ones(2, 4))
    policy = [update.ppo_loss(new, b, config, Totals.of(MASK))[0] for b in (whole, taught)]
    assert float(policy[1] - losses[0]) == pytest.approx(0.5 * float(policy[0] - losses[0]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "token_tis", "cap": 0.5}, "greater than or equal to 1"),
        ({"kind": "token_mask", "low": 0.0}, "greater than 0"),
        ({"kind": "token_mask", "high": 0.9}, "greater than or equal to 1"),
        ({"kind": "seq_mask"}, "tolerance"),
        ({"kind": "tis"}, "token_tis"),
    ],
)
def test_bounds_that_mean_nothing_are_rejected(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(Correction).validate_python(values)


REAL = correction.engine_weights


def unclamped(log_w: Tensor, mask: Tensor, how: Correction) -> Any:
    found = REAL(log_w, mask, how)
    assert found is not None
    w = torch.where(mask, log_w, 0.0).exp()
    return found._replace(weights=torch.where(found.weights == 0, 0.0, w))


def upside_down(log_w: Tensor, mask: Tensor, how: Correction) -> Any:
    return REAL(-log_w, mask, how)


def with_gradient(log_w: Tensor, mask: Tensor, how: Correction) -> Any:
    found = REAL(log_w, mask, how)
    assert found is not None
    return found._replace(weights=found.weights + 0 * log_w)


@pytest.mark.parametrize(
    ("mutant", "check"),
    [
        (unclamped, check_weights),
        (upside_down, check_weights),
        (upside_down, check_the_weighted_gradient_is_exact),
        (with_gradient, check_no_gradient_through_w),
    ],
)
def test_mutant_is_caught(
    monkeypatch: pytest.MonkeyPatch, mutant: Callable[..., Any], check: Callable[[], None]
) -> None:
    """T28: heavy tails, pi_old and mu exchanged, a gradient through w."""
    monkeypatch.setattr(correction, "engine_weights", mutant)
    with pytest.raises(AssertionError):
        check()
