"""Paired tests of two evaluations, and the command that makes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgym import Prompt, Score
from textgym.cli.main import main
from textgym.comparison import compare, holm, mcnemar, permutation
from textgym.errors import ConfigError
from textgym.item_files import open_items, read_items, write_items
from textgym.items import Item


def items(values: Sequence[float], *, binary: bool = True, first: int = 0) -> list[Item]:
    return [
        Item(
            Prompt(id=f"p{i}", messages=f"question {i}"),
            "x",
            Score(value),
            value == 1.0 if binary else None,
            index=i,
        )
        for i, value in enumerate(values, first)
    ]


def write(path: Path, **suites: Sequence[Item]) -> Path:
    for name, each in suites.items():
        with open_items(path / name) as file:
            write_items(file, each)
    return path


def test_mcnemar_is_the_exact_binomial_test() -> None:
    # 1 against 9 of 10 changed prompts: 2 (C(10,0) + C(10,1)) / 2^10 = 22/1024
    assert mcnemar(1, 9) == mcnemar(9, 1) == pytest.approx(22 / 1024)
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 0) == 1.0


def test_permutation_counts_the_signs() -> None:
    # Of 2^3 signs only +++ and --- reach the sum 6.
    assert permutation(np.array([1.0, 2.0, 3.0])) == pytest.approx(2 / 8)
    assert permutation(np.zeros(5)) == 1.0
    many = np.random.default_rng(0).normal(0.5, 1.0, 60)
    assert permutation(many) < 0.01
    assert permutation(-many) == permutation(many)


def test_permutation_of_signs_alone_is_mcnemar() -> None:
    assert permutation(np.array([1.0] * 9 + [-1.0])) == pytest.approx(mcnemar(1, 9))


def test_holm_is_the_step_down_adjustment() -> None:
    # Sorted: 0.01 * 3, then 0.02 * 2 = 0.04, then max(0.04, 0.03).
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_value_and_bonferroni(ps: list[float]) -> None:
    for p, adjusted in zip(ps, holm(ps), strict=True):
        assert p <= adjusted <= min(1.0, len(ps) * p) + 1e-12


def test_verdicts_are_adjusted_for_the_number_of_suites() -> None:
    right, worse = items([1.0] * 40), items([1.0] * 34 + [0.0] * 6)
    [alone] = compare({"a": right}, {"a": worse})
    assert alone.test == "McNemar"
    assert alone.p == pytest.approx(2 / 2**6)
    assert alone.verdict == "regression"
    assert alone.difference.value == pytest.approx(-0.15)
    assert alone.difference.low < -0.15 < alone.difference.high < 0
    same = {"b": right, "c": right}
    first = compare({"a": right, **same}, {"a": worse, **same})[0]
    assert first.adjusted_p == pytest.approx(3 * alone.p)
    assert first.verdict == "no difference"
    assert compare({"a": worse}, {"a": right})[0].verdict == "improvement"


def test_equal_policies_are_seldom_called_worse() -> None:
    rng, false = np.random.default_rng(1), 0
    for _ in range(200):
        a, b = (rng.random((2, 60)) < 0.6).astype(float)
        false += compare({"s": items(a)}, {"s": items(b)})[0].verdict != "no difference"
    assert false <= 0.05 * 200 + 8  # exact tests keep below alpha


def test_rewards_and_several_answers_are_permuted() -> None:
    a, b = items([0.2, 0.4] * 10, binary=False), items([0.3, 0.6] * 10, binary=False)
    [found] = compare({"s": a}, {"s": b})
    assert found.test == "permutation"
    assert found.verdict == "improvement"
    assert not found.is_success
    twice = [i._replace(sample=s, is_success=s == 0) for i in items([1.0] * 8) for s in (0, 1)]
    [found] = compare({"s": twice}, {"s": items([1.0] * 8)})
    assert found.test == "permutation"
    assert found.a == 0.5


def test_prompts_are_paired_by_id_whatever_their_order() -> None:
    a = items([1.0, 0.0, 1.0, 0.0])
    [found] = compare({"s": a}, {"s": list(reversed(a))[:3]})
    assert found.difference.value == 0.0
    assert found.num_unpaired == 1
    with pytest.raises(ConfigError, match="no prompt in common"):
        compare({"s": a}, {"s": items([1.0], first=9)})
    other = [a[0]._replace(prompt=Prompt(id="p0", messages="another question"))]
    with pytest.raises(ConfigError, match="the prompt 'p0' reads differently"):
        compare({"s": a}, {"s": other})
    with pytest.raises(ConfigError, match="no suite in common: s and t"):
        compare({"s": a}, {"t": a})


def test_the_command_tells_a_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write(tmp_path / "a", s=items([1.0] * 30), t=items([0.0] * 5), only=items([1.0]))
    b = write(tmp_path / "b", s=items([1.0] * 15 + [0.0] * 15), t=items([0.0] * 5))
    assert main(["compare", str(a), str(b)]) == 0
    out = capsys.readouterr().out
    assert "regression" in out
    assert "in one of the two only: only" in out
    assert main(["compare", str(a), str(b), "--fail-on-regression"]) == 1
    assert main(["compare", str(b), str(a), "--fail-on-regression", "--json"]) == 0
    out = capsys.readouterr().out
    found = json.loads(out[out.index("\n{") :])
    assert [each["verdict"] for each in found["suites"]] == ["improvement", "no difference"]
    assert main(["compare", str(a / "s"), str(b / "s"), "--fail-on-regression"]) == 1
    assert main(["compare", str(a), str(tmp_path / "none")]) == 2
    assert "holds no evaluated suite" in capsys.readouterr().err
    (b / "s" / "items.jsonl").write_text('{"index": 0}\n')
    assert main(["compare", str(a), str(b)]) == 2
    assert "items.jsonl:1: no item of an evaluation" in capsys.readouterr().err


def test_answers_are_scored_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["yes", "Yes!", "no"]
    old = [
        Item(Prompt(id=str(i), messages="?", target="yes", reward="exact_match"), text, Score(0.0),
             False, index=i)
        for i, text in enumerate(texts)
    ]  # fmt: skip
    old.append(old[0]._replace(index=3, finish_reason="length", prompt=Prompt(id="3", messages="?",
               target="yes", reward="exact_match")))  # fmt: skip
    path = write(tmp_path / "a", s=old)
    command = ["rescore", str(path), "--reward", "exact_match", "--json"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)["s"]
    assert found["success_before"]["value"] == 0.0
    assert found["success"]["value"] == 0.5  # an answer that was cut off is scored here
    (path / "s" / "suite.json").write_text('{"score_length_cut": false}')
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["s"]["success"]["value"] == 0.25
    more = ["--set", "ignore_punctuation=true", "--score-cut", "--out", str(tmp_path / "b")]
    assert main([*command, *more]) == 0
    assert json.loads(capsys.readouterr().out)["s"]["success"]["value"] == 0.75
    written = read_items(tmp_path / "b" / "s")
    assert [item.is_success for item in written] == [True, True, False, True]
    assert written[1].score.extracted == "Yes!"
    assert main(["compare", str(path), str(tmp_path / "b")]) == 0
    assert "+75.0%" in capsys.readouterr().out
    assert main([*command, *more]) == 2
    assert "holds answers already" in capsys.readouterr().err


def test_rollouts_of_a_run_are_scored_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"prompt": "1+1=", "target": "2", "prompt_id": "1+1", "completion": "2", "reward": 0.25,
           "is_success": False, "finish_reason": "stop"}  # fmt: skip
    (tmp_path / "rollouts").mkdir()
    lost = {**row, "completion": "3", "reward": None}
    lines = [json.dumps(row), json.dumps(lost)]
    (tmp_path / "rollouts" / "iteration-1.jsonl").write_text("\n".join(lines) + "\n")
    assert main(["rescore", str(tmp_path), "--reward", "math", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["iteration-1"]
    assert found["reward_before"]["value"] == 0.25
    assert found["reward"]["value"] == found["success"]["value"] == 0.5
    assert found["reward"]["count"] == 1  # two answers to one prompt
    assert main(["rescore", str(tmp_path), "--reward", "math"]) == 0
    assert "50.0%" in capsys.readouterr().out
