"""Rewards that the tests of the environments score with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import pytest

import textgym
from textgym.plugins import Contribution, Plugin
from textgym.reward import Isolation


class ExactMatch(textgym.Reward):
    """1.0 for the target and nothing else; fails on `!`, abstains on `?`."""

    name: ClassVar[str] = "exact"
    isolation: ClassVar[Isolation] = "inline"
    batches: ClassVar[list[int]] = []
    scored: ClassVar[list[textgym.Sample]] = []

    def score_batch(self, samples: Sequence[textgym.Sample]) -> list[textgym.Score]:
        self.batches.append(len(samples))
        return [self.score(sample) for sample in samples]

    def score(self, sample: textgym.Sample) -> textgym.Score:
        self.scored.append(sample)
        text = sample.completion
        if "!" in text:
            raise RuntimeError("the verifier broke")
        if "?" in text:
            return textgym.Score.unscored("cannot judge a question", extracted="?")
        is_right = text == sample.prompt.target
        label = "correct" if is_right else "wrong"
        return textgym.Score(1.0 if is_right else 0.0, label=label, extracted=text, reason=label)


class IdCount(textgym.Reward):
    """A tenth per sampled id, and different at each call."""

    name: ClassVar[str] = "id_count"
    isolation: ClassVar[Isolation] = "inline"
    deterministic: ClassVar[bool] = False
    range: ClassVar[tuple[float, float]] = (0.0, 1e9)
    calls: ClassVar[list[int]] = []

    def score(self, sample: textgym.Sample) -> textgym.Score:
        self.calls.append(len(sample.token_ids or ()))
        return textgym.Score(len(self.calls) + len(sample.token_ids or ()) / 10)


class Length(textgym.Reward):
    """The length of the completion: no value is the best one."""

    name: ClassVar[str] = "length"
    isolation: ClassVar[Isolation] = "inline"
    range: ClassVar[tuple[float, float]] = (-math.inf, math.inf)

    def score(self, sample: textgym.Sample) -> textgym.Score:
        return textgym.Score(len(sample.completion))


class Penalty(textgym.Reward):
    """-1.0 for anything but the target, for which it is 0.0."""

    name: ClassVar[str] = "penalty"
    isolation: ClassVar[Isolation] = "inline"
    range: ClassVar[tuple[float, float]] = (-1.0, 0.0)

    def score(self, sample: textgym.Sample) -> textgym.Score:
        return textgym.Score(0.0 if sample.completion == sample.prompt.target else -1.0)


class Reachable(textgym.Reward):
    """0.9 for the target, more for nothing; of prompts without a target 0.2 for saying nothing."""

    name: ClassVar[str] = "reachable"
    isolation: ClassVar[Isolation] = "inline"

    def success_at(self, prompt: textgym.Prompt) -> float:
        return 0.2 if prompt.target is None else 0.9

    def score(self, sample: textgym.Sample) -> textgym.Score:
        is_right = sample.completion == (sample.prompt.target or "")
        return textgym.Score(self.success_at(sample.prompt) if is_right else 0.0)


class Digits(textgym.Reward):
    """A quarter per digit in its place, as far as the first wrong one; fails on `!`."""

    name: ClassVar[str] = "digits"
    isolation: ClassVar[Isolation] = "inline"
    dense: ClassVar[bool] = True

    def score(self, sample: textgym.Sample) -> textgym.Score:
        if "!" in sample.completion:
            raise RuntimeError("the verifier broke")
        steps = []
        for i, pair in enumerate(zip(sample.completion, str(sample.prompt.target), strict=False)):
            if pair[0] != pair[1]:
                break
            steps.append(textgym.Step(0.25, i + 1))
        return textgym.Score.of_steps(steps)


REWARDS: tuple[type[textgym.Reward], ...] = (
    ExactMatch,
    IdCount,
    Length,
    Penalty,
    Reachable,
    Digits,
)


@pytest.fixture(autouse=True)
def rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offer the rewards by name, as an installed plugin would; they hide installed ones."""
    plugin = Plugin("tests", "tests", "0")
    for reward in REWARDS:
        offered = Contribution(reward, plugin)
        monkeypatch.setitem(textgym.plugin_manager().rewards, reward.name, offered)
    ExactMatch.batches.clear()
    ExactMatch.scored.clear()
    IdCount.calls.clear()
