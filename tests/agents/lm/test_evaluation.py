"""What an evaluation says, with rewards that know success and with rewards that do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from textgym.cli.main import main

QUICK = [
    "--set", "iterations=1", "--set", "rollout.num_episodes=8", "--set", "rollout.num_envs=8",
    "--set", "rollout.max_new_tokens=2", "--set", "rollout.max_length=32",
    "--set", "evaluation.num_episodes=3", "--set", "env.kwargs.score_length_cut=true",
]  # fmt: skip
SUCCESS = ("evaluation/greedy", "evaluation/sampled")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "reward.py").write_text("def half(sample):\n    return 0.5\n")


def rows_of_table(text: str) -> dict[str, list[str]]:
    """Return the rows of the printed table by label."""
    cells = [line.split("│")[1:-1] for line in text.splitlines() if line.startswith("│")]
    return {label.strip(): [value.strip() for value in values] for label, *values in cells}


def train(
    capsys: pytest.CaptureFixture[str], reward: str, *more: str
) -> tuple[dict[str, list[str]], Any]:
    """Return the last table of a short run, and the metrics of its phases."""
    arguments = ["train", "--run", "run", "--preset", "seed", "--reward", reward, *QUICK, *more]
    assert main(arguments) == 0
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    return rows_of_table(capsys.readouterr().out), {row["phase"]: row for row in rows}


def test_a_function_is_reported_by_its_rewards(capsys: pytest.CaptureFixture[str]) -> None:
    table, metrics = train(capsys, "reward.py:half")
    assert "greedy" not in table
    assert "sampled" not in table
    assert table["reward, greedy"] == table["reward, sampled"] == ["0.50", "0.50"]
    assert table["not scored"] == ["0", "0"]
    assert [metrics["evaluation"][key] for key in SUCCESS] == [None, None]
    assert metrics["evaluation"]["evaluation/greedy_reward"] == 0.5
    assert metrics["ppo"]["rollout/success"] is None
    assert metrics["ppo"]["rollout/reward"] == 0.5
    assert main(["evaluate", "run"]) == 0
    table = rows_of_table(capsys.readouterr().out)
    assert "greedy" not in table
    assert table["reward, greedy"] == ["0.50"]


def test_a_reward_with_a_best_value_is_reported_by_success(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table, metrics = train(capsys, "math")
    assert table["greedy"] == ["0.0%", "0.0%"]
    assert table["reward, greedy"] == ["0.00", "0.00"]
    assert [metrics["evaluation"][key] for key in SUCCESS] == [0.0, 0.0]


MIXTURE = """env.prompts=[{source: arithmetic, config: {below: 9}}, {source: tiny_safety},
  {source: prompts.jsonl, weight: 2}]"""


def test_several_tasks_are_reported_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"question": f"q{i}", "target": str(i)} for i in range(40)]
    Path("prompts.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    more = ["--set", MIXTURE, "--set", "evaluation.num_episodes=8"]
    table, metrics = train(capsys, "math", *more)
    assert table["arithmetic, greedy"] == table["other, sampled"] == ["0.0%", "0.0%"]
    row = metrics["evaluation"]
    tasks = {key.split("/", 2)[2] for key in row if key.startswith("evaluation/greedy/")}
    assert {"arithmetic", "other"} < tasks <= {
        "arithmetic", "other", "tiny_safety/harmful", "tiny_safety/harmless",
    }  # fmt: skip
    for kind in ("greedy", "sampled", "greedy_reward", "sampled_reward"):
        assert all(row[f"evaluation/{kind}/{task}"] == 0.0 for task in tasks)


def test_tasks_are_reported_by_their_rewards_where_no_success_is_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    prompts = "env.prompts=[{source: arithmetic}, {source: tiny_code}]"
    table, _ = train(capsys, "reward.py:half", "--set", prompts)
    assert table["tiny_code, reward, greedy"] == table["arithmetic, reward, sampled"]
    assert table["tiny_code, reward, greedy"] == ["0.50", "0.50"]
    assert "tiny_code, greedy" not in table
