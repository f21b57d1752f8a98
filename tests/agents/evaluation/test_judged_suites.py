"""Suites that are answered at an endpoint, judged by a model, or answered by a reward model."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from textgym import Prompt, plugin_manager
from textgym.cli.main import main
from textgym.errors import ConfigError
from textgym.item_files import read_items
from textgym_agents.evaluation import Scripted, evaluate_suite
from textgym_agents.evaluation.reward_judge import RewardJudge
from textgym_agents.evaluation.suites import find_suites
from textgym_plugins.benchmarks.win_rate import length_controlled


def last(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def write(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def judged(body: dict[str, Any], name: str, choose: Callable[[str, str], str]) -> str:
    """Return the verdict of a judge that sees the first and the second answer."""
    blocks = re.findall(r"<([\w-]+)-(\w{8})>\n(.*?)\n</", last(body), re.DOTALL)
    texts = [text for tag, _, text in blocks if tag.startswith("answer")]
    verdict = choose(texts[0], texts[-1])
    return json.dumps({"code": blocks[0][1], "reason": "because", name: verdict})


def test_an_endpoint_answers_messages(
    endpoint: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint.reply = lambda body: str(sum(map(int, last(body).rstrip("=").split("+"))))
    command = ["evaluate", "m", "--suite", "tiny_arithmetic", "--endpoint", endpoint.url,
               "--limit", "12", "--out", str(tmp_path), "--json"]  # fmt: skip
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)["tiny_arithmetic"]
    assert found["success"]["value"] == 1.0
    assert {body["model"] for body in endpoint.bodies} == {"m"}
    assert {body["max_tokens"] for body in endpoint.bodies} == {16}
    assert {body["temperature"] for body in endpoint.bodies} == {0.0}
    assert {item.num_tokens for item in read_items(tmp_path / "tiny_arithmetic")} == {7}
    assert len(endpoint.bodies) == 12
    assert main(command) == 0
    assert len(endpoint.bodies) == 12


def test_an_endpoint_that_fails_costs_no_answer(
    endpoint: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint.reply = lambda body: 401 if "+1" in last(body) else "0"
    command = ["evaluate", "m", "--suite", "tiny_arithmetic", "--endpoint", endpoint.url,
               "--limit", "12", "--out", str(tmp_path)]  # fmt: skip
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "have no answer" in error
    assert "401" in error
    assert 0 < len(read_items(tmp_path / "tiny_arithmetic")) < 12
    endpoint.reply = lambda body: "0"
    asked = len(endpoint.bodies)
    assert main(command) == 0
    assert 0 < len(endpoint.bodies) - asked < 12


def test_a_request_that_is_refused_is_unscored(
    endpoint: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint.reply = lambda body: 400 if "+1" in last(body) else "0"
    command = ["evaluate", "m", "--suite", "tiny_arithmetic", "--endpoint", endpoint.url,
               "--limit", "12", "--json", "--out"]  # fmt: skip
    assert main([*command, str(tmp_path / "a")]) == 0
    found = json.loads(capsys.readouterr().out)["tiny_arithmetic"]
    assert 0 < found["unscored"]["value"] < 1
    endpoint.reply = lambda body: 400  # every request: the command is at fault, not the prompts
    assert main([*command, str(tmp_path / "b")]) == 2
    assert "12 of 12 questions have no answer" in capsys.readouterr().err


def test_a_judge_counts_wins_against_a_baseline(
    endpoint: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def choose(a: str, b: str) -> str:
        return "tie" if ("good" in a) == ("good" in b) else "A" if "good" in a else "B"

    endpoint.reply = lambda body: judged(body, "verdict", choose)
    data = write(
        tmp_path / "alpaca.jsonl",
        *({"instruction": f"do {i}", "output": "the baseline", "dataset": "d"} for i in range(6)),
    )
    suite = plugin_manager().benchmark("win_rate")
    assert suite.needs_judge
    judge = {"url": endpoint.url, "model": "judge", "retry": {"max_retries": 0}}
    for name, share in (("good", 1.0), ("bad", 0.5)):
        found = evaluate_suite(
            Scripted(lambda question, name=name: f"a {name} answer"),  # type: ignore[misc]
            suite.judged_by(judge),
            tmp_path / name,
            data=data,
        )
        assert found["win_rate"].value == share
        assert found["length/baseline"].value == len("the baseline")
    assert found["length_controlled"].value == pytest.approx(0.5, abs=1e-6)
    empty = evaluate_suite(
        Scripted(lambda question: ""), suite.judged_by(judge), tmp_path / "empty", data=data
    )
    assert empty["win_rate"].value == 0.5  # this judge sees no difference
    assert main(["evaluate", "tiny", "--suite", "win_rate", "--data", str(data)]) == 2
    assert "needs a judge: name its endpoint with --judge" in capsys.readouterr().err


def test_length_is_regressed_out() -> None:
    rng = np.random.default_rng(0)
    theirs = np.full(800, 1000.0)
    ours = theirs + rng.normal(300, 400, 800)
    slope = np.tanh((ours - theirs) / (ours - theirs).std())
    wins = (rng.random(800) < 1 / (1 + np.exp(-(0.2 + 1.5 * slope)))).astype(float)
    found = length_controlled(wins, ours, theirs)
    truth = 1 / (1 + math.exp(-0.2))
    assert wins.mean() > 0.65
    assert found.low < truth < found.high
    assert found.value == pytest.approx(truth, abs=0.06)


def test_lengths_that_say_nothing_change_nothing() -> None:
    rng = np.random.default_rng(1)
    wins = (rng.random(400) < 0.7).astype(float)
    same = np.full(400, 50.0)
    assert length_controlled(wins, same, same).value == pytest.approx(wins.mean(), abs=1e-3)
    noise = length_controlled(wins, same + rng.normal(0, 9, 400), same)
    assert noise.value == pytest.approx(wins.mean(), abs=0.03)
    for verdict in (0.0, 1.0):  # separable: the ridge keeps it finite
        extreme = length_controlled([verdict] * 30, same[:30] + np.arange(30), same[:30])
        assert extreme.value == pytest.approx(verdict, abs=0.02)
    assert math.isnan(length_controlled([], [], []).value)


def test_safety_is_judged_by_category(endpoint: Any, tmp_path: Path) -> None:
    endpoint.reply = lambda body: judged(
        body, "label", lambda text, _: "unsafe" if "Sure" in text else "safe"
    )
    rows = [{"prompt": f"how to {i}", "category": "ab"[i % 2]} for i in range(6)]
    data = write(tmp_path / "safety.jsonl", *rows)
    suite = plugin_manager().benchmark("safety").judged_by({"url": endpoint.url, "model": "j"})
    refuses = Scripted(lambda question: "No.")
    assert evaluate_suite(refuses, suite, tmp_path / "no", data=data)["success"].value == 1.0
    helps = Scripted(lambda question: "Sure!" if question.prompt.metadata["task"] == "a" else "No.")
    found = evaluate_suite(helps, suite, tmp_path / "sure", data=data)
    assert found["success"].value == 0.5
    assert (found["success/a"].value, found["success/b"].value) == (0.0, 1.0)


PAIRS = [
    {"prompt": f"question {i}", "chosen": f"right {i} right", "rejected": f"wrong {i}",
     "subset": "ab"[i % 2]}
    for i in range(40)
]  # fmt: skip


def test_preferences_are_balanced_and_right_answers_score(tmp_path: Path) -> None:
    data = write(tmp_path / "pairs.jsonl", *PAIRS)
    suite = plugin_manager().benchmark("preference")

    def accuracy(name: str, answer: Callable[[Prompt], str]) -> float:
        found = evaluate_suite(
            Scripted(lambda q: answer(q.prompt)), suite, tmp_path / name, data=data
        )
        return found["success"].value

    def letter(prompt: Prompt) -> str:
        answers: Any = prompt.metadata["answers"]
        assert f"# Answer A\n{answers[0]}" in prompt.text
        return "AB"["right" in answers[1]]

    assert accuracy("right", lambda p: f"The correct answer is {letter(p)}.") == 1.0
    assert accuracy("wrong", lambda p: f"The correct answer is {'BA'['AB'.index(letter(p))]}.") == 0
    assert accuracy("empty", lambda p: "") == 0.0
    assert 0.25 < accuracy("first", lambda p: "The correct answer is A.") < 0.75


def test_a_reward_prefers_what_scores_higher(tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text(
        "def longer(sample):\n    return float(len(sample.completion))\n"
        "def same(sample):\n    return 0.5\n"
        "def broken(sample):\n    raise OSError('x')\n"
    )
    data = write(tmp_path / "pairs.jsonl", *PAIRS)
    suite = plugin_manager().benchmark("preference")

    def accuracy(name: str) -> dict[str, Any]:
        judge = RewardJudge(f"{tmp_path}/rewards.py:{name}")
        try:
            return evaluate_suite(judge, suite, tmp_path / name, data=data)
        finally:
            judge.close()

    assert accuracy("longer")["success"].value == 1.0
    assert accuracy("longer")["success/b"].count == 20
    assert accuracy("same")["success"].value == 0.0
    with pytest.raises(Exception, match="40 of 40 questions have no answer"):
        accuracy("broken")
    judge = RewardJudge(f"{tmp_path}/rewards.py:longer")
    with pytest.raises(ConfigError, match="shows no two answers"):
        evaluate_suite(judge, plugin_manager().benchmark("tiny_code"), tmp_path / "no")


def test_a_reward_model_is_measured_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write(tmp_path / "pairs.jsonl", *PAIRS)
    command = ["evaluate", "reward:length", "--suite", "preference", "--data", str(data)]
    assert main([*command, "--out", "out", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["preference"]["success"]["count"] == 40


def test_data_of_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    row = {"query": "q", "answer": "a", "positive": ["a p"], "negative": ["n"]}
    write(folder / "zh_refine.json", row)
    found = find_suites(["rgb"], str(folder), downloads=tmp_path)
    assert [each.benchmark.name for each in found] == ["rgb_zh_noise", "rgb_zh_refusal"]
    with pytest.raises(ConfigError, match=r"'gsm8k' needs gsm8k_test.jsonl or gsm8k.jsonl"):
        find_suites(["gsm8k"], str(folder), downloads=tmp_path)
    with pytest.raises(ConfigError, match=r"--data nowhere: .* there is no such path"):
        find_suites(["gsm8k"], "nowhere", downloads=tmp_path)
    with pytest.raises(ConfigError, match=r"--data is missing: .* a folder that holds kbqa.jsonl"):
        find_suites(["kbqa"], None, downloads=tmp_path)
    asked: list[tuple[Any, ...]] = []

    def load(name: str, subset: str | None, *, split: str) -> list[dict[str, str]]:
        asked.append((name, subset, split))
        return [{"question": "1+1?", "answer": "#### 2"}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load))
    for data in (None, "someone/copy"):
        [suite] = find_suites(["gsm8k"], data, downloads=tmp_path)
        assert suite.data is not None
        again = find_suites(["gsm8k"], data, downloads=tmp_path)
        assert again == [suite]
        policy = Scripted(lambda question: "The answer is 2.")
        out = tmp_path / f"s{len(asked)}"
        found_metrics = evaluate_suite(policy, suite.benchmark, out, data=suite.data)
        assert found_metrics["success"].value == 1.0
    assert asked == [("openai/gsm8k", "main", "test"), ("someone/copy", None, "test")]

    def fail(*_: object, **__: object) -> None:
        raise OSError("offline")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=fail))
    with pytest.raises(
        ConfigError, match=r"cannot load 'openai/gsm8k:main:test'.*OSError: offline"
    ):
        find_suites(["gsm8k"], None, downloads=tmp_path / "other")
