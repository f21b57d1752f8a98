"""Configuration of a run of the language model trainer, and its presets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from textgym_agents.core.config import Config, PPOConfig
from textgym_agents.run.trackers import TrackerName


class FullMode(Config):
    """Train every parameter."""

    kind: Literal["full"] = "full"


class LoraMode(Config):
    """Train a low-rank adapter on every linear layer of attention and MLP (arXiv:2106.09685)."""

    kind: Literal["lora"] = "lora"
    rank: PositiveInt = 16
    """Rank of the adapter."""
    alpha: PositiveInt = 32
    """Scale of the adapter; it acts as alpha / rank."""


class LastLayersMode(Config):
    """Train the top layers and the final norm."""

    kind: Literal["last_k"] = "last_k"
    k: PositiveInt = 4
    """How many layers, counted from the top."""


TrainMode = Annotated[FullMode | LoraMode | LastLayersMode, Field(discriminator="kind")]


class PolicyConfig(Config):
    """The policy/value network."""

    model: str = "tiny"
    """`tiny`, the folder of a Hugging Face causal language model, a run, or a hub id."""
    mode: TrainMode = FullMode()
    """Which parameters learn."""
    precision: Literal["float32", "bf16"] = "float32"
    """`bf16` runs the trunk under autocast; weights, head and losses stay in float32."""
    legal_ids: tuple[NonNegativeInt, ...] | None = None
    """Ids that may be sampled; None allows every id of the tokenizer."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass."""


class EnvConfig(Config):
    """The environment, by Gymnasium id. It must have a text mode and a vector environment."""

    id: str = "textgym:TextGen-v0"
    """Gymnasium id, with the module to import in front where it needs one."""
    prompts: JsonValue = None
    """Prompt sources: a name, a JSONL path, or a list of {source, weight, config}; None leaves the
    environment's default."""
    reward: JsonValue = None
    """Reward or rubric; None takes the reward that each prompt names."""
    kwargs: dict[str, JsonValue] = Field(default_factory=dict)
    """More keyword arguments of the environment."""


class RolloutConfig(Config):
    """How episodes are collected."""

    num_episodes: PositiveInt = 4
    """Episodes per rollout."""
    num_envs: PositiveInt = 256
    """Sub-environments that run side by side; at most `num_episodes`."""
    max_new_tokens: PositiveInt = 256
    """Sampled tokens per turn, the end token included."""
    max_length: PositiveInt = 512
    """Prompt and response together; a longer prompt is left out and counted."""
    temperature: PositiveFloat = 1.0
    """Of sampling, and of every log-probability."""

    @model_validator(mode="after")
    def _check_sizes(self) -> RolloutConfig:
        if self.num_episodes % self.num_envs and self.num_envs < self.num_episodes:
            raise ValueError(
                f"num_episodes ({self.num_episodes}) must be a multiple of num_envs "
                f"({self.num_envs}), or num_envs at least as large"
            )
        return self


class ColdStartConfig(Config):
    """Supervised start on demonstrations, so that PPO has correct samples to learn from."""

    steps: PositiveInt = 600
    """Optimiser steps."""
    batch_size: PositiveInt = 128
    """Demonstrations per step."""
    learning_rate: PositiveFloat = 3e-3
    """Peak step size; linear warm-up, then linear decay to 0."""
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps in which the step size rises."""
    wrong_share: float = Field(default=0.6, ge=0, le=1)
    """Share of demonstrations whose numeric answer is replaced by a wrong one."""
    demonstrations: str | None = None
    """JSONL of {prompt, completion}; None demonstrates the targets of the environment's prompts."""
    max_skipped_steps: PositiveInt = 5
    """A step whose gradient is not finite is skipped; this many in a row end the run."""


class EvaluationConfig(Config):
    """Held-out evaluation."""

    every: PositiveInt = 50
    """Iterations between evaluations; there is one before and one after training besides."""
    num_episodes: PositiveInt = 256
    """Held-out prompts, each answered once greedily and once by sampling."""


class TrainConfig(Config):
    """One run, from cold start to the table before and after."""

    seed: int = Field(default=0, ge=0)
    """The one seed of the run; every stream of random numbers is derived from it."""
    iterations: PositiveInt | None = None
    """Rollout and update, this many times; None makes it `epochs` passes over the prompts."""
    epochs: PositiveInt = 3
    """Passes over the training prompts, in numbers: prompts are drawn with replacement."""
    threads: PositiveInt | None = None
    """Threads of torch; None chooses by the size of the model."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs; `auto` takes a GPU if there is one."""
    checkpoint_every: PositiveInt = 25
    """Iterations between checkpoints."""
    keep_checkpoints: PositiveInt = 2
    """How many of the latest checkpoints stay; the best one stays besides."""
    best_metric: str = "evaluation/greedy_reward"
    """The held-out metric whose highest value makes a checkpoint the best."""
    log_rollouts: int = Field(default=8, ge=0)
    """Episodes per iteration that are written to rollouts/."""
    report_to: tuple[TrackerName, ...] = ()
    """Trackers besides TensorBoard: wandb, mlflow, trackio."""
    env: EnvConfig = EnvConfig()
    """The environment."""
    policy: PolicyConfig = PolicyConfig()
    """The network."""
    rollout: RolloutConfig = RolloutConfig()
    """Collection of episodes."""
    ppo: PPOConfig = PPOConfig()
    """The algorithm."""
    cold_start: ColdStartConfig | None = None
    """Supervised start; None starts from the model as it is."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Held-out evaluation."""

    @model_validator(mode="after")
    def _check_batch(self) -> TrainConfig:
        if self.ppo.batch_size > self.rollout.num_episodes:
            raise ValueError(
                f"ppo.batch_size ({self.ppo.batch_size}) is larger than rollout.num_episodes "
                f"({self.rollout.num_episodes}); lower the one or raise the other"
            )
        return self
