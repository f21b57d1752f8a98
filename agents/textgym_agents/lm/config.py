"""Configuration of a run of the language model trainer, and its presets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    JsonValue,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from textgym.http_calls import BaseUrl, Retry
from textgym_agents.core.config import Config, PPOConfig
from textgym_agents.core.estimators import GaeEstimator, GroupEstimator
from textgym_agents.lm.engines.config import EngineConfig, TransformersEngineConfig
from textgym_agents.run.trackers import TrackerName


class FullMode(Config):
    """Train every parameter."""

    kind: Literal["full"] = "full"


class AdapterMode(Config):
    """Train a low-rank adapter on every linear layer of attention and MLP (arXiv:2106.09685)."""

    rank: PositiveInt = 16
    """Rank of the adapter."""
    alpha: PositiveInt = 32
    """Scale of the adapter; it acts as alpha / rank."""


class LoraMode(AdapterMode):
    """An adapter on the model as it is."""

    kind: Literal["lora"] = "lora"


class QloraMode(AdapterMode):
    """An adapter on a base whose linear layers are in 4 bits (arXiv:2305.14314); GPU only."""

    kind: Literal["qlora"] = "qlora"


class LastLayersMode(Config):
    """Train the top layers and the final norm; 4 layers if neither field says how many."""

    kind: Literal["last_k"] = "last_k"
    k: PositiveInt | None = None
    """How many layers, counted from the top."""
    share: float | None = Field(default=None, gt=0, le=1)
    """The same as a share of all layers, rounded, at least one: 0.1 is the last 10 %."""

    @model_validator(mode="after")
    def _check_one(self) -> LastLayersMode:
        if self.k is not None and self.share is not None:
            raise ValueError(
                f"k ({self.k}) and share ({self.share}) both say how many layers; give one"
            )
        return self

    def count(self, num_layers: int) -> int:
        """Return how many layers of a model learn."""
        if self.share is not None:
            return max(1, round(self.share * num_layers))
        return self.k or 4


TrainMode = Annotated[FullMode | LoraMode | QloraMode | LastLayersMode, Field(discriminator="kind")]


class PolicyConfig(Config):
    """The policy/value network."""

    model: str = "tiny"
    """`tiny`, `small` (which vLLM can sample from on a CPU), the folder of a Hugging Face causal
    language model, a run, or a hub id."""
    mode: TrainMode = FullMode()
    """Which parameters learn."""
    precision: Literal["float32", "bf16"] = "float32"
    """`bf16` runs the trunk under autocast; weights, head and losses stay in float32."""
    legal_ids: tuple[NonNegativeInt, ...] | None = None
    """Ids that may be sampled; None allows every id of the tokenizer."""
    entropy_topk: float = Field(default=1.0, gt=0, le=1)
    """Share of the legal ids, the most probable ones of each position, on which the entropy is
    taken, of the distribution renormalised on them. Below 1, such as 0.2, a bonus does not pull the
    policy towards the thousands of ids that nobody would write."""
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


class OverlongConfig(Config):
    """What a completion at or near its limit of length costs (DAPO, arXiv:2503.14476)."""

    penalty: NonNegativeFloat = 0.0
    """Taken off the score at the cap; 0 takes off nothing."""
    cap: PositiveInt | None = None
    """Sampled tokens at which the whole penalty is due; None is `rollout.max_new_tokens`."""
    buffer: PositiveInt | None = None
    """Tokens before the cap over which the penalty rises; None is a fifth of the cap."""
    leave_out: bool = False
    """Do not train on episodes that were cut off; they count in the statistics of their group."""


class RolloutConfig(Config):
    """How episodes are collected."""

    num_episodes: PositiveInt = 4
    """Episodes per rollout, over all prompts."""
    samples_per_prompt: PositiveInt = 1
    """Episodes of each prompt: a group, whose samples are compared with each other."""
    keep_ends: NonNegativeInt = 0
    """Train on this many of the worst and of the best samples of each group; 0 trains on all."""
    drop_equal: bool = False
    """Drop groups whose scores are all equal (dynamic sampling, arXiv:2503.14476), and draw other
    prompts for them. With `keep_ends` this is so in any case."""
    replacements: NonNegativeInt = 4
    """How often another prompt is drawn for a dropped group before the rollout does without it."""
    overlong: OverlongConfig = OverlongConfig()
    """What a completion at or near its limit of length costs."""
    num_envs: PositiveInt = 256
    """Sub-environments that run side by side; at most `num_episodes`."""
    parts_in_flight: PositiveInt = 1
    """Where there are fewer sub-environments than episodes: how many sets of them there are. While
    the engine writes for one, the others compute rewards."""
    max_new_tokens: PositiveInt = 256
    """Sampled tokens per turn, the end token included."""
    max_length: PositiveInt = 512
    """Prompt and response together; a longer prompt is left out and counted."""
    temperature: PositiveFloat = 1.0
    """Of sampling, and of every log-probability."""

    @property
    def num_rows(self) -> int:
        """Sub-environments that there are."""
        return min(self.num_envs, self.num_episodes)

    @property
    def drops_groups(self) -> bool:
        """Whether a group of equal scores is left out and replaced."""
        return self.drop_equal or self.keep_ends > 0

    @model_validator(mode="after")
    def _check_sizes(self) -> RolloutConfig:
        if self.num_episodes % self.num_envs and self.num_envs < self.num_episodes:
            raise ValueError(
                f"num_episodes ({self.num_episodes}) must be a multiple of num_envs "
                f"({self.num_envs}), or num_envs at least as large"
            )
        if self.num_rows % self.samples_per_prompt:
            raise ValueError(
                f"num_episodes ({self.num_episodes}) and num_envs ({self.num_envs}) must be "
                f"multiples of samples_per_prompt ({self.samples_per_prompt}): the samples of a "
                "prompt are played side by side"
            )
        return self

    @model_validator(mode="after")
    def _check_groups(self) -> RolloutConfig:
        size = self.samples_per_prompt
        if self.drops_groups and size < 2:
            raise ValueError(
                f"drop_equal and keep_ends choose among the samples of a prompt, but "
                f"samples_per_prompt is {size}; set it to 2 or more"
            )
        if 2 * self.keep_ends > size:
            raise ValueError(
                f"keep_ends is {self.keep_ends}, but samples_per_prompt only {size}: the worst and "
                "the best must be different samples; take at most half"
            )
        return self

    @model_validator(mode="after")
    def _check_overlong(self) -> RolloutConfig:
        cap, buffer = self.overlong.cap or self.max_new_tokens, self.overlong.buffer
        if buffer is not None and buffer > cap:
            raise ValueError(
                f"overlong.buffer ({buffer}) is larger than the cap ({cap}), at which the penalty "
                "that rises over the buffer is whole"
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


class ReferenceConfig(Config):
    """Where the reference policy is, if `ppo.kl_penalty.beta` asks for one."""

    url: BaseUrl | None = None
    """A service of `textgym serve reference`; None keeps the reference in the trainer."""
    token_env: str | None = None
    """The environment variable that holds the bearer token; None sends none."""
    fingerprint: str | None = None
    """What the service must be, as it prints when it starts; None takes the first answer's."""
    batch_size: int = Field(default=64, ge=1, le=100_000)
    """Sequences of one request."""
    concurrency: int = Field(default=2, ge=1, le=1024)
    """Requests at once."""
    retry: Retry = Retry(timeout=330.0)
    """How long a request may take and how often it is tried."""


