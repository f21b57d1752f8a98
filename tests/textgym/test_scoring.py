"""Scoring: bad rewards cost their own samples, and a rubric's value is what its text says."""

from __future__ import annotations

import copy
import math
import os
import pickle
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

import textgym
from textgym import Prompt, Reward, Sample, Score, Scorer, Step
from textgym.reward import Isolation

Install = Callable[..., None]


def make_samples(*completions: str, reward: str | None = None) -> list[Sample]:
    prompts = [
        Prompt(id=f"p{i}", messages="q", target="t", reward=reward) for i in range(len(completions))
    ]
    return [Sample(*pair) for pair in zip(prompts, completions, strict=True)]


def make_misbehaving(where: Isolation, *, batched: bool) -> Reward:
    """Return a reward that does what the completion says; nested, so that it is sent by value."""

    class Misbehaving(Reward):
        name: ClassVar[str] = "misbehaving"
        isolation: ClassVar[Isolation] = where
        time_limit: ClassVar[float] = 0.3
        memory_limit: ClassVar[int] = 1 << 30

        def score(self, sample: Sample) -> Any:
            match sample.completion:
                case "raise":
                    raise ValueError("no good")
                case "sys.exit":
                    raise SystemExit(1)
                case "memory":
                    raise MemoryError
                case "hang":
                    re.match(r"(a+)+$", "a" * 64 + "b")
                case "exit":
                    os._exit(5)
                case "exhaust":
                    bytearray(1 << 36)
                case "nan":
                    return Score(math.nan)
                case "inf":
                    return math.inf
                case "high":
                    return Score(1.5)
                case "low":
                    return -0.1
                case "text":
                    return "good"
                case "none":
                    return None
                case "bad value":
                    return Score("good")  # type: ignore[arg-type]  # a plugin's mistake
                case "bad status":
                    return Score(1.0, "fine")  # type: ignore[arg-type]  # a plugin's mistake
                case "abstain":
                    return Score.unscored("cannot judge")
                case "zero failed":
                    return Score(0.0, "failed", kind="unavailable", reason="service down")
            return Score(1.0, label="fine")

    class MisbehavingBatch(Misbehaving):
        def score_batch(self, samples: Sequence[Sample]) -> list[Any]:
            scores = [self.score(sample) for sample in samples]
            return scores[:-1] if any(s.completion == "short" for s in samples) else scores

    return (MisbehavingBatch if batched else Misbehaving)()


@pytest.fixture(scope="module")
def scorers() -> Iterator[dict[tuple[Isolation, bool], Scorer]]:
    """One scorer for each way to call the misbehaving reward."""
    ways: list[tuple[Isolation, bool]] = [
        ("inline", False), ("inline", True), ("process", False), ("process", True),
    ]  # fmt: skip
    scorers = {way: Scorer(make_misbehaving(way[0], batched=way[1])) for way in ways}
    yield scorers
    for scorer in scorers.values():
        scorer.close()


IN_PROCESS = [
    ("hang", "timeout", r"took longer than its limit of 0\.3 s and was killed"),
    ("exit", "crashed", "crashed: the worker process exited with status 5"),
    ("exhaust", "memory", "ran out of memory"),
]
ANYWHERE = [
    ("raise", "raised", "raised ValueError: no good"),
    ("sys.exit", "raised", "raised SystemExit: 1"),
    ("memory", "memory", "ran out of memory"),
    ("nan", "not_finite", r"returned nan; a reward must be finite\. Return Score.unscored"),
    ("inf", "not_finite", "returned inf; a reward must be finite"),
    ("high", "out_of_range", r"returned 1\.5, outside its range 0 to 1"),
    ("low", "out_of_range", r"returned -0\.1, outside its range 0 to 1"),
    ("text", "wrong_type", "returned 'good'; a reward returns a Score or a number"),
    ("none", "wrong_type", "returned None; a reward returns"),
    ("bad value", "wrong_type", "returned a score whose value is 'good'"),
    ("bad status", "wrong_type", "returned the status 'fine'"),
    ("zero failed", "unavailable", "failed: service down"),
]


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize(
    ("isolation", "completion", "kind", "message"),
    [("process", *row) for row in IN_PROCESS]
    + [(where, *row) for where in ("inline", "process") for row in ANYWHERE],
)
def test_bad_reward_costs_exactly_its_sample(
    scorers: dict[tuple[Isolation, bool], Scorer],
    isolation: Isolation,
    completion: str,
    kind: str,
    message: str,
    batched: bool,
) -> None:
    scorer = scorers[isolation, batched]
    scorer.counts.clear()
    scores = scorer.score_batch(make_samples("a", completion, "b"))

    assert [s.value for s in scores[::2]] == [1.0, 1.0]
    assert [s.label for s in scores[::2]] == ["fine", "fine"]
    bad = scores[1]
    assert (bad.status, bad.kind) == ("failed", kind)
    assert math.isnan(bad.value)
    assert re.search(message, bad.reason)
    assert bad.reason.startswith("'misbehaving' (")
    assert "prompt 'p1'" in bad.reason
    assert scorer.counts == {"scored": 2, f"failed/{kind}": 1}


