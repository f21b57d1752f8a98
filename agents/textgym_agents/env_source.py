"""An environment, its spec, or its id: what an agent is given to learn in.

`TaxiEnv` objects suit a table, but an agent with many copies of an environment needs to make them:
it takes the spec of whatever it was given.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import VectorEnv

from textgym.errors import ConfigError, UnknownNameError

EnvSource: TypeAlias = str | EnvSpec | gymnasium.Env[Any, Any]
"""`module:Id-v0` imports the module first, as `gymnasium.make` does."""

SUCCESSORS = {"Taxi-v3": "Taxi-v4"}
"""Ids that Gymnasium 1.4 has retired for one that is the same game under default arguments: v4 of
Taxi only repairs the options `is_rainy` and `fickle_passenger`."""


def spec_of(env: EnvSource, **kwargs: Any) -> EnvSpec:
    """Return the spec of an environment, with keyword arguments put over those that it has.

    Raises:
        UnknownNameError: no environment is registered under the id.
        ConfigError: an environment object that was not made through `gymnasium.make`.
    """
    spec = _find_spec(env) if isinstance(env, str) else env
    if isinstance(spec, gymnasium.Env):
        if spec.spec is None:
            raise ConfigError(
                f"{spec!r} has no spec, so it cannot be made again; make it with gymnasium.make"
            )
        spec = spec.spec
    spec = copy.deepcopy(spec)
    spec.kwargs.update(kwargs)
    return spec


def make_env(env: str | EnvSpec, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """Make one environment.

    Raises:
        ConfigError: the environment refuses its arguments.
    """
    spec = spec_of(env, **kwargs)
    try:
        return gymnasium.make(spec)
    except ConfigError:
        raise
    except (TypeError, gymnasium.error.Error) as error:
        raise ConfigError(f"'{spec.id}' cannot be made: {error}") from error


@contextmanager
def opened(env: EnvSource) -> Iterator[gymnasium.Env[Any, Any]]:
    """Give an environment: the one passed, left open, or one made here and closed at the end."""
    if isinstance(env, gymnasium.Env):
        yield env
        return
    made = make_env(env)
    try:
        yield made
    finally:
        made.close()


def space_name(space: gymnasium.Space[Any]) -> str:
    """Return what an error calls a space: of a Box not the bounds, which may fill lines."""
    if isinstance(space, gymnasium.spaces.Box):
        return f"Box(shape={space.shape}, dtype={space.dtype})"
    return str(space)


def advice_on(space: gymnasium.Space[Any]) -> str:
    """Return what to do about a space that an agent cannot use, as a sentence; '' if unknown."""
    if isinstance(space, gymnasium.spaces.Dict | gymnasium.spaces.Tuple):
        return " gymnasium.wrappers.FlattenObservation makes one Box of it."
    if getattr(space, "is_np_flattenable", True) is False:
        return " Text environments have numbers with action_mode='token'."
    return ""


def has_exact_solution(env_id: str) -> bool:
    """Return whether the environment under an id has an exact solution; none is made.

    Raises:
        UnknownNameError: no environment is registered under the id.
    """
    entry_point = spec_of(env_id).entry_point
    make = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    return hasattr(make, "exact_solution")


def exact_solution_of(env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> Any | None:
    """Return the exact solution of an environment, undiscounted; None where it has none."""
    solve = getattr(env.unwrapped, "exact_solution", None)
    return None if solve is None else solve()


def _find_spec(full_id: str) -> EnvSpec:
    module, _, env_id = full_id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        return gymnasium.spec(SUCCESSORS.get(env_id, env_id))
    except ImportError as error:
        raise ConfigError(f"'{full_id}': the module '{module}' cannot be imported: {error}") from (
            error
        )
    except gymnasium.error.Error as error:
        raise UnknownNameError(f"no environment '{full_id}': {error}") from None
