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
from textgym.benchmark import Metric
from textgym.errors import ConfigError
from textgym.item_files import read_items
from textgym.item_statistics import success
from textgym_agents.evaluation import Scripted, evaluate_suite
from textgym_agents.evaluation.scripts import script_of

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
    answerer = Scripted(lambda question: answer(question.prompt))
    return evaluate_suite(answerer, suite, path, data=data, limit=limit)


def script(name: str) -> Scripted:
    found = script_of(name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", FILES)
def test_references_score_everything(name: str, shared_data: SharedData, tmp_path: Path) -> None:
    found = evaluate_suite(
        script("scripted:references"),
        plugin_manager().benchmark(name),
        tmp_path / "s",
        data=shared_data(FILES[name]),
        limit=LIMITS.get(name),
    )
    wrong = [item.prompt.id for item in read_items(tmp_path / "s") if not item.is_success]
    assert found["success"].value == 1.0, wrong
    assert "unscored" not in found


@pytest.mark.parametrize("name", FILES)
def test_empty_answers_score_nothing(name: str, shared_data: SharedData, tmp_path: Path) -> None:
    data = shared_data(FILES[name])
    found = run(name, data, lambda prompt: "", tmp_path / "s", LIMITS.get(name))
    assert found["success"].value == 0.0
    assert "unscored" not in found


def test_solutions_of_four_models_score_as_published(
    shared_data: SharedData, tmp_path: Path
) -> None:
    solutions = shared_data("gsm8k_model_solutions.jsonl")
    names = [name for name, value in rows(solutions)[0].items() if isinstance(value, dict)]
    evaluate_suite(
        script(f"answers:{solutions}"),
        plugin_manager().benchmark("gsm8k"),
        tmp_path / "s",
        samples=len(names),
        temperature=1.0,
        data=shared_data("gsm8k_test.jsonl"),
    )
    items = read_items(tmp_path / "s")
    for sample, name in enumerate(names):
        published = sum(row[name]["is_correct"] for row in rows(solutions)) / len(rows(solutions))
        found = success([item for item in items if item.sample == sample])
        assert found.value == pytest.approx(published, abs=0.002)
        assert found.low < published < found.high
        assert found.count == len(rows(solutions))


def test_responses_to_instructions_score_as_published(
    shared_data: SharedData, tmp_path: Path
) -> None:
    pytest.importorskip("langdetect")
    responses = shared_data("ifeval_qwen2_5_0_5b.jsonl")
    judged = {row["prompt"]: row for row in rows(responses)}
    prompts = rows(shared_data("ifeval_prompts.jsonl"))
    found = evaluate_suite(
        script(f"answers:{responses}"),
        plugin_manager().benchmark("ifeval"),
        tmp_path / "s",
        data=shared_data("ifeval_prompts.jsonl"),
    )
    verdicts = [judged[row["prompt"]] for row in prompts if row["prompt"] in judged]
    for mode in ("strict", "loose"):
        by_prompt = sum(all(v[mode]) for v in verdicts) / len(verdicts)
        flat = [each for v in verdicts for each in v[mode]]
        assert found[f"prompt_{mode}"].value == pytest.approx(by_prompt, abs=0.004)
        assert found[f"instruction_{mode}"].value == pytest.approx(sum(flat) / len(flat), abs=0.004)
    assert found["success"] == found["prompt_strict"]
    assert found["success"].count == len(verdicts)
    assert found["unscored"].value == pytest.approx(1 - len(verdicts) / len(prompts))
    followed = [row for row in prompts if all(judged.get(row["prompt"], {}).get("strict", [0]))]
    data = tmp_path / "followed.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in followed))
    right = run("ifeval", data, lambda prompt: judged[prompt.text]["response"], tmp_path / "right")
    assert right["success"].value >= 0.99
    empty = run("ifeval", data, lambda prompt: "", tmp_path / "empty")
    assert empty["prompt_loose"].value == 0.0
    with pytest.raises(ConfigError, match="has no reference that could be an answer"):
        evaluate_suite(
            script("scripted:references"),
            plugin_manager().benchmark("ifeval"),
            tmp_path / "none",
            data=shared_data("ifeval_prompts.jsonl"),
        )


def test_eight_responses_give_pass_and_majority_as_published(
    shared_data: SharedData, tmp_path: Path
) -> None:
    judged = [
        row for row in rows(shared_data("qwen_math_responses.jsonl")) if len(row["responses"]) == 8
    ]
    data = tmp_path / "math.jsonl"
    data.write_text(
        "".join(
            json.dumps({"problem": row["question"], "answer": row["target"]}) + "\n"
            for row in judged
        )
    )
    found = evaluate_suite(
        script(f"answers:{shared_data('qwen_math_responses.jsonl')}"),
        plugin_manager().benchmark("math500"),
        tmp_path / "s",
        samples=8,
        temperature=1.0,
        data=data,
    )
    correct = [[bool(each) for each in row["correct"]] for row in judged]
    share = sum(map(sum, correct)) / (8 * len(correct))
    assert found["success"].value == pytest.approx(share, abs=0.005)
    assert found["pass@1"].value == pytest.approx(share, abs=0.005)
    anywhere = sum(map(any, correct)) / len(correct)
    assert found["pass@8"].value == pytest.approx(anywhere, abs=0.03)
    assert found["pass@1"].value <= found["pass@4"].value <= found["pass@8"].value
    assert found["majority@8"].value >= share - 0.05
    assert found["success"].count == len(judged)


def test_refusals_over_passages_are_counted(shared_data: SharedData, tmp_path: Path) -> None:
    def refuse(prompt: Prompt) -> str:
        return "根据这些文档无法回答。"

    data = shared_data("rgb_zh_refine.jsonl")
    noise = run("rgb_zh_noise", data, refuse, tmp_path / "noise")
    assert noise["FN"].value == noise["over_refusal"].value == 1.0
    assert noise["noise/zh"].value == 0.0
    refusal = run("rgb_zh_refusal", data, refuse, tmp_path / "refusal")
    assert refusal["TN"].value == refusal["refusal_recall"].value == 1.0
    empty = run("rgb_zh_refusal", data, lambda prompt: "", tmp_path / "empty")
    assert empty["FP"].value == 1.0
    assert empty["refusal_recall"].value == 0.0
    assert empty["refusal_precision"].count == 0


def test_random_choices_are_right_as_often_as_chance(
    shared_data: SharedData, tmp_path: Path
) -> None:
    rng = random.Random(0)
    found = run(
        "mmlu",
        shared_data("mmlu_stem.jsonl"),
        lambda prompt: f"The correct answer is {rng.choice('ABCD')}.",
        tmp_path / "s",
    )
    assert found["success"].low < 0.25 < found["success"].high
    assert any(name.startswith("success/mmlu/college") for name in found)


@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_programs_that_do_nothing_are_wrong(
    name: str, shared_data: SharedData, tmp_path: Path
) -> None:
    data = shared_data(FILES[name])
    found = run(name, data, lambda prompt: "```python\npass\n```", tmp_path / "s", 12)
    assert found["success"].value == 0.0


def test_the_form_of_a_multiple_choice_prompt(tmp_path: Path) -> None:
    data = tmp_path / "mmlu.jsonl"
    row = {"question": "2+2?", "choices": ["3", "4", "5", "6"], "answer": "B", "subject": "a_b"}
    data.write_text(json.dumps(row) + "\n")
    asked: list[Prompt] = []
    found = run(
        "mmlu", data, lambda p: asked.append(p) or "The correct answer is B", tmp_path / "s"
    )  # type: ignore[func-returns-value]
    assert found["success"].value == 1.0
    assert asked[0].text == (
        "Answer the following multiple choice question about a b. Respond with a single sentence "
        'of the form "The correct answer is _", filling the blank with the letter of the correct '
        "answer (A, B, C or D).\n\nQuestion: 2+2?\nA) 3\nB) 4\nC) 5\nD) 6"
    )
