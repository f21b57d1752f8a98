"""A run that was stopped anywhere and resumed is the run that was not: every agent, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from textgym.cli.main import main
from textgym.errors import ConfigError
from textgym_agents.agent_files import AGENTS, load_agent
from textgym_agents.run.agent_run import AgentRunConfig, make_agent, train_agent
from textgym_agents.run.directory import RunDirectory
from textgym_agents.run.manifest import write_manifest
from textgym_agents.run.progress import SilentProgress

SMALL = {"hidden": [8]}
CASES: dict[str, dict[str, Any]] = {
    "random": {"env": "CartPole-v1"},
    "policy_iteration": {"env": "FrozenLake-v1"},
    "value_iteration": {"env": "FrozenLake-v1"},
    "monte_carlo": {"env": "FrozenLake-v1"},
    "sarsa": {"env": "FrozenLake-v1", "settings": {"learning_rate": {"start": 0.5, "end": 0.1}}},
    "expected_sarsa": {"env": "Blackjack-v1"},
    "q_learning": {"env": "textgym:ToyTextSmall-v0"},
    "reinforce": {"env": "CartPole-v1", "settings": {"network": SMALL}},
    "actor_critic": {"env": "CartPole-v1", "settings": {"network": SMALL}},
    "ppo": {
        "env": "Pendulum-v1",
        "settings": {
            "num_envs": 2, "num_steps": 50, "update_epochs": 2, "network": SMALL,
            "normalize_observations": True, "normalize_rewards": True,
            "learning_rate_schedule": "linear", "clip_schedule": "linear",
        },
    },
    "lm:ppo": {
        "env": "textgym:ToyTextSmall-v0",
        "settings": {"num_episodes": 64, "ppo": {"batch_size": 32}},
    },
    "sb3:ppo": {
        "env": "Pendulum-v1",
        "settings": {
            "num_envs": 2, "normalize_observations": True, "normalize_rewards": True,
            "settings": {
                "n_steps": 50, "n_epochs": 2, "learning_rate": "linear:0.001",
                "clip_range": "linear:0.2",
            },
        },
    },
    "sb3:a2c": {"env": "CartPole-v1", "settings": {"num_envs": 2}},
    "sb3:dqn": {
        "env": "CartPole-v1",
        "settings": {
            "settings": {
                "learning_starts": 100, "buffer_size": 500, "learning_rate": "linear:0.001",
                "target_update_interval": 70, "exploration_fraction": 0.8, "n_steps": 3,
            }
        },
    },
    "sb3:trpo": {"env": "CartPole-v1", "settings": {"settings": {"n_steps": 100}}},
    "sb3:maskable_ppo": {
        "env": "textgym:ToyTextSmall-v0",
        "settings": {"num_envs": 4, "settings": {"n_steps": 25, "n_epochs": 2}},
    },
}  # fmt: skip


class Stop(SilentProgress):
    """Presses Ctrl-C after a number of steps, and says how much of the run there was."""

    def __init__(self, at: int) -> None:
        self.done, self.at = 0, at

    def start_phase(self, name: str, total: int, done: int = 0, *, unit: str = "") -> None:
        self.done = done

    def advance(
        self, metrics: Mapping[str, float], per_second: float, *, num_steps: int = 1
    ) -> None:
        self.done += num_steps
        if self.done >= self.at:
            raise KeyboardInterrupt


def make_config(agent: str) -> AgentRunConfig:
    return AgentRunConfig.model_validate(
        {"agent": agent, "total_steps": 1500, "evaluations": 3, "evaluation_episodes": 2}
        | CASES[agent]
    )


def metrics_of(path: Path) -> list[dict[str, Any]]:
    rows = RunDirectory(path).read_metrics()
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def files_of(path: Path) -> dict[str, bytes]:
    folder = RunDirectory(path).latest_checkpoint()
    assert folder is not None
    found = {p.relative_to(folder): p for p in (folder / "agent").rglob("*") if p.is_file()}
    return {str(name): p.read_bytes() for name, p in found.items()} | {"": folder.name.encode()}


def disturb_global_generators() -> None:
    """Leave them as another process would have them."""
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)


@pytest.fixture(autouse=True)
def _without_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than these runs."""
    monkeypatch.setattr("textgym_agents.run.agent_run.plot_agent_run", lambda run: None)


def test_every_agent_is_compared() -> None:
    assert CASES.keys() == AGENTS.keys()


