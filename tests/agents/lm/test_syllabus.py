"""A curriculum in a run: levels are left by success, logged, and resumed exactly."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from textgym.config import dump_config, load_config
from textgym.curriculum import CurriculumConfig, CurriculumState
from textgym.errors import ConfigError
from textgym.prompt import Prompt
from textgym_agents.lm.build import build_agent
from textgym_agents.lm.config import TrainConfig
from textgym_agents.lm.syllabus import Syllabus
from textgym_agents.lm.trainer import learn
from textgym_agents.lm.transcript import Rollout, Transcript
from textgym_agents.run.directory import RunDirectory

VALUES: dict[str, Any] = {
    "iterations": 4,
    "checkpoint_every": 2,
    "threads": 1,
    "curriculum": {"threshold": 0.25, "window": 8},
    "env": {
        "prompts": [
            {"source": "arithmetic", "config": {"below": 7}, "level": 0},
            {"source": "arithmetic", "config": {"below": 9}, "level": 1},
            {"source": "arithmetic", "config": {"below": 30}, "level": 2},
        ],
        "reward": {"reward": "length", "config": {"unit": "characters", "minimum": 3}},
        "kwargs": {"review_share": 0.25, "score_length_cut": True},
    },
    "rollout": {"num_episodes": 16, "num_envs": 8, "max_new_tokens": 3, "max_length": 24},
    "ppo": {"batch_size": 8, "update_epochs": 1},
    "evaluation": {"every": 4, "num_episodes": 12},
}


class Envs:
    """Remembers the level that it was set to."""

    def __init__(self) -> None:
        self.levels: list[int] = []

    @property
    def unwrapped(self) -> Envs:
        return self

    def set_level(self, level: int) -> None:
        self.levels.append(level)


def transcript(level: int, *, success: bool, failure: str | None = None) -> Transcript:
    task = Prompt(id="1", messages="?", metadata={"curriculum_level": level})
    return Transcript("?", [1], {"is_success": success}, task, failure=failure)


def test_episodes_of_the_level_count_and_no_others() -> None:
    envs = Envs()
    config = CurriculumConfig(threshold=0.5, window=2)
    syllabus = Syllabus(config, [envs], 3)  # type: ignore[list-item]  # all that it asks of them
    right, wrong = transcript(0, success=True), transcript(0, success=False)
    failed = transcript(0, success=True, failure="timeout")
    metrics = syllabus.observe(Rollout([right, failed]))
    assert metrics == {
        "curriculum/level": 0.0, "curriculum/success": 1.0, "curriculum/num_outcomes": 1.0,
    }  # fmt: skip
    assert syllabus.state() == CurriculumState(level=0, outcomes="1")
    syllabus.observe(Rollout([wrong]))
    assert envs.levels == [0, 1]
    metrics = syllabus.observe(Rollout([right, right, transcript(1, success=False)]))
    assert metrics["curriculum/num_outcomes"] == 1.0  # the others are of level 0
    assert syllabus.state() == CurriculumState(level=1, outcomes="0")


def rows(path: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in found]


def test_a_run_climbs_and_resumes_exactly(tmp_path: Path) -> None:
    config = load_config(TrainConfig, preset=VALUES)
    whole = learn(build_agent(config), tmp_path / "whole")
    levels = [row["curriculum/level"] for row in rows(whole) if row["phase"] == "ppo"]
    assert levels[0] == 0.0
    assert levels[-1] == 2.0
    assert levels == sorted(levels)
    states = [json.loads(p.read_text()) for p in sorted(whole.glob("checkpoints/*/state.json"))]
    assert states[-1]["curriculum"]["level"] == 2

    half = tmp_path / "half"
    shutil.copytree(whole, half)
    run = RunDirectory.open(half)
    for path in sorted((half / "checkpoints").glob("iteration-*"))[2:]:
        shutil.rmtree(path)
    checkpoint = run.latest_checkpoint()
    assert checkpoint is not None
    assert checkpoint.name.endswith("2")
    learn(build_agent(config, checkpoint=checkpoint), half, resume_from=checkpoint)
    assert rows(half) == rows(whole)
    evaluation = [row for row in rows(whole) if row["phase"] == "evaluation"][-1]
    assert {f"evaluation/greedy/level_{i}" for i in range(3)} <= evaluation.keys()


def test_a_curriculum_needs_levels(tmp_path: Path) -> None:
    config = load_config(TrainConfig, preset={**VALUES, "env": {"reward": "math"}})
    assert "curriculum:" in dump_config(config)
    with pytest.raises(ConfigError, match=r"give the sources in env.prompts a `level` each"):
        learn(build_agent(config), tmp_path / "run")
