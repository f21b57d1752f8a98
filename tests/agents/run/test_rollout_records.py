"""The rollouts of a run hold what a reward needs to score them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from textgym.cli.main import main
from textgym_agents.lm.tiny import tiny_tokenizer

QUICK = [
    "--preset", "seed", "--set", "iterations=1", "--set", "rollout.num_episodes=64",
    "--set", "rollout.num_envs=64", "--set", "rollout.max_new_tokens=1",
    "--set", "rollout.max_length=64", "--set", "evaluation.num_episodes=1",
    "--set", "env.kwargs={score_length_cut: true, template: chatml, split: all}",
    "--set", "log_rollouts=64",
]  # fmt: skip


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rollouts of a policy that answers with a random digit."""
    run = tmp_path_factory.mktemp("run") / "run"
    digits = tiny_tokenizer()("01234")["input_ids"]
    prompts = "[{source: arithmetic, config: {below: 3}}]"
    env = ["--set", f"env.prompts={prompts}", "--reward", "math"]
    ids = ["--set", f"policy.legal_ids={digits}"]
    assert main(["train", "--run", str(run), *QUICK, *env, *ids]) == 0
    return run / "rollouts"


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", ["iteration-0000001", "evaluation-0000000"])
def test_rollouts_are_scored_again_as_they_were(rollouts: Path, tmp_path: Path, name: str) -> None:
    file, output = rollouts / f"{name}.jsonl", tmp_path / "scores.jsonl"
    assert main(["score", str(file), "--reward", "math", "--output", str(output)]) == 0
    records, scores = lines_of(file), lines_of(output)
    assert [s["value"] for s in scores] == [r["reward"] for r in records]
    assert [s["id"] for s in scores] == [r["prompt_id"] for r in records]
    assert [s["target"] for s in scores] == [r["target"] for r in records]
    if name.startswith("iteration"):
        assert {record["reward"] for record in records} == {0.0, 1.0}


def test_a_record_tells_the_prompt_from_its_rendering(rollouts: Path) -> None:
    record = lines_of(rollouts / "iteration-0000001.jsonl")[0]
    question = f"{record['prompt_id']}="
    assert record["messages"] == [{"role": "user", "content": question}]
    assert record["prompt"].startswith("<|im_start|>")
    assert question in record["prompt"]


def test_a_record_that_was_cut_short_costs_itself(
    rollouts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (rollouts / "iteration-0000001.jsonl").read_text().splitlines()
    file = tmp_path / "cut.jsonl"
    file.write_text("\n".join([*lines[:3], lines[3][: len(lines[3]) // 2]]))
    assert main(["score", str(file), "--reward", "math", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["samples"], found["outcomes"]) == (3, {"scored": 3})
    (problem,) = found["problems"]
    assert problem.startswith(f"{file}:4: not JSON: ")
