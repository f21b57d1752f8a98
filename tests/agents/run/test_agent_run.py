"""A run of any agent: its files, its evaluations, and what a break leaves behind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from textgym.errors import ConfigError, UnknownNameError
from textgym_agents.agent import evaluate
from textgym_agents.run.agent_run import AgentRunConfig, load_trained, train_agent
from textgym_agents.run.directory import RunDirectory, rows_of
from textgym_agents.run.progress import SilentProgress

CONFIG = AgentRunConfig(
    agent="ppo",
    env="CartPole-v1",
    settings={"num_steps": 32, "learning_rate": 0.001, "network": {"hidden": [16]}},
    total_steps=6_000,
    evaluations=3,
    evaluation_episodes=2,
)


class Recorder(SilentProgress):
    """Remembers how far the bar went, and presses Ctrl-C where it is told to."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.done, self.stop_at = 0, stop_at

    def advance(
        self, metrics: Mapping[str, float], per_second: float, *, num_steps: int = 1
    ) -> None:
        self.done += num_steps
        if self.stop_at is not None and self.done >= self.stop_at:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("name", "env"), [("ppo", "CartPole-v1"), ("q_learning", "FrozenLake-v1")])
def test_a_run_writes_what_every_run_writes(name: str, env: str, tmp_path: Path) -> None:
    settings = CONFIG.settings if name == "ppo" else {}
    config = CONFIG.model_copy(update={"agent": name, "env": env, "settings": settings})
    progress = Recorder()
    agent = train_agent(config, tmp_path, progress=progress)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.yaml", "environment.json", "metrics.jsonl", "curves.png"} <= names
    rows = RunDirectory(tmp_path).read_metrics()
    training, evaluations = rows_of(rows, "train"), rows_of(rows, "evaluation")
    assert len(evaluations) == 3
    assert evaluations[-1]["iteration"] == training[-1]["iteration"] == progress.done
    assert abs(progress.done - 6_000) < 200
    assert any("rollout/reward" in row for row in training)
    assert evaluations[-1]["evaluation/num_episodes"] == 2
    results = [
        evaluate(each, env, num_episodes=3, seed=5) for each in (agent, load_trained(tmp_path))
    ]
    assert (results[0].returns == results[1].returns).all()


def test_a_broken_run_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_agent(CONFIG, tmp_path, progress=Recorder(stop_at=4_500))
    run = RunDirectory(tmp_path)
    checkpoint = run.latest_checkpoint()
    assert checkpoint is not None
    saved = json.loads((checkpoint / "state.json").read_text())["num_steps"]
    assert 2_000 <= saved < 4_500
    train_agent(CONFIG, tmp_path, resume=True)
    steps = [row["iteration"] for row in rows_of(run.read_metrics(), "train")]
    assert steps == sorted(set(steps))
    assert abs(steps[-1] - 6_000) < 200
    assert len(rows_of(run.read_metrics(), "evaluation")) == 3


def test_what_a_run_cannot_do_is_said(tmp_path: Path) -> None:
    def run(**changes: object) -> None:
        train_agent(AgentRunConfig.model_validate({**CONFIG.model_dump(), **changes}), tmp_path)

    with pytest.raises(UnknownNameError, match="Did you mean 'ppo'"):
        run(agent="pppo")
    with pytest.raises(ConfigError, match=r"lerning_rate.*Did you mean 'learning_rate'"):
        run(settings={"lerning_rate": 1})
    with pytest.raises(UnknownNameError, match="NoSuch-v0"):
        run(env="NoSuch-v0")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="not a run directory"):
        load_trained(tmp_path / "none")
