"""Make a dataset of reasoning-gym by name, and its items by number.

The package draws item i of seed s from `Random(s + i)`, so that neighbouring seeds are the same
items shifted by one. Seeds are spread over 31 bits here before they get there.
"""

from __future__ import annotations

import copy
import functools
import json
import random
from collections.abc import Mapping
from typing import Any

from textgym.errors import ConfigError, MissingExtraError, UnknownPromptSourceError, did_you_mean
from textgym.seeding import mix64

_MOST_SEEDS = 1 << 31


def dataset_names() -> list[str]:
    """Return the names of all datasets."""
    return sorted(_factory().DATASETS)


def open_dataset(name: str, config: Mapping[str, Any], *, seed: int, size: int) -> Any:
    """Return a dataset; equal arguments, one object.

    Raises:
        MissingExtraError: the package is not installed.
        UnknownPromptSourceError: it has no dataset of this name.
        ConfigError: the dataset does not take this configuration.
    """
    return _open(name, json.dumps(dict(config), sort_keys=True), seed, size)


def item(dataset: Any, index: int) -> dict[str, Any]:
    """Return an item: `question`, `answer` (None where many are right) and `metadata`.

    A few datasets draw from the global generator; its state is what it was afterwards.
    """
    return copy.deepcopy(_made(dataset, index))


@functools.lru_cache(maxsize=4096)  # some take a second each, and a reward needs them again
def _made(dataset: Any, index: int) -> dict[str, Any]:
    state = random.getstate()
    random.seed(dataset.seed + index)
    try:
        found: dict[str, Any] = dataset[index]
    finally:
        random.setstate(state)
    return found


@functools.lru_cache(maxsize=128)
def _open(name: str, config: str, seed: int, size: int) -> Any:
    factory = _factory()
    known = factory.DATASETS
    if name not in known:
        raise UnknownPromptSourceError(
            f"reasoning-gym has no dataset '{name}'.{did_you_mean(name, known)} It has "
            f"{', '.join(sorted(known))}"
        )
    spread = mix64(seed) % _MOST_SEEDS
    try:
        settings = _settings(name, json.loads(config))
        return factory.create_dataset(name, seed=spread, size=size, **settings)
    except (AssertionError, AttributeError, TypeError, ValueError, KeyError) as error:
        raise ConfigError(f"reasoning-gym's dataset '{name}' cannot be made: {error}") from None
    except ImportError as error:
        raise ConfigError(
            f"reasoning-gym's dataset '{name}' needs more packages: {error}"
        ) from None


def _settings(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return settings as the package takes them: those of `composite` are objects of its own."""
    if name != "composite":
        return config
    from reasoning_gym.composite import DatasetSpec

    parts = [DatasetSpec(**{"weight": 1.0, "config": {}, **each}) for each in config["datasets"]]
    return {**config, "datasets": parts}


def _factory() -> Any:
    try:
        from reasoning_gym import factory
    except ImportError:
        raise MissingExtraError("reasoning-gym", "reasoning-gym", "this dataset") from None
    return factory
