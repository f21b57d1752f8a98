"""What a run came to, in the words and units that a reader expects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textgym.items import Metric
from textgym_agents.reports.reading import Row, Run, read_run
from textgym_agents.reports.summary import (
    before_and_after,
    differences,
    facts_of,
    headlines,
    is_share,
    label_of,
    phase_times,
    suites_table,
    title_of,
)

MakeRun = Callable[..., Path]


def run_of(
    rows: list[Row], family: Any = "lm", config: dict[str, Any] | None = None, **fields: Any
) -> Run:
    return Run(Path("x"), family, config or {}, {}, rows, [], fields.pop("suites", {}))


@pytest.mark.parametrize(
    ("family", "config", "title"),
    [
        ("lm", {"policy": {"model": "tiny"}}, "PPO on tiny"),
        (
            "lm",
            {"policy": {"model": "m"}, "ppo": {"estimator": {"kind": "dr_grpo"}}},
            "Dr. GRPO on m",
        ),
        ("lm", {"ppo": {"estimator": {"kind": "newer"}}}, "newer on a model"),
        ("lm", {"ppo": 3, "policy": []}, "PPO on a model"),
        ("agent", {"agent": "sb3:dqn", "env": "CartPole-v1"}, "sb3:dqn on CartPole-v1"),
        ("dpo", {"policy": {"model": "m"}}, "DPO on m"),
    ],
)
def test_the_title_says_who_learnt_what(family: str, config: dict[str, Any], title: str) -> None:
    assert title_of(run_of([], family, config)) == title


def test_the_first_and_the_last_evaluation_are_compared(tmp_path: Path, make_run: MakeRun) -> None:
    found = {row["label"]: row for row in before_and_after(read_run(make_run(tmp_path / "run")))}
    success = found["success"]
    assert (success["share"], success["variant"]) == (True, "greedy")
    assert (success["first"]["iteration"], success["first"]["value"]) == (0, 0.25)
    assert (success["last"]["iteration"], success["last"]["value"]) == (4, 0.75)
    assert success["last"]["low"] < 0.75 < success["last"]["high"]
    assert set(found) == {"success", "reward", "not scored"}


def test_tasks_are_told_by_success_or_else_by_reward() -> None:
    row = {
        "phase": "evaluation", "iteration": 0,
        "evaluation/sampled/code": 0.5, "evaluation/sampled_reward/code": 0.5,
        "evaluation/sampled/chat": None, "evaluation/sampled_reward/chat": 3.5,
    }  # fmt: skip
    found = [(each["label"], each["share"]) for each in before_and_after(run_of([row]))]
    assert found == [("code", True), ("reward/chat", False)]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("evaluation/greedy", ("success", "greedy")),
        ("evaluation/sampled_reward", ("reward", "sampled")),
        ("evaluation/share_greedy", ("share of the optimum", "greedy")),
        ("evaluation/exact_sampled", ("exact return", "sampled")),
        ("evaluation/sampled/a/b", ("a/b", "sampled")),
        ("evaluation/mean_token_accuracy", ("mean token accuracy", "")),
        ("evaluation/greedyness", ("greedyness", "")),
    ],
)
def test_metrics_have_names_for_people(name: str, wanted: tuple[str, str]) -> None:
    assert label_of(name) == wanted


def test_shares_are_known_by_their_names() -> None:
    shares = ["evaluation/greedy", "rollout/success", "rollout/cut_share", "evaluation/greedy/code"]
    assert all(map(is_share, shares))
    assert not any(map(is_share, ["evaluation/greedy_reward", "ppo/entropy", "rollout/reward"]))


@pytest.mark.parametrize(
    ("family", "rows", "labels"),
    [
        ("agent", [{"evaluation/reward": 1.0}, {"evaluation/reward": None}], ["return"]),
        ("sft", [{"sft/loss": 2.0}], ["loss, nats per token"]),
        ("dpo", [{"evaluation/rewards/margins": 2.0}], ["held-out margin"]),
        ("lm", [], []),
    ],
)
def test_every_kind_of_run_has_headlines(family: str, rows: list[Row], labels: list[str]) -> None:
    run = run_of(
        [{"phase": "evaluation", "iteration": i, **row} for i, row in enumerate(rows)], family
    )
    assert [each["label"] for each in headlines(run)] == labels


def test_times_add_up(tmp_path: Path, make_run: MakeRun) -> None:
    times = dict(phase_times(read_run(make_run(tmp_path / "run"))))
    assert times == {"generation": 4.0, "rest of the rollout": 2.0, "update": 8.0}


def test_phases_that_run_side_by_side_leave_no_rest() -> None:
    row = {"phase": "ppo", "iteration": 1, "time/generation_seconds": 3.0,
           "time/environment_seconds": 3.0, "time/rollout_seconds": 4.0}  # fmt: skip
    times = dict(phase_times(run_of([row])))
    assert times == {"generation": 3.0, "environment and rewards": 3.0}


def test_suites_are_side_by_side_by_checkpoint() -> None:
    nan = float("nan")
    first = {"gsm8k": {"success": Metric(0.5, 0.4, 0.6, 10), "reward": Metric(nan, nan, nan, 0)}}
    second = {"gsm8k": {"success": Metric(0.7, 0.6, 0.8, 10)}}
    table = suites_table(run_of([], suites={"a": first, "b": second}))
    assert table is not None
    success, reward = table["rows"]
    assert [figure["value"] for figure in success["figures"]] == [0.5, 0.7]
    assert (success["share"], reward["share"], reward["figures"]) == (True, False, [None, None])
    assert suites_table(run_of([])) is None


def test_only_fields_that_differ_are_named() -> None:
    a = run_of([], config={"seed": 0, "ppo": {"gamma": 1.0, "clip": {}}})
    b = run_of([], config={"seed": 0, "ppo": {"gamma": 0.9, "clip": {}}, "new": None})
    assert differences([a, b]) == [
        {"field": "ppo.gamma", "values": ["1.0", "0.9"]},
        {"field": "new", "values": ["", "null"]},
    ]


def test_facts_of_a_run_without_any_are_few() -> None:
    assert facts_of(run_of([])) == [("iterations", "0")]
