"""What a run leaves behind when its losses are not finite: the batch, token by token."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from textgym_agents.core.buffer import Batch
from textgym_agents.lm.measure import evaluate_in_parts
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.rollout import decode


def batch_records(
    network: PolicyValueNetwork, batch: Batch, max_tokens: int | None
) -> list[dict[str, Any]]:
    """Return one record per sequence: its text, and every number there is of each of its tokens.

    `now` is what the network says of an action when it is asked again; a number that is not finite
    is written as text, `nan`, `inf` or `-inf`.

    Args:
        network: as it is.
        batch: the one that a step was to be taken on.
        max_tokens: padded tokens per forward pass.
    """
    batch = batch.to(torch.device("cpu"))
    now = evaluate_in_parts(network, batch, max_tokens)
    known = {f.name: getattr(batch, f.name) for f in fields(batch)}
    stored = {k: x for k, x in known.items() if x is not None and _is_per_token_number(x)}
    rows = []
    for i, length in enumerate(batch.attention_mask.sum(dim=1).tolist()):
        ids = batch.input_ids[i, :length].tolist()
        tokens = []
        for j, token in enumerate(ids):
            entry = {"id": token, "text": decode(network, [token])}
            if bool(batch.action_mask[i, j]):
                entry |= {name: _number(x[i, j]) for name, x in stored.items()}
                said = now._asdict() | {"bootstrap": None}
                entry["now"] = {k: _number(x[i, j]) for k, x in said.items() if x is not None}
            tokens.append(entry)
        rows.append({"text": decode(network, ids), "tokens": tokens})
    return rows


def spoilt_parameters(network: PolicyValueNetwork) -> list[str]:
    """Return the names of the parameters that hold a value which is not finite."""
    return [name for name, p in network.named_parameters() if not bool(p.isfinite().all())]


def _is_per_token_number(x: Tensor) -> bool:
    return x.is_floating_point() and x.dim() == 2


def _number(x: Tensor) -> float | str:
    value = float(x)
    return value if math.isfinite(value) else str(value)
