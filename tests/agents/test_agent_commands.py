"""`textgym train --agent` and `textgym evaluate` on its runs, from a table to Stable-Baselines3."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import pytest
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv

from textgym.cli.main import main

FILES = {
    "config.yaml",
    "environment.json",
    "metrics.jsonl",
    "curves.png",
    "report.html",
    "checkpoints",
}


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
        (("--agent", "q_learning", "--env", "Taxi-v3", "--preset", "llm"), "for language models"),
        (("--agent", "q_learning", "--env", "Taxi-v3", "--threads", "2"), "use one core"),
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


LEAKY = f"{__name__}:LeakyLake-v0"
"""A module in front of an id is imported first, as this one is already."""
TOY = "ToyTextSmall-v0"


class LeakyLake(FrozenLakeEnv):
    """FrozenLake that loses a tenth of what leaves state 6 to the left."""

    def __init__(self) -> None:
        super().__init__(is_slippery=False)
        self.P[6][0] = [(0.9, 5, 0.0, False)]


@pytest.fixture
def _leaky_lake() -> Iterator[None]:
    gymnasium.register("LeakyLake-v0", entry_point=LeakyLake)
    yield
    del gymnasium.registry["LeakyLake-v0"]


@pytest.mark.usefixtures("_leaky_lake")
@pytest.mark.parametrize(
    ("agent", "env", "options", "message"),
    [
        # a space that the agent does not support
        ("q_learning", "CartPole-v1", (), "observations of Box(shape=(4,), dtype=float32) as keys"),
        ("ppo", "Blackjack-v1", (), "ppo cannot read observations of the space Tuple("),
        ("sb3:ppo", "Blackjack-v1", (), "is none of Box, Discrete,"),
        ("ppo", TOY, ("--set", "env_kwargs.action_mode=text"), "action_mode='token'"),
        ("sarsa", TOY, ("--set", "env_kwargs.action_mode=text"), "action_mode='token'"),
        ("sb3:maskable_ppo", "CartPole-v1", (), "no method action_masks()"),
        # continuous actions for a table
        ("q_learning", "Pendulum-v1", (), "Box(shape=(1,), dtype=float32) is continuous"),
        ("value_iteration", "MountainCarContinuous-v0", (), "needs Discrete actions. Take one"),
        # a table whose rows do not sum to one
        (
            "value_iteration", LEAKY, (),
            "the table P of LeakyLake-v0: state 6, action 0: the probabilities sum to 0.9, not to",
        ),
        ("policy_iteration", LEAKY, (), "state 6, action 0: the probabilities sum to 0.9"),
        # a negative budget
        ("q_learning", "Taxi-v3", ("--steps", "-5"), "--steps is -5; it must be a positive"),
        ("ppo", "CartPole-v1", ("--steps", "0"), "--steps is 0; it must be a positive integer"),
        ("sb3:dqn", "CartPole-v1", ("--set", "total_steps=-5"), "'total_steps' is -5"),
        ("sarsa", "Taxi-v3", ("--set", "evaluations=-1"), "'evaluations' is -1"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_one_clear_error(
    agent: str,
    env: str,
    options: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if agent.startswith("sb3:"):
        pytest.importorskip("stable_baselines3")
    run = tmp_path / "run"
    assert train("--agent", agent, "--env", env, *options, "--run", run) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (run / "config.yaml").exists()  # the folder is free for the next attempt


@pytest.mark.parametrize("episodes", ["-3", "0"])
def test_an_evaluation_of_no_episodes_is_one_clear_error(
    episodes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train("--agent", "value_iteration", "--env", "FrozenLake-v1", "--run", run) == 0
    assert main(["evaluate", str(run), "--episodes", episodes]) == 2
    message = f"error: --episodes is {episodes}; it must be a positive integer\n"
    assert capsys.readouterr().err == message


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
