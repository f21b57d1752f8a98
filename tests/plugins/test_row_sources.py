"""Sources of public files: rows in the shapes of their publishers, malformed rows, references."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from textgym import Sample, Scorer, make_prompt_source
from textgym.errors import ConfigError, PromptError

ROWS: dict[str, dict[str, Any]] = {
    "gsm8k": {"question": "1+1?", "answer": "1+1=<<1+1=2>>2\n#### 2"},
    "math500": {"problem": "$x=2$?", "solution": "So \\boxed{2}.", "answer": "2", "level": 1,
                "subject": "Algebra", "unique_id": "test/1"},
    "mmlu": {"question": "2+2?", "choices": ["3", "4"], "answer": 1, "subject": "high_school"},
    "humaneval": {"task_id": "HumanEval/0", "prompt": "def f(x):\n", "entry_point": "f",
                  "canonical_solution": "    return x\n",
                  "test": "def check(f):\n    assert f(1) == 1\n"},
    "mbpp": {"task_id": 1, "text": "Return it.", "code": "def f(x):\n    return x",
             "test_list": ["assert f(1) == 1"], "test_setup_code": ""},
    "preferences": {"prompt": "1+1?", "chosen": "2", "rejected": "3", "subset": "maths"},
    "requests": {"instruction": "Say hi.", "output": "Hi.", "dataset": "helpful"},
}  # fmt: skip


def source(name: str, path: Path, *rows: dict[str, Any], **config: Any) -> Any:
    file = path / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return make_prompt_source(name, path=file, **config)


@pytest.mark.parametrize("name", ROWS)
def test_a_reference_is_a_success(name: str, tmp_path: Path) -> None:
    found = source(name, tmp_path, ROWS[name])
    prompt, shown = found.prompt(0), found.demonstrations(0)
    assert found.num_prompts() == len(found.split_keys()) == 1
    if name == "requests":
        assert shown.right == ()
        assert (prompt.target, prompt.metadata["task"]) == ("Hi.", "helpful")
        return
    with Scorer(None) as scorer:
        [right, empty] = scorer.score_batch([Sample(prompt, shown.right[0]), Sample(prompt, "")])
        assert scorer.is_success(prompt, right) is True
        assert scorer.is_success(prompt, empty) is False


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("gsm8k", {"answer": "#### two"}, "expected a number after '####', got 'two'"),
        ("math500", {"problem": ""}, "no math500 problem: is empty"),
        ("mmlu", {"choices": "no"}, "'choices' is 'no'; expected 2 to 10 options"),
        ("mmlu", {"answer": 2}, "'answer' is 2; expected one of AB"),
        ("mmlu", {"subject": None}, "missing field 'subject'; the row has question"),
        ("preferences", {"rejected": "2"}, "is equal to 'chosen'"),
        ("requests", {"instruction": 7}, "'instruction' is 7; expected text"),
    ],
)
def test_a_row_that_is_no_problem_is_named(
    name: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    row = {key: value for key, value in {**ROWS[name], **change}.items() if value is not None}
    with pytest.raises(PromptError, match=rf"{name}.jsonl:2: .*{message}"):
        source(name, tmp_path, ROWS[name], row).num_prompts()


def test_a_problem_is_put_into_a_text(tmp_path: Path) -> None:
    found = source("gsm8k", tmp_path, ROWS["gsm8k"], text="Q: {problem}\nA:")
    assert found.prompt(0).text == "Q: 1+1?\nA:"
    plain = source("gsm8k", tmp_path, {"question": "1+1?", "answer": "2"}).prompt(0)
    assert (plain.target, plain.reward) == ("2", "math")
    assert source("math500", tmp_path, ROWS["math500"]).prompt(0).id == "math500/test/1"
    with pytest.raises(ConfigError, match="text"):
        source("gsm8k", tmp_path, ROWS["gsm8k"], text="no place")


def test_equal_problems_fall_on_one_side(tmp_path: Path) -> None:
    keys = source("mmlu", tmp_path, ROWS["mmlu"], ROWS["mmlu"]).split_keys()
    assert keys[0] == keys[1]


def test_rows_of_the_hub_have_arguments_that_are_null(tmp_path: Path) -> None:
    row = {"key": 1, "prompt": "Write.", "instruction_id_list": ["punctuation:no_comma"],
           "kwargs": [{"num_words": None, "relation": None}]}  # fmt: skip
    assert source("ifeval", tmp_path, row).num_prompts() == 1
