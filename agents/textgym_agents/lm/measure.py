"""Passes over a rollout without gradients, and what they say of the engine that sampled it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from textgym_agents.core.buffer import Batch, Evaluation, MemoryBuffer
from textgym_agents.lm.network import PolicyValueNetwork

MAX_TOKENS = 32_768
MAX_CPU_TOKENS = 2_048
"""A processor's cache holds what a pass over few tokens computes."""


@torch.no_grad()
def evaluate_in_parts(
    network: PolicyValueNetwork, batch: Batch, max_tokens: int | None = None
) -> Evaluation:
    """Evaluate a whole rollout, `max_tokens` padded tokens at a time; results on the CPU."""
    shape = batch.action_mask.shape
    out = Evaluation(
        logprobs=torch.zeros(shape),
        values=torch.zeros(shape),
        entropy=torch.zeros(shape),
        bootstrap=torch.zeros(len(batch.action_mask)),
    )
    for rows, part in _parts(network, batch, max_tokens):
        evaluation = network.evaluate(part)
        for name in ("logprobs", "values", "entropy"):
            x = getattr(evaluation, name)
            getattr(out, name)[rows, : x.shape[1]] = x.cpu()
        out.bootstrap[rows] = evaluation.bootstrap.cpu()
    return out


@torch.no_grad()
def states_in_parts(
    network: PolicyValueNetwork, batch: Batch, max_tokens: int | None = None
) -> Tensor:
    """Return `states_below` (B, T, d) of a whole rollout, on the CPU."""
    out = torch.zeros(*batch.input_ids.shape, network.value_head.in_features)
    for rows, part in _parts(network, batch, max_tokens):
        out[rows, : part.input_ids.shape[1]] = network.states_below(part).cpu()
    return out


def _parts(
    network: PolicyValueNetwork, batch: Batch, max_tokens: int | None
) -> Iterator[tuple[Tensor, Batch]]:
    """Yield rows of a batch, similar lengths together, and what they are, on the device."""
    default = MAX_CPU_TOKENS if network.device.type == "cpu" else MAX_TOKENS
    for rows in batch.rows_within(max_tokens or default):
        yield rows, batch.rows(rows).to(network.device)


def engine_logprobs(buffer: MemoryBuffer) -> Tensor | None:
    """Return log mu (B, T) of the engine's samples; None where it is not known of all of them."""
    known = [e.engine_logprobs for e in buffer.episodes if e.engine_logprobs is not None]
    return pad_sequence(known, batch_first=True) if len(known) == len(buffer) else None


def engine_metrics(buffer: MemoryBuffer, old_logprobs: Tensor) -> dict[str, float]:
    """Return how far the engine's log-probabilities are from the trainer's, over action tokens.

    With w = pi_old / mu, mu being the distribution that the engine sampled from: the mean and the
    largest |w - 1|, and the effective sample share (sum w)^2 / (N sum w^2).
    """
    mu, mask = engine_logprobs(buffer), buffer.batch.action_mask
    if mu is None or not bool(mask.any()):
        return {}
    w = (old_logprobs - mu)[mask].exp()
    error = (w - 1).abs()
    return {
        "engine/ratio_error_mean": float(error.mean()),
        "engine/ratio_error_max": float(error.max()),
        "engine/effective_share": float(w.sum() ** 2 / (len(w) * (w**2).sum())),
    }
