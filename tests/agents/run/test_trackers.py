"""Trackers get every metric and alarm, go on after a resume, and never cost a run."""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from textgym.cli.main import main
from textgym.errors import ConfigError
from textgym_agents.run.agent_run import AgentRunConfig, train_agent
from textgym_agents.run.directory import RunDirectory
from textgym_agents.run.metrics import MetricsLog
from textgym_agents.run.trackers import MissingTrackerError, TrackerName, check_trackers

NAMES: tuple[TrackerName, ...] = ("wandb", "mlflow", "trackio")
CONFIG = AgentRunConfig(
    agent="q_learning", env="FrozenLake-v1", total_steps=300, evaluations=1, evaluation_episodes=1
)
Calls = list[tuple[Any, ...]]


class FakeRun:
    """A run of Weights & Biases or Trackio."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    def define_metric(self, name: str, *, step_metric: str) -> None:
        self.calls.append(("define", name, step_metric))

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.calls.append(("log", dict(metrics), step))

    def alert(self, *, title: str, text: str, step: int | None = None) -> None:
        self.calls.append(("alert", text, step))

    def finish(self) -> None:
        self.calls.append(("finish",))


class FakeMlflow:
    """A client of MLflow."""

    calls: Calls

    def __getattr__(self, name: str) -> Any:
        def record(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, *args, *kwargs.values()))
            return SimpleNamespace(info=SimpleNamespace(run_id="run-1"), experiment_id="7")

        return record


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Calls]:
    """Put modules that record what they are asked in the place of the trackers."""
    calls: dict[str, Calls] = {name: [] for name in NAMES}
    for name in ("wandb", "trackio"):
        module: Any = ModuleType(name)

        def init(*, name: str = name, _of: str = name, **settings: Any) -> FakeRun:
            calls[_of].append(("init", name, settings))
            return FakeRun(calls[_of])

        module.init = init
        monkeypatch.setitem(sys.modules, name, module)
    mlflow: Any = ModuleType("mlflow")
    mlflow.MlflowClient = type("Client", (FakeMlflow,), {"calls": calls["mlflow"]})
    mlflow.entities = SimpleNamespace(Metric=lambda *values: values)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    return calls


def log_of(path: Path, *, first_step: int = 0) -> MetricsLog:
    run = RunDirectory(path)
    run.prepare()
    return MetricsLog(run, first_step=first_step, report_to=NAMES, config=CONFIG)


def test_every_metric_and_alarm_is_reported(fakes: dict[str, Calls], tmp_path: Path) -> None:
    log = log_of(tmp_path / "name")
    log.write("ppo", 3, {"a/b": 1.5, "c": float("nan")})
    log.alarm(3, "the entropy is gone")
    log.close()
    assert json.loads((tmp_path / "name/metrics.jsonl").read_text().splitlines()[1]) == {
        "phase": "alarm", "iteration": 3, "text": "the entropy is gone"
    }  # fmt: skip
    wandb, trackio, mlflow = (fakes[name] for name in ("wandb", "trackio", "mlflow"))
    assert wandb[0][1] == "name"
    assert wandb[0][2]["project"] == "textgym"
    assert wandb[0][2]["config"]["env"] == "FrozenLake-v1"
    assert wandb[1:] == [
        ("define", "*", "iteration"),
        ("log", {"iteration": 3, "a/b": 1.5}, None),
        ("alert", "iteration 3: the entropy is gone", None),
        ("finish",),
    ]
    assert trackio[1:] == [
        ("log", {"a/b": 1.5}, 3), ("alert", "the entropy is gone", 3), ("finish",),
    ]  # fmt: skip
    assert ("create_run", "7", "name") in mlflow
    assert ("log_param", "run-1", "env", "FrozenLake-v1") in mlflow
    (batch,) = [call for call in mlflow if call[0] == "log_batch"]
    assert [(key, value, step) for key, value, _, step in batch[2]] == [("a/b", 1.5, 3)]
    assert mlflow[-2:] == [
        ("set_tag", "run-1", "alarm 3", "the entropy is gone"), ("set_terminated", "run-1"),
    ]  # fmt: skip


def test_a_resumed_run_goes_on_in_the_same_runs(fakes: dict[str, Calls], tmp_path: Path) -> None:
    log_of(tmp_path / "name").close()
    first = {name: calls[0] for name, calls in fakes.items()}
    for calls in fakes.values():
        calls.clear()
    log_of(tmp_path / "name", first_step=4).close()
    assert fakes["wandb"][0][2]["id"] == first["wandb"][2]["id"]
    assert fakes["wandb"][0][2]["resume"] == "allow"
    assert fakes["trackio"][0][1] == first["trackio"][1]
    assert fakes["mlflow"][0] == ("update_run", "run-1", "RUNNING")
    assert not [call for call in fakes["mlflow"] if call[0] == "create_run"]


def test_a_tracker_that_fails_costs_nothing_but_itself(
    fakes: dict[str, Calls], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log_of(tmp_path / "name")

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no route\nto host")

    with monkeypatch.context() as patched:
        patched.setattr(FakeRun, "log", fail)
        with pytest.warns(UserWarning, match="(wandb|trackio) failed and gets nothing more.*no ro"):
            log.write("ppo", 1, {"a": 1.0})
    log.write("ppo", 2, {"a": 2.0})
    log.close()
    assert [call[0] for call in fakes["mlflow"]].count("log_batch") == 2
    assert ("finish",) not in fakes["wandb"]
    assert len(RunDirectory(tmp_path / "name").read_metrics()) == 2


def test_a_tracker_that_lets_no_run_begin_is_an_error(
    fakes: dict[str, Calls], tmp_path: Path
) -> None:
    def refuse(**_: object) -> None:
        raise RuntimeError("no API key configured")

    sys.modules["trackio"].init = refuse  # type: ignore[attr-defined]  # a fake
    with pytest.raises(ConfigError, match="report_to: trackio cannot begin a run: no API key conf"):
        log_of(tmp_path / "name")
    assert fakes["wandb"][-1] == ("finish",)


def test_a_package_that_is_missing_is_named_and_leaves_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingTrackerError, match="Run: pip install mlflow-skinny"):
        check_trackers(["mlflow"])
    for command in (["--agent", "q_learning", "--env", "FrozenLake-v1"], ["--model", "tiny"]):
        assert main(["train", *command, "--report-to", "wandb,trackio"]) == 2
        said = capsys.readouterr().err
        assert "wandb needs the package 'wandb', which is not installed" in said
        assert said.count("error:") == 1
        assert not (tmp_path / "runs").exists()
    assert main(["train", "--report-to", "wand"]) == 2
    assert "'wandb', 'mlflow' or 'trackio'" in capsys.readouterr().err


def test_a_run_reports(fakes: dict[str, Calls], tmp_path: Path) -> None:
    train_agent(CONFIG.model_copy(update={"report_to": NAMES}), tmp_path / "run")
    rows = RunDirectory(tmp_path / "run").read_metrics()
    logged = [call[1] for call in fakes["wandb"] if call[0] == "log"]
    assert len(logged) == len(rows) > 1
    assert any("evaluation/reward" in metrics for metrics in logged)


REAL = """
import sys
from pathlib import Path
from textgym_agents.run.agent_run import AgentRunConfig
from textgym_agents.run.directory import RunDirectory
from textgym_agents.run.metrics import MetricsLog

