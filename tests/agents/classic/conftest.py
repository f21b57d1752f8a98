"""Environments whose optimal play and whose values are known, registered for the tests here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from textgym_agents.env_source import spec_of

COPY, REACH, COUNT, DOOR = "ClassicCopy-v0", "ClassicReach-v0", "ClassicCount-v0", "ClassicDoor-v0"


class CopyEnv(gymnasium.Env[Any, Any]):
    """Eight times: see one of four symbols, say it back for a reward of 1."""

    def __init__(self) -> None:
        self.observation_space = spaces.Discrete(4, start=3)
        self.action_space = spaces.Discrete(4, start=-1)

    def _see(self) -> int:
        self.symbol = int(self.np_random.integers(4))
        return self.symbol + 3

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 8
        return self._see(), {}

    def step(self, action: Any) -> tuple[int, float, bool, bool, dict[str, Any]]:
        reward = float(action + 1 == self.symbol)
        self.left -= 1
        return self._see(), reward, self.left == 0, False, {}


class ReachEnv(gymnasium.Env[Any, Any]):
    """One step: move by a real vector to where the observation says; the loss is the distance."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.target = self.np_random.uniform(-0.8, 0.8, 2).astype(np.float32)
        return self.target.copy(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        reward = -float(((action - self.target) ** 2).sum())
        return self.target.copy(), reward, True, False, {}


class CountEnv(gymnasium.Env[Any, Any]):
    """Counts its steps: the observation is (episode, step), the reward is the step.

    Episode 0, 2, ... terminates after `length` steps, episode 1, 3, ... is truncated then.
    """

    def __init__(self, length: int = 3, unscored: int = -1) -> None:
        self.length, self.unscored = length, unscored
        self.observation_space = spaces.Box(0, 1000, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.episode = -1

    def _see(self) -> Any:
        return np.array([self.episode, self.count], np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode += 1
        self.count = 0
        return self._see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        is_over, is_cut = self.count == self.length, self.episode % 2 == 1
        status = "failed" if self.episode == self.unscored else "scored"
        info = {"status": status, "is_success": True} if is_over else {}
        return self._see(), float(self.count), is_over and not is_cut, is_over and is_cut, info


class DoorEnv(gymnasium.Env[Any, Any]):
    """Six doors: one of four is open each time, nothing is seen, and a closed one raises."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 1, (1,), np.float32)
        self.action_space = spaces.Discrete(4)

    def action_masks(self) -> Any:
        return np.arange(4) == self.open

    def _next(self) -> Any:
        self.open = int(self.np_random.integers(4))
        return np.zeros(1, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 6
        return self._next(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if action != self.open:
            raise ValueError(f"door {action} is closed")
        self.left -= 1
        return self._next(), 1.0, self.left == 0, False, {}


@pytest.fixture(scope="session", autouse=True)
def _environments() -> Iterator[None]:
    """Register the environments for as long as the tests run."""
    made: dict[str, type[gymnasium.Env[Any, Any]]] = {
        COPY: CopyEnv, REACH: ReachEnv, COUNT: CountEnv, DOOR: DoorEnv,
    }  # fmt: skip
    for name, entry_point in made.items():
        gymnasium.register(name, entry_point=entry_point)
    yield
    for name in made:
        del gymnasium.registry[name]


@pytest.fixture(scope="session")
def sums() -> EnvSpec:
    """Sums of two digits below 5, two tokens: small enough to be learnt in a test."""
    return spec_of(
        "textgym:TextGen-v0",
        prompts=[{"source": "arithmetic", "config": {"below": 5}}],
        split="all",
        tokenizer="chars:0123456789+=",
        max_new_tokens=2,
    )
