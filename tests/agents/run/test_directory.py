"""The run directory: complete files only, and checkpoints that count once they are whole."""

from __future__ import annotations

import os
from collections.abc import Callable
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


def save(run: RunDirectory, iteration: int, *, keep: int = 2, best: int | None = None) -> Path:
    with run.new_checkpoint(iteration, keep=keep, best=best) as folder:
        (folder / "policy").mkdir()
        (folder / "policy" / "weights").write_text(str(iteration))
        (folder / STATE_FILE).write_text("{}")
    return run.checkpoint_path(iteration)


def half_written(folder: Path) -> None:
    (folder / STATE_FILE).write_text("{}")
    (folder / STATE_FILE / "policy").mkdir()


def names(run: RunDirectory) -> list[str]:
    return sorted(path.name for path in (run.path / "checkpoints").iterdir())


def test_the_latest_checkpoint_is_the_newest_whole_one(run: RunDirectory) -> None:
    assert run.latest_checkpoint() is None
    save(run, 9)
    ten = save(run, 10)
    with pytest.raises(NotADirectoryError), run.new_checkpoint(11, keep=1) as folder:
        half_written(folder)
    assert run.latest_checkpoint() == ten
    assert names(run) == ["iteration-0000009", "iteration-0000010"]  # nothing of the one half done
    assert (ten / "policy" / "weights").read_text() == "10"
    save(run, 9_999_999)
    save(run, 10_000_000)
    assert [path.name for path in run.checkpoints()] == ["iteration-9999999", "iteration-10000000"]


def test_only_the_last_checkpoints_and_the_best_stay(run: RunDirectory) -> None:
    for iteration in range(5):
        save(run, iteration, keep=2, best=min(iteration, 1))
    assert names(run) == [f"iteration-000000{i}" for i in (1, 3, 4)]
    save(run, 5, keep=2, best=5)
    assert names(run) == [f"iteration-000000{i}" for i in (4, 5)]


def test_a_checkpoint_that_is_written_again_replaces_the_first(run: RunDirectory) -> None:
    first = save(run, 3)
    (first / "stale").write_text("")
    again = save(run, 3)
    assert again == first
    assert sorted(p.name for p in again.iterdir()) == ["manifest.json", "policy", STATE_FILE]


def test_what_a_killed_process_left_half_written_goes(run: RunDirectory) -> None:
    save(run, 1)
    for partial in (run.path / ".partial-base", run.path / "checkpoints" / ".partial-iteration-2"):
        partial.mkdir()
        (partial / "weights").write_text("half")
    run.prepare()
    assert not list(run.path.rglob(".partial-*"))
    assert names(run) == ["iteration-0000001"]


def change_a_byte(path: Path) -> None:
    path.write_bytes(b"X" + path.read_bytes()[1:])


DAMAGES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "cut": ("policy/weights", lambda p: os.truncate(p, 0), "policy/weights has 0 bytes instead"),
    "changed": ("policy/weights", change_a_byte, "policy/weights has other contents"),
    "lost": ("policy/weights", Path.unlink, "policy/weights is missing"),
    "lost state": (STATE_FILE, Path.unlink, "state.json is missing"),
    "lost manifest": ("manifest.json", Path.unlink, "manifest.json is missing"),
    "cut manifest": ("manifest.json", lambda p: os.truncate(p, 9), "manifest.json cannot be read"),
    "another manifest": (
        "manifest.json", lambda p: write_atomically(p, "[1]"), "manifest.json cannot be read",
    ),
    "a folder for a file": (
        "policy/weights", lambda p: (p.unlink(), p.mkdir())[1], "policy/weights",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_left_out_and_said(run: RunDirectory, damage: str) -> None:
    name, harm, said = DAMAGES[damage]
    whole = save(run, 1)
    harm(save(run, 2) / name)
    with pytest.warns(UserWarning, match=rf"iteration-0000002 is damaged and left out: {said}"):
        assert run.latest_checkpoint() == whole
    run.set_aside_after(whole)
    assert names(run) == ["aside-iteration-0000002", "iteration-0000001"]
    save(run, 2, keep=1)  # what is aside counts as none of those that stay
    assert names(run) == ["aside-iteration-0000002", "iteration-0000002"]
    harm(run.checkpoint_path(2) / name)
    with pytest.warns(match="damaged"), pytest.raises(ConfigError, match="no checkpoint that is"):
        run.latest_checkpoint()


def test_damage_to_what_all_checkpoints_need_is_an_error(run: RunDirectory) -> None:
    save(run, 1)
    with run.new_part("base") as folder:
        (folder / "weights").write_text("base")
    assert run.latest_checkpoint() is not None
    change_a_byte(run.path / "base" / "weights")
    with pytest.raises(ConfigError, match="base is damaged, and every checkpoint of the run needs"):
        run.latest_checkpoint()


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
    os.truncate(run.metrics_path, size + 5)  # shorter than a checkpoint remembers
    run.truncate_metrics(size + 100)
    assert run.read_metrics() == [{"iteration": 1, "text": "\u2028"}]


def test_a_metric_that_is_not_finite_is_null(run: RunDirectory) -> None:
    log = MetricsLog(run)
    log.write("ppo", 1, {"a": 1.5, "b": float("nan"), "c": float("-inf")})
    log.close()
    wanted = {"phase": "ppo", "iteration": 1, "a": 1.5, "b": None, "c": None}
    assert run.read_metrics() == [wanted]


def test_half_a_character_does_not_cost_the_rollouts(run: RunDirectory) -> None:
    run.write_rollouts("iteration-0000001", [{"reason": "a\ud800b 漢"}])
    written = (run.path / "rollouts" / "iteration-0000001.jsonl").read_text(encoding="utf-8")
    assert written == '{"reason": "a?b 漢"}\n'


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
