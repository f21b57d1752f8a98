"""The update on a policy that can be read off: one categorical and one value per position.

T4 and T11 to T14 here go through `ppo_loss` and `ppo_update`, so that the wiring is under test and
not only the formulas. Gradients are read as parameter differences of plain SGD.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from textgym_agents.core import update
from textgym_agents.core.buffer import Batch, Episode, Evaluation, MemoryBuffer
from textgym_agents.core.config import (
    ClipConfig,
    KLStopConfig,
    OptimizerConfig,
    PPOConfig,
    ValueConfig,
)
from textgym_agents.core.guard import NotFiniteError, StepGuard
from textgym_agents.core.losses import Aggregation, Totals
from textgym_agents.lm import head

SEEDS = st.integers(0, 2**32 - 1)
PROPERTY = settings(deadline=None, max_examples=20)
NUM_IDS, LENGTH = 6, 10
AGGREGATIONS: list[Aggregation] = [
    "token_mean",
    "seq_mean_token_mean",
    "seq_mean_token_sum",
    "token_sum_const",
]
GARBAGE = [7.0, -1e30, float("inf"), float("nan")]


class TinyPolicy(nn.Module):
    """A categorical and a value per position, float64; off the action mask it says garbage."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.logits = nn.Parameter(
            torch.randn(LENGTH, NUM_IDS, generator=generator, dtype=torch.float64)
        )
        self.values = nn.Parameter(torch.randn(LENGTH + 1, generator=generator).double())
        self.garbage = 3.0
        self.batch_sizes: list[int] = []

    def evaluate(self, batch: Batch, *, value_grad_to_trunk: float = 1.0) -> Evaluation:
        num_rows, length = batch.input_ids.shape
        self.batch_sizes.append(num_rows)
        log_p = self.logits[:length].log_softmax(-1).expand(num_rows, -1, -1)
        ell = log_p.gather(2, batch.input_ids.unsqueeze(2)).squeeze(2)
        entropy = -(log_p.exp() * log_p).sum(-1)
        values = self.values[:length].expand(num_rows, -1)
        off = torch.where(batch.action_mask, 0.0, self.garbage)
        ends = self.values[batch.attention_mask.sum(dim=1)]
        return Evaluation(ell + off, values + off, entropy + off, ends)

    def entropy(self) -> Tensor:
        log_p = self.logits.log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1).detach()


def random_buffer(seed: int, lengths: list[int]) -> MemoryBuffer:
    """Return episodes with gaps and random rewards; the first token is never an action."""
    generator = torch.Generator().manual_seed(seed)
    memory = MemoryBuffer()
    for i, n in enumerate(lengths):
        mask = torch.rand(n, generator=generator) < 0.7
        mask[0], mask[-1] = False, True
        ids = torch.randint(0, NUM_IDS, (n,), generator=generator)
        rewards = torch.randn(n, generator=generator)
        memory.add(Episode(ids, mask, rewards, terminated=i % 2 == 0, truncated=i % 2 == 1))
    return memory


def prepared(policy: TinyPolicy, config: PPOConfig, *, seed: int, lengths: list[int]) -> Any:
    memory = random_buffer(seed, lengths)
    with torch.no_grad():
        memory.record(policy.evaluate(memory.batch))
    memory.compute_returns_and_advantages(config)
    policy.batch_sizes.clear()
    return memory


def config_of(**values: Any) -> PPOConfig:
    """Return a configuration of one undisturbed step: no stop, no clipping of the norm."""
    start: dict[str, Any] = {
        "batch_size": 64,
        "update_epochs": 1,
        "kl_stop": KLStopConfig(target=None),
        "optimizer": OptimizerConfig(max_grad_norm=1e9),
    }
    return PPOConfig(**{**start, **values})


def run(
    policy: TinyPolicy,
    memory: MemoryBuffer,
    config: PPOConfig,
    *,
    rate: float = 1.0,
    on_step: Callable[[], None] | None = None,
) -> dict[str, float]:
    return update.ppo_update(
        policy,
        torch.optim.SGD(policy.parameters(), lr=rate),
        memory,
        config,
        generator=torch.Generator().manual_seed(0),
        max_new_tokens=LENGTH,
        on_step=on_step,
    )


