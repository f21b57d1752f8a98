"""The check of an environment: bad seeding is found, good seeding passes."""

from __future__ import annotations

import random
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from textgym.testing import ENVIRONMENT_RULES, ConformanceError, check_env


class Draw(gymnasium.Env[Any, Any]):
    """Shows a number drawn from `mixed` seeds; one step per episode."""

    observation_space = spaces.Discrete(10**6)
    action_space = spaces.Discrete(4)

    def __init__(self, how: str) -> None:
        self.how = how
        self.episode = 0
        self.base = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.base, self.episode = (seed, 0) if seed is not None else (self.base, self.episode + 1)
        return self.draw(), {}

    def draw(self) -> int:
        match self.how:
            case "shifted":
                return int(np.random.default_rng(self.base + self.episode).integers(10**6))
            case "unseeded":
                return random.randrange(10**6)
            case "ignored":
                return int(np.random.default_rng(self.episode).integers(10**6))
            case "constant":
                return 0
        return int(self.np_random.integers(10**6))

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        return self.draw(), float(action), True, False, {}


@pytest.mark.parametrize("how", ["sound", "constant"])
def test_check_env_passes(how: str) -> None:
    check_env(lambda: Draw(how))


@pytest.mark.parametrize(
    ("how", "rule", "got"),
    [
        ("unseeded", "transcript", "they differ"),
        ("ignored", "neighbouring-seeds", "they share 100% of their starts"),
        ("shifted", "neighbouring-seeds", "they share 100% of their starts shifted by one"),
    ],
)
def test_check_env_finds_bad_seeding(how: str, rule: str, got: str) -> None:
    with pytest.raises(ConformanceError, match="the environment does not keep") as caught:
        check_env(lambda: Draw(how))
    assert (rule, got) in [(finding.rule, finding.got) for finding in caught.value.findings]
    assert {finding.rule for finding in caught.value.findings} <= set(ENVIRONMENT_RULES)
