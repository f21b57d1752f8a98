"""PPO on QueryRewrite-v0: rewards come from a generator, and its failures cost their samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from textgym.cli.main import main

GENERATOR = """
def echo(queries):
    return [query[::-1] for query in queries]

def broken(queries):
    raise RuntimeError("no model is loaded")
"""
QUICK = [
    "--set", "iterations=1", "--set", "rollout.num_episodes=8", "--set", "rollout.num_envs=8",
    "--set", "rollout.max_new_tokens=2", "--set", "rollout.max_length=32",
    "--set", "evaluation.num_episodes=3", "--set", "env.kwargs.score_length_cut=true",
    "--set", "env.prompts=[{source: arithmetic, config: {below: 9}}]",
]  # fmt: skip


def train(name: str, folder: Path, **arguments: Any) -> dict[str, dict[str, Any]]:
    """Return the last metrics of each phase of a short run."""
    (folder / "generator.py").write_text(GENERATOR)
    downstream = {"kind": "function", "function": f"{folder}/generator.py:{name}"}
    kwargs = {"downstream": downstream, **arguments}
    settings = [f"env.kwargs.{key}={json.dumps(value)}" for key, value in kwargs.items()]
    command = ["train", "--run", str(folder / "run"), "--preset", "seed", *QUICK]
    command += ["--env", "textgym:QueryRewrite-v0", "--model", "tiny", "--reward", "math"]
    assert main([*command, *(x for setting in settings for x in ("--set", setting))]) == 0
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return {row["phase"]: row for row in map(json.loads, lines)}


def test_a_run_records_what_was_answered(tmp_path: Path) -> None:
    metrics = train("echo", tmp_path, improvement=True)
    assert metrics["ppo"]["rollout/num_scored"] == 8
    rollouts = (tmp_path / "run" / "rollouts").glob("*.jsonl")
    lines = [line for path in rollouts for line in path.read_text().splitlines()]
    rows = [json.loads(line) for line in lines]
    assert any(row["answer"] for row in rows)
    for row in rows:
        expected = "" if row["label"] == "invalid" else row["completion"].strip()[::-1]
        assert row["answer"] == expected
        assert row["reward"] == (-0.2 if row["label"] == "invalid" else 0.0)


def test_the_evaluation_has_prompts_of_its_own(tmp_path: Path) -> None:
    train("echo", tmp_path)
    folder = tmp_path / "run" / "rollouts"

    def prompts(pattern: str) -> set[str]:
        lines = [line for path in folder.glob(pattern) for line in path.read_text().splitlines()]
        return {json.loads(line)["prompt_id"] for line in lines}

    assert prompts("evaluation-*")
    assert not prompts("evaluation-*") & prompts("iteration-*")


def test_a_generator_that_is_down_leaves_nothing_to_train_on(tmp_path: Path) -> None:
    metrics = train("broken", tmp_path)
    ppo = metrics["ppo"]
    assert ppo["rollout/num_scored"] + ppo["rollout/failed/raised"] == 8
    assert ppo["rollout/failed/raised"] > 0
    assert metrics["evaluation"]["evaluation/sampled_failed"] > 0