def moved(seed: int = 1, scale: float = 0.3) -> TinyPolicy:
    """Return the policy of seed 0 after a random step, so that ratios are not 1."""
    policy, noise = TinyPolicy(0), TinyPolicy(seed)
    with torch.no_grad():
        policy.logits += scale * noise.logits
        policy.values += scale * noise.values
    return policy


def gradients(policy: TinyPolicy, batch: Batch, config: PPOConfig) -> tuple[Tensor, ...]:
    """Return the loss and its gradients with respect to logits and values."""
    policy.zero_grad()
    loss, _ = update.ppo_loss(
        policy.evaluate(batch), batch, config, Totals.of(batch.action_mask, LENGTH)
    )
    loss.backward()
    assert policy.logits.grad is not None
    assert policy.values.grad is not None
    return loss.detach(), policy.logits.grad.clone(), policy.values.grad.clone()


def check_micro_batches_do_not_move_the_gradient() -> None:
    # Lengths 8, 5, 3, 2, longest first: at most 8, 16, 10 or 5 padded tokens at a time.
    splits = {None: [4], 16: [2, 2], 10: [1, 2, 1], 8: [1, 1, 2], 5: [1, 1, 1, 1]}
    for how in AGGREGATIONS:
        results = []
        for max_tokens, expected in splits.items():
            config = config_of(aggregation=how, micro_batch_tokens=max_tokens)
            memory = prepared(TinyPolicy(), config, seed=3, lengths=[3, 8, 2, 5])
            policy = moved()
            metrics = run(policy, memory, config)
            assert policy.batch_sizes == expected
            results.append((policy.logits.detach(), policy.values.detach(), metrics))
        for logits, values, metrics in results[1:]:
            torch.testing.assert_close(logits, results[0][0], rtol=1e-6, atol=1e-12)
            torch.testing.assert_close(values, results[0][1], rtol=1e-6, atol=1e-12)
            assert metrics == pytest.approx(results[0][2], rel=1e-6, abs=1e-9)


def check_masked_positions_do_not_matter() -> None:
    config = config_of(
        clip=ClipConfig(dual=3.0), value=ValueConfig(clip=0.2), aggregation="seq_mean_token_mean"
    )
    memory = prepared(TinyPolicy(), config, seed=4, lengths=[9, 4, 6])
    batch, policy = memory.batch, moved()
    expected = gradients(policy, batch, config)
    for garbage in GARBAGE:
        policy.garbage = garbage
        for name in ("rewards", "logprobs", "values", "advantages", "returns"):
            dirty = torch.where(batch.action_mask, getattr(batch, name), garbage)
            found = gradients(policy, replace(batch, **{name: dirty}), config)
            for a, b in zip(found, expected, strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=0)


def check_gradient_at_ratio_1() -> None:
    config = config_of(value=ValueConfig(coef=0.0), entropy_coef=0.0)
    for seed in range(5):
        policy = TinyPolicy(seed)
        batch = prepared(policy, config, seed=seed, lengths=[9, 4, 6]).batch
        found = gradients(policy, batch, config)[1]
        policy.zero_grad()
        ell, mask = policy.evaluate(batch).logprobs, batch.action_mask
        (-(batch.advantages * ell)[mask].sum() / mask.sum()).backward()
        torch.testing.assert_close(found, policy.logits.grad, rtol=1e-6, atol=1e-12)


