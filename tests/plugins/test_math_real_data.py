"""The math reward on real solutions and references that people and models wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from textgym import Prompt, Sample
from textgym.sample_files import read_samples
from textgym_plugins.math import MathReward
from textgym_plugins.math.target import read_target

SharedData = Callable[[str], Path]


def disagreements(path: Path) -> tuple[int, list[str]]:
    """Return how many samples a file has, and where the reward and the verdicts in it differ."""
    judged = read_samples(path).samples
    scores = MathReward().score_batch([each.sample for each in judged])
    assert all(score.is_scored for score in scores)
    differ = [
        f"{each.place}: {each.sample.prompt.target} | {score.extracted}"
        for each, score in zip(judged, scores, strict=True)
        if (score.value == 1.0) != each.verdict
    ]
    return len(judged), differ


def test_agrees_with_the_verdicts_on_gsm8k_solutions(shared_data: SharedData) -> None:
    total, differ = disagreements(shared_data("gsm8k_model_solutions.jsonl"))
    assert total >= 2_000
    assert len(differ) <= 0.001 * total, differ


def test_agrees_with_the_verdicts_on_responses_to_math_problems(shared_data: SharedData) -> None:
    total, differ = disagreements(shared_data("qwen_math_responses.jsonl"))
    assert total >= 300
    assert len(differ) <= 0.005 * total, differ


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", ["gsm8k_train.jsonl", "gsm8k_test.jsonl"])
def test_reference_solutions_answer_their_own_question_only(
    shared_data: SharedData, name: str
) -> None:
    found = rows(shared_data(name))
    prompts = [
        Prompt(id=row["question"], messages=row["question"], target=row["answer"]) for row in found
    ]
    others = found[1:] + found[:1]
    reward = MathReward()
    own = reward.score_batch(
        [Sample(prompt, row["answer"]) for prompt, row in zip(prompts, found, strict=True)]
    )
    assert all(score.value == 1.0 for score in own)
    swapped = reward.score_batch(
        [Sample(prompt, row["answer"]) for prompt, row in zip(prompts, others, strict=True)]
    )
    for score, row, other in zip(swapped, found, others, strict=True):
        texts = [each["answer"].rpartition("#### ")[2].replace(",", "") for each in (row, other)]
        assert (score.value == 1.0) == (float(texts[0]) == float(texts[1])), texts


def test_worked_solutions_reach_their_latex_answers(shared_data: SharedData) -> None:
    found = rows(shared_data("math500.jsonl"))
    reward = MathReward()
    samples = [
        Sample(
            Prompt(id=row["id"], messages=row["problem"], target=row["expected_answer"]),
            row["solution"],
        )
        for row in found
    ]
    scores = reward.score_batch(samples)
    missed = [
        (each.prompt.target, score.extracted, score.reason)
        for each, score in zip(samples, scores, strict=True)
        if score.value != 1.0
    ]
    assert len(missed) <= 0.01 * len(samples), missed


def test_latex_answers_are_not_mistaken_for_each_other(shared_data: SharedData) -> None:
    answers = [row["expected_answer"] for row in rows(shared_data("math500.jsonl"))]
    samples = [
        Sample(Prompt(id="1", messages="?", target=target), rf"\boxed{{{other}}}")
        for target, other in zip(answers, answers[1:] + answers[:1], strict=True)
    ]
    for sample, score in zip(samples, MathReward().score_batch(samples), strict=True):
        target = sample.prompt.target
        assert isinstance(target, str)
        same = read_target(target) == read_target(sample.completion)
        assert score.value == float(same), (target, sample.completion, score.reason)
