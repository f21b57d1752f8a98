"""The run directory: complete files only, and checkpoints that count once they are whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from textgym.errors import ConfigError
from textgym_agents.run.directory import STATE_FILE, RunDirectory, write_atomically
from textgym_agents.run.metrics import MetricsLog


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "run")
    run.prepare()
    return run


def save(run: RunDirectory, iteration: int, *, keep: int = 2) -> Path:
    folder = run.begin_checkpoint(iteration)
    (folder / "policy").mkdir()
    (folder / "policy" / "weights").write_text(str(iteration))
    (folder / STATE_FILE).write_text("{}")
    return run.commit_checkpoint(folder, iteration, keep=keep)


def test_the_latest_checkpoint_is_the_newest_whole_one(run: RunDirectory) -> None:
    assert run.latest_checkpoint() is None
    save(run, 9)
    ten = save(run, 10)
    run.begin_checkpoint(11)  # never committed
    assert run.latest_checkpoint() == ten
    assert ten.name == "iteration-0000010"
    assert (ten / "policy" / "weights").read_text() == "10"
    save(run, 9_999_999)
    save(run, 10_000_000)
    assert [path.name for path in run.checkpoints()] == ["iteration-9999999", "iteration-10000000"]


def test_only_the_last_checkpoints_stay(run: RunDirectory) -> None:
    for iteration in range(5):
        save(run, iteration, keep=2)
    assert [c.name for c in run.checkpoints()] == ["iteration-0000003", "iteration-0000004"]


def test_a_checkpoint_that_is_written_again_replaces_the_first(run: RunDirectory) -> None:
    save(run, 3)
    half = run.begin_checkpoint(3)
    (half / "stale").write_text("")
    assert run.latest_checkpoint() is not None
    again = save(run, 3)
    assert sorted(p.name for p in again.iterdir()) == ["policy", STATE_FILE]


def test_metrics_are_cut_where_a_checkpoint_remembers(run: RunDirectory) -> None:
    assert run.metrics_size() == 0
    assert run.read_metrics() == []
    run.truncate_metrics(0)
    run.append_metrics({"iteration": 1, "text": "\u2028"})
    size = run.metrics_size()
    run.append_metrics({"iteration": 2})
    with run.metrics_path.open("a") as file:
        file.write('{"iteration": 3, "ppo')  # killed in the middle
    run.truncate_metrics(size)
    run.append_metrics({"iteration": 2})
    assert run.read_metrics() == [{"iteration": 1, "text": "\u2028"}, {"iteration": 2}]


def test_a_metric_that_is_not_finite_is_null(run: RunDirectory) -> None:
    log = MetricsLog(run)
    log.write("ppo", 1, {"a": 1.5, "b": float("nan"), "c": float("-inf")})
    log.close()
    wanted = {"phase": "ppo", "iteration": 1, "a": 1.5, "b": None, "c": None}
    assert run.read_metrics() == [wanted]


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_atomically(path, "first")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800" * 3)
    assert path.read_text() == "first"
    write_atomically(path, "second")
    assert path.read_text() == "second"
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".partial"] == ["file.txt"]


def test_a_run_is_made_once_and_opened_only_if_it_is_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"new is not a run directory: it has no config\.yaml"):
        RunDirectory.open(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    run = RunDirectory.create(tmp_path / "new")
    assert not run.path.exists()
    run.prepare()
    run.write_text("config.yaml", "{}")
    RunDirectory.open(tmp_path / "new")
    with pytest.raises(ConfigError, match="holds a run already; continue it with --resume"):
        RunDirectory.create(tmp_path / "new")
