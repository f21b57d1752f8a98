"""Two evaluations of the same prompts, compared pair by pair.

The prompt is the unit, with the mean of its answers. Where each is right or wrong in both
evaluations, McNemar's test is exact (McNemar 1947); otherwise signs are flipped at random, for
which no distribution is assumed. Over several suites the p-values are Holm's (Holm 1979).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textgym.errors import ConfigError
from textgym.item_statistics import mean
from textgym.items import Item, Metric

ALPHA = 0.05
NUM_FLIPS = 10_000
_MOST_ENUMERATED = 12
Verdict = Literal["regression", "improvement", "no difference"]
Test = Literal["McNemar", "permutation"]


class Paired(NamedTuple):
    """The prompts that two evaluations have in common."""

    a: NDArray[np.float64]
    """Success or reward of the first, mean over the answers to each prompt."""
    b: NDArray[np.float64]
    is_success: bool
    """Whether the values are success."""
    num_unpaired: int
    """Prompts that only one of the two has answers with a score to."""


class Comparison(NamedTuple):
    """One suite of two evaluations."""

    suite: str
    a: float
    b: float
    difference: Metric
    """b - a with its 95 % interval, a bootstrap over prompts."""
    test: Test
    p: float
    """Of the suite alone."""
    adjusted_p: float
    """Of the suite as one of all that were compared."""
    verdict: Verdict
    is_success: bool
    num_unpaired: int


def compare(
    a: Mapping[str, Sequence[Item]], b: Mapping[str, Sequence[Item]], *, alpha: float = ALPHA
) -> list[Comparison]:
    """Return a comparison of each suite that both evaluations have.

    Args:
        a: answers by suite.
        b: the same of the other evaluation, which is the newer one.
        alpha: the adjusted p-value below which a difference is taken for one.

    Raises:
        ConfigError: they have no suite, or no prompt, in common.
    """
    names = [name for name in a if name in b]
    if not names:
        raise ConfigError(
            f"the two have no suite in common: {', '.join(a) or 'none'} and {', '.join(b)}"
        )
    pairs = [pair_items(name, a[name], b[name]) for name in names]
    tests = [paired_test(pair) for pair in pairs]
    adjusted = holm([p for _, p in tests])
    return [
        _comparison(name, pair, *test, p, alpha)
        for name, pair, test, p in zip(names, pairs, tests, adjusted, strict=True)
    ]


def _comparison(
    name: str, pair: Paired, test: Test, p: float, adjusted: float, alpha: float
) -> Comparison:
    difference = mean((pair.b - pair.a).tolist())
    verdict: Verdict = "no difference"
    if adjusted < alpha:
        verdict = "regression" if difference.value < 0 else "improvement"
    return Comparison(
        name, float(pair.a.mean()), float(pair.b.mean()), difference, test, p, adjusted, verdict,
        pair.is_success, pair.num_unpaired,
    )  # fmt: skip


def pair_items(name: str, a: Sequence[Item], b: Sequence[Item]) -> Paired:
    """Return the values of the prompts that both have a score of.

    Raises:
        ConfigError: there is none, or a prompt of the same id reads otherwise.
    """
    is_success = all(item.is_success is not None for item in (*a, *b) if item.score.is_scored)
    ours, theirs = _values(a, is_success), _values(b, is_success)
    texts = {item.prompt.id: item.prompt.messages for item in a}
    other = next((i for i in b if texts.get(i.prompt.id, i.prompt.messages) != i.prompt.messages),
                 None)  # fmt: skip
    if other is not None:
        raise ConfigError(
            f"{name}: the prompt '{other.prompt.id}' reads differently in the two evaluations, so "
            "they are not of the same prompts"
        )
    both = [key for key in ours if key in theirs]
    if not both:
        raise ConfigError(f"{name}: the two evaluations have no prompt in common")
    return Paired(
        np.array([ours[key] for key in both]),
        np.array([theirs[key] for key in both]),
        is_success,
        len({*ours, *theirs}) - len(both),
    )


def paired_test(pair: Paired) -> tuple[Test, float]:
    """Return the name of the test that fits, and its two-sided p-value."""
    is_binary = pair.is_success and bool(np.isin([pair.a, pair.b], (0.0, 1.0)).all())
    if is_binary:
        return "McNemar", mcnemar(int((pair.a > pair.b).sum()), int((pair.b > pair.a).sum()))
    return "permutation", permutation(pair.b - pair.a)


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the exact two-sided p-value that prompts change either way equally often."""
    n, fewer = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, i) for i in range(fewer + 1))
    return min(1.0, 2 * tail / 2**n) if n else 1.0


def permutation(differences: NDArray[np.float64], *, seed: int = 0) -> float:
    """Return the two-sided p-value of a mean difference when its signs are exchangeable.

    All ways to flip the signs are tried where they are few, else a random sample of them.
    """
    changed = differences[differences != 0]
    observed = abs(float(changed.sum()))
    if not len(changed):
        return 1.0
    if len(changed) <= _MOST_ENUMERATED:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(changed))))
        return float((np.abs(signs @ changed) >= observed * (1 - 1e-12)).mean())
    rng, extreme = np.random.default_rng(seed), 0
    for _ in range(10):
        signs = rng.choice((-1.0, 1.0), size=(NUM_FLIPS // 10, len(changed)))
        extreme += int((np.abs(signs @ changed) >= observed * (1 - 1e-12)).sum())
    return (1 + extreme) / (1 + NUM_FLIPS)


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, by Holm's step-down method."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = largest
    return adjusted


def _values(items: Sequence[Item], is_success: bool) -> dict[str, float]:
    """Return the mean over the scored answers to each prompt, by its id."""
    values: dict[str, list[float]] = {}
    for item in items:
        if item.score.is_scored:
            value = float(item.is_success is True) if is_success else item.score.value
            values.setdefault(item.prompt.id, []).append(value)
    return {key: sum(each) / len(each) for key, each in values.items()}
