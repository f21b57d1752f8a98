"""The killable worker behind the math reward, and the reward where no algebra system is there."""

from __future__ import annotations

import importlib.util
import pickle
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from textgym import Prompt, Sample, Score
from textgym.testing import Case, check_reward
from textgym_plugins.math import MathReward, symbolic

QUESTION = "How much is it in the end?"


def sample(target: str, answer: str, question: str = QUESTION) -> Sample:
    prompt = Prompt(id="1", messages=question, target=target)
    return Sample(prompt=prompt, completion=rf"So \boxed{{{answer}}}.")


class FromSource:
    """Unpickles in a worker as the function that a line of Python is."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return eval, (self.source,)


def test_check_reward_finds_nothing_to_complain_about() -> None:
    cases = [
        Case(
            Prompt(id="sum", messages="What is 12 + 30?", target="42"),
            gold=("42", r"\boxed{42}", "12 + 30 = 42", "The answer is 42.0"),
            wrong=("41", "12 + 30", "either 42 or 41", "-42", "42 or 43", ""),
        ),
        Case(
            Prompt(id="root", messages="Solve it.", target=r"2\sqrt{3}"),
            gold=(r"\boxed{2\sqrt{3}}", r"\boxed{\sqrt{12}}"),
            wrong=(r"\boxed{3\sqrt{2}}", r"\boxed{\pm\sqrt{12}}", "3.46"),
        ),
        Case(
            Prompt(id="word", messages="Which curve is it?", target="ellipse"),
            gold=("ellipse", r"\boxed{\text{ellipse}}"),
            wrong=("circle", "ellipse or circle"),
        ),
    ]
    check_reward(MathReward(), cases)


def test_reward_pickles_with_its_configuration() -> None:
    reward = MathReward(symbolic_time_limit=2.5)
    assert pickle.loads(pickle.dumps(reward)) == reward


def test_batch_equals_singles() -> None:
    pairs = [("42", "42"), (r"2\sqrt{3}", r"\sqrt{12}"), ("x^2-1", "(x-1)(x+1)"), ("42", "41"),
             (r"\sqrt{2}", "1.41"), ("x^2-1", "(x-1)^2"), ("1/2", "0.5"), ("", "5")]  # fmt: skip
    samples = [sample(target, answer) for target, answer in pairs]
    reward = MathReward()
    batch, singles = reward.score_batch(samples), [reward.score(each) for each in samples]
    assert list(map(repr, batch)) == list(map(repr, singles))  # nan is not equal to itself
    assert [score.value for score in batch[:-1]] == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    assert batch[-1].status == "abstained"


HANGING = "+".join(
    (
        "x",
        "".join(rf"\cos({k}x)" for k in range(1, 9)) + r"(\sin(y)^2+\cos(y)^2)",
        "(-1)" + "".join(rf"\cos({k}x)" for k in range(8, 0, -1)),
    )
)
"""Equal to x; SymPy takes seconds to find out."""


def test_answer_that_takes_the_algebra_system_too_long_is_wrong() -> None:
    reward = MathReward(symbolic_time_limit=0.5)
    reward.score(sample(r"2\sqrt{3}", r"\sqrt{12}"))  # the worker is up
    started = time.perf_counter()
    hanging = reward.score(sample("x", HANGING))
    assert time.perf_counter() - started < 20
    assert (hanging.status, hanging.value, hanging.label) == ("scored", 0.0, "wrong")
    assert "timeout" in hanging.reason
    after = MathReward(symbolic_time_limit=30).score(sample("x^2-1", "(x-1)(x+1)"))
    assert after.value == 1.0


@pytest.fixture
def judged_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that puts a line of Python in the place of the algebra system."""
    return lambda source: monkeypatch.setattr(symbolic, "_JUDGE", FromSource(source))


def judge_one(time_limit: float = 30.0) -> Score:
    """Judge what needs the algebra system; the limit is one that a busy machine keeps."""
    return MathReward(symbolic_time_limit=time_limit).score(sample(r"2\sqrt{3}", r"\sqrt{12}"))


def test_answer_that_crashes_the_worker_is_wrong(judged_by: Callable[[str], None]) -> None:
    judged_by("lambda request: request.given is None or __import__('os').abort()")
    score = judge_one()
    assert (score.status, score.value) == ("scored", 0.0)
    assert "crashed" in score.reason


def test_answer_that_makes_the_algebra_system_raise_is_wrong(
    judged_by: Callable[[str], None],
) -> None:
    judged_by("lambda request: request.given is None or 1 / 0")
    score = judge_one()
    assert (score.status, score.value) == ("scored", 0.0)
    assert "raised" in score.reason


def test_target_that_hangs_fails_the_sample(judged_by: Callable[[str], None]) -> None:
    judged_by("lambda request: __import__('time').sleep(60)")
    score = judge_one(time_limit=0.5)
    assert (score.status, score.kind) == ("failed", "timeout")
    assert score.value != score.value  # nan: never mistaken for a reward of 0.0


def test_target_that_cannot_be_handled_fails_the_sample(judged_by: Callable[[str], None]) -> None:
    judged_by("lambda request: [][0]")
    score = judge_one()
    assert (score.status, score.kind) == ("failed", "raised")
    assert "IndexError" in score.reason


@pytest.fixture
def no_math_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def missing(name: str, package: str | None = None) -> object:
        return None if name == "math_verify" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", missing)


@pytest.mark.usefixtures("no_math_verify")
def test_plain_numbers_need_no_algebra_system() -> None:
    reward = MathReward()
    pairs = [("42", "42"), ("1/2", "0.5"), ("1200", r"1.2 \times 10^3"), ("5", "5 cm"),
             ("[1,2)", r"1 \le x < 2"), (r"2\sqrt{3}", r"2\sqrt{3}")]  # fmt: skip
    for target, answer in pairs:
        assert reward.score(sample(target, answer)).value == 1.0
        assert reward.score(sample(target, "77")).value == 0.0


@pytest.mark.usefixtures("no_math_verify")
def test_expression_without_the_algebra_system_is_unavailable() -> None:
    score = MathReward().score(sample(r"2\sqrt{3}", r"\sqrt{12}"))
    assert (score.status, score.kind) == ("failed", "unavailable")
    assert "pip install 'textgym[math]'" in score.reason


def test_this_process_never_imports_the_algebra_system() -> None:
    program = (
        "import sys, textgym\n"
        "reward = textgym.make_reward('math')\n"
        "prompt = textgym.Prompt(id='1', messages='?', target='x^2-1')\n"
        "sample = textgym.Sample(prompt=prompt, completion='(x-1)(x+1)')\n"
        "assert reward.score(sample).value == 1.0\n"
        "assert not {'sympy', 'math_verify', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.parametrize("limit", [0, -1, 61, float("nan")])
def test_time_limit_is_bounded(limit: float) -> None:
    with pytest.raises(ValueError, match="symbolic_time_limit"):
        MathReward(symbolic_time_limit=limit)
