"""Configuration of the PPO core. Every default is the constant of the `seed` preset."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from textgym_agents.core.advantages import DiscountUnit
from textgym_agents.core.kl import MIN_STOP_TOKENS, KLStatistic
from textgym_agents.core.losses import Aggregation


class Config(BaseModel):
    """Base of the agents' configurations: frozen, no unknown fields, documented field by field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ClipConfig(Config):
    """Bounds of the probability ratio."""

    low: float = Field(default=0.2, gt=0, lt=1)
    """The ratio is clipped at 1 - low from below."""
    high: PositiveFloat = 0.2
    """The ratio is clipped at 1 + high from above; 0.28 slows the loss of entropy (DAPO)."""
    dual: float | None = Field(default=None, gt=1)
    """Bound on the loss of a negative advantage (arXiv:1912.09729); off by default."""


class ValueConfig(Config):
    """The value loss."""

    coef: NonNegativeFloat = 0.5
    """Weight of the value loss."""
    half: bool = False
    """Whether the squared error carries a factor 1/2 of its own."""
    clip: PositiveFloat | None = None
    """Clip of the value's move, in units of the return; off by default."""
    grad_to_trunk: float = Field(default=1.0, ge=0, le=1)
    """Scale of the value loss's gradient where it enters the shared trunk."""
    lr_mult: PositiveFloat = 1.0
    """Learning rate of the value head, relative to the policy's."""
    warmup_iterations: int = Field(default=0, ge=0)
    """Iterations at the start in which only the value head learns."""


class KLStopConfig(Config):
    """Early stop of an update by KL(old || new)."""

    target: PositiveFloat | None = 0.01
    """Stop the update before the step at which the statistic exceeds this; None never stops."""
    statistic: KLStatistic = "seed"
    """Which estimate is compared; see `textgym_agents.core.kl`."""
    compare: Literal["abs", "signed"] = "abs"
    """Compare the statistic's magnitude, or the statistic as it is."""
    min_tokens: PositiveInt = MIN_STOP_TOKENS
    """Action tokens that the statistic must cover before it is judged, or else a whole epoch."""


class KLPenaltyConfig(Config):
    """Penalty on KL(policy || reference), taken off the reward of each action token."""

    beta: NonNegativeFloat = 0.0
    """Weight of the penalty (of its start, if adaptive); 0 keeps no reference at all."""
    adaptive: bool = False
    """Whether beta follows the controller of Ziegler et al. 2019."""
    target_nats_per_sequence: PositiveFloat = 6.0
    """Where the controller holds the KL; nats per sequence, not per token."""
    horizon_sequences: PositiveFloat = 10_000.0
    """How slowly the controller moves."""


class OptimizerConfig(Config):
    """AdamW without weight decay, betas (0.9, 0.999)."""

    learning_rate: PositiveFloat = 1e-5
    """Step size."""
    schedule: Literal["constant", "linear"] = "constant"
    """`linear` falls to 0 over the run."""
    eps: PositiveFloat = 1e-8
    """Adam's epsilon."""
    max_grad_norm: PositiveFloat = 0.5
    """Global norm of policy and value gradients together, clipped once per step."""
    max_skipped_steps: PositiveInt = 5
    """A step whose loss or gradient is not finite is skipped; this many in a row end the run."""


class PPOConfig(Config):
    """Proximal policy optimisation (arXiv:1707.06347) with generalised advantage estimation."""

    batch_size: PositiveInt = 4
    """Sequences per optimiser step."""
    micro_batch_tokens: PositiveInt | None = None
    """Padded tokens per forward pass; a step is split to stay below. None does not split."""
    update_epochs: PositiveInt = 4
    """Passes over one rollout."""
    gamma: float = Field(default=0.99, gt=0, le=1)
    """Discount, per token or per turn."""
    gae_lambda: float | Literal["length_adaptive"] = 0.95
    """Lambda of the policy's advantages; `length_adaptive` follows arXiv:2504.05118."""
    value_lambda: float = Field(default=0.95, ge=0, le=1)
    """Lambda of the value targets (decoupled GAE, arXiv:2503.01491)."""
    discount_unit: DiscountUnit = "token"
    """Whether a discount applies to each token or only to the last one of a turn."""
    whiten_advantages: bool = True
    """Bring the advantages to mean 0 and standard deviation 1."""
    whiten_over: Literal["rollout", "minibatch"] = "rollout"
    """Whiten over all action tokens of the rollout, once, or over those of each minibatch."""
    entropy_coef: NonNegativeFloat = 0.01
    """Weight of the exact entropy bonus."""
    aggregation: Aggregation = "token_mean"
    """How per-token policy losses become one number."""
    clip: ClipConfig = ClipConfig()
    """Bounds of the probability ratio."""
    value: ValueConfig = ValueConfig()
    """The value loss."""
    kl_stop: KLStopConfig = KLStopConfig()
    """Early stop of an update."""
    kl_penalty: KLPenaltyConfig = KLPenaltyConfig()
    """Distance to the reference policy."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """The optimiser."""

    @model_validator(mode="after")
    def _check_lambda(self) -> PPOConfig:
        if isinstance(self.gae_lambda, float) and not 0 <= self.gae_lambda <= 1:
            raise ValueError(f"gae_lambda is {self.gae_lambda}; it must be between 0 and 1")
        return self