def check_objective_golden() -> None:
    # Garbage, then two actions. Ratios 1.5 and 1, A = (2, -1), clip 0.2:
    # -(min(3, 2.4) + (-1)) / 2 = -0.7.
    # V = (1, 0), R = (3, 1): (4 + 1) / 2 = 2.5. H = (0.5, 1.5), mean 1.
    # L = -0.7 + 0.5 * 2.5 - 0.1 * 1 = 0.45; with half the squared error -0.175.
    on = torch.tensor([[False, True, True]])
    zeros = torch.zeros(1, 3)
    old = Batch(
        input_ids=torch.zeros(1, 3, dtype=torch.long),
        attention_mask=torch.ones_like(on),
        action_mask=on,
        rewards=zeros,
        is_truncated=torch.tensor([False]),
        logprobs=zeros,
        values=zeros,
        advantages=torch.tensor([[6.0, 2, -1]]),
        returns=torch.tensor([[5.0, 3, 1]]),
    )
    new = Evaluation(
        torch.tensor([[4.0, 1.5, 1.0]]).log(),
        torch.tensor([[7.0, 1, 0]]),
        torch.tensor([[9.0, 0.5, 1.5]]),
        torch.zeros(1),
    )
    for half, expected in [(False, 0.45), (True, -0.175)]:
        config = config_of(entropy_coef=0.1, value=ValueConfig(coef=0.5, half=half))
        loss, terms = update.ppo_loss(new, old, config, Totals.of(on))
        sums = terms.sums(config)
        assert float(loss) == pytest.approx(expected, rel=1e-6)
        assert float(sums["entropy"]) == pytest.approx(2.0)
        assert float(sums["ratio"]) == pytest.approx(2.5)
        assert [int(sums[f"clip_{side}"]) for side in ("low", "high", "dual")] == [0, 1, 0]


def check_entropy_bonus_raises_entropy() -> None:
    config = config_of(entropy_coef=0.5, value=ValueConfig(coef=0.0))
    policy = TinyPolicy()
    memory = prepared(policy, config, seed=5, lengths=[9, 9])
    memory._batch = replace(memory.batch, advantages=torch.zeros_like(memory.batch.rewards))
    before = policy.entropy()
    acted = memory.batch.action_mask.any(dim=0)
    run(policy, memory, config, rate=0.5)
    assert (policy.entropy()[:9][acted] > before[:9][acted]).all()
    assert torch.equal(policy.entropy()[:9][~acted], before[:9][~acted])


def check_chunked_entropy_is_exact() -> None:
    """`head.chunked_scores` against enumeration in float64, then its expected gradient."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(12, 5, generator=generator)
    weight = torch.randn(9, 5, generator=generator)
    ids = torch.randint(0, 7, (12,), generator=generator)
    illegal = torch.arange(9) >= 7
    for temperature in (1.0, 0.7):
        h = hidden.clone().requires_grad_()
        scores = head.chunked_scores(
            h, weight, ids, illegal=illegal, temperature=temperature, chunk=5
        )
        x = hidden.double().requires_grad_()
        log_p = (x @ weight.double().T / temperature)[:, :7].log_softmax(-1)
        entropy = -(log_p.exp() * log_p).sum(-1)
        ell = log_p.gather(1, ids.unsqueeze(1)).squeeze(1)
        torch.testing.assert_close(scores.entropy.double(), entropy, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(scores.logprobs.double(), ell, rtol=1e-5, atol=1e-6)
        (found,) = torch.autograd.grad(scores.entropy.sum(), h)
        (expected,) = torch.autograd.grad(entropy.sum(), x)
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def expected_gradient_of_a_sampled_bonus(use: str) -> tuple[Tensor, Tensor]:
    """Return the gradient of a bonus on the logits, averaged over the actions of the policy."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1, NUM_IDS, generator=generator).requires_grad_()
    scores = head.chunked_scores(
        z.expand(NUM_IDS, -1), torch.eye(NUM_IDS), torch.arange(NUM_IDS), chunk=4
    )
    p = z.detach().softmax(-1)[0]
    bonus = scores.entropy if use == "exact" else -scores.logprobs
    (grad,) = torch.autograd.grad((p * bonus).sum(), z)
    log_p = z.double().log_softmax(-1)
    (exact,) = torch.autograd.grad(-(log_p.exp() * log_p).sum(), z)
    return grad, exact


