"""Rewards, prompt sources, tools and rubrics from their names and configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from textgym.errors import ConfigError, did_you_mean
from textgym.function_reward import FunctionReward, RewardFunction
from textgym.plugins import plugin_manager
from textgym.prompt_source import PromptSource
from textgym.reward import Reward
from textgym.rubric import Rubric, WeightedReward
from textgym.tool import Tool
from textgym.validation import explain, shown

ComponentSpec: TypeAlias = str | Reward | RewardFunction | Mapping[str, Any]
RubricSpec: TypeAlias = Rubric | ComponentSpec | Sequence[ComponentSpec | JsonValue] | None
ModelT = TypeVar("ModelT", bound=BaseModel)

_ENTRY_FIELDS = ("reward", "config", "name", "weight", "gate")
_RUBRIC_FIELDS = ("rewards", "routes")


def make_reward(name: str | RewardFunction, /, **config: Any) -> Reward:
    """Return the reward of a plugin by name, or the reward that calls a plain function.

    Args:
        name: a reward's name, `module:function`, `path/to/file.py:function`, or a function.
        **config: the fields of the reward.

    Raises:
        UnknownRewardError: no installed plugin offers the name.
        ConfigError: the configuration does not fit the reward; the message names the field.
    """
    return _make_reward(name, config, place="")


def make_prompt_source(name: str, /, **config: Any) -> PromptSource:
    """Return the prompt source of a plugin by name.

    Args:
        name: a prompt source's name.
        **config: the fields of the prompt source.

    Raises:
        UnknownPromptSourceError: no installed plugin offers the name.
        ConfigError: the configuration does not fit; the message names the field.
    """
    source = plugin_manager().prompt_source_class(name)
    return _build(source, config, f"prompt source '{name}'")


def make_tool(name: str, /, **config: Any) -> Tool:
    """Return the tool of a plugin by name.

    Args:
        name: a tool's name.
        **config: the fields of the tool.

    Raises:
        UnknownToolError: no installed plugin offers the name.
        ConfigError: the configuration does not fit; the message names the field.
    """
    return _build(plugin_manager().tool_class(name), config, f"tool '{name}'")


def make_rubric(spec: RubricSpec) -> Rubric:
    """Return the rubric that a specification describes.

    Args:
        spec: None, where each prompt names its reward; a reward, its name, or a function; a
            mapping `{"reward": ..., "config": {...}, "weight": 1.0, "gate": {"threshold": 1.0},
            "name": ...}`; a list of these; or `{"rewards": [...], "routes": {name: spec}}`.

    Raises:
        UnknownRewardError: no installed plugin offers a name; the message says where it stands.
        ConfigError: the specification has a mistake; the message names the field.
    """
    return _make_rubric(spec, "rubric")


def _make_rubric(spec: Any, place: str) -> Rubric:
    if isinstance(spec, Rubric):
        return spec
    if isinstance(spec, Mapping) and "reward" not in spec:
        _check_fields(spec, _RUBRIC_FIELDS, place)
        entries, routes = spec.get("rewards", ()), spec.get("routes", {})
        if not isinstance(routes, Mapping):
            raise ConfigError(f"{place}.routes is {shown(routes)}; expected name: rubric")
    else:
        entries, routes = spec, {}
    values = {
        "rewards": tuple(_make_entries(entries, place)),
        "routes": {n: _make_rubric(s, f"{place}.routes[{n!r}]") for n, s in routes.items()},
    }
    return _build(Rubric, values, place)


def _make_entries(entries: Any, place: str) -> list[WeightedReward]:
    if entries is None:
        return []
    if isinstance(entries, list | tuple):
        return [_make_entry(e, f"{place}.rewards[{i}]") for i, e in enumerate(entries)]
    return [_make_entry(entries, place)]


def _make_entry(entry: Any, place: str) -> WeightedReward:
    if not isinstance(entry, Mapping):
        return WeightedReward(reward=_reward_of(entry, {}, place))
    _check_fields(entry, _ENTRY_FIELDS, place)
    config = entry.get("config") or {}
    if not isinstance(config, Mapping):
        raise ConfigError(f"{place}.config is {shown(config)}; expected field: value")
    values = {key: value for key, value in entry.items() if key != "config"}
    values["reward"] = _reward_of(entry.get("reward"), config, f"{place}.reward")
    return _build(WeightedReward, values, place)


def _reward_of(value: Any, config: Mapping[str, Any], place: str) -> Reward:
    if isinstance(value, Reward):
        if config:
            raise ConfigError(f"{place} is a reward already; its 'config' has no use, remove it")
        return value
    is_class = isinstance(value, type)
    if is_class or not (isinstance(value, str) or callable(value)):
        hint = f"; write {value.__name__}(...)" if is_class else ""
        raise ConfigError(
            f"{place} is {shown(value)}; expected a reward, its name, or a function{hint}"
        )
    return _make_reward(value, config, place)


def _make_reward(name: str | RewardFunction, config: Mapping[str, Any], place: str) -> Reward:
    if not isinstance(name, str) or ":" in name:
        if config:
            raise ConfigError(
                f"the function {shown(name)} takes no configuration, got {', '.join(config)}; "
                "write a reward class to have fields"
            )
        return _build(FunctionReward, {"function": name}, place or "reward")
    where = f"{place}: reward '{name}'" if place else f"reward '{name}'"
    return _build(plugin_manager().reward_class(name, place=place), config, where)


def _build(model: type[ModelT], values: Mapping[str, Any], where: str) -> ModelT:
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        mistakes = [message for _, message in explain(error, model, values)]
        raise ConfigError("\n".join(f"{where}: {message}" for message in mistakes)) from None


def _check_fields(values: Mapping[str, Any], known: tuple[str, ...], place: str) -> None:
    for name in values:
        if name not in known:
            raise ConfigError(
                f"{place}: no field '{name}'.{did_you_mean(str(name), known)} "
                f"The fields are {', '.join(known)}."
            )
