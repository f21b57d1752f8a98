"""Losses equal TRL's on the same batches, to 1e-5, where both define the same thing.

The numbers were recorded by `tests/golden/record_trl.py` (TRL 1.16.0) and `record_trl_ppo.py`
(TRL 1.10.0, the last with a PPOTrainer); each test compares a loss and its gradient with respect
to the log-probabilities. What TRL defines otherwise: its standard deviations are those of a sample
and not of the population; GRPO adds its KL term inside the mean over each sequence, this library
over all tokens (so the term is compared where both take that mean); its PPO has a value loss on one
position more wherever a response ends early (so its responses here do not).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from textgym_agents.core import preference
from textgym_agents.core.buffer import Batch, Episode, Evaluation, MemoryBuffer
from textgym_agents.core.config import ClipConfig, KLPenaltyConfig, PPOConfig, ValueConfig
from textgym_agents.core.groups import (
    dr_grpo_advantages,
    group_stats,
    grpo_advantages,
    rloo_advantages,
)
from textgym_agents.core.losses import Totals
from textgym_agents.core.update import ppo_loss

GOLDEN = Path(__file__).parents[2] / "golden"
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
NARROW = ClipConfig(low=0.2, high=0.2)
CONFIGS: dict[str, dict[str, Any]] = {
    "grpo": {"estimator": {"kind": "grpo"}, "clip": NARROW},
    "grpo_without_std": {"estimator": {"kind": "grpo"}, "clip": NARROW},
    "dr_grpo": {"estimator": {"kind": "dr_grpo"}, "clip": NARROW},
    "dapo": {"estimator": {"kind": "dapo"}},
    "dapo_with_kl": {
        "estimator": {"kind": "dapo"}, "clip": NARROW, "kl_penalty": KLPenaltyConfig(beta=0.04),
    },
    "dual_clip": {"estimator": {"kind": "dapo"}, "clip": ClipConfig(low=0.2, high=0.2, dual=1.5)},
    "gspo": {
        "estimator": {"kind": "grpo"}, "clip": ClipConfig(low=0.1, high=0.1),
        "ratio": "sequence_mean",
    },
    "rloo": {"estimator": {"kind": "rloo"}, "update_epochs": 2},
    "rloo_with_kl": {"estimator": {"kind": "rloo"}, "update_epochs": 2},
}  # fmt: skip


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / name).read_text())
    return found


TRL, TRL_PPO = read("trl.json"), read("trl_ppo.json")
LOGPROBS = {name: torch.tensor(x) for name, x in TRL["logprobs"].items()}
MASK = torch.arange(LOGPROBS["old"].shape[1]) < torch.tensor(TRL["lengths"]).unsqueeze(1)
REWARDS = torch.tensor(TRL["rewards"], dtype=torch.float64).view(-1, TRL["group_size"])


def batch_of(advantages: Tensor, reference: Tensor | None) -> Batch:
    zeros = torch.zeros_like(LOGPROBS["old"])
    return Batch(
        input_ids=zeros.long(),
        attention_mask=MASK,
        action_mask=MASK,
        rewards=zeros,
        is_truncated=torch.zeros(len(MASK), dtype=torch.bool),
        logprobs=LOGPROBS["old"],
        values=zeros,
        advantages=torch.where(MASK, advantages.unsqueeze(1), 0.0),
        returns=zeros,
        reference_logprobs=reference,
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_loss_and_gradient_of_estimators_without_a_critic(name: str) -> None:
    wanted = TRL["online"][name]
    config = PPOConfig(**{"update_epochs": 2, "entropy_coef": 0.0, **CONFIGS[name]})
    reference = LOGPROBS["reference"] if config.kl_penalty.beta > 0 else None
    batch = batch_of(torch.tensor(wanted["advantages"]), reference)
    ell = LOGPROBS["new"].clone().requires_grad_()
    zeros = torch.zeros_like(ell)
    new = Evaluation(ell, zeros, zeros, zeros[:, 0])
    loss, _ = ppo_loss(new, batch, config, Totals.of(MASK, TRL["max_new_tokens"]))
    loss.backward()
    torch.testing.assert_close(loss.detach(), torch.tensor(wanted["loss"]), **CLOSE)
    torch.testing.assert_close(ell.grad, torch.tensor(wanted["gradient"]), **CLOSE)


def test_the_recorded_ratios_are_cut_on_both_sides() -> None:
    """Otherwise the clips would not have been compared."""
    ratio = (LOGPROBS["new"] - LOGPROBS["old"]).exp()[MASK]
    sign = torch.tensor(TRL["online"]["grpo"]["advantages"]).sign().unsqueeze(1).expand_as(MASK)
    assert int(((ratio > 1.28) & (sign[MASK] > 0)).sum()) > 2
    assert int(((ratio < 0.8) & (sign[MASK] < 0)).sum()) > 2
    assert int(((ratio > 1.5) & (sign[MASK] < 0)).sum()) > 0


def test_advantages_of_groups() -> None:
    def recorded(name: str) -> Tensor:
        return torch.tensor(TRL["online"][name]["advantages"], dtype=torch.float64)

    assert torch.allclose(rloo_advantages(REWARDS).flatten(), recorded("rloo"), atol=1e-6)
    for name in ("dr_grpo", "grpo_without_std"):
        assert torch.allclose(dr_grpo_advantages(REWARDS).flatten(), recorded(name), atol=1e-6)
    std = group_stats(REWARDS).std.unsqueeze(1)
    of_the_sample = std * (4 / 3) ** 0.5
    theirs = grpo_advantages(REWARDS) * (std + 1e-4) / (of_the_sample + 1e-4)
    assert torch.allclose(theirs.flatten(), recorded("grpo"), atol=1e-6)


def test_rloo_takes_the_kl_of_the_sequence_off_the_score() -> None:
    nats = (LOGPROBS["old"] - LOGPROBS["reference"]).double().sum(dim=1)
    shaped = REWARDS - 0.1 * nats.view_as(REWARDS)
    wanted = torch.tensor(TRL["online"]["rloo_with_kl"]["advantages"], dtype=torch.float64)
    assert torch.allclose(rloo_advantages(shaped).flatten(), wanted, atol=1e-5)


def test_dpo_loss_implicit_reward_and_gradient() -> None:
    half = len(MASK) // 2
    lengths = MASK.sum(dim=1)
    ell = LOGPROBS["new"].clone().requires_grad_()
    sums, reference = ell.sum(dim=1), LOGPROBS["reference"].sum(dim=1)
    ratios = preference.LogRatios.of(sums[:half], sums[half:], reference[:half], reference[half:])
    for name, wanted in TRL["dpo"].items():
        beta = wanted["beta"]
        if name == "sigmoid":
            loss = preference.dpo_loss(ratios, beta=beta).mean()
        else:
            loss = preference.ipo_loss(ratios, lengths[:half], lengths[half:], beta=beta).mean()
        (gradient,) = torch.autograd.grad(loss, ell, retain_graph=True)
        torch.testing.assert_close(loss.detach(), torch.tensor(wanted["loss"]), **CLOSE)
        torch.testing.assert_close(gradient, torch.tensor(wanted["gradient"]), **CLOSE)
        rewards = preference.implicit_rewards(ratios, beta=beta)
        assert float(rewards.chosen.detach().mean()) == pytest.approx(
            wanted["reward_chosen"], abs=1e-5
        )
        assert float(rewards.rejected.detach().mean()) == pytest.approx(
            wanted["reward_rejected"], abs=1e-5
        )


PPO_CONFIG = PPOConfig(
    gamma=TRL_PPO["gamma"],
    gae_lambda=TRL_PPO["lam"],
    value_lambda=TRL_PPO["lam"],
    entropy_coef=0.0,
    clip=ClipConfig(low=TRL_PPO["cliprange"], high=TRL_PPO["cliprange"]),
    value=ValueConfig(coef=TRL_PPO["vf_coef"], half=True, clip=TRL_PPO["cliprange_value"]),
    kl_penalty=KLPenaltyConfig(beta=TRL_PPO["kl_coef"]),
)


def ppo_buffer() -> MemoryBuffer:
    """Return TRL's rollout: one prompt token, then the response, the score on its last token."""
    ell, ref, values = (torch.tensor(TRL_PPO[k]) for k in ("logprobs", "reference", "values"))
    lead = torch.zeros(len(ell), 1)
    mask = torch.arange(ell.shape[1] + 1) > 0
    buffer = MemoryBuffer()
    for score in TRL_PPO["scores"]:
        rewards = torch.zeros(len(mask))
        rewards[-1] = score
        ids = torch.zeros(len(mask), dtype=torch.long)
        buffer.add(Episode(ids, mask, rewards, terminated=True, truncated=False))
    old = Evaluation(torch.cat([lead, ell], 1), torch.cat([lead, values], 1), lead, lead[:, 0])
    nats = torch.cat([lead, ell - ref], dim=1)
    buffer.record(old, kl_penalty=PPO_CONFIG.kl_penalty.beta * nats)
    buffer.compute_returns_and_advantages(PPO_CONFIG)
    return buffer


