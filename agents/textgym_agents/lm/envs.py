"""The text-mode vector environments of a configuration."""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv

from textgym.errors import ConfigError
from textgym_agents.lm.config import EnvConfig


def make_envs(config: EnvConfig, num_envs: int, **kwargs: Any) -> VectorEnv[Any, Any, Any]:
    """Make the text-mode vector environment of a configuration; it is reset by the caller alone."""
    env_id, spec = _find_spec(config.id)
    settings = {**config.kwargs, **kwargs, "action_mode": "text"}
    settings |= {k: v for k in ("prompts", "reward") if (v := getattr(config, k)) is not None}
    if spec.vector_entry_point is not None:
        settings["autoreset_mode"] = "disabled"
    else:
        settings["vectorization_mode"] = "sync"
        settings["vector_kwargs"] = {"autoreset_mode": AutoresetMode.DISABLED}
    try:
        return gymnasium.make_vec(env_id, num_envs, **settings)
    except (TypeError, gymnasium.error.Error) as error:  # it does not take these arguments
        raise ConfigError(
            f"env.id: '{config.id}' cannot be made as a text environment (action_mode='text'): "
            f"{error}"
        ) from error


def _find_spec(full_id: str) -> tuple[str, EnvSpec]:
    module, _, env_id = full_id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        return env_id, gymnasium.spec(env_id)
    except (ImportError, gymnasium.error.Error) as error:
        raise ConfigError(f"env.id: cannot find '{full_id}': {error}") from error
