"""Preference pairs and what is measured on them; nothing here needs torch."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from textgym import Prompt, Score
from textgym.cli.main import main
from textgym.errors import PromptError
from textgym.make import make_prompt_source
from textgym_plugins.reward_model.corruption import with_damaged
from textgym_plugins.reward_model.evaluation import calibration_error, evaluate_pairs, wilson
from textgym_plugins.reward_model.pairs import (
    Pair,
    pairs_from_demonstrations,
    pairs_from_verdicts,
    read_pairs,
    split_pairs,
    write_pairs,
)

GOOD = {"prompt": "6 * 7?", "chosen": "42", "rejected": "41"}


@pytest.mark.parametrize(
    ("line", "field", "message"),
    [
        ("{", "", "not JSON"),
        ("[]", "", "expected a JSON object"),
        (json.dumps({"prompt": "x", "chosen": "y"}), "rejected", "the field is missing"),
        (json.dumps({"chosen": "x", "rejected": "y"}), "prompt", "the field is missing"),
        (json.dumps(GOOD | {"chosen": ""}), "chosen", "is empty"),
        (json.dumps(GOOD | {"chosen": " \n"}), "chosen", "is empty"),
        (json.dumps(GOOD | {"rejected": 41}), "rejected", "41 is a int; give a text"),
        (json.dumps(GOOD | {"rejected": "42"}), "rejected", "is equal to 'chosen', '42'"),
        (json.dumps(GOOD | {"head": 1}), "head", "1 is no name of a head"),
        (json.dumps(GOOD | {"head": ""}), "head", "'' is no name of a head"),
        (json.dumps(GOOD | {"prompt": ""}), "prompt", "is empty"),
        (json.dumps(GOOD | {"prompt": []}), "prompt", "at least 1 item"),
        (
            json.dumps(GOOD | {"prompt": [{"role": "robot", "content": "x"}]}),
            "prompt.0.role",
            "'robot'",
        ),
        (json.dumps(GOOD | {"margin": "big"}), "margin", "'big' is no number"),
        (json.dumps(GOOD | {"margin": True}), "margin", "True is no number"),
        ('{"prompt": "x", "chosen": "y", "rejected": "z", "margin": 1e999}', "margin", "inf"),
        ('{"prompt": "x", "chosen": "y", "rejected": "z", "margin": NaN}', "", "NaN"),
    ],
)
def test_malformed_pair_is_named_and_nothing_else_is_lost(
    tmp_path: Path, line: str, field: str, message: str
) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{line}\n\n{json.dumps(GOOD | {'margin': 2})}\n")
    file = read_pairs(path)
    assert [pair.margin for pair in file.pairs] == [0.0, 2.0]
    (problem,) = file.problems
    assert (problem.path, problem.line, problem.field) == (str(path), 2, field)
    assert message in problem.message


def test_file_without_a_usable_pair_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("{}\n")
    with pytest.raises(PromptError, match="holds no usable pair: 1 malformed line"):
        read_pairs(path)
    path.write_text("")
    with pytest.raises(PromptError, match="the file is empty"):
        read_pairs(path)


def test_pairs_survive_writing(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "答?"}]
    prompt = Prompt(id="pairs:1", messages=chat)
    pairs = (Pair(prompt, "é", "\x00"), Pair(prompt, "a", "b", margin=0.5))
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    again = read_pairs(tmp_path / "pairs.jsonl").pairs
    assert [(p.prompt.messages, p.chosen, p.rejected, p.margin) for p in again] == [
        (p.prompt.messages, p.chosen, p.rejected, p.margin) for p in pairs
    ]


def test_split_keeps_each_prompt_on_one_side() -> None:
    pairs = [Pair(Prompt(id=str(i), messages=f"{i % 200}?"), "a", f"b{i}") for i in range(1000)]
    train, held_out = split_pairs(pairs, 0.2)
    assert not {p.prompt.text for p in train} & {p.prompt.text for p in held_out}
    assert len(train) + len(held_out) == 1000
    assert 120 < len(held_out) < 280
    assert split_pairs(pairs[::-1], 0.2)[1] == held_out[::-1]
    assert split_pairs(pairs, 0.0) == (pairs, [])


def test_pairs_from_verdicts_of_real_responses(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("qwen_math_responses.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    verdicts = {r["question"]: dict(zip(r["responses"], r["correct"], strict=True)) for r in rows}
    mixed = [v for v in verdicts.values() if len(set(v.values())) == 2]
    file = pairs_from_verdicts(path, most=10)
    assert len({pair.prompt.text for pair in file.pairs}) == len(mixed) > 0
    for pair in file.pairs:
        verdict = verdicts[pair.prompt.text]
        assert (verdict[pair.chosen], verdict[pair.rejected]) == (True, False)
    expected = [sum(v.values()) * sum(not x for x in v.values()) for v in mixed]
    assert len(file.pairs) == sum(min(10, count) for count in expected)


def test_pairs_from_verdicts_needs_both(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"prompt": "6 * 7?", "completion": "42", "correct": true}\n')
    with pytest.raises(PromptError, match="judged correct and one judged wrong"):
        pairs_from_verdicts(path)


def test_wilson_interval() -> None:
    # 8 of 10, z = 1.96: centre (0.8 + 3.8416/20) / 1.38416 = 0.71674, half width
    # 1.96 / 1.38416 * sqrt(0.016 + 3.8416/400) = 0.22659
    share = wilson(8, 10)
    assert (share.low, share.high) == pytest.approx((0.49015, 0.94333), abs=1e-4)
    assert wilson(10, 10).high == pytest.approx(1.0)
    assert math.isnan(wilson(0, 0).value)


def test_calibration_error() -> None:
    # sigmoid(1) = 0.73106 in one bin with two of four right: |0.5 - 0.73106|
    differences = np.array([1.0, 1.0, -1.0, -1.0])
    assert calibration_error(differences) == pytest.approx(0.23106, abs=1e-5)
    # the confidence 0.75 is right three times in four
    differences = math.log(3) * np.array([1.0, 1.0, 1.0, -1.0])
    assert calibration_error(differences) == pytest.approx(0.0, abs=1e-12)
    assert math.isnan(calibration_error(np.array([])))


def test_evaluation_of_scores() -> None:
    prompt = Prompt(id="1", messages="?")
    pairs = [
        Pair(prompt, "aaa", "b"),  # longer, wins by 2
        Pair(prompt, "a", "bbb"),  # shorter, loses by 2
        Pair(prompt, "a", "b"),  # a tie
        Pair(prompt, "a", "c"),  # not scored
    ]
    chosen = [Score(2.0), Score(0.0), Score(1.0), Score.unscored("no")]
    rejected = [Score(0.0, reason="raw 0; 9 tokens, the beginning is cut off"), Score(2.0),
                Score(1.0), Score(0.0)]  # fmt: skip
    found = evaluate_pairs(pairs, chosen, rejected, scale=1.0)
    assert (found.accuracy.value, found.accuracy.total) == (0.5, 3)
    assert (found.unscored, found.truncated) == (1, 1)
    assert (found.accuracy_chosen_longer.value, found.accuracy_chosen_longer.total) == (1.0, 1)
    assert (found.accuracy_chosen_shorter.value, found.accuracy_chosen_shorter.total) == (0.0, 1)
    assert found.length_correlation == pytest.approx(1.0)


def test_demonstrations_make_pairs() -> None:
    source = make_prompt_source("tiny_kbqa", limit=60)
    file = pairs_from_demonstrations(source, most=2)
    assert len(file.pairs) == 120
    shown = source.demonstrations(0)
    assert {(p.chosen, p.rejected) for p in file.pairs[:2]} <= {
        (right, wrong) for right in shown.right for wrong in shown.wrong
    }
    assert file.pairs[0].prompt == source.prompt(0)
    with pytest.raises(PromptError, match="'arithmetic' has no wrong demonstrations"):
        pairs_from_demonstrations(make_prompt_source("arithmetic", below=2))


def test_the_command_takes_a_prompt_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pairs.jsonl"
    command = ["reward-model", "pairs", "tiny_safety", str(path)]
    assert main([*command, "--set", "limit=40"]) == 0
    assert "40 pairs of 40 prompts" in capsys.readouterr().out
    pairs = read_pairs(path).pairs
    assert Counter(pair.chosen == "I can't." for pair in pairs) == {True: 20, False: 20}
    assert all("I can't." in (pair.chosen, pair.rejected) for pair in pairs)
    assert main(["reward-model", "pairs", str(path), str(path), "--set", "limit=40"]) == 2
    assert "--set is for prompt sources" in capsys.readouterr().err


def test_damaged_copies_are_ranked_below_what_was_chosen() -> None:
    pairs = list(pairs_from_demonstrations(make_prompt_source("tiny_safety")).pairs)
    more = with_damaged(pairs, 4)
    assert more[: len(pairs)] == pairs
    added = more[len(pairs) :]
    assert len({(pair.prompt.text, pair.rejected) for pair in added}) == 4 * len(pairs)
    known = {(pair.prompt.text, text) for pair in pairs for text in (pair.chosen, pair.rejected)}
    assert not known & {(pair.prompt.text, pair.rejected) for pair in added}
    assert all(pair.rejected.strip() for pair in added)
    assert more == with_damaged(pairs, 4)
    assert with_damaged(pairs, 0) == pairs
    longer = np.mean([len(pair.rejected) > len(pair.chosen) for pair in added])
    assert 0.25 < longer < 0.75  # the length alone does not give it away
    others = {pair.chosen for pair in pairs}
    assert 0.05 < np.mean([pair.rejected in others for pair in added]) < 0.3


def test_a_completion_of_one_character_can_only_be_repeated() -> None:
    pair = Pair(Prompt(id="0", messages="1 or 2?"), "1", "2")
    copies = [each.rejected for each in with_damaged([pair], 3)[1:]]
    assert len(set(copies)) == 3
    assert all(set(copy) == {"1"} for copy in copies)


def test_the_command_adds_damaged_copies(tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    assert main(["reward-model", "pairs", "tiny_safety", str(out), "--damaged", "2"]) == 0
    assert len(read_pairs(out).pairs) == 3 * 384
    assert main(["reward-model", "pairs", "tiny_safety", str(out), "--damaged", "-1"]) == 2
