"""Curves have the intervals that textbooks give them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from textgym_agents.reports.curves import (
    Curve,
    curves_of,
    interval,
    mean_curve,
    panels_of,
    repetitions,
)
from textgym_agents.reports.reading import Run, read_run

MakeRun = Callable[..., Path]


def test_a_mean_has_its_standard_errors(tmp_path: Path, make_run: MakeRun) -> None:
    curve = curves_of(read_run(make_run(tmp_path / "run")))["rollout/reward"]
    assert curve.low is not None
    assert curve.y[0] == 0.1
    assert curve.y[0] - curve.low[0] == pytest.approx(stats.norm.ppf(0.975) * 0.5 / 10)


def test_samples_of_a_prompt_count_as_one(tmp_path: Path, make_run: MakeRun) -> None:
    path = make_run(tmp_path / "run")
    config = yaml.safe_load((path / "config.yaml").read_text())
    alone = curves_of(read_run(path))["rollout/reward"]
    (path / "config.yaml").write_text(
        yaml.safe_dump({**config, "rollout": {"samples_per_prompt": 4}})
    )
    grouped = curves_of(read_run(path))["rollout/reward"]
    assert alone.high is not None
    assert grouped.high is not None
    assert grouped.high[0] - 0.1 == pytest.approx(2 * (alone.high[0] - 0.1))


def test_a_share_has_wilsons_interval() -> None:
    row = {
        "evaluation/greedy": 0.75,
        "evaluation/num_episodes": 104.0,
        "evaluation/greedy_failed": 4.0,
    }
    wanted = stats.binomtest(75, 100).proportion_ci(method="wilson")
    assert interval("evaluation/greedy", row) == pytest.approx((wanted.low, wanted.high))
    certain = interval("evaluation/greedy", {**row, "evaluation/greedy": 1.0})
    assert certain is not None
    assert certain[1] == 1.0


@pytest.mark.parametrize(
    "row",
    [
        {"evaluation/greedy": 0.75},
        {"evaluation/greedy": None, "evaluation/num_episodes": 100.0},
        {"evaluation/greedy": 0.75, "evaluation/num_episodes": 0.0},
        {"rollout/reward": 0.75, "rollout/num_scored": 3.0},
    ],
)
def test_there_is_no_interval_where_the_row_does_not_say(row: dict[str, Any]) -> None:
    assert all(interval(name, row) is None for name in row)


def test_runs_that_differ_by_their_seed_are_repetitions(tmp_path: Path, make_run: MakeRun) -> None:
    runs = [read_run(make_run(tmp_path / f"run{i}", seed=i)) for i in range(3)]
    other = read_run(make_run(tmp_path / "other", iterations=2))
    assert repetitions([runs[0], other, *runs[1:]]) == [[0, 2, 3]]


def test_a_mean_over_runs_has_students_interval() -> None:
    values = np.array([[1.0, 2.0, 4.0], [2.0, 2.5, 3.0], [4.0, 0.0, 1.0]])
    mean = mean_curve([Curve([1.0, 2.0, 3.0], list(row)) for row in values])
    assert mean is not None
    assert mean.low is not None
    assert mean.y == pytest.approx(values.mean(axis=0).tolist())
    low, _ = stats.t.interval(0.95, 2, values.mean(axis=0), stats.sem(values))
    assert mean.low == pytest.approx(low.tolist(), rel=1e-3)


def test_runs_that_report_at_other_steps_meet_in_between() -> None:
    mean = mean_curve([Curve([0.0, 10.0], [0.0, 10.0]), Curve([5.0, 15.0], [5.0, None])])
    assert mean is not None
    assert (mean.x, mean.y) == ([5.0], [5.0])
    assert mean_curve([Curve([0.0], [1.0]), Curve([5.0], [1.0])]) is None
    assert mean_curve([Curve([0.0], [None]), Curve([0.0], [1.0])]) is None


def test_what_says_most_comes_first(tmp_path: Path, make_run: MakeRun) -> None:
    run = read_run(make_run(tmp_path / "run"))
    panels = panels_of([run], curves_of(run))
    assert [panel["title"] for panel in panels if panel["main"]][:2] == [
        "held-out success",
        "reward",
    ]
    shown = [key for panel in panels for key, _ in panel["series"]]
    assert {*curves_of(run)} <= {*shown}


def agent_run(rows: list[dict[str, Any]], family: Any) -> Run:
    return Run(Path("x"), family, {}, {}, rows, [], {})


@pytest.mark.parametrize(
    ("family", "name", "title"),
    [
        ("agent", "evaluation/reward", "return"),
        ("sft", "evaluation/loss", "loss (nats per token)"),
        ("dpo", "dpo/rewards/margins", "margin of the implicit reward"),
    ],
)
def test_every_kind_of_run_has_panels(family: str, name: str, title: str) -> None:
    run = agent_run([{"phase": "train", "iteration": 1, name: 1.0}], family)
    (panel,) = panels_of([run], curves_of(run))
    assert (panel["title"], panel["main"]) == (title, True)
