"""What scores a sample: weighted rewards behind gates, one set of them per route.

The value of a sample is `sum(weight * value)` over the rewards of its route. Gates come first, in
order: where a gate's value is below its threshold, nothing after it is evaluated and the value of
the sample is the gate's `otherwise`.

A sample's route is the one of the rubric's `routes` that `prompt.reward` names; else the rubric's
own rewards; and where the rubric has none, the installed reward that the prompt names, alone. So
data says how it is scored until somebody says otherwise. Scoring itself is
`textgym.scoring.Scorer`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    field_validator,
    model_serializer,
    model_validator,
)

from textgym.function_reward import FunctionReward
from textgym.prompt import Prompt
from textgym.reward import Reward


def reward_title(reward: Reward) -> str:
    """Return what a reward is called in the parts of a score and in messages."""
    return reward.title if isinstance(reward, FunctionReward) else reward.name


class Gate(BaseModel):
    """What a reward must reach for the rest of the rubric to count."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    threshold: float = Field(allow_inf_nan=False)
    """The lowest value of the reward that opens the gate."""
    otherwise: float = Field(default=0.0, allow_inf_nan=False)
    """The value of the sample where the gate stays closed."""


class WeightedReward(BaseModel):
    """One component of a rubric."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    reward: InstanceOf[Reward]
    """The reward with its configuration."""
    name: str = Field(default="", validate_default=True)
    """Names the component in `Score.parts` and in metrics; the reward's own name by default."""
    weight: float = Field(default=math.nan, validate_default=True)
    """Factor of the value in the sum: by default 1.0, and 0.0 for a gate. A component of weight 0.0
    that is no gate is only recorded: it may fail or abstain without costing the sample."""
    gate: Gate | None = None
    """Makes this component a gate."""

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or not isinstance(given.get("reward"), Reward):
            return given
        defaults = {
            "name": reward_title(given["reward"]),
            "weight": 1.0 if given.get("gate") is None else 0.0,
        }
        return defaults | {key: value for key, value in given.items() if value is not None}

    @field_validator("weight")
    @classmethod
    def _is_finite(cls, weight: float) -> float:
        if not math.isfinite(weight):
            raise ValueError("a weight must be finite")
        return weight

    @model_serializer
    def _as_spec(self) -> dict[str, Any]:
        """Return what `make_rubric` takes."""
        if isinstance(self.reward, FunctionReward):
            spec: dict[str, Any] = {"reward": self.reward.reference}
        else:
            config = self.reward.model_dump(mode="json")
            spec = {"reward": self.reward.name} | ({"config": config} if config else {})
        spec |= {"name": self.name, "weight": self.weight}
        return spec | ({"gate": self.gate.model_dump()} if self.gate else {})

    @property
    def counts(self) -> bool:
        """Whether the sample needs this component, or else it is only recorded."""
        return self.weight != 0.0 or self.gate is not None

    @property
    def worst(self) -> float:
        """The value of the reward that makes the sum smallest; infinite where it has no limit."""
        return self.reward.range[0 if self.weight >= 0 else 1]


def _in_order(rewards: tuple[WeightedReward, ...]) -> tuple[WeightedReward, ...]:
    """Put the gates first, and see that the names are distinct."""
    names = [component.name for component in rewards]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"two rewards are named '{twice[0]}'; give one of them another 'name', which is how "
            "its part of the score is known"
        )
    return tuple(sorted(rewards, key=lambda component: component.gate is None))


class Rubric(BaseModel):
    """Weighted rewards, gates, and routes to other rubrics; made by `textgym.make_rubric`.

    `make_rubric(rubric.model_dump())` gives an equal rubric, for rewards that plugins offer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    rewards: Annotated[tuple[WeightedReward, ...], AfterValidator(_in_order)] = ()
    """The components, gates first."""
    routes: dict[str, Rubric] = Field(default_factory=dict)
    """What scores the prompts that name it in `prompt.reward`."""

    @field_validator("routes")
    @classmethod
    def _has_flat_routes(cls, routes: dict[str, Rubric]) -> dict[str, Rubric]:
        nested = [name for name, rubric in routes.items() if rubric.routes]
        if nested:
            raise ValueError(f"the route '{nested[0]}' has routes of its own; put all at the top")
        return routes

    def route(self, prompt: Prompt) -> tuple[WeightedReward, ...] | None:
        """Return the components that score a prompt, or None where it must name its own reward."""
        route = self.routes.get(prompt.reward) if prompt.reward is not None else None
        rewards = self.rewards if route is None else route.rewards
        return rewards or None

    @property
    def part_names(self) -> tuple[str, ...]:
        """The components that `Score.parts` can hold, without those that only prompts name."""
        return tuple(dict.fromkeys(c.name for c in self._components()))

    @property
    def deterministic(self) -> bool:
        """Whether equal samples always get equal scores, as far as the components declare it.

        False where there are no components: what prompts name is not known here.
        """
        components = list(self._components())
        return bool(components) and all(c.reward.deterministic for c in components)

    @property
    def dense(self) -> bool:
        """Whether a component that counts gives values to steps of a completion."""
        return any(c.reward.dense and c.weight != 0.0 for c in self._components())

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest value that a sample can get; (0.0, 1.0) where no reward is known."""
        rubrics = [self, *self.routes.values()]
        ranges = [value_range(rubric.rewards) for rubric in rubrics if rubric.rewards]
        if not ranges:
            return 0.0, 1.0
        return min(low for low, _ in ranges), max(high for _, high in ranges)

    def _components(self) -> Iterator[WeightedReward]:
        yield from self.rewards
        for rubric in self.routes.values():
            yield from rubric.rewards


def success_value(components: Iterable[WeightedReward], prompt: Prompt) -> float:
    """Return the value from which a sample of a prompt is a success, inf where none is."""
    total, closed = 0.0, list[float]()
    for component in components:
        reward, weight = component.reward, component.weight
        if weight:
            total += weight * (reward.success_at(prompt) if weight > 0 else reward.range[0])
        if component.gate is not None:
            closed.append(component.gate.otherwise)
    return max([total, *closed])


def value_range(components: Iterable[WeightedReward]) -> tuple[float, float]:
    """Return the lowest and the highest value of what these components score."""
    low = high = 0.0
    closed = []
    for component in components:
        if component.weight:
            ends = [component.weight * end for end in component.reward.range]
            low, high = low + min(ends), high + max(ends)
        if component.gate is not None:
            closed.append(component.gate.otherwise)
    return min([low, *closed]), max([high, *closed])
