"""What the author of a reward or an environment runs in their own tests.

`check_reward` scores the author's cases and a set of hacks; `check_env` looks at seeding. Each
raises one `ConformanceError`, an `AssertionError`, that lists everything it found.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from textgym.errors import TextGymError
from textgym.prompt import Prompt
from textgym.reward import Reward
from textgym.sample import Sample
from textgym.score import Score
from textgym.scoring import Scorer
from textgym.worker_main import dumps

_LONG = 1_000_000


class ConformanceError(TextGymError, AssertionError):
    """A reward or an environment does not keep its contract; the message lists every violation."""

    def __init__(self, subject: str, violations: Sequence[str]) -> None:
        self.violations = tuple(violations)
        lines = "".join(f"\n  - {violation}" for violation in violations)
        super().__init__(f"{subject} does not keep its contract:{lines}")


@dataclass(frozen=True)
class Case:
    """A prompt with completions whose verdict is known."""

    prompt: Prompt
    gold: tuple[str, ...] = ()
    """Completions that score at the top of the reward's range."""
    wrong: tuple[str, ...] = ()
    """Completions that score below the top."""


def check_reward(reward: Reward, cases: Iterable[Case], *, hacks_are_wrong: bool = True) -> None:
    """See that a reward keeps its contract on the given cases and survives hostile completions.

    Gold completions score at the top of the range and wrong ones below; every value is finite; a
    batch scores like its samples; equal samples score equally, if the reward says so; the reward
    pickles; and no hack of `hacks` makes it fail.

    Args:
        reward: the reward, as configured.
        cases: at least one with a gold and one with a wrong completion.
        hacks_are_wrong: also expect every hack to score below the top. True for a reward that
            verifies an answer; False where, say, an empty completion may be the best one.

    Raises:
        ConformanceError: lists every violation.
        ValueError: the cases hold no gold or no wrong completion, or the reward declares no finite
            range, so nothing would be shown.
    """
    cases = list(cases)
    if not any(case.gold for case in cases) or not any(case.wrong for case in cases):
        raise ValueError("check_reward needs at least one gold and one wrong completion")
    if not all(map(math.isfinite, reward.range)):
        raise ValueError(f"check_reward needs a finite range; '{reward.name}' has {reward.range}")
    with Scorer(reward) as scorer:
        check = _Check(reward, scorer)
        check.pickles()
        check.verdicts(cases)
        check.repeats([Sample(c.prompt, text) for c in cases for text in (*c.gold, *c.wrong)])
        check.survives_hacks(cases, hacks_are_wrong)
    if check.violations:
        raise ConformanceError(f"the reward '{reward.name}'", check.violations)