@pytest.mark.parametrize("isolation", ["inline", "process"])
def test_batch_of_wrong_length_is_scored_one_by_one(isolation: Isolation) -> None:
    with Scorer(make_misbehaving(isolation, batched=True)) as scorer:
        scores = scorer.score_batch(make_samples("a", "short", "b"))
    assert [s.value for s in scores] == [1.0, 1.0, 1.0]


def make_batch_only(where: Isolation, function: Callable[[int], Any]) -> Reward:
    class BatchOnly(Reward):
        name: ClassVar[str] = "batch_only"
        isolation: ClassVar[Isolation] = where

        def score_batch(self, samples: Sequence[Sample]) -> Any:
            return function(len(samples))

    return BatchOnly()


@pytest.mark.parametrize("isolation", ["inline", "process"])
@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        (lambda n: [1.0] * (n + 1), "wrong_length", "returned 2 scores for 1 sample"),
        (lambda n: [], "wrong_length", "returned 0 scores for 1 sample"),
        (lambda n: None, "wrong_type", "returned None from score_batch; expected a list"),
    ],
)
def test_reward_with_only_a_batch_fails_sample_by_sample(
    isolation: Isolation, function: Callable[[int], Any], kind: str, message: str
) -> None:
    with Scorer(make_batch_only(isolation, function)) as scorer:
        scores = scorer.score_batch(make_samples("a", "b"))
    assert [s.kind for s in scores] == [kind, kind]
    assert message in scores[0].reason


@pytest.mark.parametrize("isolation", ["inline", "process"])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_batch_may_hold_plain_numbers(isolation: Isolation, size: int) -> None:
    reward = make_batch_only(isolation, lambda n: np.linspace(0, 1, n + 1)[1:])
    with Scorer(reward) as scorer:
        scores = scorer.score_batch(make_samples(*"abcde"[:size]))
    assert [s.value for s in scores] == pytest.approx([(i + 1) / size for i in range(size)])


def test_batch_is_shared_by_the_workers() -> None:
    with Scorer(make_batch_only("process", lambda n: [n / 10] * n), num_workers=2) as scorer:
        scores = scorer.score_batch(make_samples(*"abcde"))
    assert [s.value for s in scores] == [0.3, 0.3, 0.3, 0.2, 0.2]


def test_batch_that_hangs_is_not_waited_for_per_sample() -> None:
    samples = make_samples(*["a"] * 63, "hang")
    started = time.monotonic()
    with Scorer(make_misbehaving("process", batched=True)) as scorer:
        scores = scorer.score_batch(samples)
    assert [s.status for s in scores] == ["scored"] * 63 + ["failed"]
    assert time.monotonic() - started < 64 * 0.3


def test_reward_without_score_fails_with_a_sentence() -> None:
    class Empty(Reward):
        name: ClassVar[str] = "empty"
        isolation: ClassVar[Isolation] = "inline"

    (score,) = Scorer(Empty()).score_batch(make_samples("a"))
    assert score.kind == "raised"
    assert "Empty defines neither score nor score_batch" in score.reason


def test_rounding_at_the_ends_of_the_range_is_forgiven() -> None:
    values = {"a": 1.0 + 1e-12, "b": -1e-15, "c": 1.0 + 1e-6}

    class Rounded(Reward):
        name: ClassVar[str] = "rounded"
        isolation: ClassVar[Isolation] = "inline"

        def score(self, sample: Sample) -> Score:
            return Score(values[sample.completion])

    scores = Scorer(Rounded()).score_batch(make_samples("a", "b", "c"))
    assert [s.value for s in scores[:2]] == [1.0, 0.0]
    assert scores[2].kind == "out_of_range"


