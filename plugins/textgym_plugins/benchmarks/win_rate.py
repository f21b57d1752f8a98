"""The suite of a pairwise judge: how often the answers win, and how often they would at one length.

Judges prefer long answers. Dubois et al. 2024 (arXiv:2404.04475) regress the judge's verdict on the
difference of the lengths and predict it where that is zero. Here the regression has two terms,
theta + phi tanh(d / std(d)), d the length of the answer minus that of the baseline. Their third,
the difficulty of each instruction, is estimated from the verdicts on many models, which a single
evaluation does not have; their published win rates are therefore not to be compared with ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from textgym.benchmark import Benchmark
from textgym.item_statistics import NOTHING, NUM_RESAMPLES, by_prompt, losses, mean
from textgym.items import Item, Metric

Floats = NDArray[np.float64]

RIDGE = 0.01
"""Of both terms, on the summed loss: keeps them finite where all verdicts are one."""
_STEPS = 50
_TOLERANCE = 1e-9
_RESAMPLES = NUM_RESAMPLES // 4


class WinRateBenchmark(Benchmark):
    """A suite whose score is the judge's verdict: 1.0 a win, 0.5 a tie, 0.0 a loss."""

    def metrics(self, items: Sequence[Item]) -> dict[str, Metric]:
        """Return `win_rate`, `length_controlled`, and the lengths of both sides in characters."""
        groups = by_prompt(item for item in items if item.score.is_scored).values()
        verdicts = [_mean([item.score.value for item in group]) for group in groups]
        ours = [_mean([float(len(item.completion)) for item in group]) for group in groups]
        theirs = [float(len(str(group[0].prompt.target))) for group in groups]
        return {
            "win_rate": mean(verdicts),
            "length_controlled": length_controlled(verdicts, ours, theirs),
            "length": mean(ours),
            "length/baseline": mean(theirs),
        } | losses(items)


def length_controlled(
    verdicts: Sequence[float], ours: Sequence[float], theirs: Sequence[float], *, seed: int = 0
) -> Metric:
    """Return the win rate that the regression predicts for answers as long as the baseline's.

    Args:
        verdicts: of the judge, 0 to 1, one per prompt.
        ours: lengths of the answers.
        theirs: lengths of the baseline's.
        seed: of the bootstrap over prompts.
    """
    y, d = np.asarray(verdicts, float), np.asarray(ours, float) - np.asarray(theirs, float)
    if not len(y):
        return NOTHING
    spread = float(d.std())
    x = np.tanh(d / spread) if spread else np.zeros_like(d)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(y), np.full(len(y), 1 / len(y)), size=_RESAMPLES).astype(float)
    theta = fit(x, y, np.vstack([np.ones(len(y)), weights]))[:, 0]
    rates = 1 / (1 + np.exp(-theta))
    low, high = np.quantile(rates[1:], [0.025, 0.975])
    return Metric(float(rates[0]), float(low), float(high), len(y))


def fit(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Return theta and phi of logistic regressions, shape (k, 2), by Newton's method.

    Args:
        x: the length term of each prompt, (n,).
        y: the verdicts, (n,); halves are allowed.
        weights: of the prompts in each regression, (k, n).
    """
    features = np.column_stack([np.ones_like(x), x])  # (n, 2)
    coefficients: Floats = np.zeros((len(weights), 2))
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-(coefficients @ features.T)))  # (k, n)
        gradient = (weights * (y - p)) @ features - RIDGE * coefficients
        curvature = np.einsum("kn,ni,nj->kij", weights * p * (1 - p), features, features)
        step = np.linalg.solve(curvature + RIDGE * np.eye(2), gradient[..., None])[..., 0]
        # From zero a full step can overshoot where verdicts are nearly separable.
        largest = np.abs(step).max(axis=1, keepdims=True)
        coefficients = coefficients + step * np.minimum(1.0, 1.0 / np.maximum(largest, 1e-12))
        if float(largest.max()) < _TOLERANCE:
            break
    return coefficients


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