def test_ppo_returns_and_advantages() -> None:
    batch = ppo_buffer().batch
    torch.testing.assert_close(batch.returns[:, 1:], torch.tensor(TRL_PPO["returns"]), **CLOSE)
    n = int(batch.action_mask.sum())
    of_the_sample = ((n - 1) / n) ** 0.5
    wanted = torch.tensor(TRL_PPO["advantages"])
    torch.testing.assert_close(
        batch.advantages[:, 1:] * of_the_sample, wanted, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("step", range(len(TRL_PPO["steps"])))
def test_ppo_loss(step: int) -> None:
    wanted = TRL_PPO["steps"][step]
    batch = ppo_buffer().batch
    n = int(batch.action_mask.sum())
    batch = Batch(**{**vars(batch), "advantages": batch.advantages * ((n - 1) / n) ** 0.5})
    batch = batch.rows(torch.tensor(wanted["rows"]))
    lead = torch.zeros(len(batch.input_ids), 1)
    ell, values = (
        torch.cat([lead, torch.tensor(wanted[k])], dim=1) for k in ("new_logprobs", "new_values")
    )
    loss, terms = ppo_loss(
        Evaluation(ell, values, lead, lead[:, 0]), batch, PPO_CONFIG, Totals.of(batch.action_mask)
    )
    torch.testing.assert_close(loss, torch.tensor(wanted["loss"]), **CLOSE)
    assert terms.value_loss is not None
    for found, name in ((terms.policy_loss, "policy_loss"), (terms.value_loss, "value_loss")):
        mean = found[batch.action_mask].mean()
        torch.testing.assert_close(mean, torch.tensor(wanted[name]), **CLOSE)


def test_the_second_epoch_of_ppo_was_cut_and_its_values_were_clipped() -> None:
    step = TRL_PPO["steps"][1]
    old = torch.tensor(TRL_PPO["logprobs"])[step["rows"]]
    ratio = (torch.tensor(step["new_logprobs"]) - old).exp()
    assert float(((ratio - 1).abs() > TRL_PPO["cliprange"]).float().mean()) > 0.2
    moved = torch.tensor(step["new_values"]) - torch.tensor(TRL_PPO["values"])[step["rows"]]
    assert float((moved.abs() > TRL_PPO["cliprange_value"]).float().mean()) > 0.2
