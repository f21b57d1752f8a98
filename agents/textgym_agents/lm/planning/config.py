"""Configurations of the searches, one of the alternatives each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from textgym_agents.core.config import Config


class SearchLimits(Config):
    """What every method has."""

    budget: PositiveInt = 128
    """Tokens that the network may read for one prompt, those of the prompt not counted. A search
    that has no whole completion by then goes over it by as many tokens as one needs."""


class GreedyConfig(SearchLimits):
    """The most likely token each time; the budget does nothing."""

    kind: Literal["greedy"] = "greedy"


class BestOfNConfig(SearchLimits):
    """As many samples as the budget allows; the one of the highest worth."""

    kind: Literal["best_of_n"] = "best_of_n"
    temperature: PositiveFloat = 1.0
    """Of sampling."""
    prior_weight: NonNegativeFloat = 0.1
    """What a nat of the completion costs beside what the value head says of it."""


class BeamConfig(SearchLimits):
    """Value-guided beam search: prefixes side by side, those of the highest V go on."""

    kind: Literal["beam"] = "beam"
    branches: PositiveInt = 3
    """Most likely tokens that each prefix is continued with."""
    prior_weight: NonNegativeFloat = 0.1
    """What a nat of the completion costs beside what the value head says of it."""


class MctsConfig(SearchLimits):
    """Monte Carlo tree search by PUCT."""

    kind: Literal["mcts"] = "mcts"
    c_init: NonNegativeFloat = 1.25
    """Weight of the prior, in units of the reward (Silver et al. 2018)."""
    c_base: PositiveFloat = 19652.0
    """Visits of a node from which on the weight grows (Silver et al. 2018)."""
    virtual_loss: float = 0.0
    """What a simulation that waits for its evaluation counts as; 0 is the worth of a failure."""
    prior_weight: NonNegativeFloat = 0.1
    """What a nat of the completion costs, in units of the reward; 0 is AlphaZero's search."""
    leaves: PositiveInt = 4
    """Simulations of one prompt in a forward pass."""
    prior_temperature: PositiveFloat = 1.0
    """Of the prior: above 1 the search trusts the policy less."""
    actions: PositiveInt = 32
    """Most likely tokens of a state that the search considers."""
    move_budget: PositiveInt | None = None
    """Tokens after which the search moves on to the most visited action, and starts from there with
    what it knows; None spends the whole budget on the prompt."""
    simulations_per_token: PositiveFloat = 4.0
    """Simulations at most, per token of the budget: those that end in a completion read nothing."""


SearchConfig = Annotated[
    GreedyConfig | BestOfNConfig | BeamConfig | MctsConfig, Field(discriminator="kind")
]
METHODS: dict[str, type[GreedyConfig | BestOfNConfig | BeamConfig | MctsConfig]] = {
    "mcts": MctsConfig,
    "best_of_n": BestOfNConfig,
    "beam": BeamConfig,
    "greedy": GreedyConfig,
}
