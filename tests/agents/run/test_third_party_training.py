"""A third party's plugin, built and installed by pip, is what a policy is trained on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from textgym_agents.lm.tiny import tiny_tokenizer

QUICK = [
    "--preset", "seed", "--set", "iterations=24", "--set", "rollout.num_episodes=64",
    "--set", "rollout.num_envs=64", "--set", "rollout.max_new_tokens=16",
    "--set", "rollout.max_length=32", "--set", "env.kwargs.score_length_cut=true",
    "--set", "ppo.batch_size=16", "--set", "ppo.gamma=1", "--set", "ppo.entropy_coef=0",
    "--set", "ppo.optimizer.learning_rate=3e-4", "--set", "ppo.kl_stop.target=null",
    "--set", "evaluation.num_episodes=16",
]  # fmt: skip


@pytest.fixture(scope="module")
def rows(brevity_site: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The metrics of a policy that says `a` or a space, sixteen times, rewarded by `brevity`."""
    folder = tmp_path_factory.mktemp("brevity")
    ids = tiny_tokenizer()("a ")["input_ids"]
    environment = {"PYTHONPATH": str(brevity_site), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [
            sys.executable, "-m", "textgym", "train", "--run", "run", "--reward", "brevity",
            *QUICK, "--set", f"policy.legal_ids={ids}",
        ],
        cwd=folder, capture_output=True, text=True, timeout=300, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]


def test_a_plugin_trains(rows: list[dict[str, Any]]) -> None:
    """50 words are worth 0, none 1; 16 random letters and spaces have about 3 words."""
    updates = [row for row in rows if row["phase"] == "ppo"]
    rewards = [row["rollout/reward"] for row in updates]
    assert len(rewards) == 24
    assert all(0.0 < reward < 1.0 for reward in rewards)
    assert fmean(rewards[-4:]) > fmean(rewards[:4]) + 0.015, rewards


def test_a_plugin_leaves_a_whole_record(rows: list[dict[str, Any]]) -> None:
    last = [row for row in rows if row["phase"] == "ppo"][-1]
    assert last["iteration"] == 24
    assert (last["rollout/num_scored"], last["rollout/num_failed"]) == (64, 0)
    assert last["rollout/reward_std"] > 0
    for key in ("ppo/policy_loss", "ppo/value_loss", "ppo/entropy", "ppo/kl_k3", "ppo/grad_norm"):
        assert isinstance(last[key], float), key
    evaluations = [row for row in rows if row["phase"] == "evaluation"]
    assert [row["iteration"] for row in evaluations] == [0, 24]
    assert evaluations[1]["evaluation/sampled_reward"] > evaluations[0]["evaluation/sampled_reward"]
