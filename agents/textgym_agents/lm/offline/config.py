"""Configuration of supervised fine-tuning and of direct preference optimisation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from textgym_agents.core.config import Config
from textgym_agents.lm.config import EnvConfig, PolicyConfig
from textgym_agents.lm.shapes import BUILT_IN
from textgym_agents.run.trackers import TrackerName

TINY_RATE = 1e-3
ADAPTER_FACTOR = 10.0


class DataConfig(Config):
    """What is learnt from."""

    file: str | None = None
    """JSONL of {prompt, completion} or {messages} (SFT), of {prompt, chosen, rejected} (DPO); None
    learns from the prompts of the environment."""
    completion: str | None = None
    """Where a prompt of the environment has its completion, e.g. `metadata.solution`; None learns
    what its source demonstrates: by default a target that is text, and nothing wrong."""
    per_prompt: PositiveInt = 16
    """Demonstrations, or pairs of a right and a wrong one, of each prompt at most."""


class TuningConfig(Config):
    """What both have in common."""

    kind: str
    """Which of them it is."""
    seed: int = Field(default=0, ge=0)
    """The one seed of the run."""
    env: EnvConfig = EnvConfig()
    """The environment, whose templates render prompts and whose split holds some of them out."""
    data: DataConfig = DataConfig()
    """Demonstrations or preferences."""
    policy: PolicyConfig = PolicyConfig()
    """The network."""
    epochs: PositiveFloat = 1.0
    """Passes over the data."""
    steps: PositiveInt | None = None
    """Optimiser steps; None makes it `epochs`."""
    batch_size: PositiveInt = 16
    """Rows per optimiser step, over all processes."""
    micro_batch_size: PositiveInt | None = None
    """Rows per forward pass and process; None does not split a step."""
    learning_rate: PositiveFloat | None = None
    """Peak, with linear decay to 0; None chooses by method, mode and model."""
    warmup_share: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps in which the step size rises."""
    max_grad_norm: PositiveFloat = 1.0
    """Global norm that gradients are clipped to."""
    max_skipped_steps: PositiveInt = 5
    """A step whose gradient is not finite is skipped; this many in a row end the run."""
    max_length: PositiveInt = 1024
    """Prompt and completion together; what is longer loses its end."""
    evaluate_every: PositiveInt = 100
    """Steps between losses on held-out rows; there is one before and one after besides."""
    evaluation_rows: PositiveInt = 256
    """Held-out rows that are looked at, at most."""
    checkpoint_every: PositiveInt = 200
    """Steps between checkpoints; there is one at the end besides."""
    keep_checkpoints: PositiveInt = 1
    """How many of the latest checkpoints stay; the one with the lowest held-out loss stays too."""
    threads: PositiveInt | None = None
    """Threads of torch; None chooses by the size of the model."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs; `auto` takes a GPU if there is one."""
    report_to: tuple[TrackerName, ...] = ()
    """Trackers besides TensorBoard: wandb, mlflow, trackio."""

    @property
    def base_rate(self) -> float:
        """The step size for a model of some hundred million parameters, trained in full."""
        raise NotImplementedError

    @property
    def peak_rate(self) -> float:
        """The step size in use."""
        if self.learning_rate is not None:
            return self.learning_rate
        if self.policy.model in BUILT_IN:
            return TINY_RATE
        return self.base_rate * (ADAPTER_FACTOR if self.policy.mode.kind == "lora" else 1.0)

    def micro_batch(self, num_processes: int) -> int:
        """Return the rows per forward pass of each process.

        Raises:
            ValueError: they do not divide the step.
        """
        rows = self.micro_batch_size or self.batch_size // num_processes
        if rows == 0 or self.batch_size % (rows * num_processes):
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of the {num_processes} "
                f"process(es) times micro_batch_size ({self.micro_batch_size})"
            )
        return rows

    @model_validator(mode="after")
    def _check_mode(self) -> TuningConfig:
        if self.policy.mode.kind == "qlora":
            raise ValueError(
                "policy.mode 'qlora' is for `textgym train` alone: TRL's trainers take no weights "
                "of 4 bits from here; take the mode 'lora'"
            )
        return self

    @model_validator(mode="after")
    def _check_batch(self) -> TuningConfig:
        self.micro_batch(1)
        return self


class SFTRunConfig(TuningConfig):
    """Supervised fine-tuning: cross-entropy on the tokens of the completions."""

    kind: Literal["sft"] = "sft"

    @property
    def base_rate(self) -> float:
        """The step size for a model of some hundred million parameters, trained in full."""
        return 2e-5


class DPORunConfig(TuningConfig):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290).

    With D = log-ratio to the reference of the chosen completion less that of the rejected one, sums
    over tokens: (1 - s) softplus(-beta D) + s softplus(beta D).
    """

    kind: Literal["dpo"] = "dpo"
    beta: PositiveFloat = 0.1
    """Strength of the pull to the reference; the implicit reward is beta times the log-ratio."""
    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    """`ipo` is (D - 1 / (2 beta))^2 with means over tokens (arXiv:2310.12036)."""
    label_smoothing: NonNegativeFloat = Field(default=0.0, lt=0.5)
    """s: the share of pairs that are the wrong way round; for `sigmoid` alone."""

    @model_validator(mode="after")
    def _check_smoothing(self) -> DPORunConfig:
        if self.label_smoothing and self.loss != "sigmoid":
            raise ValueError(
                f"label_smoothing is {self.label_smoothing}, but the loss {self.loss} has none; "
                "set it to 0 or take sigmoid"
            )
        return self

    @property
    def base_rate(self) -> float:
        """The step size for a model of some hundred million parameters, trained in full."""
        return 1e-6


RUN_CONFIGS: dict[str, type[SFTRunConfig] | type[DPORunConfig]] = {
    "sft": SFTRunConfig,
    "dpo": DPORunConfig,
}
