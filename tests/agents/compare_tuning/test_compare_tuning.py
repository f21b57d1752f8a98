"""A comparison of tuning modes: its runs, what is measured of them, and going on after a stop."""

from __future__ import annotations

import argparse
import csv
import io
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textgym.config import load_config, merge
from textgym.errors import ConfigError
from textgym_agents.compare_tuning import job as job_process
from textgym_agents.compare_tuning import run as runs
from textgym_agents.compare_tuning.command import compare_tuning
from textgym_agents.compare_tuning.jobs import Job, TuningResult, make_jobs, read_result
from textgym_agents.compare_tuning.report import as_csv, as_markdown, write_report
from textgym_agents.compare_tuning.run import JOB_FILE, run_jobs
from textgym_agents.lm.collection import Collector
from textgym_agents.lm.config import FullMode, LastLayersMode, LoraMode, TrainConfig
from textgym_agents.lm.presets import ARITHMETIC
from textgym_agents.lm.transcript import Rollout
from textgym_agents.run.directory import write_atomically

SMALL = {
    "iterations": 2,
    "cold_start": {"steps": 2, "batch_size": 8},
    "rollout": {"num_episodes": 8, "num_envs": 8},
    "ppo": {"batch_size": 8},
    "evaluation": {"num_episodes": 4, "every": 50},
}


def config() -> TrainConfig:
    return load_config(TrainConfig, preset=merge(ARITHMETIC, SMALL))


def do_here(job: Job) -> int:
    """Do what the job's own process does, in this one."""
    job.path.mkdir(parents=True, exist_ok=True)
    file = job.path / JOB_FILE
    write_atomically(file, job.model_dump_json())
    return job_process.main(file)


def test_every_mode_begins_with_the_same_policy(tmp_path: Path) -> None:
    start, jobs = make_jobs(config(), ["full", "last_k", "lora"], tmp_path)
    assert start is not None
    assert start.config.policy.mode == FullMode()
    modes = [job.config.policy.mode for job in jobs]
    assert modes == [FullMode(), LastLayersMode(share=0.1), LoraMode()]
    rates = [job.config.ppo.optimizer.learning_rate for job in jobs]
    assert rates == pytest.approx([4e-4, 4e-4, 4e-3])
    for job in jobs:
        assert job.config.cold_start is None
        assert job.config.policy.model == str(start.policy_path)
        assert job.config.env == start.config.env


def test_without_a_cold_start_there_is_none(tmp_path: Path) -> None:
    plain = config().model_copy(update={"cold_start": None})
    start, [job] = make_jobs(plain, ["lora"], tmp_path)
    assert start is None
    assert job.config.policy.model == "tiny"


def test_an_unknown_mode_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no mode named 'lorra'\. Did you mean 'lora'\?"):
        make_jobs(config(), ["lorra"], tmp_path)


@pytest.mark.parametrize("modes", [[], ["full", "lora", "full"]])
def test_modes_are_given_once(modes: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"--modes {','.join(modes)}: give each of full, "):
        make_jobs(config(), modes, tmp_path)


def forbid(*_: Any, **__: Any) -> None:
    raise AssertionError("nothing is left to do")


def test_runs_are_measured_once_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, jobs = make_jobs(config(), ["last_k", "lora"], tmp_path)
    assert start is not None
    assert [do_here(job) for job in (start, *jobs)] == [0, 0, 0]
    monkeypatch.setattr(subprocess, "Popen", forbid)
    told: list[str] = []
    results = run_jobs(start, jobs, on_result=lambda job, _: told.append(job.name))
    assert told == ["start", "last_k", "lora"]
    top, lora = results
    # the last of three layers: 4 attention matrices, 3 biases, 3 of the MLP, 2 norms; final norm
    layer = 96 * 96 * 2 + 96 * 48 * 2 + 96 + 48 * 2 + 3 * 96 * 384 + 2 * 96
    assert top.num_trainable == layer + 96
    ends = [(96, 96), (96, 48), (96, 48), (96, 96), (96, 384), (96, 384), (384, 96)]
    assert lora.num_trainable == 3 * 16 * sum(a + b for a, b in ends)
    assert lora.tuned_bytes == 4 * (lora.num_trainable + 97)
    for result in results:
        assert result.status == "done"
        assert [iteration for iteration, _ in result.rewards] == [1, 2]
        assert result.peak_bytes >= result.start_bytes > 0
        assert result.rollout_seconds > 0
        assert result.update_seconds > 0
        assert set(result.before) == set(result.after) != set()
    paths = write_report(tmp_path, dict(zip(("last_k", "lora"), results, strict=True)))
    assert [p.name for p in paths] == ["results.md", "results.csv", "rewards.png"]
    assert all(p.stat().st_size > 0 for p in paths)
    rows = list(csv.DictReader(io.StringIO(paths[1].read_text())))
    assert [int(row["num_trainable"]) for row in rows] == [r.num_trainable for r in results]
    assert [float(row["after"]) for row in rows] == [r.after["evaluation/sampled"] for r in results]


