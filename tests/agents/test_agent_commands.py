"""`textgym train --agent` and `textgym evaluate` on its runs, from a table to Stable-Baselines3."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from textgym.cli.main import main

FILES = {"config.yaml", "environment.json", "metrics.jsonl", "curves.png", "checkpoints"}


def train(*arguments: object) -> int:
    return main(["train", *map(str, arguments)])


@pytest.mark.parametrize(
    ("agent", "env"),
    [
        ("random", "CartPole-v1"),
        ("value_iteration", "FrozenLake-v1"),
        ("q_learning", "Taxi-v3"),
        ("ppo", "CartPole-v1"),
        ("sb3:dqn", "ToyText-v0"),
    ],
)
def test_every_kind_of_agent_trains_and_is_evaluated(
    agent: str, env: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    options = ("--set", "evaluations=2", "--set", "evaluation_episodes=3")
    assert train("--agent", agent, "--env", env, "--steps", 1200, "--run", run, *options) == 0
    assert {path.name for path in run.iterdir()} >= FILES
    assert f"{agent} on {env}" in capsys.readouterr().out
    assert main(["evaluate", str(run), "--episodes", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["evaluation/num_episodes"] == 4.0


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    def metrics(seed: int, name: str) -> list[dict[str, float]]:
        run = tmp_path / name
        common = ("--agent", "ppo", "--env", "CartPole-v1", "--steps", 1500, "--run", run)
        assert train(*common, "--seed", seed, "--set", "evaluation_episodes=2") == 0
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]

    assert metrics(1, "a") == metrics(1, "b") != metrics(2, "c")


def test_a_file_names_the_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        "agent: sarsa\nenv: FrozenLake-v1\ntotal_steps: 500\nsettings: {learning_rate: 0.5}\n"
    )
    assert train(config, "--run", tmp_path / "run") == 0
    assert "learning_rate: 0.5" in (tmp_path / "run" / "config.yaml").read_text()
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--agent", "q_lerning", "--env", "Taxi-v3"), "Did you mean 'q_learning'?"),
        (("--agent", "q_learning"), "--env: say where the agent learns"),
        (("--agent", "q_learning", "--env", "Tax-v3"), "no environment 'Tax-v3'"),
        (("--agent", "q_learning", "--env", "Taxi-v3", "--model", "tiny"), "'ppo' can train one"),
        (("--agent", "q_learning", "--env", "Taxi-v3", "--steps", "-1"), "total_steps"),
        (("--agent", "q_learning", "--env", "Taxi-v3", "--preset", "llm"), "for language models"),
        (("--agent", "q_learning", "--env", "Taxi-v3", "--threads", "2"), "use one core"),
        (("--agent", "q_learning", "--env", "CartPole-v1"), "a table cannot have"),
        (("--agent", "q_learning", "--env", "Pendulum-v1"), "action"),
        (
            ("--agent", "q_learning", "--env", "Taxi-v3", "--set", "settings.lerning_rate=1"),
            "Did you mean 'learning_rate'?",
        ),
    ],
)
def test_wrong_arguments_are_one_clear_error(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*arguments, "--run", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


def test_ctrl_c_leaves_a_run_that_can_be_evaluated_and_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(
        [
            sys.executable, "-m", "textgym", "train", "--agent", "q_learning", "--env", "Taxi-v3",
            "--steps", "2000000", "--run", str(run), "--set", "evaluation_episodes=1",
            "--set", "evaluations=100",
        ],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(run.glob("checkpoints/iteration-*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert f"textgym train --resume {run}" in output
    assert main(["evaluate", str(run), "--episodes", "1"]) == 0
    assert train("--resume", run, "--steps", 10) == 2  # a run does not change
    assert "cannot change within a run" in capsys.readouterr().err