def on_policy(policy: TinyPolicy, config: PPOConfig, *, num_episodes: int) -> MemoryBuffer:
    """Return a rollout that the policy has sampled, of 9 actions each."""
    generator = torch.Generator().manual_seed(0)
    p = policy.logits.detach().softmax(-1)
    mask = torch.arange(LENGTH) > 0
    memory = MemoryBuffer()
    for _ in range(num_episodes):
        ids = torch.multinomial(p, 1, generator=generator)[:, 0]
        memory.add(Episode(ids, mask, (ids == 2).float(), terminated=True, truncated=False))
    with torch.no_grad():
        memory.record(policy.evaluate(memory.batch))
    memory.compute_returns_and_advantages(config)
    return memory


def check_kl_stop_discards_its_step() -> None:
    config = config_of(
        update_epochs=4,
        batch_size=200,
        kl_stop=KLStopConfig(target=0.01, statistic="seed", compare="abs"),
    )
    policy = TinyPolicy()
    memory = on_policy(policy, config, num_episodes=200)
    after_each: list[TinyPolicy] = []
    metrics = run(
        policy, memory, config, rate=30.0, on_step=lambda: after_each.append(copy.deepcopy(policy))
    )
    assert metrics["ppo/kl_stopped"] == 1.0
    assert metrics["ppo/steps_done_share"] == 0.25
    assert len(after_each) == 1
    assert torch.equal(policy.logits, after_each[0].logits)
    assert torch.equal(policy.values, after_each[0].values)


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_micro_batches_hold_what_the_step_holds(how: Aggregation) -> None:
    """T11, over random lengths: the gradient is that of `ppo_loss` on the whole minibatch."""
    config = config_of(aggregation=how, micro_batch_tokens=12)
    lengths = [4, 9, 2, 6, 6, 3]
    memory = prepared(TinyPolicy(), config, seed=8, lengths=lengths)
    whole = gradients(moved(), memory.batch, config)
    policy, start = moved(), moved()
    run(policy, memory, config)
    assert len(policy.batch_sizes) > 1
    step = start.logits.detach() - policy.logits.detach()
    torch.testing.assert_close(step, whole[1], rtol=1e-6, atol=1e-12)


def test_micro_batches_do_not_move_the_gradient() -> None:
    """T11: 1, 2, 3 and 4 uneven micro-batches, every aggregation."""
    check_micro_batches_do_not_move_the_gradient()


def test_masked_positions_do_not_move_loss_or_gradient() -> None:
    """T12: finite garbage, inf and NaN, in the batch and in what the policy says."""
    check_masked_positions_do_not_matter()


def test_gradient_at_ratio_1_is_that_of_the_plain_objective() -> None:
    """T4, through `ppo_loss`."""
    check_gradient_at_ratio_1()


def test_objective_golden() -> None:
    check_objective_golden()


def test_entropy_bonus_raises_entropy_where_the_policy_acts() -> None:
    """T14."""
    check_entropy_bonus_raises_entropy()


def test_chunked_entropy_is_exact() -> None:
    """T14."""
    check_chunked_entropy_is_exact()


def test_sampled_entropy_has_no_expected_gradient_and_the_exact_one_has() -> None:
    """T14: why -log pi is no bonus."""
    sampled, exact = expected_gradient_of_a_sampled_bonus("sampled")
    assert sampled.abs().max() < 1e-6
    assert exact.abs().max() > 0.1
    torch.testing.assert_close(expected_gradient_of_a_sampled_bonus("exact")[0], exact)


@given(seed=SEEDS)
@PROPERTY
def test_first_step_at_theta_old_has_ratio_1_and_no_kl(seed: int) -> None:
    config = config_of(clip=ClipConfig(dual=3.0))
    policy = TinyPolicy(seed)
    metrics = run(policy, prepared(policy, config, seed=seed, lengths=[9, 2, 5]), config)
    assert metrics["ppo/steps_done_share"] == 1.0
    assert metrics["ppo/ratio"] == pytest.approx(1.0, abs=1e-12)
    assert metrics["ppo/first_ratio_error"] == pytest.approx(0.0, abs=1e-12)
    for name in ("kl_seed", "kl_k1", "kl_k3", "clip_low", "clip_high", "clip_dual"):
        assert metrics[f"ppo/{name}"] == pytest.approx(0.0, abs=1e-12)


