"""How good a reward model is on preference pairs: accuracy, calibration, length bias."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from textgym import Score
from textgym_plugins.reward_model.pairs import Pair

Array = NDArray[np.float64]


class Share(NamedTuple):
    """A share of `total`, with its Wilson interval."""

    wins: float
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share itself; nan of nothing."""
        return self.wins / self.total if self.total else math.nan


class Evaluation(NamedTuple):
    """The report on a set of pairs."""

    accuracy: Share
    """Pairs whose chosen completion scores higher; a tie counts one half."""
    unscored: int
    """Pairs left out because a completion has no score."""
    truncated: int
    """Completions that were judged without the beginning of their conversation."""
    calibration_error: float
    """Expected calibration error of sigmoid(difference of the raw rewards), 0 to 0.5."""
    length_correlation: float
    """Pearson correlation of score and completion length, in characters, within the prompt."""
    accuracy_chosen_shorter: Share
    accuracy_chosen_longer: Share


def evaluate_pairs(
    pairs: Sequence[Pair], chosen: Sequence[Score], rejected: Sequence[Score], *, scale: float
) -> Evaluation:
    """Compare the scores of the chosen and the rejected completions.

    Args:
        pairs: what was scored.
        chosen: the scores of the chosen completions.
        rejected: the scores of the rejected ones.
        scale: what turns a difference of scores into one of raw rewards: the model's `std`.
    """
    kept = [i for i in range(len(pairs)) if chosen[i].is_scored and rejected[i].is_scored]
    d = np.array([chosen[i].value - rejected[i].value for i in kept], dtype=np.float64)
    longer = np.array([len(pairs[i].chosen) - len(pairs[i].rejected) for i in kept])
    wins = (d > 0) + 0.5 * (d == 0)
    return Evaluation(
        accuracy=wilson(float(wins.sum()), len(wins)),
        unscored=len(pairs) - len(kept),
        truncated=sum("cut off" in score.reason for score in (*chosen, *rejected)),
        calibration_error=calibration_error(d * scale),
        length_correlation=_correlation(longer.astype(np.float64), d),
        accuracy_chosen_shorter=_share(wins[longer < 0]),
        accuracy_chosen_longer=_share(wins[longer > 0]),
    )


def wilson(wins: float, total: int, z: float = 1.96) -> Share:
    """Return a share with the 95 % score interval of Wilson 1927."""
    if total == 0:
        return Share(0.0, 0, math.nan, math.nan)
    p = wins / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return Share(wins, total, centre - half, centre + half)


def calibration_error(differences: Array, *, num_bins: int = 10) -> float:
    """Return the expected calibration error (Guo et al. 2017, arXiv:1706.04599, eq. 3).

    The confidence in the side that scores higher is sigmoid(|difference|), so the bins divide 0.5
    to 1 evenly. nan of no differences.
    """
    if len(differences) == 0:
        return math.nan
    confidence = 1 / (1 + np.exp(-np.abs(differences)))
    correct = (differences > 0) + 0.5 * (differences == 0)
    bins = np.minimum((confidence - 0.5) * 2 * num_bins, num_bins - 1).astype(int)
    gaps = [abs(float((correct - confidence)[bins == b].sum())) for b in range(num_bins)]
    return sum(gaps) / len(differences)


def _share(wins: Array) -> Share:
    return wilson(float(wins.sum()), len(wins))


def _correlation(longer: Array, d: Array) -> float:
    """Return the correlation over both orders of each pair, so that both means are zero."""
    norm = math.sqrt(float((longer**2).sum() * (d**2).sum()))
    return float((longer * d).sum()) / norm if norm else math.nan