class Words(Reward):
    """A tenth per word, where the word ends; `bad` costs a tenth."""

    name: ClassVar[str] = "words"
    isolation: ClassVar[Isolation] = "inline"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    dense: ClassVar[bool] = True

    def score(self, sample: Sample) -> Score:
        return Score.of_steps(
            Step(-0.1 if word[0] == "bad" else 0.1, word.end())
            for word in re.finditer(r"\w+", sample.completion)
        )


class Long(Reward):
    """1.0 from ten characters on."""

    name: ClassVar[str] = "long"
    isolation: ClassVar[Isolation] = "inline"

    def score(self, sample: Sample) -> Score:
        return Score(float(len(sample.completion) >= 10))


def test_steps_come_through_and_sum_up() -> None:
    scorer = Scorer(Words())
    (score, empty) = scorer.score_batch(make_samples("good bad good", ""))
    assert [(step.value, step.stop) for step in score.steps] == [(0.1, 4), (-0.1, 8), (0.1, 13)]
    assert score.value == pytest.approx(0.1)
    assert score.parts["words"].steps == score.steps
    assert (empty.value, empty.steps) == (0.0, ())


def test_rubric_weighs_steps_and_puts_other_rewards_at_the_end() -> None:
    rubric = [{"reward": Words(), "weight": 2.0}, {"reward": Long(), "weight": 0.5}]
    (score,) = Scorer(rubric).score_batch(make_samples("good bad good"))
    assert [(s.value, s.stop) for s in score.steps] == [
        (0.2, 4), (-0.2, 8), (0.2, 13), (0.5, None),
    ]  # fmt: skip
    assert math.fsum(step.value for step in score.steps) == pytest.approx(score.value)


def test_steps_do_not_count_behind_a_closed_gate_or_at_weight_zero() -> None:
    gate = {"reward": Long(), "gate": {"threshold": 1.0, "otherwise": -1.0}}
    (score,) = Scorer([gate, {"reward": Words()}]).score_batch(make_samples("good"))
    assert (score.value, score.steps) == (-1.0, ())
    rubric = [{"reward": Long()}, {"reward": Words(), "weight": 0.0}]
    (score,) = Scorer(rubric).score_batch(make_samples("good"))
    assert (score.value, score.steps) == (0.0, ())


@pytest.mark.parametrize(
    ("steps", "what"),
    [
        ((Step(0.5, 1), Step(0.4, 2)), "steps that sum up to 0.9 for a value of 1.0"),
        ((Step(math.nan, 1),), "the value of a step must be finite"),
        ((Step(1.0, -1),), "a step stops at an integer from 0 on"),
        ((Step(1.0, 0.5),), "a step stops at an integer from 0 on"),
        ((Step(1.0, 1, "words"),), "the unit of a step is"),
        ([Step(1.0, 1)], "they are a tuple of textgym.Step"),
        ((1.0,), "they are a tuple of textgym.Step"),
    ],
)
def test_unsound_steps_fail_the_sample(steps: Any, what: str) -> None:
    class Odd(Reward):
        name: ClassVar[str] = "odd"
        isolation: ClassVar[Isolation] = "inline"

        def score(self, sample: Sample) -> Score:
            return Score(1.0, steps=steps)

    (score,) = Scorer(Odd()).score_batch(make_samples("a"))
    assert (score.status, score.kind) == ("failed", "wrong_type")
    assert what in score.reason


def test_failure_names_the_plugin(install: Install) -> None:
    install(
        "textgym-bad",
        """
        from typing import ClassVar
        import textgym

        class Bad(textgym.Reward):
            name: ClassVar[str] = "bad"

            def score(self, sample):
                return textgym.Score(float("nan"))

        @textgym.hookimpl
        def textgym_rewards():
            return [Bad]
        """,
        version="2.3",
    )
    with Scorer("bad") as scorer:
        (score,) = scorer.score_batch(make_samples("a"))
    assert score.reason.startswith("'bad' (plugin textgym-bad 2.3) returned nan")


def test_failure_names_the_function() -> None:
    with Scorer("operator:not_") as scorer, Scorer("os.path:basename") as other:
        assert scorer.score_batch(make_samples("a"))[0].value == 0.0
        (score,) = other.score_batch(make_samples("a"))
    assert score.reason.startswith("'basename' (function os.path:basename) raised TypeError: ")


@pytest.mark.parametrize("isolation", ["inline", "process"])
def test_seconds_are_filled_in(isolation: Isolation) -> None:
    class Slow(Reward):
        name: ClassVar[str] = "slow"

        def score(self, sample: Sample) -> Score:
            time.sleep(0.05)
            return Score(1.0)

    Slow.isolation = isolation
    with Scorer(Slow()) as scorer:
        (score,) = scorer.score_batch(make_samples("a"))
    assert 0.05 <= score.seconds < 5.0
    assert score.parts["slow"].seconds == score.seconds