def test_first_ratio_error_is_the_largest_of_the_first_minibatch() -> None:
    """Another policy than the one that was recorded: what the metric is there to show."""
    config, policy = config_of(update_epochs=2), moved()
    memory = prepared(TinyPolicy(), config, seed=1, lengths=[9, 7, 5])
    batch = memory.batch
    with torch.no_grad():
        ratio = (policy.evaluate(batch).logprobs - batch.logprobs).exp()[batch.action_mask]
    metrics = run(policy, memory, config)
    assert metrics["ppo/first_ratio_error"] == pytest.approx(float((ratio - 1).abs().max()))


def test_policy_objective_of_whitened_advantages_starts_at_zero() -> None:
    # At ratio 1 the loss is minus the mean advantage, which whitening has made 0.
    policy, config = TinyPolicy(), config_of()
    metrics = run(policy, prepared(policy, config, seed=1, lengths=[9, 7, 5]), config)
    assert metrics["ppo/policy_loss"] == pytest.approx(0.0, abs=1e-6)


def test_update_learns_the_rewarded_token() -> None:
    """30 rollouts; a position that is never an action keeps its distribution to the bit."""
    policy = TinyPolicy()
    start = policy.logits.detach().clone()
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    config = PPOConfig(batch_size=16, kl_stop=KLStopConfig(target=0.05))
    mask = torch.tensor([False, False, True, True])
    for _ in range(30):
        memory = MemoryBuffer()
        for _ in range(32):
            ids = torch.multinomial(policy.logits[:4].softmax(-1), 1, generator=generator)[:, 0]
            rewards = (ids == 2).float() * mask
            memory.add(Episode(ids, mask, rewards, terminated=True, truncated=False))
        with torch.no_grad():
            memory.record(policy.evaluate(memory.batch))
        memory.compute_returns_and_advantages(config)
        update.ppo_update(policy, optimizer, memory, config, generator=generator)
    p = policy.logits.detach().softmax(-1)[:, 2]
    assert (p[2:4] > 0.9).all()
    assert torch.equal(policy.logits[[0, 1, 4, 5]], start[[0, 1, 4, 5]])


def test_kl_stop_discards_its_step() -> None:
    """T13: the second epoch is outside the trust region; its step is not taken."""
    check_kl_stop_discards_its_step()


def test_kl_stop_signed_lets_every_step_through() -> None:
    config = config_of(
        update_epochs=4,
        batch_size=200,
        kl_stop=KLStopConfig(target=0.01, statistic="seed", compare="signed"),
    )
    policy = TinyPolicy()
    metrics = run(policy, on_policy(policy, config, num_episodes=200), config, rate=30.0)
    assert metrics["ppo/kl_k3"] > 0.02
    assert metrics["ppo/kl_stopped"] == 0.0
    assert metrics["ppo/steps_done_share"] == 1.0


def test_kl_stop_is_not_judged_within_an_epoch_of_few_tokens() -> None:
    # Fewer than 512 tokens: of two minibatches an epoch, only the second can stop it.
    config = config_of(update_epochs=2, batch_size=2, kl_stop=KLStopConfig(target=1e-6))
    policy = TinyPolicy()
    metrics = run(policy, prepared(policy, config, seed=6, lengths=[9, 8, 9, 7]), config)
    assert metrics["ppo/steps_done_share"] == 0.25


def test_gradient_norm_is_clipped_once_over_policy_and_value_together() -> None:
    config = config_of(optimizer=OptimizerConfig(max_grad_norm=0.01))
    policy, start = moved(), moved()
    memory = prepared(TinyPolicy(), config, seed=7, lengths=[9, 8])
    free = gradients(moved(), memory.batch, config)
    norm = torch.cat([g.flatten() for g in free[1:]]).norm()
    metrics = run(policy, memory, config)
    for found, begin, gradient in zip(
        policy.parameters(), start.parameters(), free[1:], strict=True
    ):
        torch.testing.assert_close(begin - found, gradient * (0.01 / (norm + 1e-6)))
    assert metrics["ppo/grad_norm"] == pytest.approx(float(norm))


