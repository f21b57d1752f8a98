"""Public suites on real rows: references score everything, empty answers nothing, others as judged.

The files are those of the data folder; where it is missing these tests are skipped.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textgym import Prompt, plugin_manager
from textgym.benchmark import Benchmark, Metric
from textgym_agents.evaluation import Answer, Question, Scripted, evaluate_suite

SharedData = Callable[[str], Path]
FILES = {
    "gsm8k": "gsm8k_test.jsonl",
    "math500": "math500.jsonl",
    "mmlu": "mmlu_stem.jsonl",
    "humaneval": "human_eval.jsonl",
    "mbpp": "mbpp.jsonl",
    "rgb_zh_noise": "rgb_zh_refine.jsonl",
    "rgb_zh_refusal": "rgb_zh_refine.jsonl",
    "rgb_zh_integration": "rgb_zh_int.jsonl",
    "rgb_zh_counterfactual": "rgb_zh_fact.jsonl",
    "rgb_en_counterfactual": "rgb_en_fact.jsonl",
}
LIMITS = {"gsm8k": 100, "math500": 60, "humaneval": 12, "mbpp": 12}
"""What runs programs or symbolic algebra; the whole files are for `docs/evaluate.md`."""


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(
    name: str, data: Path, answer: Callable[[Prompt], str], path: Path, limit: int | None = None
) -> dict[str, Metric]:
    suite = plugin_manager().benchmark(name)
    return evaluate_suite(Scripted(answer), suite, path, data=data, limit=limit)


def references(name: str, data: Path) -> Callable[[Prompt], str]:
    """Return the policy that answers from the references of a file."""
    if name.startswith("rgb"):
        return rgb_reference
    if name == "mmlu":
        return lambda prompt: f"The correct answer is {letter_of(prompt)}."
    if name == "humaneval":
        known = {
            row["task_id"]: f"```python\n{row['prompt']}{row['canonical_solution']}\n```"
            for row in rows(data)
        }
    elif name == "mbpp":
        known = {f"MBPP/{row['task_id']}": f"```python\n{row['code']}\n```" for row in rows(data)}
    else:
        solution = "answer" if name == "gsm8k" else "solution"
        ids = (row.get("id", f"{name}/{i}") for i, row in enumerate(rows(data), 1))
        found = {i: row[solution] for i, row in zip(ids, rows(data), strict=True)}
        known = {f"{name}/{i}": text for i, text in enumerate(found.values(), 1)}
    return lambda prompt: known[prompt.id]


def letter_of(prompt: Prompt) -> str:
    target: Any = prompt.target
    return "ABCD"["ABCD".index(target["answer"]) if target["answer"] in [*"ABCD"] else target["answer"]]


def rgb_reference(prompt: Prompt) -> str:
    if prompt.answerable is False:
        return "根据这些文档无法回答。"
    target: Any = prompt.target
    return "、".join(aliases[0] for aliases in target)


@pytest.mark.parametrize("name", FILES)
def test_references_score_everything(name: str, shared_data: SharedData, tmp_path: Path) -> None:
    data = shared_data(FILES[name])
    found = run(name, data, references(name, data), tmp_path / "s", LIMITS.get(name))
    print(name, found["success"])
    wrong = [
        line
        for line in (tmp_path / "s" / "items.jsonl").read_text().splitlines()
        if not json.loads(line)["is_success"]
    ]
    assert found["success"].value == 1.0, wrong[:5]
    assert "unscored" not in found


@pytest.mark.parametrize("name", FILES)
def test_empty_answers_score_nothing(name: str, shared_data: SharedData, tmp_path: Path) -> None:
    data = shared_data(FILES[name])
    found = run(name, data, lambda prompt: "", tmp_path / "s", LIMITS.get(name))
    assert found["success"].value == 0.0
    assert "unscored" not in found
