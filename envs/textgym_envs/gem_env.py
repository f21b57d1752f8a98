"""`Gem-v0`: an environment of gem (axon-rl/gem) as a text environment of Gymnasium.

gem marks the last turn of an episode as both terminated and truncated; here what terminates does
not truncate. gem seeds the global generators of `random` and numpy with the seed of a reset, so two
of its environments in one process disturb each other; nothing can be done about that from here.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, Literal

import gymnasium

from textgym.errors import ConfigError, did_you_mean
from textgym_envs.spaces import UnicodeText


class GemEnv(gymnasium.Env[str, str]):
    """Turns of text: an observation is what gem shows, an action what is said.

    Args:
        env: gem's id.
        arguments: gem's keyword arguments.
        action_mode: `text`, the only mode.
        render_mode: None, the only mode.

    Raises:
        ConfigError: gem is not installed, has no such environment, or it does not take the
            arguments.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        env: str,
        arguments: dict[str, Any] | None = None,
        *,
        action_mode: Literal["text"] = "text",
        render_mode: None = None,
    ) -> None:
        if action_mode != "text":
            raise ConfigError(f"action_mode={action_mode!r}: Gem-v0 has the mode 'text' alone")
        self.render_mode = render_mode
        self.gem = _make(env, arguments or {})
        self.observation_space, self.action_space = UnicodeText(), UnicodeText()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begin an episode; gem draws it, from the seed if there is one."""
        super().reset(seed=seed)
        observation, info = self.gem.reset(seed=seed)
        return str(observation), dict(info)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Say something."""
        observation, reward, terminated, truncated, info = self.gem.step(str(action))
        is_over = bool(terminated)
        return str(observation), float(reward), is_over, bool(truncated) and not is_over, dict(info)


def _make(env: str, arguments: dict[str, Any]) -> Any:
    gem = _gem()
    registry = importlib.import_module("gem.envs.registration").ENV_REGISTRY
    if env not in registry:
        raise ConfigError(
            f"env={env!r}: gem has no such environment.{did_you_mean(env, list(registry))}"
        )
    try:
        return gem.make(env, **arguments)
    except TypeError as error:
        raise ConfigError(f"env={env!r} does not take arguments={arguments!r}: {error}") from error


def _gem() -> ModuleType:
    try:
        gem = importlib.import_module("gem")
        importlib.import_module("gem.envs")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"Gem-v0 needs gem, which cannot be imported ({error}). Run: pip install gem-llm"
        ) from error
    return gem