@pytest.mark.parametrize("names", [("policy", "value"), ("policy", "policy"), (None, None)])
def test_gradient_norm_covers_every_parameter_group(names: tuple[str | None, str | None]) -> None:
    """Groups that share a name, or have none, are clipped and reported together."""
    config = config_of(optimizer=OptimizerConfig(max_grad_norm=0.01))
    policy, start = moved(), moved()
    memory = prepared(TinyPolicy(), config, seed=7, lengths=[9, 8])
    free = gradients(moved(), memory.batch, config)
    groups: list[dict[str, Any]] = [{"params": [p]} for p in policy.parameters()]
    for group, name in zip(groups, names, strict=True):
        group |= {} if name is None else {"name": name}
    metrics = update.ppo_update(
        policy, torch.optim.SGD(groups, lr=1.0), memory, config, generator=torch.Generator()
    )
    step = [a - b for a, b in zip(start.parameters(), policy.parameters(), strict=True)]
    length = torch.cat([x.detach().flatten() for x in step]).norm()
    assert float(length) == pytest.approx(0.01, rel=1e-3)
    norms = [float(gradient.norm()) for gradient in free[1:]]
    total = (norms[0] ** 2 + norms[1] ** 2) ** 0.5
    assert metrics["ppo/grad_norm"] == pytest.approx(total)
    by_name = {k: v for k, v in metrics.items() if k.startswith("ppo/grad_norm_")}
    if names[0] == names[1]:
        assert by_name == pytest.approx({"ppo/grad_norm_policy": total})
    else:
        expected = {"ppo/grad_norm_policy": norms[0], "ppo/grad_norm_value": norms[1]}
        assert by_name == pytest.approx(expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_skips_and_counts_its_step(bad: float) -> None:
    config = config_of(update_epochs=3)
    policy = TinyPolicy()
    memory = prepared(policy, config, seed=7, lengths=[9, 8])
    seen: list[Tensor] = []
    hook_calls: list[int] = []

    def spoil_the_first(gradient: Tensor) -> Tensor:
        hook_calls.append(1)
        return gradient * bad if len(hook_calls) == 1 else gradient

    policy.logits.register_hook(spoil_the_first)
    start = policy.logits.detach().clone()
    metrics = run(
        policy, memory, config, on_step=lambda: seen.append(policy.logits.detach().clone())
    )
    assert metrics["ppo/skipped_steps"] == 1.0
    assert metrics["ppo/steps_done_share"] == pytest.approx(2 / 3)
    assert torch.equal(seen[0], start)
    assert not torch.equal(seen[1], start)
    assert policy.logits.isfinite().all()


class SpoiltPolicy(TinyPolicy):
    """Says nan of one action of each of its evaluations numbered in `spoilt`."""

    spoilt: frozenset[int] = frozenset()

    def evaluate(self, batch: Batch, *, value_grad_to_trunk: float = 1.0) -> Evaluation:
        said = super().evaluate(batch, value_grad_to_trunk=value_grad_to_trunk)
        if len(self.batch_sizes) - 1 not in self.spoilt:
            return said
        first = batch.action_mask.flatten().nonzero()[0]
        spoilt = said.logprobs.flatten().index_fill(0, first, math.nan)
        return said._replace(logprobs=spoilt.view_as(said.logprobs))


def test_a_loss_that_is_not_finite_reaches_no_weight_and_no_statistic() -> None:
    config = config_of(
        batch_size=2, update_epochs=2, kl_stop=KLStopConfig(target=1e-9, min_tokens=1)
    )
    policy = SpoiltPolicy()
    memory = prepared(policy, config, seed=3, lengths=[9, 8, 7, 6])
    policy.spoilt = frozenset({0})
    metrics = run(policy, memory, config, rate=0.1)
    assert metrics["ppo/skipped_steps"] == 1.0
    assert all(math.isfinite(value) for value in metrics.values())
    assert policy.logits.isfinite().all()
    # The second minibatch is whole and moves the policy; in the second epoch the stop sees that.
    assert metrics["ppo/kl_stopped"] == 1.0
    assert metrics["ppo/steps_done_share"] == 1 / 4


def test_too_many_steps_in_a_row_that_are_not_finite_end_the_update() -> None:
    optimizer = OptimizerConfig(max_grad_norm=1e9, max_skipped_steps=3)
    config = config_of(update_epochs=8, optimizer=optimizer)
    policy = SpoiltPolicy()
    memory = prepared(policy, config, seed=7, lengths=[9, 8])
    policy.spoilt = frozenset({0, 1, 3, 4})
    assert run(policy, memory, config)["ppo/skipped_steps"] == 4.0  # never three in a row
    policy.batch_sizes.clear()
    policy.spoilt = frozenset({2, 3, 4, 5})
    with pytest.raises(NotFiniteError, match="in 3 optimiser steps in a row") as raised:
        run(policy, memory, config)
    assert len(policy.batch_sizes) == 5
    assert raised.value.batch.input_ids.shape == memory.batch.input_ids.shape
    assert policy.logits.isfinite().all()


def test_skipped_steps_are_counted_over_updates() -> None:
    config, guard = config_of(), StepGuard(2)
    policy = SpoiltPolicy()
    memory = prepared(policy, config, seed=7, lengths=[9, 8])
    policy.spoilt = frozenset({0, 2, 3})
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)

    def update_once() -> None:
        generator = torch.Generator()
        update.ppo_update(policy, optimizer, memory, config, generator=generator, guard=guard)

    counts = []
    for _ in range(3):
        update_once()
        counts.append(guard.num_in_a_row)
    assert counts == [1, 0, 1]
    with pytest.raises(NotFiniteError):
        update_once()


