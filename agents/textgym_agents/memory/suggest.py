"""Which mode of tuning fits into a memory, and how much of a batch at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from transformers import PreTrainedConfig

from textgym_agents.lm.config import (
    FullMode,
    LastLayersMode,
    LoraMode,
    QloraMode,
    TrainConfig,
    TrainMode,
)
from textgym_agents.memory.plan import Lengths, MemoryPlan, plan_memory

HEADROOM = 0.1
"""Share of the memory that is left to the GPU's context, to buffers and to fragmentation."""
MODES: tuple[tuple[str, TrainMode], ...] = (
    ("full", FullMode()),
    ("lora", LoraMode()),
    ("last 10 %", LastLayersMode(share=0.1)),
    ("qlora", QloraMode()),
)
"""The first that fits is suggested."""
FLAGS: Mapping[str, str] = {
    "full": "policy.mode.kind=full",
    "lora": "policy.mode.kind=lora",
    "last 10 %": 'policy.mode={"kind": "last_k", "share": 0.1}',
    "qlora": "policy.mode.kind=qlora",
}


class Fit(NamedTuple):
    """How a mode fits into a memory."""

    mode: str
    has_checkpointing: bool
    num_trainable: int
    least: int
    """Bytes with one sequence at a time: what the mode cannot do without."""
    micro_batch_sequences: int
    """Sequences of one forward and backward pass; 0: not even one fits."""
    num_envs: int
    """Completions that are sampled at once; 0: none fits."""
    micro_batch_tokens: int
    """What `micro_batch_sequences` are in tokens."""

    @property
    def fits(self) -> bool:
        """Whether a run can be done."""
        return self.micro_batch_sequences > 0 and self.num_envs > 0

    @property
    def overrides(self) -> list[str]:
        """Return what to set for it."""
        return [
            FLAGS[self.mode],
            f"policy.gradient_checkpointing={str(self.has_checkpointing).lower()}",
            f"ppo.micro_batch_tokens={self.micro_batch_tokens}",
            f"rollout.num_envs={self.num_envs}",
        ]


def suggest(config: TrainConfig, model_config: PreTrainedConfig, memory: int) -> list[Fit]:
    """Return how each mode fits; activation checkpointing is on where it does not without.

    Args:
        config: of the run; its mode, micro-batch and number of environments are replaced.
        model_config: of the model.
        memory: bytes of the GPU.
    """
    budget = int(memory * (1 - HEADROOM))
    fits = []
    for name, mode in MODES:
        fit = _fit(config, model_config, budget, name, mode, has_checkpointing=False)
        if not fit.fits:
            fit = _fit(config, model_config, budget, name, mode, has_checkpointing=True)
        fits.append(fit)
    return fits


def _fit(
    config: TrainConfig,
    model_config: PreTrainedConfig,
    budget: int,
    name: str,
    mode: TrainMode,
    *,
    has_checkpointing: bool,
) -> Fit:
    changes = {"mode": mode, "gradient_checkpointing": has_checkpointing}
    policy = config.policy.model_copy(update=changes)
    config = config.model_copy(update={"policy": policy, "cold_start": None})
    one = plan_memory(_with(config, 1), model_config)
    most = dict.fromkeys((phase.name for phase in one.phases), 0)
    if one.peak.total <= budget:
        two = plan_memory(_with(config, 2), model_config)
        for a, b in zip(one.phases, two.phases, strict=True):
            most[a.name] = 1 + (budget - a.total) // max(1, b.total - a.total)
    size, rows = config.rollout.samples_per_prompt, config.rollout.num_rows
    count = min(config.ppo.batch_size, most["update"], most["scoring"])
    return Fit(
        mode=name,
        has_checkpointing=has_checkpointing,
        num_trainable=one.num_trainable,
        least=one.peak.total,
        micro_batch_sequences=count,
        num_envs=_divisor(rows, most["rollout"] * size, size),
        micro_batch_tokens=count * Lengths.of(config).total,
    )


def _with(config: TrainConfig, count: int) -> TrainConfig:
    """Return a configuration with so many sequences at a time, of `count` prompts."""
    rollout = config.rollout.model_copy(
        update={"num_envs": count * config.rollout.samples_per_prompt}
    )
    tokens = count * Lengths.of(config).total
    ppo = config.ppo.model_copy(update={"micro_batch_tokens": tokens})
    return config.model_copy(update={"rollout": rollout, "ppo": ppo})


def _divisor(rows: int, limit: int, size: int) -> int:
    """Return the largest number of environments within a limit that a rollout can be cut into."""
    return next((n for n in range(min(rows, limit), 0, -1) if rows % n == 0 and n % size == 0), 0)


def best(fits: list[Fit]) -> Fit | None:
    """Return the fullest mode that fits."""
    return next((fit for fit in fits if fit.fits), None)


def summary(plan: MemoryPlan) -> dict[str, object]:
    """Return a plan for JSON; bytes."""
    return {
        "num_parameters": plan.num_parameters,
        "num_trainable": plan.num_trainable,
        "phases": {phase.name: {**phase.parts, "total": phase.total} for phase in plan.phases},
        "peak": {"phase": plan.peak.name, "bytes": plan.peak.total},
    }
