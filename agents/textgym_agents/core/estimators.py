"""The estimators of the advantage, and what each brings with it.

An estimator is known by more than its advantage: GRPO also means a mean per sequence, RLOO a sum
without a ratio. `with_defaults` gives a configuration the rest of its estimator's row wherever it
does not say otherwise:

| kind | advantage of an action of sample i | ratio | aggregation | KL to the reference |
|---|---|---|---|---|
| gae | GAE with the value head, whitened | token | token_mean | k1 in the reward |
| grpo | (S_i - mean) / (std + 1e-4) of its group | token | seq_mean_token_mean | k3 in the loss |
| dr_grpo | S_i - mean | token | token_sum_const | k3 in the loss |
| dapo | as grpo | token, clip 0.2 and 0.28 | token_mean | k3 in the loss |
| rloo | S_i - mean of the group's others | none, or sequence_sum | seq_mean_token_sum | k1 in S |
| reinforce | S_i - b | none | seq_mean_token_sum | k1 in S |
| reinforce_pp | reward to go, whitened | token | token_mean | k1 in the reward |

The KL has weight 0 unless the configuration gives it one. With several passes over a rollout rloo
takes the ratio of whole sequences, of which there is one per sequence: its loss is then a mean over
sequences (seq_mean_token_mean), with the same gradient at ratio 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from textgym_agents.core.config_base import Config


class GaeEstimator(Config):
    """Generalised advantage estimation with the value head (arXiv:1506.02438)."""

    kind: Literal["gae"] = "gae"
    group_reward: bool = False
    """Reward each episode, on its last action, with the distance of its score from the mean of its
    group in standard deviations."""
    value_on: Literal["selected", "all"] = "selected"
    """Train the value on the selected samples of a group, or on all: selected ones alone have
    another distribution of returns than the policy's."""


class GroupEstimator(Config):
    """The samples of one prompt judge each other: one advantage per sample, no critic.

    GRPO arXiv:2402.03300, Dr. GRPO arXiv:2503.20783, DAPO arXiv:2503.14476, RLOO arXiv:2402.14740.
    """

    kind: Literal["grpo", "dr_grpo", "dapo", "rloo"]


class ReinforceEstimator(Config):
    """Williams 1992: the score less a baseline for every action of the sample, no critic."""

    kind: Literal["reinforce"] = "reinforce"
    baseline: Literal["moving", "others"] = "moving"
    """`moving` is the mean score of earlier rollouts, exponentially weighted, by domain of the
    prompt; `others` the mean score of the rollout's other samples."""
    decay: float = Field(default=0.95, gt=0, lt=1)
    """Weight that the moving mean gives to what it was."""


class RewardToGoEstimator(Config):
    """REINFORCE++ (arXiv:2501.03262): the whitened reward to go of each action, no critic."""

    kind: Literal["reinforce_pp"] = "reinforce_pp"


Estimator = Annotated[
    GaeEstimator | GroupEstimator | ReinforceEstimator | RewardToGoEstimator,
    Field(discriminator="kind"),
]

ONE_STEP: Mapping[str, Any] = {
    "update_epochs": 1,
    "ratio": "none",
    "aggregation": "seq_mean_token_sum",
    "kl_penalty": {"form": "k1_in_score"},
}
SEVERAL_EPOCHS: Mapping[str, Any] = {
    "ratio": "sequence_sum",
    "aggregation": "seq_mean_token_mean",
    "kl_penalty": {"form": "k1_in_score"},
}
ROWS: Mapping[str, Mapping[str, Any]] = {
    "grpo": {"aggregation": "seq_mean_token_mean", "kl_penalty": {"form": "k3_in_loss"}},
    "dr_grpo": {"aggregation": "token_sum_const", "kl_penalty": {"form": "k3_in_loss"}},
    "dapo": {"clip": {"high": 0.28}, "kl_penalty": {"form": "k3_in_loss"}},
    "rloo": ONE_STEP,
    "reinforce": ONE_STEP,
}
"""What differs from the defaults, which are gae's."""


def compares_samples(estimator: Estimator) -> bool:
    """Return whether every action of a sample has one advantage, that of the sample."""
    return isinstance(estimator, GroupEstimator | ReinforceEstimator)


def with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a configuration, filled in from the row of its estimator."""
    kind = _kind(values.get("estimator"))
    row = dict(ROWS.get(kind, {}))
    if kind == "rloo" and values.get("update_epochs", 1) != 1:
        row = dict(SEVERAL_EPOCHS)
    if kind in (*ROWS, "reinforce_pp"):
        row |= {"gamma": 1.0, "whiten_advantages": kind == "reinforce_pp"}
    return {**row, **values, **{k: _filled(values[k], row[k]) for k in row if k in values}}


def _kind(estimator: Any) -> str:
    if isinstance(estimator, Mapping):
        return str(estimator.get("kind", "gae"))
    return str(getattr(estimator, "kind", "gae"))


def _filled(given: Any, default: Any) -> Any:
    """Return what was given; where both have fields, with the default's that it leaves open."""
    if isinstance(given, BaseModel):
        given = given.model_dump(exclude_unset=True)
    has_fields = isinstance(given, Mapping) and isinstance(default, Mapping)
    return {**default, **given} if has_fields else given