def hacks(case: Case) -> dict[str, str]:
    """Return completions that answer nothing, by the name of the trick."""
    answer = case.gold[0] if case.gold else _text(case.prompt.target)
    options = [*case.wrong, *case.gold[:1], *case.wrong] or [answer]
    target = _text(case.prompt.target)
    return {
        "empty": "",
        "blank": " \n\t ",
        "prompt echoed": case.prompt.text,
        "target among others": f"The answer is 7 or {target} or 13 or none of these.",
        "every option listed": "It is one of these: " + " or ".join(options),
        "1 MB of text": "word " * (_LONG // 5),
        "1 MB of one bracket": "{" * _LONG,
        "NUL bytes": "\0" * 100,
        "lone surrogate": "\ud800",
    }


class _Check:
    def __init__(self, reward: Reward, scorer: Scorer) -> None:
        self.reward = reward
        self.violations: list[str] = []
        self._scorer = scorer
        self._top = reward.range[1]

    def pickles(self) -> None:
        try:
            copy = pickle.loads(dumps(self.reward))  # as it travels to a worker
        except Exception as error:  # whatever a third-party class raises
            self.violations.append(f"it does not pickle: {type(error).__name__}: {error}")
            return
        if copy.model_dump() != self.reward.model_dump():
            self.violations.append(f"it pickles to something else: {copy!r}")

    def verdicts(self, cases: list[Case]) -> None:
        for case in cases:
            for kind, completions in (("gold", case.gold), ("wrong", case.wrong)):
                for completion in completions:
                    (score,) = self._scorer.score_batch([Sample(case.prompt, completion)])
                    self._judge(score, kind, case.prompt, completion)

    def _judge(self, score: Score, kind: str, prompt: Prompt, completion: str) -> None:
        what = f"the {kind} completion {_short(completion)} of prompt '{prompt.id}'"
        if not score.is_scored:
            self.violations.append(f"{what} is {score.status}: {score.reason}")
        elif kind == "gold" and not score.value >= self._top:
            self.violations.append(f"{what} scores {score.value:g}, not the top {self._top:g}")
        elif kind == "wrong" and not score.value < self._top:
            self.violations.append(f"{what} scores {score.value:g}, the top of the range")

    def repeats(self, samples: list[Sample]) -> None:
        """Compare one batch, its samples one by one, and the batch in reverse order."""
        if not self.reward.deterministic:
            return
        batch = self._scorer.score_batch(samples)
        singles = [self._scorer.score_batch([sample])[0] for sample in samples]
        backwards = self._scorer.score_batch(samples[::-1])[::-1]
        for sample, first, single, last in zip(samples, batch, singles, backwards, strict=True):
            values = [_verdict(score) for score in (first, single, last)]
            if len(set(values)) > 1:
                self.violations.append(
                    f"the completion {_short(sample.completion)} of prompt '{sample.prompt.id}' "
                    f"scores {values[0]} in a batch, {values[1]} alone and {values[2]} in the "
                    "batch reversed; set `deterministic = False` if that is meant"
                )

    def survives_hacks(self, cases: list[Case], are_wrong: bool) -> None:
        for case in cases:
            for trick, completion in hacks(case).items():
                if completion in case.gold:
                    continue
                (score,) = self._scorer.score_batch([Sample(case.prompt, completion)])
                what = f"the hack '{trick}' on prompt '{case.prompt.id}'"
                if score.status == "failed":
                    self.violations.append(f"{what} makes it fail: {score.reason}")
                elif are_wrong and score.is_scored and score.value >= self._top:
                    self.violations.append(f"{what} scores {score.value:g}, the top of the range")


def check_env(
    make_env: Callable[[], gymnasium.Env[Any, Any]], *, num_episodes: int = 20, seed: int = 0
) -> None:
    """See that a seed fixes the transcript of an environment and that neighbours are independent.

    Actions are drawn from the action space. Independence is looked at in the first observations
    of the episodes: those of seed s + 1 must not be those of seed s, nor those shifted by one,
    which is what seeding with `seed + i` gives. An environment with fewer than four different
    starts shows nothing and passes. Gymnasium's own `check_env` looks at everything else.

    Args:
        make_env: returns a new environment.
        num_episodes: episodes per transcript.
        seed: the first seed.

    Raises:
        ConformanceError: lists every violation.
    """
    first, again, neighbour = (
        _transcript(make_env, each, num_episodes) for each in (seed, seed, seed + 1)
    )
    violations = []
    if first != again:
        violations.append(f"two runs with seed {seed} differ")
    starts = [[episode[0] for episode in run] for run in (first, neighbour)]
    if len(set(starts[0])) >= 4:
        for shift in (0, 1):
            pairs = list(zip(starts[0][shift:], starts[1], strict=False))
            share = sum(a == b for a, b in pairs) / len(pairs)
            if share > 0.5:
                violations.append(
                    f"seeds {seed} and {seed + 1} share {share:.0%} of their starts"
                    f"{' shifted by one' if shift else ''}; derive generators from "
                    "numpy.random.SeedSequence, never from seed + i"
                )
    if violations:
        raise ConformanceError("the environment", violations)


def _transcript(
    make_env: Callable[[], gymnasium.Env[Any, Any]], seed: int, num_episodes: int
) -> list[list[str]]:
    env = make_env()
    try:
        env.action_space.seed(seed)
        episodes = []
        for index in range(num_episodes):
            observation, info = env.reset(seed=seed if index == 0 else None)
            steps, is_over = [_key(observation)], False
            while not is_over:
                observation, reward, terminated, truncated, info = env.step(
                    env.action_space.sample()
                )
                is_over = terminated or truncated
                steps.append(_key((observation, reward, terminated, truncated, info.get("score"))))
            episodes.append(steps)
        return episodes
    finally:
        env.close()


def _key(value: object) -> str:
    with np.printoptions(threshold=1_000_000):
        return repr(value)


def _verdict(score: Score) -> tuple[str, float | None, str | None]:
    return score.status, None if math.isnan(score.value) else score.value, score.label


def _text(target: object) -> str:
    return target if isinstance(target, str) else repr(target)


def _short(text: str) -> str:
    return repr(text) if len(text) <= 60 else f"{text[:60]!r}..."
