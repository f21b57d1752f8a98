"""Passes over a rollout without gradients, and what they say of the engine that sampled it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from textgym_agents.core.buffer import Batch, Evaluation, MemoryBuffer
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.processes import ONE, Processes

MAX_TOKENS = 32_768


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
    num_rows, length = batch.input_ids.shape
    rows = min(max(1, (max_tokens or MAX_TOKENS) // length), -(-num_rows // processes.size))
    indices = torch.arange(num_rows).split(rows)
    own: list[Evaluation] = []
    with processes.together():
        for index in indices[processes.rank :: processes.size]:
            part = network.evaluate(batch.rows(index).to(network.device))
            own.append(Evaluation(*(x.cpu() for x in part)))
    shares = processes.gather(own)
    parts = [shares[i % processes.size][i // processes.size] for i in range(len(indices))]
    return Evaluation(
        logprobs=_stack([p.logprobs for p in parts], batch),
        values=_stack([p.values for p in parts], batch),
        entropy=_stack([p.entropy for p in parts], batch),
        bootstrap=torch.cat([p.bootstrap for p in parts]),
    )


def _stack(parts: list[Tensor], batch: Batch) -> Tensor:
    out = torch.zeros(batch.action_mask.shape)
    start = 0
    for part in parts:
        out[start : start + len(part), : part.shape[1]] = part
        start += len(part)
    return out


def engine_metrics(buffer: MemoryBuffer, old_logprobs: Tensor) -> dict[str, float]:
    """Return how far the engine's log-probabilities are from the trainer's, over action tokens.

    With w = pi_old / mu, mu being the distribution that the engine sampled from: the mean and the
    largest |w - 1|, and the effective sample share (sum w)^2 / (N sum w^2).
    """
    known = [e.engine_logprobs for e in buffer.episodes if e.engine_logprobs is not None]
    mask = buffer.batch.action_mask
    if len(known) < len(buffer) or not bool(mask.any()):
        return {}
    w = (old_logprobs - pad_sequence(known, batch_first=True))[mask].exp()
    error = (w - 1).abs()
    return {
        "engine/ratio_error_mean": float(error.mean()),
        "engine/ratio_error_max": float(error.max()),
        "engine/effective_share": float(w.sum() ** 2 / (len(w) * (w**2).sum())),
    }