def test_a_minibatch_without_actions_takes_no_part() -> None:
    config = config_of()
    silent = Episode(
        torch.zeros(3, dtype=torch.long),
        torch.zeros(3, dtype=torch.bool),
        torch.zeros(3),
        terminated=True,
        truncated=False,
    )
    policy, memory = TinyPolicy(), MemoryBuffer()
    memory.add(silent)
    memory.record(policy.evaluate(memory.batch))
    memory.compute_returns_and_advantages(config)
    start = policy.logits.detach().clone()
    metrics = run(policy, memory, config)
    assert torch.equal(policy.logits, start)
    assert metrics["ppo/policy_loss"] == 0.0


def test_minibatches_of_an_epoch_count_as_planned_steps() -> None:
    config = config_of(batch_size=2, update_epochs=3)
    policy = TinyPolicy()
    memory = prepared(policy, config, seed=2, lengths=[3, 4, 5, 6, 7])
    steps: list[int] = []
    metrics = run(policy, memory, config, rate=1e-3, on_step=lambda: steps.append(1))
    assert len(steps) == 9  # ceil(5 / 2) steps, 3 epochs
    assert metrics["ppo/steps_done_share"] == 1.0


def test_value_gradient_scale_is_passed_to_the_policy() -> None:
    seen: list[float] = []

    class Spy(TinyPolicy):
        def evaluate(self, batch: Batch, *, value_grad_to_trunk: float = 1.0) -> Evaluation:
            seen.append(value_grad_to_trunk)
            return super().evaluate(batch)

    config = config_of(value=ValueConfig(grad_to_trunk=0.25))
    policy = Spy()
    memory = prepared(TinyPolicy(), config, seed=2, lengths=[5])
    run(policy, memory, config)
    assert seen == [0.25]


def test_explained_variance_golden() -> None:
    # R = 2, 6: variance 4. V = 2, 4: residuals 0, 2, variance 1, so 0.75. V = R + 5: still 1.
    returns, mask = torch.tensor([[2.0, 6, 99]]), torch.tensor([[True, True, False]])
    assert update.explained_variance(torch.tensor([[2.0, 4, 0]]), returns, mask) == 0.75
    assert update.explained_variance(returns + 5, returns, mask) == 1.0
    assert update.explained_variance(torch.full((1, 3), 2.0), returns, mask) == 0.0