@pytest.mark.parametrize("agent", CASES)
def test_a_resumed_run_is_the_run_without_the_break(agent: str, tmp_path: Path) -> None:
    if agent.startswith("sb3:"):
        pytest.importorskip("stable_baselines3")
    config = make_config(agent)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train_agent(config, whole)
    disturb_global_generators()
    for at in (300, 1300):  # before the first checkpoint, and in the last segment
        try:
            train_agent(config, broken, progress=Stop(at), resume=at > 300)
        except KeyboardInterrupt:
            disturb_global_generators()
    train_agent(config, broken, resume=True)
    assert metrics_of(broken) == metrics_of(whole)
    assert files_of(broken) == files_of(whole)
    if agent not in ("random", "policy_iteration", "value_iteration"):
        evaluated = [row for row in metrics_of(whole) if row["phase"] == "evaluation"]
        assert len(evaluated) == 3
        training = [row for row in metrics_of(whole) if row["phase"] == "train"]
        counts = [row["rollout/num_episodes"] for row in training]
        assert counts == sorted(counts)


def test_a_killed_process_leaves_what_the_run_can_go_on_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("stable_baselines3")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    config = tmp_path / "run.yaml"
    run = make_config("sb3:dqn").model_copy(update={"total_steps": 3_000, "evaluations": 10})
    config.write_text(run.model_dump_json())
    process = subprocess.Popen(
        [sys.executable, "-m", "textgym", "train", str(config), "--run", str(killed)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (killed / "checkpoints").exists() or not RunDirectory(killed).checkpoints():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    left = RunDirectory(killed).latest_checkpoint()
    assert left is not None
    assert not json.loads((left / "state.json").read_text())["is_finished"]
    assert main(["train", "--resume", str(killed)]) == 0
    assert main(["train", str(config), "--run", str(whole)]) == 0
    assert metrics_of(killed) == metrics_of(whole)
    assert files_of(killed) == files_of(whole)
    capsys.readouterr()


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    config = make_config("value_iteration")
    train_agent(config, tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    train_agent(config, tmp_path, resume=True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_segments_divide_any_budget(tmp_path: Path) -> None:
    for total, evaluations in ((7, 3), (3, 10), (10, 10)):
        config = make_config("q_learning").model_copy(
            update={"total_steps": total, "evaluations": evaluations}
        )
        train_agent(config, tmp_path / f"{total}-{evaluations}")
        rows = metrics_of(tmp_path / f"{total}-{evaluations}")
        steps = [row["iteration"] for row in rows if row["phase"] == "evaluation"]
        expected = sorted({-(-k * total // evaluations) for k in range(1, evaluations + 1)})
        assert steps == expected


def test_a_checkpoint_of_another_version_is_one_clear_error(tmp_path: Path) -> None:
    config = make_config("q_learning")
    train_agent(config, tmp_path)
    checkpoint = RunDirectory(tmp_path).latest_checkpoint()
    assert checkpoint is not None
    (checkpoint / "state.json").write_text('{"num_steps": 1500}')
    write_manifest(checkpoint)
    with pytest.raises(ConfigError, match="start a new run"):
        train_agent(config, tmp_path, resume=True)


@pytest.mark.parametrize(
    ("agent", "metric"),
    [
        ("q_learning", "td/epsilon"),
        ("sarsa", "td/learning_rate"),
        ("monte_carlo", "monte_carlo/epsilon"),
        ("ppo", "ppo/learning_rate"),
        ("lm:ppo", "ppo/learning_rate"),
        ("sb3:ppo", "train/learning_rate"),
    ],
)
def test_schedules_run_over_the_whole_budget(agent: str, metric: str, tmp_path: Path) -> None:
    if agent.startswith("sb3:"):
        pytest.importorskip("stable_baselines3")
    config = make_config(agent)
    train_agent(config, tmp_path)
    rows = [row for row in metrics_of(tmp_path) if metric in row]
    values = [row[metric] for row in rows]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.35 * values[0]
    thirds = {row["iteration"] * config.evaluations // config.total_steps for row in rows}
    assert len(thirds) >= 3


@pytest.mark.parametrize(
    ("agent", "name"), [("monte_carlo", "counts.npy"), ("sb3:dqn", "replay.npz")]
)
@pytest.mark.parametrize("content", [b"", b"PK nothing"])
def test_damaged_files_are_one_clear_error(
    agent: str, name: str, content: bytes, tmp_path: Path
) -> None:
    if agent.startswith("sb3:"):
        pytest.importorskip("stable_baselines3")
    made = make_agent(agent, CASES[agent].get("settings", {}))
    made.learn(CASES[agent]["env"], total_steps=20)
    made.save(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=r"does not hold|no complete"):
        load_agent(tmp_path)
