"""Runs that are stopped and resumed equal runs that were not: metrics and weights, bit for bit."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

SERVER = """
import json, os, sys
import textgym_agents.cli.language_models
from textgym.cli.main import main

for line in sys.stdin:
    arguments, log = json.loads(line)
    pid = os.fork()
    if pid == 0:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os._exit(main(arguments))
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
REWARD = """
def right(sample):
    return float(sample.completion == sample.prompt.target)
"""
CONFIG: dict[str, Any] = {
    "iterations": 7,
    "checkpoint_every": 2,
    "cold_start": {"steps": 40, "batch_size": 8},
    "rollout": {"num_episodes": 16, "num_envs": 8, "max_new_tokens": 4, "max_length": 24},
    "ppo": {
        "batch_size": 8,
        "update_epochs": 2,
        "optimizer": {"learning_rate": 1e-3, "schedule": "linear"},
        "kl_penalty": {"beta": 0.1, "adaptive": True, "horizon_sequences": 50},
    },
    "evaluation": {"every": 3, "num_episodes": 8},
}
MODES: dict[str, dict[str, Any]] = {
    "full": {"kind": "full"},
    "lora": {"kind": "lora", "rank": 2, "alpha": 4},
}


class Runner:
    """Runs `textgym` in processes of its own, forked from one that has imported everything."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log.txt"
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )

    def run(
        self,
        *arguments: str | Path,
        stop: signal.Signals | None = None,
        when: Callable[[], bool] = lambda: True,
        delay: float = 0.0,
    ) -> int:
        """Run a command; once `when` holds, and `delay` seconds later, send the signal `stop`."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self.log.write_text("")
        self._server.stdin.write(json.dumps([[*map(str, arguments)], str(self.log)]) + "\n")
        self._server.stdin.flush()
        pid = int(self._server.stdout.readline())
        if stop is not None:
            deadline = time.monotonic() + 30
            while not when():
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.001)
            time.sleep(delay)
            os.kill(pid, stop)
        return int(self._server.stdout.readline())

    def close(self) -> None:
        """End the server."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(timeout=60)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    runner = Runner(tmp_path_factory.mktemp("runner"))
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A configuration file per mode."""
    folder = tmp_path_factory.mktemp("configs")
    (folder / "reward.py").write_text(REWARD)
    rows = [{"prompt": f"{a}+{b}=", "target": str(a + b)} for a in range(8) for b in range(8)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    env = {"prompts": str(folder / "prompts.jsonl"), "reward": f"{folder / 'reward.py'}:right"}
    for mode, values in MODES.items():
        config = CONFIG | {"env": env, "policy": {"mode": values}}
        (folder / f"{mode}.yaml").write_text(yaml.safe_dump(config))
    return {mode: folder / f"{mode}.yaml" for mode in MODES}


@pytest.fixture(scope="module", params=list(MODES))
def undisturbed(
    request: pytest.FixtureRequest, runner: Runner, configs: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path]:  # fmt: skip
    """A configuration, and a run of it that nothing has disturbed."""
    config = configs[request.param]
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert runner.run("train", config, "--run", run) == 0, runner.log.read_text()
    return config, run


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl without what a clock has measured."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def num_rows(run: Path, phase: str) -> int:
    path = run / "metrics.jsonl"
    return path.read_text().count(f'"phase": "{phase}"') if path.exists() else 0


def assert_equal_runs(run: Path, other: Path) -> None:
    """Compare the metrics, the rollouts, and every tensor of the last checkpoints."""
    assert metrics_of(run) == metrics_of(other)
    rollouts = [{p.name: p.read_text() for p in (r / "rollouts").iterdir()} for r in (run, other)]
    assert rollouts[0] == rollouts[1]
    kept = [sorted((r / "checkpoints").glob("iteration-*")) for r in (run, other)]
    assert [c.name for c in kept[0]] == [c.name for c in kept[1]]
    last = [checkpoints[-1] for checkpoints in kept]
    assert last[0].name == last[1].name == "iteration-0000007"
    states = [json.loads((c / "state.json").read_text()) for c in last]
    assert states[0]["beta"] == states[1]["beta"] != 0.1
    assert states[0]["best"] == states[1]["best"] is not None
    num_tensors = 0
    for path in last[0].rglob("*.safetensors"):
        first, second = load_file(path), load_file(last[1] / path.relative_to(last[0]))
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            assert torch.equal(tensor, second[name]), f"{path.name}: {name}"
            num_tensors += 1
    assert num_tensors > 50


def test_a_run_is_repeatable(
    runner: Runner, undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    config, wanted = undisturbed
    assert runner.run("train", config, "--run", tmp_path / "run") == 0
    assert_equal_runs(tmp_path / "run", wanted)


def test_the_penalty_and_the_policy_move(undisturbed: tuple[Path, Path]) -> None:
    """Otherwise equality would prove little."""
    rows = [row for row in metrics_of(undisturbed[1]) if row["phase"] == "ppo"]
    assert len(rows) == 7
    assert len({row["kl/beta"] for row in rows}) > 3
    assert len({row["rollout/length"] for row in rows}) > 2
    assert max(abs(row["kl/reference_nats_per_token"]) for row in rows) > 1e-4


def test_a_run_resumes_after_an_interrupt(
    runner: Runner, undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    config, wanted = undisturbed
    run = tmp_path / "run"
    code = runner.run(
        "train", config, "--run", run, stop=signal.SIGINT, when=lambda: num_rows(run, "ppo") == 3
    )
    assert code == 130, runner.log.read_text()
    said = "".join(runner.log.read_text().splitlines())
    assert f"continue with: textgym train --resume {run}" in said
    saved = sorted(p.name for p in (run / "checkpoints").iterdir())
    assert saved[-1] > "iteration-0000002"  # the checkpoint of where it stopped
    assert not (run / "checkpoints" / "iteration-0000007").exists()
    assert (run / "curves.png").exists()
    assert runner.run("train", "--resume", run) == 0, runner.log.read_text()
    assert_equal_runs(run, wanted)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_resumes_after_every_kill(
    runner: Runner, undisturbed: tuple[Path, Path], tmp_path: Path, seed: int
) -> None:
    """Killed in the cold start, at some moment of PPO, while a checkpoint is written, and again."""
    config, wanted = undisturbed
    run = tmp_path / "run"
    rng = random.Random(seed)

    def is_writing() -> bool:
        return any((run / "checkpoints").glob(".partial-*"))

    def kill(*arguments: str | Path, when: Callable[[], bool], delay: float) -> int:
        return runner.run(*arguments, stop=signal.SIGKILL, when=when, delay=delay)

    begin = ("train", config, "--run", run)
    code = kill(*begin, when=(run / "config.yaml").exists, delay=rng.uniform(0.0, 0.2))
    assert code == -signal.SIGKILL
    assert num_rows(run, "ppo") == 0
    resume = ("train", "--resume", run)
    has_reference = seed == 1 and config.stem == "full"  # an adapter holds its own
    for when, delay in (
        ((run / "reference").exists if has_reference else is_writing, 0.0),
        (lambda: num_rows(run, "ppo") >= 3, rng.uniform(0.0, 0.1)),
        (is_writing, rng.uniform(0.0, 0.02)),
        (lambda: num_rows(run, "ppo") >= 5, rng.uniform(0.0, 0.1)),
    ):
        assert kill(*resume, when=when, delay=delay) == -signal.SIGKILL, runner.log.read_text()
    assert runner.run(*resume) == 0, runner.log.read_text()
    assert_equal_runs(run, wanted)
    assert not is_writing()


def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one(
    runner: Runner, undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    config, wanted = undisturbed
    run = tmp_path / "run"
    shutil.copytree(wanted, run)
    newest = run / "checkpoints" / "iteration-0000007"
    harmed = newest / (
        "optimizer.safetensors" if config.stem == "full" else "policy/adapter_model.safetensors"
    )
    os.truncate(harmed, harmed.stat().st_size - 1)
    assert runner.run("train", "--resume", run) == 0, runner.log.read_text()
    said = runner.log.read_text()
    assert f"warning: {newest} is damaged and left out: {harmed.relative_to(newest)} has" in said
    assert_equal_runs(run, wanted)
    assert (run / "checkpoints" / "aside-iteration-0000007").exists()


def test_a_finished_run_resumes_to_itself(runner: Runner, undisturbed: tuple[Path, Path]) -> None:
    _, run = undisturbed
    before = (run / "metrics.jsonl").read_bytes()
    assert runner.run("train", "--resume", run) == 0, runner.log.read_text()
    assert (run / "metrics.jsonl").read_bytes() == before


def test_a_moved_run_can_be_extended_and_evaluated(
    runner: Runner, configs: dict[str, Path], tmp_path: Path
) -> None:
    run, moved = tmp_path / "run", tmp_path / "moved"
    assert runner.run("train", configs["lora"], "--run", run, "--set", "iterations=2") == 0
    run.rename(moved)
    assert runner.run("train", "--resume", moved, "--set", "iterations=3") == 0, (
        runner.log.read_text()
    )
    assert num_rows(moved, "ppo") == 3
    assert runner.run("evaluate", moved, "--json") == 0, runner.log.read_text()
    found = json.loads(runner.log.read_text().splitlines()[-1])
    last = [row for row in metrics_of(moved) if row["phase"] == "evaluation"][-1]
    assert {k: last[k] for k in found} == found
