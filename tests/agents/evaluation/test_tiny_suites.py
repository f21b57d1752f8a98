"""The suites of the tiny world: right, empty and random answers; resuming; the command."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textgym import Prompt, make_prompt_source, plugin_manager
from textgym.benchmark import Benchmark, Metric
from textgym.cli.main import main
from textgym.errors import ConfigError, TextGymError, UnknownNameError
from textgym.item_files import read_items, read_metrics
from textgym.prompt_source import PromptSource
from textgym_agents.evaluation import Answer, Scripted, evaluate_suite, measure_model
from textgym_agents.evaluation.suites import find_suites

TINY = ("tiny_arithmetic", "tiny_code", "tiny_instructions", "tiny_kbqa", "tiny_safety")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def suite(name: str) -> Benchmark:
    return plugin_manager().benchmark(name)


def source_of(benchmark: Benchmark) -> PromptSource:
    spec: Any = benchmark.prompts
    return make_prompt_source(spec[0]["source"], **spec[0]["config"])


def answers(benchmark: Benchmark, *, right: bool = True) -> dict[str, str]:
    """Return a right or a wrong completion of every prompt of a suite, by id."""
    source, found = source_of(benchmark), {}
    for i in range(source.num_prompts()):
        shown = source.demonstrations(i)
        completions = shown.right if right else shown.wrong
        found[source.prompt(i).id] = completions[0] if completions else "0"
    return found


def run(
    name: str, function: Callable[[Prompt], str], *, limit: int | None = 40, path: str = "out"
) -> dict[str, Metric]:
    answerer = Scripted(lambda question: function(question.prompt))
    return evaluate_suite(answerer, suite(name), Path(path), limit=limit)


@pytest.mark.parametrize("name", TINY)
def test_right_answers_score_everything(name: str) -> None:
    known = answers(suite(name))
    metrics = run(name, lambda prompt: known[prompt.id])
    assert metrics["success"].value == 1.0
    assert 30 <= metrics["success"].count <= 40
    assert "unscored" not in metrics
    assert "cut" not in metrics


@pytest.mark.parametrize("name", TINY)
def test_empty_and_random_answers_score_nothing(name: str) -> None:
    assert run(name, lambda prompt: "")["success"] == run(name, lambda p: "", path="b")["success"]
    assert run(name, lambda prompt: "", path="c")["success"].value == 0.0
    rng = random.Random(0)
    letters = "qwxyzj"
    noise = run(name, lambda p: "".join(rng.choices(letters, k=9)), path="random")
    assert noise["success"].value == 0.0


@pytest.mark.parametrize("name", TINY)
def test_wrong_demonstrations_score_nothing(name: str) -> None:
    known = answers(suite(name), right=False)
    assert run(name, lambda prompt: known[prompt.id])["success"].value == 0.0


def test_kbqa_has_a_confusion_matrix_and_abilities() -> None:
    known = answers(suite("tiny_kbqa"))
    right = run("tiny_kbqa", lambda prompt: known[prompt.id], limit=None)
    assert right["TP"].value + right["TN"].value == pytest.approx(1.0)
    assert right["FP"].value == right["FN"].value == right["over_refusal"].value == 0.0
    abilities = [name for name in right if "/" in name]
    assert abilities == [
        f"{ability}/{language}"
        for ability in ("integration", "refusal", "retrieval")
        for language in ("en", "zh")
    ]
    assert all(right[name].value == 1.0 for name in abilities)
    refuses = run("tiny_kbqa", lambda prompt: "unknown", limit=None, path="refuses")
    assert refuses["refusal_recall"].value == 1.0
    assert refuses["over_refusal"].value == 1.0
    assert refuses["refusal_precision"] == refuses["TN"]
    assert refuses["retrieval/en"].value == 0.0
    assert refuses["refusal/zh"].value == 1.0
    invents = run("tiny_kbqa", lambda prompt: "100", limit=None, path="invents")
    assert invents["TN"].value == invents["refusal_recall"].value == 0.0
    assert invents["FP"].value == pytest.approx(right["TN"].value)


def test_instructions_are_strict_and_loose_by_prompt_and_by_instruction() -> None:
    known = answers(suite("tiny_instructions"))
    # A first line that the loose reading leaves out: what it says is forgiven there alone.
    found = run("tiny_instructions", lambda prompt: "Sure:\n" + known[prompt.id])
    assert found["prompt_loose"].value == 1.0
    assert found["instruction_loose"].value == 1.0
    assert found["success"] == found["prompt_strict"]
    assert found["prompt_strict"].value < 1.0
    assert found["prompt_strict"].value < found["instruction_strict"].value < 1.0
    empty = run("tiny_instructions", lambda prompt: "", path="empty")
    assert [empty[name].value for name in ("instruction_strict", "instruction_loose")] == [0, 0]


def test_safety_counts_refusals_of_harmless_requests() -> None:
    found = run("tiny_safety", lambda prompt: "I can't.", limit=None)
    assert found["harmful"].value == found["over_refusal"].value == 1.0
    assert found["harmless"].value == 0.0


def test_a_policy_that_can_only_add_scores_a_part() -> None:
    known = answers(suite("tiny_code"))
    found = run("tiny_code", lambda p: known[p.id] if "+" in known[p.id] else "return x")
    assert 0 < found["success"].low < found["success"].value < found["success"].high < 1


class Counting:
    """Answers what it is told, and counts what it is asked."""

    batch_size = 8

    def __init__(self, reply: Callable[[int], Answer]) -> None:
        self.reply = reply
        self.asked: list[tuple[int, int]] = []
        self.seeds: list[int] = []

    def describe(self) -> dict[str, Any]:
        return {"kind": "counting"}

    def rendering(self, benchmark: Benchmark) -> dict[str, Any]:
        return {"template": benchmark.template}

    def answer(self, questions: Any, *, max_new_tokens: int, temperature: float, seed: int) -> Any:
        self.seeds.append(seed)
        start = len(self.asked)
        self.asked += [(question.index, question.sample) for question in questions]
        return [self.reply(start + i) for i in range(len(questions))]


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    def stop(i: int) -> Answer:
        if i >= 16:
            raise KeyboardInterrupt
        return Answer("1")

    first, benchmark = Counting(stop), suite("tiny_arithmetic")
    arguments: dict[str, Any] = {"limit": 20, "samples": 2, "temperature": 1.0}
    with pytest.raises(KeyboardInterrupt):
        evaluate_suite(first, benchmark, tmp_path / "s", **arguments)
    assert len(read_items(tmp_path / "s")) == 16
    with (tmp_path / "s" / "items.jsonl").open("a") as file:
        file.write('{"index": 3, "sam')  # the process was killed while it wrote
    second = Counting(lambda i: Answer("1"))
    metrics = evaluate_suite(second, benchmark, tmp_path / "s", **arguments)
    assert not {*first.asked[:16]} & {*second.asked}
    assert len({*first.asked[:16], *second.asked}) == 40
    assert second.seeds[0] not in first.seeds[:2]
    assert metrics == read_metrics(tmp_path / "s")
    assert metrics["success"].count == 20
    third = Counting(stop)
    assert evaluate_suite(third, benchmark, tmp_path / "s", **arguments) == metrics
    assert third.asked == []
    whole = Counting(lambda i: Answer("1"))
    assert evaluate_suite(whole, benchmark, tmp_path / "whole", **arguments) == metrics
    assert whole.seeds == first.seeds[:2] + second.seeds


def test_answers_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    run("tiny_safety", lambda prompt: "", limit=3, path=str(tmp_path / "s"))
    with pytest.raises(ConfigError, match=r"other settings \(limit\); name another folder"):
        run("tiny_safety", lambda prompt: "", limit=4, path=str(tmp_path / "s"))


def test_lost_answers_are_asked_again_and_impossible_ones_are_not(tmp_path: Path) -> None:
    def lose(i: int) -> Answer:
        if i == 1:
            return Answer("", "abort", failure="connection refused")
        return Answer("", failure="the prompt is too long") if i == 2 else Answer("1", "length")

    benchmark = suite("tiny_arithmetic")
    with pytest.raises(TextGymError, match="1 of 8 questions have no answer: connection refused"):
        evaluate_suite(Counting(lose), benchmark, tmp_path / "s", limit=8)
    items = read_items(tmp_path / "s")
    assert len(items) == 7
    again = Counting(lambda i: Answer("1"))
    metrics = evaluate_suite(again, benchmark, tmp_path / "s", limit=8)
    assert len(again.asked) == 1
    assert metrics["unscored"].value == 1 / 8
    assert metrics["cut"].value == 6 / 8
    assert metrics["success"].count == 7
    cut = [item for item in items if item.finish_reason == "length"]
    assert {item.score.value for item in cut} == {0.0}


def test_an_answer_that_never_ends_is_worth_as_little_as_a_wrong_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s"
    answers = Scripted(lambda q: Answer("", "length"))
    metrics = evaluate_suite(answers, suite("tiny_kbqa"), path, limit=4)
    assert metrics["cut"].value == 1.0
    assert metrics["success"].value == 0.0
    assert {item.score.value for item in read_items(path)} == {-1.0}
    for reward, low in ([], -1.0), (["--reward", "exact_match"], 0.0):
        assert main(["rescore", str(path), *reward, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["s"]
        assert (found["reward"]["value"], found["success"]["value"]) == (low, 0.0)


def test_samples_need_a_temperature(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="samples=2 with temperature=0"):
        evaluate_suite(Scripted(lambda q: ""), suite("tiny_safety"), tmp_path / "s", samples=2)
    with pytest.raises(ConfigError, match="temperature=-1 is below 0"):
        evaluate_suite(Scripted(lambda q: ""), suite("tiny_safety"), tmp_path / "s", temperature=-1)


def test_names_and_groups(tmp_path: Path) -> None:
    found = find_suites(["tiny_code,tiny_safety", "all-tiny"], None, downloads=tmp_path)
    names = [each.benchmark.name for each in found]
    assert names[:2] == ["tiny_code", "tiny_safety"]
    assert sorted(names) == list(TINY)
    with pytest.raises(UnknownNameError, match="Did you mean 'tiny_code'"):
        find_suites(["tiny_cod"], None, downloads=tmp_path)


def test_a_model_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {"limit": 6, "samples": 2, "temperature": 1.0}
    names = ["tiny_arithmetic", "tiny_safety"]
    found = measure_model("tiny", names, tmp_path / "m", **arguments)
    assert list(found) == names
    assert found["tiny_arithmetic"]["pass@2"].count == 6
    items = read_items(tmp_path / "m" / "tiny_safety")
    assert len(items) == 12
    assert all(0 < item.num_tokens <= 32 for item in items)
    monkeypatch.setattr(
        "textgym_agents.evaluation.language_model.build_agent",
        lambda *a, **k: pytest.fail("loaded"),
    )
    assert measure_model("tiny", names, tmp_path / "m", **arguments) == found


def test_the_command_measures_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["iterations=1", "rollout.num_episodes=8", "rollout.num_envs=8", "cold_start=null",
             "evaluation.num_episodes=3", "ppo.batch_size=8"]  # fmt: skip
    sets = [part for each in quick for part in ("--set", each)]
    assert main(["train", "--run", "run", "--preset", "arithmetic", *sets]) == 0
    capsys.readouterr()
    command = ["evaluate", "run", "--suite", "tiny_arithmetic", "--limit", "4"]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tiny_arithmetic"]["success"]["count"] == 4
    [folder] = Path("run/evaluation").iterdir()
    assert folder.name.endswith("0000001")
    assert len(read_items(folder / "tiny_arithmetic")) == 4
    assert main(command) == 0
    assert "tiny_arithmetic" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--samples", "2"], "--samples goes with --suite"),
        (["--suite", "tiny_code", "--episodes", "3"], "--episodes is not for suites"),
        (["--suite", "tiny_code", "--limit", "0"], "--limit 0: expected a whole number above 0"),
        (["--suite", "tiny_code", "--endpoint", "ftp://x"], "--endpoint ftp://x: url"),
    ],
)
def test_arguments_that_cannot_be_used(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "tiny", *arguments]) == 2
    assert message in capsys.readouterr().err
