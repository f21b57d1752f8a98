"""Figures over scored answers, each with a 95 % interval.

Several answers to one prompt are not independent, so a prompt with all its answers is the unit: a
share of prompts answered once has Wilson's interval, everything else a percentile bootstrap over
prompts. Answers without a score are in no figure; they are counted.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from textgym.items import Item, Metric

NUM_RESAMPLES = 2_000
_Z = 1.959963984540054  # of the normal distribution, 97.5 %
_VALUES_AT_ONCE = 1 << 22
NOTHING = Metric(math.nan, math.nan, math.nan, 0)

Test = Callable[[Item], bool]


def summarise(items: Sequence[Item]) -> dict[str, Metric]:
    """Return success, or the mean reward where no reward tells it, in all and by task.

    Of several answers to a prompt there are `pass@k` and `majority@k` besides. `cut` and
    `unscored` are there where an answer was cut off or has no score.
    """
    scored = [item for item in items if item.score.is_scored]
    knows = any(item.is_success is not None for item in scored)
    name, figure = ("success", success) if knows else ("reward", reward)
    metrics = {name: figure(scored)}
    for task, part in by_task(scored).items():
        metrics[f"{name}/{task}"] = figure(part)
    return metrics | (attempts(scored) if knows else {}) | losses(items)


def success(items: Sequence[Item]) -> Metric:
    """Return the share of successes among the answers of which it is known."""
    return share(items, lambda item: item.is_success is True, of=_knows_success)


def reward(items: Sequence[Item]) -> Metric:
    """Return the mean score."""
    sums, counts = defaultdict[int, float](float), Counter[int]()
    for item in items:
        if item.score.is_scored:
            sums[item.index] += item.score.value
            counts[item.index] += 1
    return ratio([sums[i] for i in counts], list(counts.values()))


def share(items: Sequence[Item], is_hit: Test, *, of: Test = lambda item: True) -> Metric:
    """Return the share of answers that are hits, among those that `of` accepts."""
    hits, totals = Counter[int](), Counter[int]()
    for item in items:
        if of(item):
            totals[item.index] += 1
            hits[item.index] += is_hit(item)
    return shares([hits[i] for i in totals], list(totals.values()))


def shares(hits: Sequence[int], totals: Sequence[int]) -> Metric:
    """Return the share of hits over prompts that had `totals[i]` chances each.

    Wilson's interval (Wilson 1927) where each prompt had one; else a bootstrap over prompts.
    """
    if all(total == 1 for total in totals):
        return wilson(sum(hits), len(totals))
    return ratio(hits, totals)


def wilson(hits: int, total: int) -> Metric:
    """Return a share with its score interval: Wilson 1927, JASA 22, pp. 209-212."""
    if not total:
        return NOTHING
    p, z2 = hits / total, _Z**2
    centre = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z * math.sqrt(p * (1 - p) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    # At the ends the interval reaches the value exactly, which rounding would miss.
    low = 0.0 if hits == 0 else centre - half
    return Metric(p, low, 1.0 if hits == total else centre + half, total)


def ratio(sums: Sequence[float], counts: Sequence[float]) -> Metric:
    """Return sum over count of several prompts, with a percentile bootstrap over the prompts."""
    values = np.column_stack([np.asarray(sums, float), np.asarray(counts, float)])
    if not len(values) or not values[:, 1].sum():
        return NOTHING
    low, high = bootstrap(values, lambda drawn: drawn[..., 0] / drawn[..., 1])
    total = values.sum(axis=0)
    return Metric(float(total[0] / total[1]), low, high, len(values))


def mean(values: Sequence[float]) -> Metric:
    """Return the mean of one value per prompt, with a percentile bootstrap over the prompts."""
    return ratio(values, [1.0] * len(values))


def bootstrap(
    values: NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    *,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % percentile interval of a function of sums over resampled prompts.

    Args:
        values: shape (prompts, k).
        statistic: of sums, shape (resamples, k); it returns shape (resamples,).
        seed: of the resamples.
    """
    rng = np.random.default_rng(seed)
    size = max(1, _VALUES_AT_ONCE // max(1, len(values)))
    found: list[NDArray[np.float64]] = []
    even = np.full(len(values), 1 / len(values))
    for start in range(0, NUM_RESAMPLES, size):
        weights = rng.multinomial(len(values), even, size=min(size, NUM_RESAMPLES - start))
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append(statistic(weights @ values))
    low, high = np.nanquantile(np.concatenate(found), [0.025, 0.975])
    return float(low), float(high)


def attempts(items: Sequence[Item]) -> dict[str, Metric]:
    """Return `pass@k` and `majority@k` of prompts with several answers; else nothing."""
    groups = [g for g in by_prompt(items).values() if all(map(_knows_success, g))]
    most = max((len(group) for group in groups), default=0)
    if most < 2:
        return {}
    steps = sorted({most} | {1 << i for i in range(most.bit_length()) if 1 << i <= most})
    metrics: dict[str, Metric] = {}
    for k in steps:
        enough = [group for group in groups if len(group) >= k]
        rates = [pass_at_k(len(g), sum(i.is_success is True for i in g), k) for g in enough]
        metrics[f"pass@{k}"] = mean(rates)
    if any(item.score.extracted is not None for item in items):
        metrics[f"majority@{most}"] = mean([majority(group) for group in groups])
    return metrics


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the unbiased estimate that one of k answers is right, where c of n are.

    1 - C(n-c, k) / C(n, k): Chen et al. 2021, arXiv:2107.03374, eq. 1.
    """
    if not 1 <= k <= n or not 0 <= c <= n:
        raise ValueError(f"n={n}, c={c}, k={k}: expected 1 <= k <= n and 0 <= c <= n")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def majority(group: Sequence[Item]) -> float:
    """Return whether the answer that is given most often is right; a tie is the mean of its parts.

    Two answers are the same where the reward extracted the same text; one of which it extracted
    nothing has no vote.
    """
    votes: defaultdict[str, list[Item]] = defaultdict(list)
    for item in group:
        if item.score.extracted is not None:
            votes[item.score.extracted].append(item)
    most = max(map(len, votes.values()), default=0)
    tied = [same for same in votes.values() if len(same) == most]
    rates = [sum(item.is_success is True for item in same) / len(same) for same in tied]
    return sum(rates) / len(rates) if rates else 0.0


def losses(items: Sequence[Item]) -> dict[str, Metric]:
    """Return the shares of answers that were cut off and that have no score, if there are any."""
    tests: Mapping[str, Test] = {
        "cut": lambda item: item.finish_reason == "length",
        "unscored": lambda item: not item.score.is_scored,
    }
    return {name: share(items, test) for name, test in tests.items() if any(map(test, items))}


def by_prompt(items: Iterable[Item]) -> dict[int, list[Item]]:
    """Return the answers to each prompt, by index."""
    groups: defaultdict[int, list[Item]] = defaultdict(list)
    for item in items:
        groups[item.index].append(item)
    return dict(groups)


def by_task(items: Iterable[Item]) -> dict[str, list[Item]]:
    """Return the answers by the `metadata["task"]` of their prompts; nothing for a single task."""
    groups: defaultdict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[str(item.prompt.metadata.get("task", "other"))].append(item)
    return {task: groups[task] for task in sorted(groups)} if len(groups) > 1 else {}


def _knows_success(item: Item) -> bool:
    return item.is_success is not None
