"""What vLLM is asked for: the plain distribution, and nothing that ships with a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from textgym.sample import FinishReason
from textgym_agents.lm.engine import Generation
from textgym_agents.lm.engines.errors import EngineError

MIN_TEMPERATURE = 0.01
"""vLLM raises lower ones to this, apart from 0."""
ENGINE_LOST = "engine_lost"
STALE_POLICY = "stale_policy"
ILLEGAL_ID = "illegal_id"


def draw_seeds(number: int, generator: torch.Generator) -> list[int]:
    """Return a seed per prompt: a resumed run draws what the first one drew."""
    seeds = torch.randint(2**62, (number,), generator=generator, device=generator.device)
    return [int(seed) for seed in seeds]


def sampling_settings(
    *, max_tokens: int, temperature: float, seed: int, stop_ids: Sequence[int]
) -> dict[str, Any]:
    """Return every field of vLLM's `SamplingParams` that a model could set otherwise.

    Raises:
        EngineError: vLLM would sample at another temperature.
    """
    if 0 < temperature < MIN_TEMPERATURE:
        raise EngineError(
            f"vLLM cannot sample at temperature {temperature:g}: it takes 0 or at least "
            f"{MIN_TEMPERATURE}"
        )
    return {
        "max_tokens": max_tokens,
        "min_tokens": 0,
        "temperature": temperature,
        "seed": seed,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "stop_token_ids": list(stop_ids),
        "ignore_eos": True,  # the stop ids are the trainer's, not those of a file beside the model
        "detokenize": False,
        "logprobs": 0,
    }


def scoring_settings() -> dict[str, Any]:
    """Return settings under which vLLM scores its prompt; the one token it adds is ignored."""
    return {
        "max_tokens": 1,
        "temperature": 0.0,
        "ignore_eos": True,
        "detokenize": False,
        "prompt_logprobs": 0,
    }


def failed(kind: str, what: str) -> Generation:
    """Return the place of a completion that could not be had."""
    return Generation([], [], "abort", failure=f"{kind}: {what}")


def accept(
    token_ids: Sequence[int],
    logprobs: Sequence[float],
    finish_reason: str | None,
    *,
    policy_version: int,
    illegal: Tensor | None,
) -> Generation:
    """Return what an engine sampled, or its failure if an id in it may not be sampled.

    Args:
        token_ids: as sampled.
        logprobs: one for each.
        finish_reason: vLLM's.
        policy_version: of the weights that were sampled from.
        illegal: (V,) bool, the trainer's mask; None if every id is legal.

    Raises:
        EngineError: a log-probability is missing. Filling in 0 would train on a wrong ratio.
    """
    ids, values = list(token_ids), list(logprobs)
    if not ids or len(ids) != len(values):
        raise EngineError(f"the engine gave {len(values)} log-probabilities for {len(ids)} tokens")
    reasons: dict[str | None, FinishReason] = {"stop": "stop", "length": "length"}
    if finish_reason not in reasons:
        return failed(ENGINE_LOST, f"the engine ended a completion early ({finish_reason})")
    if illegal is not None:
        out = [i for i in ids if i >= len(illegal) or bool(illegal[i])]
        if out:
            return failed(ILLEGAL_ID, f"the engine sampled id {out[0]}, which is not legal")
    return Generation(ids, values, reasons[finish_reason], policy_version)