class Fixed(Reward):
    """Scores what it is told to."""

    name: ClassVar[str] = "fixed"
    isolation: ClassVar[Isolation] = "inline"
    range: ClassVar[tuple[float, float]] = (-10.0, 10.0)
    value: float = 1.0
    status: str = "scored"
    label: str | None = None

    def score(self, sample: Sample) -> Score:
        calls.append(f"{self.value:g}")
        if self.status == "abstained":
            return Score.unscored("cannot judge")
        if self.status == "failed":
            raise ValueError("no good")
        return Score(
            self.value, label=self.label, reason=f"is {self.value:g}", extracted=self.label
        )


calls: list[str] = []


def entry(name: str, value: float = 1.0, **more: Any) -> dict[str, Any]:
    config = {k: more.pop(k) for k in ("status", "label") if k in more}
    return {"reward": Fixed(value=value, **config), "name": name, **more}


def score_one(*entries: dict[str, Any]) -> Score:
    calls.clear()
    (score,) = Scorer(list(entries)).score_batch(make_samples("a"))
    return score


def test_value_is_the_weighted_sum() -> None:
    score = score_one(
        entry("a", 0.5, weight=2.0), entry("b", 3.0, weight=-0.25), entry("c", 9.0, weight=0.0)
    )
    assert score.value == 2.0 * 0.5 - 0.25 * 3.0
    assert {name: part.value for name, part in score.parts.items()} == {
        "a": 0.5,
        "b": 3.0,
        "c": 9.0,
    }
    assert score.reason == "is 0.5; is 3"


@pytest.mark.parametrize(
    ("entries", "value", "parts"),
    [
        ([entry("a", weight=2.0), entry("b", weight=-0.5)], -25.0, {"a": -10.0, "b": 0.0}),
        ([entry("a"), entry("gate", gate={"threshold": 0.9, "otherwise": -12.0})], -12.0,
         {"gate": -10.0, "a": -10.0}),
        ([entry("a"), {"reward": lambda sample: -3.0, "name": "f"}], 0.0, {"a": -10.0, "f": 0.0}),
        ([entry("a", weight=0.0)], 0.0, {"a": -10.0}),
    ],
)  # fmt: skip
def test_what_is_cut_off_gets_the_lowest_value(
    entries: list[dict[str, Any]], value: float, parts: dict[str, float]
) -> None:
    """And 0.0 where nobody knows which that is."""
    calls.clear()
    scorer = Scorer(entries)
    (sample,) = make_samples("a")
    score = scorer.cut_off(sample.prompt)
    assert (score.value, score.status) == (value, "scored")
    assert {name: part.value for name, part in score.parts.items()} == parts
    assert calls == []


def test_a_cut_of_a_prompt_without_a_reward_fails_as_any_answer_to_it() -> None:
    scorer, prompt = Scorer({"routes": {"x": [entry("a")]}}), Prompt(id="p", messages="q")
    score = scorer.cut_off(prompt)
    assert (score.status, score.kind) == ("failed", "unavailable")
    assert "names no reward" in score.reason
    assert scorer.score_batch([Sample(prompt, "a")])[0].reason == score.reason


def test_label_is_that_of_the_first_component_with_one() -> None:
    score = score_one(entry("a"), entry("b", label="wrong"), entry("c", label="right"))
    assert (score.label, score.extracted) == ("wrong", "wrong")


def test_single_reward_is_passed_through_with_its_part() -> None:
    score = score_one(entry("a", 0.5, label="half"))
    assert (score.value, score.label, score.reason) == (0.5, "half", "is 0.5")
    assert score.parts["a"].value == 0.5


def test_open_gate_lets_the_rest_count() -> None:
    score = score_one(entry("a", 0.5), entry("gate", 0.9, gate={"threshold": 0.9}))
    assert score.value == 0.5
    assert list(score.parts) == ["gate", "a"]


def test_gate_with_a_weight_counts_too() -> None:
    score = score_one(entry("a", 0.5), entry("gate", 0.9, weight=2.0, gate={"threshold": 0.9}))
    assert score.value == 0.5 + 1.8


