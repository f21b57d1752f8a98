"""The conformance checks: each violation is found, and a sound subject passes."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from textgym import FunctionReward, Prompt, Reward, Sample, Score
from textgym.reward import Isolation
from textgym.testing import Case, ConformanceError, check_env, check_reward, hacks

CASE = Case(Prompt(id="1", messages="6 * 7?", target="42"), gold=("42", " 42 "), wrong=("41", "24"))


class Exact(Reward):
    """1.0 for the target and nothing else."""

    name: ClassVar[str] = "exact"
    isolation: ClassVar[Isolation] = "inline"

    def score(self, sample: Sample) -> Score:
        return Score(float(sample.completion.strip() == sample.prompt.target))


def violations_of(reward: Reward, **options: Any) -> str:
    with pytest.raises(ConformanceError) as caught:
        check_reward(reward, [CASE], **options)
    assert isinstance(caught.value, AssertionError)
    assert all(violation in str(caught.value) for violation in caught.value.violations)
    return str(caught.value)


def test_check_reward_sound_reward_passes() -> None:
    check_reward(Exact(), [CASE])


def test_check_reward_lists_every_wrong_verdict() -> None:
    class Inverted(Exact):
        def score(self, sample: Sample) -> Score:
            return Score(1.0 - super().score(sample).value)

    message = violations_of(Inverted(), hacks_are_wrong=False)
    assert "the gold completion '42' of prompt '1' scores 0, not the top 1" in message
    assert "the gold completion ' 42 ' of prompt '1' scores 0" in message
    assert "the wrong completion '41' of prompt '1' scores 1, the top of the range" in message
    assert "the wrong completion '24'" in message


def test_check_reward_finds_a_reward_that_can_be_gamed() -> None:
    class Contains(Exact):
        def score(self, sample: Sample) -> Score:
            return Score(float(str(sample.prompt.target) in sample.completion))

    message = violations_of(Contains())
    assert "the hack 'target among others' on prompt '1' scores 1" in message
    assert "the hack 'every option listed' on prompt '1' scores 1" in message
    check_reward(Contains(), [CASE], hacks_are_wrong=False)


@pytest.mark.parametrize("trick", sorted(set(hacks(CASE))))
def test_check_reward_finds_each_hack_that_breaks_a_reward(trick: str) -> None:
    bait = hacks(CASE)[trick]

    class Fragile(Exact):
        def score(self, sample: Sample) -> Score:
            if sample.completion == bait:
                raise ValueError("too much")
            return super().score(sample)

    message = violations_of(Fragile())
    assert f"the hack '{trick}' on prompt '1' makes it fail: 'exact' (" in message
    assert message.count("\n  - ") == 1


def test_check_reward_finds_abstention_on_a_gold_completion() -> None:
    class Shy(Exact):
        def score(self, sample: Sample) -> Score:
            return Score.unscored("rather not")

    assert "the gold completion '42' of prompt '1' is abstained: rather not" in violations_of(Shy())


def test_check_reward_finds_randomness_unless_declared() -> None:
    class Moody(Exact):
        deterministic: ClassVar[bool] = True

        def score(self, sample: Sample) -> Score:
            right = super().score(sample).value
            return Score(right or random.random() / 2)

    assert "set `deterministic = False` if that is meant" in violations_of(Moody())
    Moody.deterministic = False
    check_reward(Moody(), [CASE])


def test_check_reward_finds_a_batch_that_differs_from_its_samples() -> None:
    class Relative(Exact):
        def score_batch(self, samples: Sequence[Sample]) -> list[Score]:
            scores = [self.score(sample).value for sample in samples]
            return [Score(s / max(1.0, sum(scores))) for s in scores]

    message = violations_of(Relative())
    assert "completion '42' of prompt '1' scores ('scored', 0.5, None) in a batch" in message


def test_check_reward_finds_state_that_does_not_pickle() -> None:
    class Holding(Exact):
        lock: Any = None

    message = violations_of(Holding(lock=threading.Lock()))
    assert "it does not pickle: TypeError: cannot pickle" in message or "local object" in message


def test_check_reward_finds_nan() -> None:
    class Blank(Exact):
        def score(self, sample: Sample) -> Score:
            return Score(float("nan")) if sample.completion == "41" else super().score(sample)

    assert "the wrong completion '41' of prompt '1' is failed: 'exact' (" in violations_of(Blank())


@pytest.mark.parametrize("cases", [[], [Case(CASE.prompt, gold=("42",))]])
def test_check_reward_needs_cases_that_show_something(cases: list[Case]) -> None:
    with pytest.raises(ValueError, match="at least one gold and one wrong completion"):
        check_reward(Exact(), cases)


def test_check_reward_needs_a_finite_range() -> None:
    with pytest.raises(ValueError, match="needs a finite range; 'function' has"):
        check_reward(FunctionReward(function=len), [CASE])


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
    ("how", "violation"),
    [
        ("unseeded", "two runs with seed 0 differ"),
        ("ignored", "seeds 0 and 1 share 100% of their starts; derive generators"),
        ("shifted", "seeds 0 and 1 share 100% of their starts shifted by one; derive generators"),
    ],
)
def test_check_env_finds_bad_seeding(how: str, violation: str) -> None:
    with pytest.raises(ConformanceError, match=violation):
        check_env(lambda: Draw(how))
