"""The runs of a comparison of tuning modes: what each is, and which are left to do.

All modes begin with one policy: a cold start is done once, in full, and what it leaves is the model
of every run. A run is done when its `result.json` says so for the same configuration; one that was
stopped goes on from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from textgym.errors import ConfigError, did_you_mean
from textgym_agents.lm.config import (
    FullMode,
    LastLayersMode,
    LoraMode,
    QloraMode,
    TrainConfig,
    TrainMode,
)

RESULT_FILE = "result.json"
POLICY_FOLDER = "policy"
START = "start"


class Setup(NamedTuple):
    """How a mode is trained."""

    mode: TrainMode
    rate_factor: float = 1.0
    """Of the learning rate."""


ADAPTER_RATE_FACTOR = 10.0  # Schulman et al. 2025, "LoRA Without Regret"
SETUPS: Mapping[str, Setup] = {
    "full": Setup(FullMode()),
    "last_k": Setup(LastLayersMode(share=0.1)),
    "lora": Setup(LoraMode(), ADAPTER_RATE_FACTOR),
    "qlora": Setup(QloraMode(), ADAPTER_RATE_FACTOR),
}


class Job(BaseModel):
    """One mode, one configuration, one folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Of the mode; `start` is the cold start that the others begin with."""
    config: TrainConfig
    path: Path

    @property
    def run_path(self) -> Path:
        """The run directory."""
        return self.path / "run"

    @property
    def policy_path(self) -> Path:
        """What a cold start leaves."""
        return self.path / POLICY_FOLDER


class TuningResult(BaseModel):
    """What came of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: TrainConfig
    status: Literal["done", "failed"]
    error: str = ""
    num_parameters: int = 0
    """Of the policy, an adapter included."""
    num_trainable: int = 0
    tuned_bytes: int = 0
    """Of what was trained: all that has to be kept beside the model that the run began with."""
    start_bytes: int = 0
    """Memory of the process before the model was loaded: interpreter and libraries."""
    peak_bytes: int = 0
    """Peak memory of the process, or of the GPU."""
    rollout_seconds: float = 0.0
    """Of an iteration, median."""
    update_seconds: float = 0.0
    """Of an iteration, median: scoring and all optimiser steps."""
    rewards: tuple[tuple[int, float], ...] = ()
    """Iteration and mean reward of its rollout."""
    before: Mapping[str, float | None] = {}
    """The held-out evaluation before the first iteration."""
    after: Mapping[str, float | None] = {}
    """And after the last."""

    @property
    def training_bytes(self) -> int:
        """Peak memory that model and training took."""
        return self.peak_bytes - self.start_bytes


def make_jobs(config: TrainConfig, modes: Sequence[str], out: Path) -> tuple[Job | None, list[Job]]:
    """Return the cold start, if the configuration has one, and a run for each mode.

    Raises:
        ConfigError: there is no mode, one is unknown, or is there twice.
    """
    if not modes or len(set(modes)) < len(modes):
        raise ConfigError(
            f"--modes {','.join(modes)}: give each of {', '.join(SETUPS)} once at most"
        )
    start = None
    if config.cold_start is not None:
        start = Job(name=START, config=_with_mode(config, SETUPS["full"]), path=out / START)
        policy = config.policy.model_copy(update={"model": str(start.policy_path)})
        config = config.model_copy(update={"policy": policy, "cold_start": None})
    return start, [
        Job(name=name, config=_with_mode(config, _setup(name)), path=out / "modes" / name)
        for name in modes
    ]


def _setup(name: str) -> Setup:
    if name not in SETUPS:
        raise ConfigError(
            f"--modes: no mode named '{name}'.{did_you_mean(name, SETUPS)} There are: "
            f"{', '.join(SETUPS)}."
        )
    return SETUPS[name]


def _with_mode(config: TrainConfig, setup: Setup) -> TrainConfig:
    optimizer = config.ppo.optimizer
    rate = optimizer.learning_rate * setup.rate_factor
    optimizer = optimizer.model_copy(update={"learning_rate": rate})
    return config.model_copy(
        update={
            "policy": config.policy.model_copy(update={"mode": setup.mode}),
            "ppo": config.ppo.model_copy(update={"optimizer": optimizer}),
        }
    )


def read_result(job: Job) -> TuningResult | None:
    """Return the result of a run, or None where it has none for this configuration."""
    try:
        result = TuningResult.model_validate_json((job.path / RESULT_FILE).read_text())
    except (OSError, ValidationError):
        return None
    return result if result.config == job.config else None
