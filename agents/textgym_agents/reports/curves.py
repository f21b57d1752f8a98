"""The curves of runs: every metric over its iterations, with intervals where they can be told.

A mean over episodes has 1.96 standard errors, a share Wilson's interval. Over runs that differ by
their seed alone there is a mean with Student's 95 % interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textgym.item_statistics import wilson
from textgym_agents.reports.reading import Row, Run, number
from textgym_agents.run.panels import (
    AGENT_PANELS,
    PANELS,
    RETURN,
    TUNING_PANELS,
    Series,
    held_out_panel,
)

_Z = 1.959963984540054
_STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045,
)  # fmt: skip
"""Student's t, 97.5 %, for 1 to 29 degrees of freedom."""
_MOST_POINTS = 400
"""Of a mean over runs."""
_NOT_COMPARED = {
    "seed", "threads", "device", "report_to", "log_rollouts", "log_tokens", "keep_checkpoints",
}  # fmt: skip
"""Fields of a configuration in which repetitions of one run may differ."""


class Sampled(NamedTuple):
    """Where the spread of a metric stands."""

    total: str
    """How many episodes the metric is over."""
    left_out: str | None = None
    """How many of them had no score."""
    std: str | None = None
    """Their standard deviation; None for a share."""


SAMPLED = {
    "rollout/reward": Sampled("rollout/num_scored", std="rollout/reward_std"),
    "rollout/success": Sampled("rollout/num_scored"),
    "evaluation/reward": Sampled(
        "evaluation/num_episodes", "evaluation/num_unscored", "evaluation/reward_std"
    ),
    "evaluation/success": Sampled("evaluation/num_episodes", "evaluation/num_unscored"),
    **{
        f"evaluation/{name}{suffix}": Sampled(
            "evaluation/num_episodes", f"evaluation/{name}_failed", std
        )
        for name in ("greedy", "sampled")
        for suffix, std in (("", None), ("_reward", f"evaluation/{name}_reward_std"))
    },
}


class Curve(NamedTuple):
    """A metric of a run; y, low and high are None where it was not finite or not known."""

    x: list[float]
    y: list[float | None]
    low: list[float | None] | None = None
    high: list[float | None] | None = None

    def record(self) -> dict[str, Any]:
        """Return it for the page."""
        return {k: v for k, v in self._asdict().items() if v is not None}


def curves_of(run: Run) -> dict[str, Curve]:
    """Return the curves of a run by metric."""
    points: dict[str, list[Row]] = {}
    for row in run.rows:
        for name in row:
            if name not in ("phase", "iteration"):
                points.setdefault(name, []).append(row)
    group_size = _group_size(run)
    made = {name: _curve(name, rows, group_size) for name, rows in points.items()}
    return {name: curve for name, curve in made.items() if any(y is not None for y in curve.y)}


def _group_size(run: Run) -> float:
    rollout = run.config.get("rollout")
    size = number(rollout.get("samples_per_prompt")) if isinstance(rollout, dict) else None
    return max(1.0, size or 1.0)


def _curve(name: str, rows: Sequence[Row], group_size: float) -> Curve:
    x = [float(row["iteration"]) for row in rows]
    y = [number(row[name]) for row in rows]
    if name not in SAMPLED:
        return Curve(x, y)
    # Samples of one prompt are not independent: they count as one, which is on the safe side.
    size = group_size if name.startswith("rollout/") else 1.0
    bounds = [interval(name, row, group_size=size) for row in rows]
    if all(each is None for each in bounds):
        return Curve(x, y)
    low, high = zip(*(each or (None, None) for each in bounds), strict=True)
    return Curve(x, y, list(low), list(high))