run = RunDirectory(Path("run"))
run.prepare()
for first in (0, 3):
    config = AgentRunConfig(agent="ppo", env="CartPole-v1")
    log = MetricsLog(run, first_step=first, report_to=[sys.argv[1]], config=config)
    for step in range(first + 1, first + 3):
        log.write("ppo", step, {"ppo/entropy": 0.5 * step, "rollout/reward": float("nan")})
    log.alarm(first + 2, "too long")
    log.close()
"""


def report_to_the_real(name: str, folder: Path, **environment: str) -> None:
    """Report five numbers, and go on after a break, in a process of its own."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:textgym_agents", "-c", REAL, name],
        cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "failed and gets nothing more" not in done.stderr


def test_wandb_offline(tmp_path: Path) -> None:
    report_to_the_real("wandb", tmp_path, WANDB_MODE="offline")
    files = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2  # one id: `wandb sync` puts them together
    assert len({path.name for path in files}) == 1
    assert b"ppo/entropy" in files[0].read_bytes()


def test_mlflow_in_files(tmp_path: Path) -> None:
    report_to_the_real(
        "mlflow", tmp_path,
        MLFLOW_TRACKING_URI=(tmp_path / "mlruns").as_uri(), MLFLOW_ALLOW_FILE_STORE="true",
    )  # fmt: skip
    (metric,) = (tmp_path / "mlruns").glob("*/*/metrics/ppo/entropy")
    rows = [line.split() for line in metric.read_text().splitlines()]
    assert [(float(value), int(step)) for _, value, step in rows] == [
        (0.5, 1), (1.0, 2), (2.0, 4), (2.5, 5)
    ]  # fmt: skip


def test_trackio_in_a_folder(tmp_path: Path) -> None:
    report_to_the_real("trackio", tmp_path, TRACKIO_DIR=str(tmp_path / "trackio"))
    with sqlite3.connect(tmp_path / "trackio" / "textgym.db") as database:
        rows = database.execute("SELECT step, metrics FROM metrics ORDER BY step").fetchall()
    assert [(step, json.loads(text)["ppo/entropy"]) for step, text in rows] == [
        (1, 0.5), (2, 1.0), (4, 2.0), (5, 2.5)
    ]  # fmt: skip
