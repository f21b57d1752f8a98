"""The reward `code`: its scores, its prompts, and the public problems with their solutions."""

from __future__ import annotations

import json
import math
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import textgym
from benchmarks.code_verdicts import (
    FILES,
    Problem,
    mutant_samples,
    read_problems,
    sample_of,
)
from textgym.errors import PromptError
from textgym_plugins.code import CodeReward, HumanEval

needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bwrap is not installed")
TARGET = {"kind": "assert", "code": "assert add(1, 2) == 3\nassert add(-1, 1) == 0\n"}
PROMPT = textgym.Prompt(id="add", messages="Write add(a, b).", target=TARGET, reward="code")
RIGHT = "```python\ndef add(a, b):\n    return a + b\n```"
HALF = "```python\ndef add(a, b):\n    return abs(a) + abs(b)\n```"
WRONG = "```python\ndef add(a, b):\n    return 99\n```"


def score(completion: str, prompt: textgym.Prompt = PROMPT, **config: object) -> textgym.Score:
    reward = CodeReward.model_validate({"num_workers": 1, **config})
    return reward.score(textgym.Sample(prompt=prompt, completion=completion))


@needs_bwrap
@pytest.mark.parametrize(("completion", "share", "whole", "label"), [
    (RIGHT, 1.0, 1.0, "correct"), (HALF, 0.5, 0.0, "partial"), (WRONG, 0.0, 0.0, "wrong"),
    ("I do not know.", 0.0, 0.0, "no_program"), ("```python\ndef add(\n```", 0.0, 0.0, "wrong"),
])  # fmt: skip
def test_the_value_is_a_share_or_all_or_nothing(
    completion: str, share: float, whole: float, label: str
) -> None:
    scored = score(completion)
    assert (scored.value, scored.status, scored.label) == (share, "scored", label)
    assert score(completion, value="all").value == whole


@needs_bwrap
def test_the_score_tells_each_test_the_program_and_stderr() -> None:
    completion = (
        "```python\ndef add(a, b):\n    if a < 0: raise KeyError('low')\n    return a + b\n```"
    )
    scored = score(completion)
    assert [(name, part.value, part.label) for name, part in scored.parts.items()] == [
        ("1: assert add(1, 2) == 3", 1.0, "passed"), ("2: assert add(-1, 1) == 0", 0.0, "failed"),
    ]  # fmt: skip
    assert scored.parts["2: assert add(-1, 1) == 0"].reason == "KeyError: 'low'"
    assert scored.reason.startswith(
        "1 of 2 tests pass; assert add(-1, 1) == 0: KeyError: 'low'; stderr: "
    )
    assert scored.reason.endswith("KeyError: 'low'")
    assert (
        scored.extracted
        == "def add(a, b):\n    if a < 0: raise KeyError('low')\n    return a + b\n"
    )
    assert scored.seconds > 0


@pytest.mark.parametrize("target", [None, "42", {"kind": "assert"}, {"kind": "stdio", "cases": []}])
def test_a_prompt_without_tests_is_not_judged(target: object) -> None:
    prompt = textgym.Prompt.model_validate({"id": "p", "messages": "?", "target": target})
    scored = score(RIGHT, prompt)
    assert scored.status == "abstained"
    assert "'p'" in scored.reason


@needs_bwrap
def test_tests_that_do_not_compile_are_not_judged() -> None:
    prompt = PROMPT.model_copy(update={"target": {"kind": "assert", "code": "assert ("}})
    assert score(RIGHT, prompt).status == "abstained"


def test_without_bubblewrap_the_sample_fails_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    scored = score(RIGHT, num_workers=7)  # an executor of its own, with no warm worker
    assert (scored.status, scored.kind) == ("failed", "unavailable")
    assert math.isnan(scored.value)
    assert "allow_weak_isolation=True" in scored.reason
    allowed = score(RIGHT, num_workers=7, allow_weak_isolation=True)
    assert allowed.value == 1.0


@needs_bwrap
def test_a_batch_scores_like_its_samples_in_order() -> None:
    completions = [RIGHT, WRONG, "no", HALF] * 5
    reward = CodeReward(num_workers=2)
    samples = [textgym.Sample(prompt=PROMPT, completion=c) for c in completions]
    assert [s.value for s in reward.score_batch(samples)] == [1.0, 0.0, 0.0, 0.5] * 5


def test_it_is_registered_and_pickles() -> None:
    reward = textgym.make_reward("code", value="all", limits={"seconds": 3.0})
    assert isinstance(reward, CodeReward)
    assert reward.limits.seconds == 3.0
    assert pickle.loads(pickle.dumps(reward)) == reward


@needs_bwrap
def test_a_raw_humaneval_prompt_needs_no_more_than_its_tests() -> None:
    header = "def double(n):\n    '''Return twice n.'''\n"
    target = {"kind": "assert", "code": "def check(c):\n    assert c(2) == 4\n", "entry": "double"}
    prompt = textgym.Prompt.model_validate({"id": "d", "messages": header, "target": target})
    assert score("    return 2 * n\n", prompt).value == 1.0
    assert score("```python\ndef double(n):\n    return n + n\n```", prompt).value == 1.0
    assert score("    return n\n", prompt).value == 0.0


@pytest.fixture(params=["humaneval", "mbpp"])
def problems(request: pytest.FixtureRequest, shared_data: Callable[[str], Path]) -> list[Problem]:
    return read_problems(request.param, shared_data(FILES[request.param]))


@needs_bwrap
def test_every_canonical_solution_passes(problems: list[Problem]) -> None:
    samples = [sample_of(p.program, p.prompt) for p in problems]
    scores = CodeReward(num_workers=2).score_batch(samples)
    assert [s.reason for s in scores if s.value != 1.0] == []


@needs_bwrap
def test_no_mutant_passes(problems: list[Problem]) -> None:
    samples = mutant_samples(problems)
    assert len(samples) > 0.7 * len(problems), "most have an operator or constant that matters"
    scores = CodeReward(num_workers=2, value="all").score_batch(samples)
    assert [s.status for s in scores] == ["scored"] * len(samples)
    assert [sample.prompt.id for s, sample in zip(scores, samples, strict=True) if s.value] == []


@pytest.mark.parametrize(("row", "message"), [
    ({"task_id": 1}, "missing field"), ({"task_id": 1, "prompt": "def f(", "entry_point": "f",
    "test": ""},
    "no humaneval problem"),
])  # fmt: skip
def test_a_row_that_is_no_problem_is_named(
    tmp_path: Path, row: dict[str, object], message: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(PromptError, match=message):
        HumanEval(path=path).num_prompts()