def test_another_configuration_is_done_again(tmp_path: Path) -> None:
    _, [job] = make_jobs(config(), ["lora"], tmp_path)
    result = TuningResult(config=job.config, status="done")
    job.path.mkdir(parents=True)
    write_atomically(job.path / "result.json", result.model_dump_json())
    assert read_result(job) == result
    other = job.model_copy(update={"config": job.config.model_copy(update={"seed": 1})})
    assert read_result(other) is None


def test_a_mode_that_cannot_run_here_says_why(tmp_path: Path) -> None:
    plain = config().model_copy(update={"cold_start": None})
    _, [job] = make_jobs(plain, ["qlora"], tmp_path)
    assert do_here(job) == 1
    result = read_result(job)
    assert result is not None
    assert result.status == "failed"
    assert "policy.mode: qlora" in result.error
    table = as_markdown({"qlora": result})
    assert "| qlora | failed |" in table
    assert "- qlora: policy.mode: qlora" in table
    [row] = csv.DictReader(io.StringIO(as_csv({"qlora": result})))
    assert (row["status"], row["before"]) == ("failed", "")


@pytest.fixture
def end_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], None]:
    """Let every process write a line and end with a code."""

    def stand_in(code: int, text: str) -> None:
        def end(job: Job) -> int:
            (job.path / runs.LOG_FILE).write_text(text)
            return code

        monkeypatch.setattr(runs, "_run_process", end)

    return stand_in


def test_a_process_that_dies_is_a_failed_run(
    tmp_path: Path, end_with: Callable[[int, str], None]
) -> None:
    end_with(-9, "warming up\nout of memory\n")
    _, jobs = make_jobs(config().model_copy(update={"cold_start": None}), ["lora"], tmp_path)
    [result] = run_jobs(None, jobs, on_result=lambda *_: None)
    assert result.error == "the process ended with code -9: out of memory"


def test_a_failed_cold_start_ends_the_comparison(
    tmp_path: Path, end_with: Callable[[int, str], None]
) -> None:
    end_with(1, "")
    with pytest.raises(ConfigError, match="the cold start failed: the process ended with code 1"):
        run_jobs(*make_jobs(config(), ["lora"], tmp_path), on_result=lambda *_: None)


def test_a_stopped_process_stops_the_comparison(
    tmp_path: Path, end_with: Callable[[int, str], None]
) -> None:
    end_with(runs.STOPPED, "")
    with pytest.raises(KeyboardInterrupt):
        run_jobs(*make_jobs(config(), ["lora"], tmp_path), on_result=lambda *_: None)


@pytest.mark.slow
def test_a_process_of_its_own_does_the_run(tmp_path: Path) -> None:
    plain = config().model_copy(update={"cold_start": None, "iterations": 1})
    _, jobs = make_jobs(plain, ["lora"], tmp_path)
    [result] = run_jobs(None, jobs, on_result=lambda *_: None)
    assert result.error == ""
    assert result.training_bytes > 0


def test_a_stopped_run_goes_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = config().model_copy(update={"cold_start": None, "iterations": 3})
    _, [job, whole] = make_jobs(plain, ["lora", "full"], tmp_path)
    whole = whole.model_copy(update={"config": job.config})
    draw = Collector.collect

    def stop_in_the_second(self: Collector, iteration: int) -> Rollout:
        if iteration == 1:
            signal.raise_signal(signal.SIGINT)
        return draw(self, iteration)

    monkeypatch.setattr(Collector, "collect", stop_in_the_second)
    assert do_here(job) == runs.STOPPED
    assert read_result(job) is None
    monkeypatch.undo()
    assert [do_here(job), do_here(whole)] == [0, 0]
    stopped, straight = read_result(job), read_result(whole)
    assert stopped is not None
    assert straight is not None
    assert [iteration for iteration, _ in stopped.rewards] == [1, 2, 3]
    assert (stopped.rewards, stopped.after) == (straight.rewards, straight.after)


def test_the_command_reports_what_was_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "_run_process", do_here)
    parser = argparse.ArgumentParser()
    compare_tuning.configure(parser)
    settings = ("iterations=1", "cold_start=null", "rollout.num_episodes=8", "ppo.batch_size=8",
                "evaluation.num_episodes=4")  # fmt: skip
    given = ["--modes", "lora,qlora", "--out", str(tmp_path)]
    args = parser.parse_args([*given, *(x for s in settings for x in ("--set", s))])
    assert compare_tuning.run(args) == 1
    said = capsys.readouterr().out
    assert "lora: done" in said
    assert "qlora: failed: policy.mode: qlora" in said
    assert {path.name for path in tmp_path.iterdir()} == {
        "modes", "results.md", "results.csv", "rewards.png",
    }  # fmt: skip
