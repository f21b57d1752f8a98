"""Figures over scored answers: golden values and properties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgym import Prompt, Score
from textgym.item_statistics import (
    attempts,
    mean,
    pass_at_k,
    share,
    shares,
    success,
    summarise,
    wilson,
)
from textgym.items import Item


def item(
    index: int = 0,
    *,
    right: bool | None = True,
    sample: int = 0,
    task: str | None = None,
    extracted: str | None = None,
    value: float | None = None,
) -> Item:
    metadata = {} if task is None else {"task": task}
    number = float(bool(right)) if value is None else value
    prompt = Prompt(id=str(index), messages="?", metadata=metadata)
    return Item(prompt, "x", Score(number, extracted=extracted), right, sample, index)


def test_wilson_is_the_textbook_interval() -> None:
    # 8 of 10: centre (0.8 + 1.9208/10) / 1.38416, half 1.96 sqrt(0.016 + 0.0096) / 1.38416
    found = wilson(8, 10)
    assert found.value == 0.8
    assert (found.low, found.high) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)


@given(total=st.integers(1, 500), data=st.data())
def test_wilson_holds_the_share_and_stays_in_range(total: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, total))
    found = wilson(hits, total)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_nothing_has_no_value() -> None:
    for found in (wilson(0, 0), mean([]), success([]), share([item()], bool, of=lambda i: False)):
        assert math.isnan(found.value)
        assert found.count == 0


@pytest.mark.parametrize(("n", "c"), [(5, 0), (5, 2), (6, 6), (7, 3)])
def test_pass_at_k_is_the_mean_over_all_choices_of_k_answers(n: int, c: int) -> None:
    answers = [True] * c + [False] * (n - c)
    for k in range(1, n + 1):
        choices = [any(choice) for choice in itertools.combinations(answers, k)]
        assert pass_at_k(n, c, k) == pytest.approx(np.mean(choices))


def test_pass_at_k_refuses_more_answers_than_there_are() -> None:
    with pytest.raises(ValueError, match="k=3"):
        pass_at_k(2, 1, 3)


def test_attempts_are_counted_per_prompt() -> None:
    # Prompt 0: 2 of 4 right, pass@2 = 1 - C(2,2)/C(4,2) = 5/6; prompt 1: none right.
    items = [item(0, right=s < 2, sample=s, extracted=str(s < 2)) for s in range(4)]
    items += [item(1, right=False, sample=s, extracted="no") for s in range(4)]
    found = attempts(items)
    assert list(found) == ["pass@1", "pass@2", "pass@4", "majority@4"]
    assert found["pass@1"].value == pytest.approx(0.25)
    assert found["pass@2"].value == pytest.approx(5 / 12)
    assert found["pass@4"].value == 0.5
    assert found["majority@4"].value == pytest.approx(0.25)  # a tie of right and wrong, and wrong
    assert all(metric.count == 2 for metric in found.values())


def test_answers_without_an_extraction_have_no_vote() -> None:
    votes = [("7", True), (None, False), (None, False)]
    items = [item(right=r, sample=s, extracted=e) for s, (e, r) in enumerate(votes)]
    assert attempts(items)["majority@3"].value == 1.0


def test_samples_of_a_prompt_are_one_cluster() -> None:
    # Ten prompts whose four samples always agree say no more than ten prompts answered once.
    once = success([item(i, right=i < 5) for i in range(10)])
    four = success([item(i, right=i < 5, sample=s) for i in range(10) for s in range(4)])
    assert four.value == once.value == 0.5
    assert four.count == 10
    assert four.high - four.low > 0.5  # of 40 independent ones it would be 0.3
    assert mean([0.0, 1.0] * 20).low == pytest.approx(0.35, abs=0.05)


def test_shares_of_several_chances_are_bootstrapped() -> None:
    found = shares([1, 2, 0], [2, 2, 1])
    assert found.value == 0.6
    assert 0 <= found.low < 0.6 < found.high <= 1


def test_a_summary_has_tasks_and_losses() -> None:
    items = [item(0, task="a"), item(1, right=False, task="b")]
    items.append(item(2, right=None)._replace(score=Score.unscored("no target")))
    items.append(item(3, right=False, task="b")._replace(finish_reason="length"))
    found = summarise(items)
    assert found["success"][:1] == pytest.approx((1 / 3,))
    assert found["success/a"].value == 1.0
    assert found["success/b"] == wilson(0, 2)
    assert found["cut"].value == found["unscored"].value == 0.25


def test_a_reward_without_success_is_a_mean() -> None:
    items = [item(i, right=None, value=v) for i, v in enumerate((0.5, 2.5))]
    found = summarise(items)
    assert list(found) == ["reward"]
    assert found["reward"].value == 1.5
    assert (found["reward"].low, found["reward"].high) == (0.5, 2.5)
