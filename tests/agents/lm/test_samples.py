"""From a rollout to an update: advantages by sample, what is evaluated, and what is kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from textgym.errors import TextGymError
from textgym.prompt import Prompt
from textgym_agents.core.baselines import MovingBaseline
from textgym_agents.core.config import PPOConfig
from textgym_agents.core.correction import engine_weights
from textgym_agents.core.estimators import GroupEstimator
from textgym_agents.core.groups import rloo_advantages
from textgym_agents.core.update import ppo_update
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.build import build_agent
from textgym_agents.lm.config import (
    EnvConfig,
    EvaluationConfig,
    PolicyConfig,
    RolloutConfig,
    TrainConfig,
)
from textgym_agents.lm.engine import Generation
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.samples import Samples, gather_samples
from textgym_agents.lm.trainer import Trainer, learn
from textgym_agents.lm.transcript import Rollout, Transcript
from textgym_agents.run.directory import RunDirectory

MakePolicy = Callable[..., PolicyValueNetwork]
NAN = math.nan
GROUP = 4


def agent_of(network: PolicyValueNetwork, *, engine: Any = None, **ppo: Any) -> PPOAgent:
    rollout = RolloutConfig(
        num_episodes=8, num_envs=8, samples_per_prompt=GROUP, max_new_tokens=4, max_length=64
    )
    values = {"batch_size": 8, "update_epochs": 1, "kl_stop": {"target": None}, **ppo}
    config = TrainConfig(rollout=rollout, ppo=PPOConfig(**values), policy=network.config)
    return PPOAgent(network, config, engine=engine)


def rollout_of(network: PolicyValueNetwork, *scores: float, off: float = 0.0) -> Rollout:
    """Return samples of two prompts with the log-probabilities of an engine that is `off`."""
    generator = torch.Generator().manual_seed(1)
    transcripts = []
    for i, score in enumerate(scores):
        transcript = Transcript("AB"[i // GROUP], [9 + i // GROUP])
        ids = torch.randint(0, 6, (1 + i % 3,), generator=generator).tolist()
        transcript.add_generation(Generation(ids, [0.0] * len(ids), "stop"))
        transcript.rewards[-1] = 0.0 if math.isnan(score) else score
        transcript.failure = "raised" if math.isnan(score) else None
        transcript.terminated = True
        transcript.group = i // GROUP
        transcripts.append(transcript)
    config = PPOConfig(estimator={"kind": "grpo"})
    buffer = gather_samples(Rollout(transcripts, GROUP), config).buffer
    with torch.no_grad():
        ell = network.evaluate(buffer.batch).logprobs
    scored = [t for t in transcripts if t.failure is None]
    for transcript, row in zip(scored, ell, strict=True):
        n = len(transcript.ids)
        noise = off * torch.randn(n, generator=generator)
        said = torch.where(torch.tensor(transcript.is_action), row[:n] - noise, 0.0)
        transcript.logprobs = said.tolist()
    return Rollout(transcripts, GROUP)


SCORES = (1.0, 0.0, 0.0, 1.0, 3.0, NAN, 0.0, 0.0)


def test_samples_without_a_score_have_no_part(tiny_policy: PolicyValueNetwork) -> None:
    rollout = rollout_of(tiny_policy, *SCORES)
    samples = gather_samples(rollout, PPOConfig(estimator={"kind": "rloo"}))
    assert len(samples.buffer) == 7
    assert samples.places.tolist() == [0, 1, 2, 3, 4, 6, 7]
    assert samples.scores.shape == (2, 4)
    advantages = samples.advantages(GroupEstimator(kind="rloo"), MovingBaseline())
    assert advantages.tolist() == pytest.approx([2 / 3, -2 / 3, -2 / 3, 2 / 3, 3, -1.5, -1.5])


def test_dropped_groups_and_unselected_samples_are_left_out(
    tiny_policy: PolicyValueNetwork,
) -> None:
    rollout = rollout_of(tiny_policy, *SCORES)
    for transcript in rollout.transcripts[:GROUP]:
        transcript.is_dropped = True
    rollout.transcripts[6].is_selected = False
    config = PPOConfig(estimator={"kind": "grpo"})
    samples = gather_samples(rollout, config)
    assert samples.places.tolist() == [0, 3]
    # Mean 1 and variance 2 are those of 3, 0 and 0, also of the one that nobody learns from.
    found = samples.advantages(config.estimator, MovingBaseline())
    assert found.tolist() == pytest.approx([2 / (2**0.5 + 1e-4), -1 / (2**0.5 + 1e-4)])


def test_a_rollout_of_dropped_groups_changes_nothing(tiny_policy: PolicyValueNetwork) -> None:
    agent = agent_of(tiny_policy, estimator={"kind": "grpo"})
    rollout = rollout_of(tiny_policy, *SCORES)
    for transcript in rollout.transcripts:
        transcript.is_dropped = True
    assert agent.update(rollout, iteration=0, progress=0.0) == {"ppo/skipped_updates": 1.0}


def check_group_reward(network: PolicyValueNetwork) -> None:
    """T16: the terminal reward is z of the whole group; of the selected it is other numbers."""
    rollout = rollout_of(network, *SCORES)
    for i in (1, 3):
        rollout.transcripts[i].is_selected = False
    rollout.transcripts[4].rewards[1] = 0.25  # of a step: the scores are 3.25, 0 and 0
    estimator = {"kind": "gae", "group_reward": True}
    for value_on, places in (("selected", [0, 2, 4, 6, 7]), ("all", [0, 1, 2, 3, 4, 6, 7])):
        config = PPOConfig(estimator={**estimator, "value_on": value_on})
        samples = gather_samples(rollout, config)
        assert samples.places.tolist() == places
        episodes = samples.buffer.episodes
        for place, z in ((0, 1.0), (2, -1.0), (4, 2**0.5), (6, -(0.5**0.5))):
            rewards = episodes[places.index(place)].rewards
            assert float(rewards[-1]) == pytest.approx(z, abs=1e-5)
            assert not rewards[:-1].any()
        teaches = [e.teaches_policy for e in episodes]
        assert teaches == [i not in (1, 3) for i in places]


def test_the_reward_of_gae_can_be_the_place_in_the_group(tiny_policy: PolicyValueNetwork) -> None:
    check_group_reward(tiny_policy)


def test_gae_takes_the_rewards_where_they_are(tiny_policy: PolicyValueNetwork) -> None:
    rollout = rollout_of(tiny_policy, *SCORES)
    samples = gather_samples(rollout, PPOConfig())
    for episode, transcript in zip(samples.buffer.episodes, rollout.scored(), strict=True):
        assert episode.rewards.tolist() == transcript.rewards
    assert samples.buffer.batch.policy_mask is None


def test_the_domain_is_the_task_or_the_reward() -> None:
    transcript = Transcript("A", [9])
    assert transcript.domain == ""
    transcript.task = Prompt(id="1", messages="A", reward="math")
    assert transcript.domain == "math"
    transcript.task = Prompt(id="1", messages="A", reward="math", metadata={"task": "sums"})
    assert transcript.domain == "sums"


# What an update evaluates ------------------------------------------------------------------------


class Counted:
    """Counts the passes of a network that keep no graph."""

    def __init__(self, network: PolicyValueNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_passes = 0
        evaluate = network.evaluate

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.num_passes += not torch.is_grad_enabled()
            return evaluate(*args, **kwargs)

        monkeypatch.setattr(network, "evaluate", counted)


PASSES: list[tuple[dict[str, Any], int]] = [
    ({"estimator": {"kind": "gae"}}, 1),
    ({"estimator": {"kind": "rloo"}}, 0),
    ({"estimator": {"kind": "grpo"}}, 0),
    ({"estimator": {"kind": "reinforce_pp"}}, 0),
    ({"estimator": {"kind": "grpo"}, "update_epochs": 2}, 1),
    ({"estimator": {"kind": "grpo"}, "batch_size": 4}, 1),
    ({"estimator": {"kind": "grpo"}, "correction": {"kind": "token_tis"}}, 1),
    ({"estimator": {"kind": "grpo"}, "correction": {"kind": "bypass"}, "batch_size": 4}, 0),
    ({"estimator": {"kind": "gae"}, "correction": {"kind": "bypass"}}, 1),
    # A reference is one pass of its own; k1 needs the policy's as well.
    ({"estimator": {"kind": "rloo"}, "kl_penalty": {"beta": 0.1}}, 2),
    ({"estimator": {"kind": "grpo"}, "kl_penalty": {"beta": 0.1}}, 1),
    ({"estimator": {"kind": "grpo"}, "kl_penalty": {"beta": 0.1, "adaptive": True}}, 2),
    (
        {
            "estimator": {"kind": "rloo"},
            "kl_penalty": {"beta": 0.1},
            "correction": {"kind": "bypass"},
        },
        1,
    ),
]


@pytest.mark.parametrize(("ppo", "num_passes"), PASSES, ids=str)
def test_nothing_is_evaluated_that_nobody_reads(
    tiny_policy: PolicyValueNetwork,
    monkeypatch: pytest.MonkeyPatch,
    ppo: dict[str, Any],
    num_passes: int,
) -> None:
    agent = agent_of(tiny_policy, **ppo)
    agent.start_reference()
    rollout = rollout_of(tiny_policy, *SCORES)
    counted = Counted(tiny_policy, monkeypatch)
    if agent.reference is not None:
        of_reference = Counted(agent.reference, monkeypatch)
    metrics = agent.update(rollout, iteration=0, progress=0.0)
    passes = counted.num_passes + (of_reference.num_passes if agent.reference is not None else 0)
    assert passes == num_passes
    assert metrics["ppo/steps_done_share"] == 1.0
    has_critic = ppo["estimator"]["kind"] == "gae"
    for name in ("value_loss", "value", "return", "explained_variance", "grad_norm_value"):
        assert (f"ppo/{name}" in metrics) == has_critic


@pytest.mark.parametrize("kind", ["grpo", "rloo", "reinforce", "reinforce_pp"])
def test_skipping_the_pass_changes_nothing(make_policy: MakePolicy, kind: str) -> None:
    """One step with the network's own evaluation equals one with the recorded one."""
    weights = []
    for correction in ("off", "token_tis"):  # the latter reads it; the weights are 1
        network = make_policy()
        agent = agent_of(network, estimator={"kind": kind}, correction={"kind": correction})
        agent.update(rollout_of(network, *SCORES), iteration=0, progress=0.0)
        weights.append([p.detach().clone() for p in network.trainable()])
    for p, q in zip(*weights, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", ["grpo", "reinforce"])
def test_the_value_head_does_not_move_without_a_critic(make_policy: MakePolicy, kind: str) -> None:
    network = make_policy(head_std=0.0)
    agent = agent_of(network, estimator={"kind": kind}, value={"coef": 0.5})
    before = [p.detach().clone() for p in network.parameters()]
    agent.update(rollout_of(network, *SCORES), iteration=0, progress=0.0)
    assert not network.value_head.weight.any()
    assert not network.value_head.bias.any()
    assert any(not torch.equal(p, q) for p, q in zip(before, network.parameters(), strict=True))


# The reference -----------------------------------------------------------------------------------


def moved_agent(make_policy: MakePolicy, **ppo: Any) -> PPOAgent:
    """Return an agent whose policy has left its reference."""
    agent = agent_of(make_policy(), **ppo)
    agent.start_reference()
    with torch.no_grad():
        for p in agent.network.trainable():
            p.mul_(1.1)
    return agent


def prepared(agent: PPOAgent, rollout: Rollout) -> Any:
    samples = gather_samples(rollout, agent.config.ppo)
    metrics = agent._prepare(samples, agent.config.ppo)
    return samples, metrics


def nats_of(agent: PPOAgent, batch: Any) -> Tensor:
    assert agent.reference is not None
    with torch.no_grad():
        new, ref = (n.evaluate(batch).logprobs for n in (agent.network, agent.reference))
    return new - ref


def check_the_penalty_is_in_the_score(make_policy: MakePolicy) -> None:
    agent = moved_agent(make_policy, estimator={"kind": "rloo"}, kl_penalty={"beta": 0.5})
    samples, _ = prepared(agent, rollout_of(agent.network, *SCORES))
    batch = samples.buffer.batch
    nats = nats_of(agent, batch).sum(dim=1)
    assert nats.abs().max() > 1e-2
    shaped = samples.scores.clone().flatten()
    shaped[samples.places] -= 0.5 * nats
    expected = rloo_advantages(shaped.view(2, 4)).flatten()[samples.places].float()
    rows = torch.arange(len(batch.advantages))
    last = batch.attention_mask.sum(dim=1) - 1
    torch.testing.assert_close(batch.advantages[rows, last], expected, atol=1e-5, rtol=1e-4)
    assert batch.reference_logprobs is None


def test_k1_in_the_score_is_taken_off_before_the_baseline(make_policy: MakePolicy) -> None:
    """Spec 4.13: S~ = S - beta * sum of k1, and the mean of the others is one of S~."""
    check_the_penalty_is_in_the_score(make_policy)


@pytest.mark.parametrize(
    ("kind", "form"), [("grpo", "k3_in_loss"), ("gae", "k2_in_loss"), ("reinforce", "k2_in_loss")]
)
def test_kl_in_the_loss_leaves_advantages_alone(
    make_policy: MakePolicy, kind: str, form: str
) -> None:
    penalty = {"beta": 0.5, "form": form}
    with_kl = moved_agent(make_policy, estimator={"kind": kind}, kl_penalty=penalty)
    without = moved_agent(make_policy, estimator={"kind": kind})
    rollout = rollout_of(with_kl.network, *SCORES)
    found, _ = prepared(with_kl, rollout)
    plain, _ = prepared(without, rollout)
    torch.testing.assert_close(found.buffer.batch.advantages, plain.buffer.batch.advantages)
    assert found.buffer.batch.reference_logprobs is not None
    metrics = with_kl.update(rollout, iteration=0, progress=0.0)
    assert metrics["ppo/kl_loss"] > 1e-3


def test_the_weight_in_the_loss_is_the_controllers(
    make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    def spy(*args: Any, **kwargs: Any) -> dict[str, float]:
        seen.append(args[3].kl_penalty.beta)
        return ppo_update(*args, **kwargs)

    monkeypatch.setattr("textgym_agents.lm.agent.ppo_update", spy)
    penalty = {"beta": 0.5, "adaptive": True, "horizon_sequences": 7}
    agent = moved_agent(make_policy, estimator={"kind": "grpo"}, kl_penalty=penalty)
    rollout = rollout_of(agent.network, *SCORES)
    logged = [agent.update(rollout, iteration=i, progress=0.0)["kl/beta"] for i in range(3)]
    assert seen == logged
    assert len(set(seen)) == 3


def test_the_entropy_floor_scales_the_target(make_policy: MakePolicy) -> None:
    penalty = {"beta": 0.5, "adaptive": True, "entropy_floor": True}
    agent = moved_agent(make_policy, estimator={"kind": "gae"}, kl_penalty=penalty)
    agent.entropy_floor.first = [1e3] * 5
    metrics = agent.update(rollout_of(agent.network, *SCORES), iteration=0, progress=0.0)
    assert metrics["kl/target_scale"] == 0.1
    fresh = moved_agent(make_policy, estimator={"kind": "gae"}, kl_penalty=penalty)
    metrics = fresh.update(rollout_of(fresh.network, *SCORES), iteration=0, progress=0.0)
    assert metrics["kl/target_scale"] == 1.0
    assert len(fresh.entropy_floor.first) == 1


@pytest.mark.parametrize(("num_sequences", "horizon"), [(500, 50.0), (10**6, 10_000.0)])
def test_the_horizon_is_a_tenth_of_a_short_run(
    tiny_policy: PolicyValueNetwork, num_sequences: int, horizon: float
) -> None:
    penalty = {"beta": 0.5, "adaptive": True}
    agent = agent_of(tiny_policy, kl_penalty=penalty)
    agent.plan(num_sequences)
    assert agent.kl_controller.horizon_sequences == horizon
    chosen = agent_of(tiny_policy, kl_penalty={**penalty, "horizon_sequences": 77})
    chosen.plan(num_sequences)
    assert chosen.kl_controller.horizon_sequences == 77


# The engine --------------------------------------------------------------------------------------


class OtherEngine:
    """Not the network itself, so the loss corrects for it."""

    def sync(self) -> None:
        """Do nothing."""


def test_another_engine_is_corrected_for_by_default(tiny_policy: PolicyValueNetwork) -> None:
    assert agent_of(tiny_policy).correction.kind == "off"
    assert agent_of(tiny_policy, engine=OtherEngine()).correction.kind == "token_tis"
    chosen = agent_of(tiny_policy, engine=OtherEngine(), correction={"kind": "off"})
    assert chosen.correction.kind == "off"


def check_the_correction_reaches_the_loss(network: PolicyValueNetwork) -> None:
    agent = agent_of(network, estimator={"kind": "grpo"}, correction={"kind": "token_tis"})
    rollout = rollout_of(network, *SCORES, off=1.0)
    samples, metrics = prepared(agent, rollout)
    batch = samples.buffer.batch
    mu = torch.cat([e.engine_logprobs[e.action_mask] for e in samples.buffer.episodes])
    exact = (batch.logprobs[batch.action_mask] - mu).exp()
    assert batch.engine_weights is not None
    found = batch.engine_weights[batch.action_mask]
    torch.testing.assert_close(found, exact.clamp(max=2.0), rtol=1e-4, atol=1e-5)
    assert (exact > 2).any()
    assert metrics["engine/cut_share"] == pytest.approx(float((exact > 2).float().mean()))
    error = (exact - 1).abs()
    assert metrics["engine/ratio_error_mean"] == pytest.approx(float(error.mean()), rel=1e-3)
    assert metrics["engine/ratio_error_max"] == pytest.approx(float(error.max()), rel=1e-3)
    share = float(exact.sum() ** 2 / (len(exact) * (exact**2).sum()))
    assert metrics["engine/effective_share"] == pytest.approx(share, rel=1e-3)


def test_the_correction_reaches_the_loss(tiny_policy: PolicyValueNetwork) -> None:
    """T23: w = pi_old / mu of each token, at most 2."""
    check_the_correction_reaches_the_loss(tiny_policy)


def test_bypass_takes_the_engines_log_probabilities(tiny_policy: PolicyValueNetwork) -> None:
    agent = agent_of(tiny_policy, correction={"kind": "bypass"})
    samples, _ = prepared(agent, rollout_of(tiny_policy, *SCORES, off=0.5))
    batch = samples.buffer.batch
    for row, episode in zip(batch.logprobs, samples.buffer.episodes, strict=True):
        assert torch.equal(row[: len(episode.input_ids)], episode.engine_logprobs)
    assert batch.engine_weights is None
    metrics = agent.update(rollout_of(tiny_policy, *SCORES, off=0.5), iteration=0, progress=0.0)
    assert metrics["ppo/first_ratio_error"] > 0.1


@pytest.mark.parametrize("kind", ["token_tis", "token_mask", "bypass"])
def test_a_missing_log_probability_is_an_error(tiny_policy: PolicyValueNetwork, kind: str) -> None:
    """Spec 4.16: not 0, which would pass for certainty."""
    agent = agent_of(tiny_policy, correction={"kind": kind})
    rollout = rollout_of(tiny_policy, *SCORES)
    rollout.transcripts[3].logprobs[-1] = NAN
    with pytest.raises(TextGymError, match=f"ppo.correction is {kind}, but the engine did not"):
        agent.update(rollout, iteration=0, progress=0.0)


@pytest.mark.parametrize("logprobs", [[], [-1.0], [-1.0] * 3])
def test_an_engine_must_say_one_log_probability_per_token(logprobs: list[float]) -> None:
    with pytest.raises(TextGymError, match=rf"2 tokens, but log-probabilities of {len(logprobs)};"):
        Transcript("A", [9]).add_generation(Generation([1, 2], logprobs, "stop"))


# Runs --------------------------------------------------------------------------------------------

RUNS: dict[str, dict[str, Any]] = {
    "reinforce": {"ppo": {"estimator": {"kind": "reinforce"}, "kl_penalty": {"beta": 0.05}}},
    "ends": {
        "rollout": {"samples_per_prompt": 4, "keep_ends": 1},
        "ppo": {
            "estimator": {"kind": "gae", "group_reward": True, "value_on": "all"},
            "kl_penalty": {
                "beta": 0.1, "adaptive": True, "entropy_floor": True, "horizon_sequences": 20,
            },
        },
    },
    "dapo": {
        "rollout": {"samples_per_prompt": 4, "drop_equal": True},
        "ppo": {"estimator": {"kind": "dapo"}},
    },
}  # fmt: skip


def run_config(name: str, iterations: int) -> TrainConfig:
    values = RUNS[name]
    digits = (15, 16, 17, 18, 19, 20)
    return TrainConfig(
        iterations=iterations,
        checkpoint_every=2,
        keep_checkpoints=5,
        env=EnvConfig(id="textgym:ToyTwoTurn-v0"),
        policy=PolicyConfig(legal_ids=digits),
        rollout=RolloutConfig(
            **{
                "num_episodes": 16, "num_envs": 16, "max_new_tokens": 1, "max_length": 8,
                **values.get("rollout", {}),
            }
        ),
        ppo=PPOConfig(**{"batch_size": 8, "optimizer": {"learning_rate": 1e-3}, **values["ppo"]}),
        evaluation=EvaluationConfig(every=100, num_episodes=3),
    )  # fmt: skip


def last_tensors(run: Path) -> dict[str, Tensor]:
    folder = run / "checkpoints" / "iteration-0000004"
    found: dict[str, Tensor] = {}
    for path in folder.rglob("*.safetensors"):
        found |= {f"{path.name}/{k}": x for k, x in load_file(path).items()}
    return found


def metrics_of(run: Path) -> list[dict[str, Any]]:
    rows = [r for r in RunDirectory.open(run).read_metrics() if r["phase"] == "ppo"]
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


@pytest.mark.parametrize("name", RUNS)
def test_a_run_resumes_exactly(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """T26: beta, moving baselines, the entropy floor; replacements and ties are drawn anew."""
    monkeypatch.setattr("textgym_agents.lm.trainer.plot_run", lambda run: None)
    learn(build_agent(run_config(name, 4)), tmp_path / "whole")
    learn(build_agent(run_config(name, 2)), tmp_path / "parts")
    checkpoint = RunDirectory.open(tmp_path / "parts").latest_checkpoint()
    assert checkpoint is not None
    agent = build_agent(run_config(name, 4), checkpoint=checkpoint)
    learn(agent, tmp_path / "parts", resume_from=checkpoint)
    whole, parts = metrics_of(tmp_path / "whole"), metrics_of(tmp_path / "parts")
    assert len(whole) == 4
    assert whole == parts
    first, second = last_tensors(tmp_path / "whole"), last_tensors(tmp_path / "parts")
    assert len(first) > 20
    assert first.keys() == second.keys()
    assert all(torch.equal(x, second[k]) for k, x in first.items())
    if name == "reinforce":
        assert agent.baseline.means
    if name == "ends":
        assert len(agent.entropy_floor.first) > 1
        assert len({row["kl/beta"] for row in whole}) > 2


def test_a_run_in_groups_counts_its_prompts(tmp_path: Path) -> None:
    """Three prompts, four samples each: one epoch is 12 episodes."""
    config = run_config("dapo", 1).model_copy(update={"iterations": None, "epochs": 4})
    trainer = Trainer(build_agent(config), RunDirectory(tmp_path / "run"), None)  # type: ignore[arg-type]
    trainer.close()
    assert trainer.num_iterations == 3


@pytest.mark.parametrize(
    ("rollout", "ppo", "message"),
    [
        ({}, {"estimator": {"kind": "grpo"}}, "grpo, which .* is 1; set it to 2"),
        ({}, {"estimator": {"kind": "rloo"}}, "rloo, which compares the samples of a prompt"),
        (
            {},
            {"estimator": {"kind": "gae", "group_reward": True}},
            "gae with group_reward, which compares",
        ),
        (
            {"samples_per_prompt": 4, "keep_ends": 1},
            {"estimator": {"kind": "rloo"}, "kl_penalty": {"beta": 0.1}},
            "keep_ends chooses samples by their scores .* k1_in_score; take another form",
        ),
    ],
)
def test_settings_that_do_not_fit_are_rejected(
    rollout: dict[str, Any], ppo: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(rollout=RolloutConfig(num_episodes=8, **rollout), ppo=PPOConfig(**ppo))


# Mutants -----------------------------------------------------------------------------------------


def penalty_with_the_wrong_sign(self: Any, estimator: Any, moving: Any, *, penalty: Any) -> Any:
    return REAL_ADVANTAGES(self, estimator, moving, penalty=-penalty)


def of_the_selected_alone(scores: Tensor, *, eps: float = 1e-6) -> Tensor:
    chosen = scores[:, [0, 2, 2, 0]]
    return (scores - chosen.mean(1, keepdim=True)) / (chosen.std(1, keepdim=True) + eps)


def not_truncated(log_w: Tensor, mask: Tensor, correction: Any) -> Any:
    wide = correction.model_copy(update={"cap": 1e6})
    return REAL_WEIGHTS(log_w, mask, wide)


def test_mutants_are_caught(make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    """T28: the KL added to the score, statistics of the selected, weights without a bound."""
    with monkeypatch.context() as patch:
        patch.setattr(Samples, "advantages", penalty_with_the_wrong_sign)
        with pytest.raises(AssertionError):
            check_the_penalty_is_in_the_score(make_policy)
    with monkeypatch.context() as patch:
        patch.setattr("textgym_agents.lm.samples.group_normalise", of_the_selected_alone)
        with pytest.raises(AssertionError):
            check_group_reward(make_policy())
    with monkeypatch.context() as patch:
        patch.setattr("textgym_agents.lm.behaviour.engine_weights", not_truncated)
        with pytest.raises(AssertionError):
            check_the_correction_reaches_the_loss(make_policy())


REAL_ADVANTAGES, REAL_WEIGHTS = Samples.advantages, engine_weights
