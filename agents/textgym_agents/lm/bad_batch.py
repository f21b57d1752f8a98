"""What a run leaves behind when its losses are not finite: the batch, token by token."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from textgym_agents.core.buffer import Batch
from textgym_agents.core.guard import NotFiniteError
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.measure import evaluate_in_parts
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.texts import decode
from textgym_agents.run.directory import RunDirectory, write_records


@contextmanager
def kept_if_not_finite(agent: PPOAgent, run: RunDirectory, name: str) -> Iterator[None]:
    """End a run where its losses or weights are not finite, and leave the batch to be read.

    Args:
        agent: what learns in this context.
        run: where the batch is left.
        name: of the step.

    Raises:
        NotFiniteError: they are not.
    """
    network, limit = agent.network, agent.config.ppo.micro_batch_tokens
    advice = "a lower learning rate, or float32 as policy.precision, may help"
    try:
        yield
    except NotFiniteError as error:
        path = run.path / f"not-finite-{name}.jsonl"
        if agent.processes.is_main:
            write_records(path, batch_records(network, error.batch, limit))
        raise NotFiniteError(
            f"{name}: {error}. The batch is in {path}, token by token: look there for what is "
            f"not finite; {advice}",
            error.batch,
        ) from error
    if spoilt := spoilt_parameters(network):
        raise NotFiniteError(
            f"{name}: the update was finite and left weights that are not, in "
            f"{', '.join(spoilt[:3])}; {advice}",
            None,
        )


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
