"""The check of an environment: what a seed fixes, and what neighbouring seeds share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from textgym.testing.findings import ConformanceError, Finding


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
    findings = []
    if first != again:
        findings.append(_transcript_differs(seed))
    starts = [[episode[0] for episode in run] for run in (first, neighbour)]
    if len(set(starts[0])) >= 4:
        for shift in (0, 1):
            pairs = list(zip(starts[0][shift:], starts[1], strict=False))
            share = sum(a == b for a, b in pairs) / len(pairs)
            if share > 0.5:
                findings.append(_neighbours_agree(seed, share, is_shifted=bool(shift)))
    if findings:
        raise ConformanceError("the environment", findings)


def _transcript_differs(seed: int) -> Finding:
    return Finding(
        "transcript",
        f"two runs with seed {seed}",
        "they differ",
        "Draw from self.np_random alone, and reset all state in reset(seed=...)",
    )


def _neighbours_agree(seed: int, share: float, *, is_shifted: bool) -> Finding:
    return Finding(
        "neighbouring-seeds",
        f"seeds {seed} and {seed + 1}",
        f"they share {share:.0%} of their starts{' shifted by one' if is_shifted else ''}",
        "Derive generators from numpy.random.SeedSequence, never from seed + i",
    )


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
