"""What a checkpoint takes, which ones stay, and how they are found again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from textgym.cli.main import main
from textgym.errors import ConfigError
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.build import build_agent
from textgym_agents.lm.checkpoint import (
    OTHER_BYTES,
    BestCheckpoint,
    checkpoint_bytes,
    find_checkpoint,
    save_checkpoint,
)
from textgym_agents.lm.config import (
    FullMode,
    LastLayersMode,
    LoraMode,
    PolicyConfig,
    TrainConfig,
    TrainMode,
)
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.trainer import learn
from textgym_agents.run.directory import RunDirectory
from textgym_agents.run.disk import DiskError

MakePolicy = Callable[..., PolicyValueNetwork]
MODES: list[TrainMode] = [FullMode(), LoraMode(rank=2), LastLayersMode(k=1)]
CONFIG: dict[str, Any] = {
    "iterations": 4,
    "checkpoint_every": 2,
    "keep_checkpoints": 1,
    "env": {"prompts": "arithmetic", "reward": "math"},
    "rollout": {"num_episodes": 4, "num_envs": 4, "max_new_tokens": 4, "max_length": 32},
    "ppo": {"optimizer": {"learning_rate": 1e-3}},
    "evaluation": {"every": 1, "num_episodes": 4},
}


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.kind)
def test_the_size_of_a_checkpoint_is_known_before_it_is_written(
    make_policy: MakePolicy, tmp_path: Path, mode: TrainMode
) -> None:
    policy = PolicyConfig(mode=mode)
    agent = PPOAgent(
        make_policy(config=policy, hidden_size=64, intermediate_size=1024),
        TrainConfig(policy=policy),
    )
    predicted = checkpoint_bytes(agent.network)
    for p in agent.network.parameters():
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    agent.optimizer.step()
    run = RunDirectory(tmp_path)
    run.prepare()
    save_checkpoint(agent, run, 1, None)
    written = sum(f.stat().st_size for f in run.checkpoint_path(1).rglob("*") if f.is_file())
    tensors = sum(f.stat().st_size for f in run.checkpoint_path(1).rglob("*.safetensors"))
    assert checkpoint_bytes(agent.network) == predicted >= written
    assert 0 <= tensors - (predicted - OTHER_BYTES) < 20_000  # names, shapes, the value head


class Disk(NamedTuple):
    """What `shutil.disk_usage` returns."""

    total: int
    used: int
    free: int


def test_a_run_stops_where_the_next_checkpoint_has_no_room_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory(tmp_path / "run")

    def nearly_full(path: Path) -> Disk:
        return Disk(10**12, 0, 10**12 if not run.checkpoint_path(2).exists() else 1000)

    config = TrainConfig.model_validate(CONFIG)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", nearly_full)
        said = r"takes [\d.]+ MB, and the disk has 0.0 MB left.*up to iteration-0000002, is untou"
        with pytest.raises(DiskError, match=said):
            learn(build_agent(config), run.path)
    rows = [row for row in run.read_metrics() if row["phase"] == "ppo"]
    assert len(rows) == 2  # nothing was learnt that is lost now
    checkpoint = run.latest_checkpoint()
    assert checkpoint == run.checkpoint_path(2)
    learn(build_agent(config, checkpoint=checkpoint), run.path, resume_from=checkpoint)
    assert run.latest_checkpoint() == run.checkpoint_path(4)


def test_the_best_checkpoint_stays_and_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    run = RunDirectory(Path("run"))
    config = TrainConfig.model_validate(CONFIG | {"best_metric": "evaluation/sampled_length"})
    learn(build_agent(config), run.path)
    values = {
        row["iteration"]: row["evaluation/sampled_length"]
        for row in run.read_metrics() if row["phase"] == "evaluation"
    }  # fmt: skip
    best = max(values, key=lambda i: (values[i], -i))
    assert {p.name for p in run.checkpoints()} == {run.checkpoint_path(i).name for i in {best, 4}}
    assert find_checkpoint(run) == run.checkpoint_path(4)
    assert find_checkpoint(run, best=True) == run.checkpoint_path(best)
    assert main(["evaluate", "run", "--best", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["evaluation/sampled_length"] == values[best]
    continued = [
        "train", "--model", "run", "--preset", "seed", "--run", "more", "--set", "iterations=1",
        "--set", "evaluation.num_episodes=2", "--set", "rollout.max_new_tokens=2",
    ]  # fmt: skip
    assert main(continued) == 0


def test_a_checkpoint_that_is_not_there_is_said(make_policy: MakePolicy, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.prepare()
    with pytest.raises(ConfigError, match="has no checkpoint yet"):
        find_checkpoint(run)
    agent = PPOAgent(make_policy(), TrainConfig())
    save_checkpoint(agent, run, 3, None)
    with pytest.raises(ConfigError, match="no checkpoint is the best, since none was evaluated"):
        find_checkpoint(run, best=True)
    save_checkpoint(agent, run, 4, BestCheckpoint(iteration=2, value=1.0))
    with pytest.raises(ConfigError, match=r"iteration-0000002, the best checkpoint, is damaged"):
        find_checkpoint(run, best=True)


def test_a_best_metric_that_there_is_not_is_said(tmp_path: Path) -> None:
    config = TrainConfig.model_validate(CONFIG | {"best_metric": "evaluation/greedy_rewards"})
    with pytest.raises(ConfigError, match="Did you mean 'evaluation/greedy_reward'"):
        learn(build_agent(config), tmp_path / "run")