def interval(name: str, row: Row, *, group_size: float = 1.0) -> tuple[float, float] | None:
    """Return the 95 % interval of a metric, None where the row does not say enough."""
    sampled, value = SAMPLED.get(name), number(row.get(name))
    if sampled is None or value is None:
        return None
    count = number(row.get(sampled.total))
    if count is None:
        return None
    if sampled.left_out is not None:
        count -= number(row.get(sampled.left_out)) or 0.0
    count /= group_size
    if count < 1:
        return None
    if sampled.std is None:
        total = round(count)
        found = wilson(round(min(max(value, 0.0), 1.0) * total), total)
        return min(found.low, value), max(found.high, value)
    std = number(row.get(sampled.std))
    if std is None:
        return None
    half = _Z * std / math.sqrt(count)
    return value - half, value + half


def panels_of(runs: Sequence[Run], known: Iterable[str]) -> list[dict[str, Any]]:
    """Return what is drawn together: title, unit of x, and metrics with labels.

    The first panels say how good the policy is; the rest of the metrics follow, one a panel.
    """
    names = list(dict.fromkeys(known))
    families = dict.fromkeys(run.family for run in runs)
    main = [panel for family in families for panel in _main_panels(family, names)]
    shown = {key for _, series in main for key, _ in series}
    rest = [(name, ((name, ""),)) for name in sorted(names) if name not in shown]
    return [
        {"title": title, "series": [list(each) for each in series], "main": index < len(main)}
        for index, (title, series) in enumerate([*main, *rest])
        if any(key in names for key, _ in series)
    ]


def _main_panels(family: str, names: Sequence[str]) -> Iterator[tuple[str, Series]]:
    if family == "lm":
        yield held_out_panel(names)
        yield from PANELS
        yield from _language_model_panels(names)
    elif family == "agent":
        yield "return", RETURN
        yield "success", (("rollout/success", "training"), ("evaluation/success", "evaluation"))
        yield from AGENT_PANELS
    else:
        for key, title in TUNING_PANELS[family]:
            yield title, ((f"{family}/{key}", "training"), (f"evaluation/{key}", "held out"))


def _language_model_panels(names: Sequence[str]) -> Iterator[tuple[str, Series]]:
    yield "KL to the reference (nats per sequence)", (("kl/reference_nats_per_sequence", "k1"),)
    for title, prefix in (
        ("components of the reward", "rollout/parts/"),
        ("held-out success by task, sampled", "evaluation/sampled/"),
    ):
        found = [name for name in names if name.startswith(prefix)]
        if len(found) > 1:
            yield title, tuple((name, name.removeprefix(prefix)) for name in found)
    yield "cold start: loss (nats per token)", (("cold_start/loss", "demonstrations"),)


def repetitions(runs: Sequence[Run]) -> list[list[int]]:
    """Return the indices of runs that differ by their seed alone, where there are several."""
    groups: dict[str, list[int]] = {}
    for index, run in enumerate(runs):
        kept = {k: v for k, v in run.config.items() if k not in _NOT_COMPARED}
        groups.setdefault(repr(kept), []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def mean_curve(curves: Sequence[Curve]) -> Curve | None:
    """Return the mean of a metric over runs, with Student's 95 % interval.

    Runs that report at different steps are interpolated between theirs; only where all of them
    have been is there a mean. None where there is no such place.
    """
    finite = [_finite(curve) for curve in curves]
    if len(finite) < 2 or any(not len(x) for x, _ in finite):
        return None
    start, stop = max(x[0] for x, _ in finite), min(x[-1] for x, _ in finite)
    grid = np.unique(np.concatenate([x for x, _ in finite]))
    grid = grid[(grid >= start) & (grid <= stop)]
    if not len(grid):
        return None
    grid = grid[:: math.ceil(len(grid) / _MOST_POINTS)]
    values = np.stack([np.interp(grid, x, y) for x, y in finite])
    mean = values.mean(axis=0)
    degrees = len(values) - 1
    t = _STUDENT[degrees - 1] if degrees <= len(_STUDENT) else _Z
    half = t * values.std(axis=0, ddof=1) / math.sqrt(len(values))
    return Curve(grid.tolist(), mean.tolist(), (mean - half).tolist(), (mean + half).tolist())


def _finite(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    known = [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if y is not None]
    return np.array([x for x, _ in known]), np.array([y for _, y in known])