def test_closed_gate_stops_the_evaluation() -> None:
    gate = {"threshold": 0.9, "otherwise": -0.25}
    score = score_one(entry("a", 0.5), entry("g", 0.8, gate=gate), entry("h", 7.0, gate=gate))
    assert score.value == -0.25
    assert list(score.parts) == ["g"]
    assert calls == ["0.8"]
    assert score.reason == "'g' is 0.8, below 0.9: is 0.8"


def test_gates_stop_only_their_own_samples() -> None:
    class Length(Fixed):
        name: ClassVar[str] = "length"

        def score(self, sample: Sample) -> Score:
            return Score(float(len(sample.completion)))

    scorer = Scorer([Fixed(value=5.0), {"reward": Length(), "gate": {"threshold": 2.0}}])
    scores = scorer.score_batch(make_samples("a", "aa", "", "aaa"))
    assert [s.value for s in scores] == [0.0, 5.0, 0.0, 5.0]


@pytest.mark.parametrize("status", ["failed", "abstained"])
@pytest.mark.parametrize("more", [{}, {"weight": 0.5}, {"gate": {"threshold": 0.0}}])
def test_component_without_a_value_costs_the_sample(status: str, more: dict[str, Any]) -> None:
    score = score_one(entry("a", 0.5), entry("b", status=status, **more))
    assert score.status == status
    assert math.isnan(score.value)
    assert score.parts["b"].status == status


def test_failure_goes_before_abstention() -> None:
    score = score_one(entry("a", status="abstained"), entry("b", status="failed"))
    assert (score.status, score.kind) == ("failed", "raised")


def test_component_of_weight_zero_is_only_recorded() -> None:
    score = score_one(entry("a", 0.5), entry("b", status="failed", weight=0.0))
    assert score.value == 0.5
    assert score.parts["b"].status == "failed"


def test_sum_that_overflows_is_a_failure() -> None:
    score = score_one(entry("a", 10.0, weight=1e308))
    assert (score.status, score.kind) == ("failed", "not_finite")


def test_samples_go_where_their_prompts_say() -> None:
    scorer = Scorer({"rewards": Fixed(value=1.0), "routes": {"other": Fixed(value=2.0)}})
    samples = (
        make_samples("a", reward="other") + make_samples("b") + make_samples("c", reward="other")
    )
    assert [s.value for s in scorer.score_batch(samples)] == [2.0, 1.0, 2.0]


def test_prompt_may_name_an_installed_reward(install: Install) -> None:
    install(
        "textgym-const",
        """
        from typing import ClassVar
        import textgym

        class Const(textgym.Reward):
            name: ClassVar[str] = "const"
            isolation: ClassVar[str] = "inline"

            def score(self, sample):
                return 0.25

        @textgym.hookimpl
        def textgym_rewards():
            return [Const]
        """,
    )
    scorer = Scorer(None)
    samples = (
        make_samples("a", reward="const")
        + make_samples("b", reward="konst")
        + make_samples("c")
        + make_samples("d", reward="os:getcwd")
    )
    known, unknown, unnamed, function = scorer.score_batch(samples)

    assert (known.value, list(known.parts)) == (0.25, ["const"])
    assert (unknown.status, unknown.kind) == ("failed", "unavailable")
    assert "prompt 'p0': no reward named 'konst'. Did you mean 'const'?" in unknown.reason
    assert "the prompt 'p0' names no reward and the rubric has none of its own" in unnamed.reason
    assert "prompts are data and may only name installed rewards" in function.reason
    scorer.check_routes([samples[0].prompt])
    with pytest.raises(textgym.UnknownRewardError, match="prompt 'p0': no reward named 'konst'"):
        scorer.check_routes(sample.prompt for sample in samples)


def test_empty_batch_is_empty() -> None:
    assert Scorer(Fixed()).score_batch([]) == []


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_scorer_copies_by_configuration(duplicate: Callable[[Scorer], Scorer]) -> None:
    scorer = Scorer(textgym.FunctionReward(function=len), num_workers=3)
    scorer.counts["scored"] += 1
    other = duplicate(scorer)
    assert other.rubric == scorer.rubric
    assert other.counts == {}
    assert other._num_workers == 3


def test_mixed_isolation_scores_inline_components_here() -> None:
    class Here(Fixed):
        name: ClassVar[str] = "here"

        def score(self, sample: Sample) -> Score:
            return Score(float(os.getpid() == parent))

    def there(sample: Sample) -> float:
        return float(os.getpid() != parent)

    parent = os.getpid()
    with Scorer([Here(), there]) as scorer:
        (score,) = scorer.score_batch(make_samples("a"))
    assert score.value == 2.0