class EvaluationConfig(Config):
    """Held-out evaluation."""

    every: PositiveInt = 50
    """Iterations between evaluations; there is one before and one after training besides."""
    num_episodes: PositiveInt = 256
    """Held-out prompts, each answered once greedily and once by sampling."""
    exact_states: NonNegativeInt = 100_000
    """States of an exactly solvable environment up to which the policy's value is computed."""


class TrainConfig(Config):
    """One run, from cold start to the table before and after."""

    seed: int = Field(default=0, ge=0)
    """The one seed of the run; every stream of random numbers is derived from it."""
    iterations: NonNegativeInt | None = None
    """Rollout and update, this many times; 0 leaves it at the cold start, None makes it `epochs`
    passes over the prompts."""
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
    engine: EngineConfig = TransformersEngineConfig()
    """What samples the completions."""
    ppo: PPOConfig = PPOConfig()
    """The algorithm."""
    reference: ReferenceConfig = ReferenceConfig()
    """Where the reference policy is."""
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

    @model_validator(mode="after")
    def _check_quantized(self) -> TrainConfig:
        if isinstance(self.policy.mode, QloraMode):
            if self.cold_start is not None:
                raise ValueError(
                    "cold_start trains the whole model, which policy.mode 'qlora' stores in 4 "
                    "bits; start from a model that was trained before, or take the mode 'lora'"
                )
            if self.device == "cpu":
                raise ValueError("policy.mode 'qlora' needs a GPU and device is 'cpu'")
        return self

    @model_validator(mode="after")
    def _check_groups(self) -> TrainConfig:
        estimator, size = self.ppo.estimator, self.rollout.samples_per_prompt
        compares = isinstance(estimator, GroupEstimator)
        if is_gae := isinstance(estimator, GaeEstimator):
            compares = estimator.group_reward
        if compares and size < 2:
            raise ValueError(
                f"ppo.estimator is {estimator.kind}{' with group_reward' if is_gae else ''}, which "
                f"compares the samples of a prompt, but rollout.samples_per_prompt is {size}; set "
                "it to 2 or more"
            )
        penalty = self.ppo.kl_penalty
        if self.rollout.keep_ends and penalty.beta > 0 and penalty.form == "k1_in_score":
            raise ValueError(
                "rollout.keep_ends chooses samples by their scores before any log-probability is "
                "known, but ppo.kl_penalty.form is k1_in_score; take another form"
            )
        return self
