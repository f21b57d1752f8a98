"""What is damaged is said and left out; what is whole is read."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textgym.errors import ConfigError
from textgym_agents.reports.reading import FileCache, read_rollouts, read_run, rollout_paths

MakeRun = Callable[..., Path]


def test_a_damaged_line_costs_itself(tmp_path: Path, make_run: MakeRun) -> None:
    path = make_run(tmp_path / "run")
    metrics = path / "metrics.jsonl"
    lines = metrics.read_text().splitlines()
    lines[1:2] = [
        '{"phase": "ppo", "iter',
        "[1]",
        '{"phase": "ppo"}',
        '{"phase": 1, "iteration": 2}',
    ]
    metrics.write_text("\n".join(lines) + '\n{"phase": "ppo", "iteration": 9')
    run = read_run(path)
    assert [row["iteration"] for row in run.phase("ppo")] == [2, 3, 4]
    assert [problem.partition(": ")[0] for problem in run.problems] == [
        *(f"metrics.jsonl:{number}" for number in (2, 3, 4, 5)), "metrics.jsonl",
    ]  # fmt: skip
    assert "cut short" in run.problems[-1]


def test_thousands_of_damaged_lines_are_not_all_said(tmp_path: Path, make_run: MakeRun) -> None:
    path = make_run(tmp_path / "run")
    (path / "metrics.jsonl").write_text("nonsense\n" * 5_000)
    run = read_run(path)
    assert run.rows == []
    assert len(run.problems) == 21
    assert run.problems[-1] == "and more"


@pytest.mark.parametrize("line", ["[" * 100_000, '{"a": ' * 50_000, "\x00", '"\\ud800"', "1e999"])
def test_hostile_lines_cost_themselves(tmp_path: Path, make_run: MakeRun, line: str) -> None:
    path = make_run(tmp_path / "run", iteration_0000001=[{"prompt": "a"}])
    (file,) = rollout_paths(path)
    file.write_text(line + "\n" + file.read_text())
    found = read_rollouts(file)
    assert found.records == [{"prompt": "a"}]
    assert len(found.problems) == 1


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, make_run: MakeRun) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        read_run(tmp_path / "missing")
    with pytest.raises(ConfigError, match=r"no config\.yaml$"):
        read_run(tmp_path)
    make_run(tmp_path / "inner")
    with pytest.raises(ConfigError, match=r"runs in it: .*inner"):
        read_run(tmp_path)


def test_a_run_without_metrics_or_rollouts_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("agent: q_learning\n")
    run = read_run(tmp_path)
    assert (run.family, run.rows, run.problems, rollout_paths(tmp_path)) == ("agent", [], [], [])


@pytest.mark.parametrize(
    ("config", "family"),
    [("seed: 0", "lm"), ("kind: sft", "sft"), ("kind: dpo", "dpo"), ("agent: ppo", "agent")],
)
def test_the_configuration_tells_who_learnt(tmp_path: Path, config: str, family: str) -> None:
    (tmp_path / "config.yaml").write_text(config)
    assert read_run(tmp_path).family == family


def test_suites_of_a_checkpoint_are_found_and_damage_is_said(
    tmp_path: Path, make_run: MakeRun
) -> None:
    path = make_run(tmp_path / "run")
    metric = {"success": {"value": 0.5, "low": 0.4, "high": 0.6, "count": 10}}
    for suite, text in (("gsm8k", json.dumps(metric)), ("broken", "{"), ("wrong", '{"a": 3}')):
        folder = path / "evaluation" / "iteration-0000004" / suite
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(text)
    run = read_run(path)
    assert list(run.suites["iteration-0000004"]) == ["gsm8k"]
    assert run.suites["iteration-0000004"]["gsm8k"]["success"].count == 10
    assert len(run.problems) == 2


def test_rollouts_are_in_the_order_of_the_run(tmp_path: Path, make_run: MakeRun) -> None:
    names = ("iteration_0000010", "evaluation_0000000", "iteration_0000002", "evaluation_0000010")
    path = make_run(tmp_path / "run", **{name: [{}] for name in names})
    found = [read_rollouts(file)[:2] for file in rollout_paths(path)]
    assert found == [("evaluation", 0), ("iteration", 2), ("evaluation", 10), ("iteration", 10)]


def test_a_file_is_read_again_only_when_it_changes(tmp_path: Path, make_run: MakeRun) -> None:
    path = make_run(tmp_path / "run", iteration_0000001=[{"prompt": "a"}])
    (file,), cache = rollout_paths(path), FileCache()
    first: Any = cache.read(file)
    assert cache.read(file) is first
    file.write_text('{"prompt": "longer than before"}\n')
    assert cache.read(file).records == [{"prompt": "longer than before"}]


def test_reports_do_not_load_torch() -> None:
    program = (
        "import sys, textgym_agents.reports.writing, textgym_agents.reports.live; "
        "print(*{'torch', 'transformers', 'matplotlib', 'textual'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
