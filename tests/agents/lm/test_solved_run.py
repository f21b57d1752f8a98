"""`textgym train --model` in a solved environment: from nothing to the optimum, told exactly."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from textgym.cli.main import main
from textgym_agents.cli import language_models
from textgym_agents.cli.train import train

SUMS = "env.kwargs={below: 2, vocabulary: '012+=', max_new_tokens: 2}"
COMMAND = (
    "train", "--agent", "ppo", "--env", "textgym:ToyText-v0", "--model", "tiny", "--set", SUMS,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Return what `textgym evaluate` says in JSON."""
    capsys.readouterr()
    assert main(["evaluate", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_random_model_reaches_the_optimum(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ("iterations=40", "rollout.num_episodes=256", "rollout.num_envs=256")
    options = [part for size in sizes for part in ("--set", size)]
    assert main([*COMMAND, "--run", "run", *options, "--set", "evaluation.every=20"]) == 0
    printed = capsys.readouterr().out
    assert "share of it, sampled" in printed
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    shares = [r["evaluation/share_sampled"] for r in rows if r["phase"] == "evaluation"]
    assert len(shares) == 3
    assert shares[0] < 0.2
    assert 0.97 <= shares[-1] <= 1.0 + 1e-9
    metrics = evaluated(capsys, "run")
    assert metrics["evaluation/share_sampled"] == pytest.approx(shares[-1], abs=1e-6)
    assert metrics["evaluation/optimum"] == pytest.approx(1.0)
    assert metrics["evaluation/exact_greedy"] == pytest.approx(1.0)


def test_a_model_is_evaluated_exactly_too(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = evaluated(capsys, "tiny", "--set", "env.id=textgym:ToyTwoTurn-v0")
    assert metrics["evaluation/optimum"] == pytest.approx(0.875)
    assert 0 < metrics["evaluation/share_sampled"] < 0.2


def config_of(*arguments: str) -> Any:
    """Return the configuration that `textgym train` would run."""
    parser = argparse.ArgumentParser()
    train.configure(parser)
    args = parser.parse_args(arguments)
    return language_models.new_config(args)


def test_what_the_environment_allows_is_in_the_configuration() -> None:
    config = config_of(*COMMAND[1:])
    assert (config.rollout.max_new_tokens, len(config.policy.legal_ids)) == (2, 6)
    assert config_of(*COMMAND[1:], "--set", "rollout.max_new_tokens=5").rollout.max_new_tokens == 5


def test_a_file_may_name_the_environment(tmp_path: Path) -> None:
    values = {"env": {"id": "ToyTwoTurn-v0"}, "iterations": 3}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    config = config_of("run.yaml")
    assert (config.iterations, config.rollout.max_new_tokens) == (3, 1)
    assert len(config.policy.legal_ids) == 7


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        ((), 1100),
        (("--model", "tiny"), 1100),
        (("--agent", "ppo", "--env", "TextGen-v0", "--model", "tiny"), 1100),
        (("--prompts", "questions.jsonl"), None),
        (("--model", "elsewhere"), None),
        (("--env", "ToyText-v0", "--preset", "seed"), None),
    ],
)
def test_the_embedded_world_is_for_the_embedded_model(
    arguments: tuple[str, ...], steps: int | None
) -> None:
    cold_start = config_of(*arguments).cold_start
    assert (None if cold_start is None else cold_start.steps) == steps
