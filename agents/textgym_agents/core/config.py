"""Configuration of the PPO core. Every default is the constant of the `seed` preset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from textgym_agents.core.advantages import DiscountUnit
from textgym_agents.core.config_base import Config as Config
from textgym_agents.core.correction import Correction
from textgym_agents.core.estimators import (
    Estimator,
    GaeEstimator,
    GroupEstimator,
    compares_samples,
    with_defaults,
)
from textgym_agents.core.kl import MIN_STOP_TOKENS, KLForm, KLStatistic
from textgym_agents.core.losses import Aggregation, Ratio


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
    """Penalty on KL(policy || reference)."""

    beta: NonNegativeFloat = 0.0
    """Weight of the penalty (of its start, if adaptive); 0 keeps no reference at all."""
    form: KLForm = "k1_in_reward"
    """Taken off the reward of each action token, off the score of the whole sample, or added to the
    loss; see `textgym_agents.core.kl`."""
    adaptive: bool = False
    """Whether beta follows the controller of Ziegler et al. 2019."""
    target_nats_per_sequence: PositiveFloat = 6.0
    """Where the controller holds the KL; nats per sequence, not per token."""
    horizon_sequences: PositiveFloat | None = None
    """How slowly the controller moves; None is 10,000, or a tenth of the run's sequences where that
    is less."""
    entropy_floor: bool = False
    """Shrink the controller's target where the entropy falls below half of what it was in the first
    five rollouts."""

    @model_validator(mode="after")
    def _check_adaptive(self) -> KLPenaltyConfig:
        if self.adaptive and self.beta == 0:
            raise ValueError(
                "adaptive is on but beta is 0, from where no factor moves it; start at beta 0.05"
            )
        if self.entropy_floor and not self.adaptive:
            raise ValueError(
                "entropy_floor moves the target of the controller; set adaptive to true"
            )
        return self


class OptimizerConfig(Config):
    """AdamW without weight decay, betas (0.9, 0.999)."""

    kind: Literal["adamw", "adamw_8bit"] = "adamw"
    """`adamw_8bit` keeps its state in 8 bits (arXiv:2110.02861): a language model on a GPU only."""
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
    """Proximal policy optimisation (arXiv:1707.06347), with one of several estimators.

    An estimator brings defaults of its own; see `textgym_agents.core.estimators`.
    """

    estimator: Estimator = GaeEstimator()
    """Where the advantages come from."""
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
    ratio: Ratio = "token"
    """Probability ratio of each token, of the sequence (its geometric mean per token, as in GSPO,
    arXiv:2507.18071, or the product), or none: the plain policy gradient."""
    aggregation: Aggregation = "token_mean"
    """How per-token policy losses become one number."""
    correction: Correction | None = None
    """Of the difference between the engine that samples and the network that learns; None is
    `token_tis` where they are two, and `off` where the network samples itself."""
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

    @property
    def has_critic(self) -> bool:
        """Whether the value head learns; if not, `value` and the lambdas mean nothing."""
        return isinstance(self.estimator, GaeEstimator)

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_row_of_the_estimator(cls, values: Any) -> Any:
        return with_defaults(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _check_lambda(self) -> PPOConfig:
        if isinstance(self.gae_lambda, float) and not 0 <= self.gae_lambda <= 1:
            raise ValueError(f"gae_lambda is {self.gae_lambda}; it must be between 0 and 1")
        return self

    @model_validator(mode="after")
    def _check_estimator(self) -> PPOConfig:
        kind, form = self.estimator.kind, self.kl_penalty.form
        compares = compares_samples(self.estimator)
        if compares and self.gamma != 1:
            raise ValueError(
                f"gamma is {self.gamma}, but the estimator {kind} gives every token of a sample "
                "the same advantage, which is right for gamma 1 alone; set gamma to 1 or take gae"
            )
        misplaced = "k1_in_reward" if compares else "k1_in_score"
        if form == misplaced:
            better = "k1_in_score" if compares else "k1_in_reward"
            raise ValueError(
                f"kl_penalty.form is {form}, which the estimator {kind} does not read; "
                f"take {better} or k2_in_loss"
            )
        if form == "k3_in_loss" and not isinstance(self.estimator, GroupEstimator):
            raise ValueError(
                f"kl_penalty.form is k3_in_loss, whose gradient is that of KL(reference || policy);"
                f" it is there for grpo's sake. With {kind} take k2_in_loss"
            )
        return self

    @model_validator(mode="after")
    def _check_ratio(self) -> PPOConfig:
        if self.ratio == "none" and self.update_epochs > 1:
            raise ValueError(
                f"ratio is none, but update_epochs is {self.update_epochs}: in the second pass the "
                "samples are those of another policy; set update_epochs to 1 or take a ratio"
            )
        if self.ratio.startswith("sequence") and self.aggregation != "seq_mean_token_mean":
            raise ValueError(
                f"ratio is {self.ratio}, one number per sequence, but aggregation is "
                f"{self.aggregation}, which would count it once per token; take seq_mean_token_mean"
            )
        return self
