"""Passes over a rollout without gradients, and what they say of the engine that sampled it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from textgym_agents.core.buffer import Batch, Evaluation, MemoryBuffer
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.processes import ONE, Processes

T = TypeVar("T")
MAX_TOKENS = 32_768
MAX_CPU_TOKENS = 2_048
"""A processor's cache holds what a pass over few tokens computes."""


@torch.no_grad()
def evaluate_in_parts(
    network: PolicyValueNetwork,
    batch: Batch,
    max_tokens: int | None = None,
    processes: Processes = ONE,
) -> Evaluation:
    """Evaluate a whole rollout, `max_tokens` padded tokens at a time; results on the CPU.

    Several processes divide the parts among themselves, and each gets the whole.
    """
    shape = batch.action_mask.shape
    out = Evaluation(
        logprobs=torch.zeros(shape),
        values=torch.zeros(shape),
        entropy=torch.zeros(shape),
        bootstrap=torch.zeros(len(batch.action_mask)),
    )

    def evaluate(part: Batch) -> Evaluation:
        return Evaluation(*(x.cpu() for x in network.evaluate(part)))

    for rows, part in _in_parts(network, batch, max_tokens, processes, evaluate):
        for x, y in zip(out[:3], part[:3], strict=True):
            x[rows, : y.shape[1]] = y
        out.bootstrap[rows] = part.bootstrap
    return out


@torch.no_grad()
def states_in_parts(
    network: PolicyValueNetwork,
    batch: Batch,
    max_tokens: int | None = None,
    processes: Processes = ONE,
) -> Tensor:
    """Return `states_below` (B, T, d) of a whole rollout, on the CPU; divided like evaluation."""
    out = torch.zeros(*batch.input_ids.shape, network.value_head.in_features)

    def states(part: Batch) -> Tensor:
        return network.states_below(part).cpu()

    for rows, part in _in_parts(network, batch, max_tokens, processes, states):
        out[rows, : part.shape[1]] = part
    return out


def _in_parts(
    network: PolicyValueNetwork,
    batch: Batch,
    max_tokens: int | None,
    processes: Processes,
    measure: Callable[[Batch], T],
) -> list[tuple[Tensor, T]]:
    """Measure rows of a batch, similar lengths together; return which rows, and what came of them.

    Process r of P measures every P-th part, from part r on.
    """
    limit = max_tokens or (MAX_CPU_TOKENS if network.device.type == "cpu" else MAX_TOKENS)
    num_rows, length = batch.input_ids.shape
    parts = batch.rows_within(min(limit, -(-num_rows // processes.size) * length))
    with processes.together():
        own = [
            (rows, measure(batch.rows(rows).to(network.device)))
            for rows in parts[processes.rank :: processes.size]
        ]
    return [done for share in processes.gather(own) for done in share]


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