def test_explained_variance_of_constant_returns_is_nan() -> None:
    values, mask = torch.tensor([[2.0, 6, 99]]), torch.tensor([[True, True, False]])
    assert math.isnan(update.explained_variance(values, torch.ones(1, 3), mask))


REAL_LOSS, REAL_AGGREGATE, REAL_SCORES, REAL_RATIO = (
    update.ppo_loss,
    update.aggregate,
    head.chunked_scores,
    update.log_ratio,
)


def mean_of_micro_batch_means(loss: Tensor, mask: Tensor, totals: Totals, how: Any) -> Tensor:
    return REAL_AGGREGATE(loss, mask, Totals.of(mask, totals.max_new_tokens), how)


def aggregate_over_pads(loss: Tensor, mask: Tensor, totals: Totals, how: Any) -> Tensor:
    return REAL_AGGREGATE(loss, torch.ones_like(mask), totals, how)


def entropy_bonus_of_the_wrong_sign(
    new: Evaluation, batch: Batch, config: PPOConfig, totals: Totals
) -> Any:
    wrong = config.model_copy(update={"entropy_coef": -config.entropy_coef})
    return REAL_LOSS(new, batch, wrong, totals)


def hidden_half(new: Evaluation, batch: Batch, config: PPOConfig, totals: Totals) -> Any:
    value = config.value.model_copy(update={"half": True})
    return REAL_LOSS(new, batch, config.model_copy(update={"value": value}), totals)


def sampled_entropy(*args: Any, **options: Any) -> head.TokenScores:
    logprobs = REAL_SCORES(*args, **options).logprobs
    return head.TokenScores(logprobs, -logprobs)


def entropy_before_the_temperature(
    *args: Any, temperature: float, **options: Any
) -> head.TokenScores:
    scores = REAL_SCORES(*args, temperature=temperature, **options)
    return head.TokenScores(scores.logprobs, REAL_SCORES(*args, **options).entropy)


def ratio_upside_down(new: Tensor, old: Tensor) -> Tensor:
    return REAL_RATIO(old, new)


def ratio_without_gradient(new: Tensor, old: Tensor) -> Tensor:
    return REAL_RATIO(new, old).detach() + 0 * new


class SignedStop(update.KLStop):
    def should_stop(self, d: Tensor, *, is_last: bool) -> bool:
        self.compare = "signed"
        return super().should_stop(d, is_last=is_last)


@pytest.mark.parametrize(
    ("target", "name", "mutant", "check"),
    [
        (
            update,
            "aggregate",
            mean_of_micro_batch_means,
            check_micro_batches_do_not_move_the_gradient,
        ),
        (update, "aggregate", aggregate_over_pads, check_objective_golden),
        (update, "ppo_loss", entropy_bonus_of_the_wrong_sign, check_entropy_bonus_raises_entropy),
        (update, "ppo_loss", entropy_bonus_of_the_wrong_sign, check_objective_golden),
        (update, "ppo_loss", hidden_half, check_objective_golden),
        (update, "log_ratio", ratio_upside_down, check_gradient_at_ratio_1),
        (update, "log_ratio", ratio_without_gradient, check_gradient_at_ratio_1),
        (update, "KLStop", SignedStop, check_kl_stop_discards_its_step),
        (head, "chunked_scores", sampled_entropy, check_chunked_entropy_is_exact),
        (head, "chunked_scores", entropy_before_the_temperature, check_chunked_entropy_is_exact),
    ],
)
def test_mutant_is_caught(
    monkeypatch: pytest.MonkeyPatch,
    target: Any,
    name: str,
    mutant: Any,
    check: Callable[[], None],
) -> None:
    """T28: the mean of micro-batch means, sampled entropy, wrong signs."""
    monkeypatch.setattr(target, name, mutant)
    with pytest.raises(AssertionError):
        check()
