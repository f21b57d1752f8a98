"""What the policy that sampled a rollout says of it, and how its samples are weighted."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from textgym.errors import TextGymError
from textgym_agents.core.buffer import Evaluation, MemoryBuffer
from textgym_agents.core.config import PPOConfig
from textgym_agents.core.correction import Bypass, Correction, NoCorrection, engine_weights
from textgym_agents.lm.measure import engine_logprobs, engine_metrics, evaluate_in_parts
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.processes import ONE, Processes


class Behaviour(NamedTuple):
    """What the behaviour policy says of a rollout."""

    old: Evaluation | None
    """Under theta_old; None where nothing reads it."""
    engine_weights: Tensor | None
    """(B, T), of the policy's loss."""
    metrics: dict[str, float]


def behaviour_policy(
    network: PolicyValueNetwork,
    buffer: MemoryBuffer,
    config: PPOConfig,
    correction: Correction,
    processes: Processes = ONE,
) -> Behaviour:
    """Evaluate a rollout under theta_old, in one pass for log-probabilities and values, if needed.

    Raises:
        TextGymError: the correction needs log-probabilities that the engine did not return.
    """
    batch = buffer.batch
    old, metrics, weights = None, {}, None
    if needs_pass(config, correction, len(buffer)):
        old = evaluate_in_parts(network, batch, config.micro_batch_tokens, processes)
        metrics = engine_metrics(buffer, old.logprobs)
    if isinstance(correction, Bypass):
        zeros = torch.zeros_like(batch.rewards)
        old = old or Evaluation(zeros, zeros, zeros, zeros[:, 0])
        old = old._replace(logprobs=_known_logprobs(buffer, correction))
    elif old is not None and not isinstance(correction, NoCorrection):
        log_w = old.logprobs - _known_logprobs(buffer, correction)
        found = engine_weights(log_w, batch.action_mask, correction)
        assert found is not None
        weights = found.weights
        metrics["engine/cut_share"] = float(found.is_cut.sum() / batch.action_mask.sum())
    return Behaviour(old, weights, metrics)


def needs_pass(config: PPOConfig, correction: Correction, num_sequences: int) -> bool:
    """Return whether anything reads what theta_old says.

    Without a critic, and with one step per rollout, the policy is theta_old when it takes it.
    """
    penalty = config.kl_penalty
    if config.has_critic or penalty.entropy_floor:
        return True
    if isinstance(correction, Bypass):
        return False
    takes_one_step = config.update_epochs == 1 and num_sequences <= config.batch_size
    reads_kl = penalty.beta > 0 and (penalty.adaptive or not penalty.form.endswith("in_loss"))
    return not takes_one_step or reads_kl or not isinstance(correction, NoCorrection)


def _known_logprobs(buffer: MemoryBuffer, correction: Correction) -> Tensor:
    mu = engine_logprobs(buffer)
    if mu is None or not bool(mu.isfinite().all()):
        raise TextGymError(
            f"ppo.correction is {correction.kind}, but the engine did not return a finite "
            "log-probability of every token that it sampled; let it do so, or set "
            "ppo.correction.kind to off"
        )
    return mu
