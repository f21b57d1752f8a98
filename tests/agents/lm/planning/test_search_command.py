"""`textgym search` on a half-trained policy of a solved environment, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from textgym.cli.main import main
from textgym.errors import ConfigError, UnknownNameError
from textgym_agents.cli.search import search, search_configs
from textgym_agents.lm.config import EnvConfig, PolicyConfig
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.offline.config import DataConfig, SFTRunConfig
from textgym_agents.lm.offline.data import read_examples

COMMAND = ("train", "--agent", "ppo", "--env", "textgym:ToyTextSmall-v0", "--model", "tiny")


@pytest.fixture(scope="module")
def half_trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    run = tmp_path_factory.mktemp("search") / "run"
    settings = (
        "iterations=12", "rollout.num_episodes=128", "rollout.num_envs=128", "evaluation.every=12",
        "ppo.batch_size=128", "ppo.update_epochs=1", "ppo.optimizer.learning_rate=1e-3",
    )  # fmt: skip
    options = [part for setting in settings for part in ("--set", setting)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        assert main([*COMMAND, "--run", str(run), *options]) == 0
        yield run


def run_search(*arguments: str) -> int:
    """Run the command as `textgym search` does."""
    import argparse

    parser = argparse.ArgumentParser()
    search.configure(parser)
    return search.run(parser.parse_args(arguments))


def results(out: Path) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in json.loads((out / "results.json").read_text())["rows"]:
        rows.setdefault(row["config"]["kind"], []).append(row)
    return rows


def last_evaluation(run: Path) -> dict[str, Any]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found: dict[str, Any] = [row for row in rows if row["phase"] == "evaluation"][-1]
    return found


def test_search_reaches_the_optimum_from_a_half_trained_policy(
    half_trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = last_evaluation(half_trained)["evaluation/exact_greedy"]
    out, data = tmp_path / "out", tmp_path / "right.jsonl"
    code = run_search(
        str(half_trained), "--terminals", "reward", "--budgets", "8,20", "--out", str(out),
        "--data", str(data), "--search", "mcts.simulations_per_token=10",
    )  # fmt: skip
    assert code == 0
    rows = results(out)
    rewards = [row["reward"][0] for row in rows["mcts"]]
    assert policy < 0.9
    assert rows["greedy"][0]["reward"][0] == pytest.approx(policy)  # all prompts, so it is J
    assert policy <= rewards[0] <= rewards[1] == 1.0
    assert rewards[0] > rows["best_of_n"][0]["reward"][0]
    assert all(
        row["num_unscored"] == 0 and row["num_prompts"] == 25 for r in rows.values() for row in r
    )
    assert "the best policy: 1.0000" in capsys.readouterr().out
    assert (out / "accuracy.png").stat().st_size > 5000
    assert "| mcts | 20 | 100.0% |" in (out / "results.md").read_text()
    answers = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == 7 * 25
    check_demonstrations(data, half_trained)


def check_demonstrations(path: Path, run: Path) -> None:
    """The rows are what `textgym sft --data` learns from, and all of them are right."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    sums = {row["prompt"][0]["content"]: row["completion"] for row in rows}
    assert len(rows) == len(sums) == 25
    assert all(eval(text.rstrip("=")) == int(answer) for text, answer in sums.items())
    network = PolicyValueNetwork.from_config(PolicyConfig(model=str(run)), seed=0)
    config = SFTRunConfig(
        data=DataConfig(file=str(path)), env=EnvConfig(kwargs={"evaluation_share": 0.0})
    )
    examples = read_examples(network, config)
    assert len(examples.train) == 25
    assert not examples.problems


def test_by_the_value_head_alone_search_is_worth_more_than_the_policy(
    half_trained: Path, tmp_path: Path
) -> None:
    run_search(str(half_trained), "--budgets", "20", "--method", "mcts", "--out", str(tmp_path))
    (row,) = results(tmp_path)["mcts"]
    assert row["reward"][0] > last_evaluation(half_trained)["evaluation/exact_sampled"]


def test_another_reward_can_judge_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("brevity.py").write_text("def brevity(sample):\n    return -len(sample.completion)\n")
    run_search(
        "tiny", "--budgets", "12", "--method", "best_of_n", "--out", str(tmp_path), "--episodes",
        "3", "--terminals", "brevity.py:brevity", "--set",
        "rollout.max_new_tokens=4",
    )  # fmt: skip
    answers = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    assert len(answers) == 3
    for answer in answers:  # one that was cut off is worth 0
        is_cut = answer["finish_reason"] == "length"
        assert answer["worth"] == (0 if is_cut else -len(answer["completion"]))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"methods": ["mtcs"]}, UnknownNameError, "no method named 'mtcs'. Did you mean 'mcts'"),
        ({"budgets": ["many"]}, ConfigError, "--budgets many: expected a whole number above 0"),
        ({"budgets": ["0"]}, ConfigError, "--budgets 0"),
        ({"budgets": []}, ConfigError, "name at least one of each"),
        ({"settings": ["mcts.c_puct=1"]}, ConfigError, "no field 'c_puct'"),
        ({"settings": ["beams.width=1"]}, UnknownNameError, "no method named 'beams'"),
        ({"settings": ["mcts.leaves=few"]}, ConfigError, "'leaves' is 'few'"),
    ],
)
def test_malformed_arguments_are_explained(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message.replace(".", r"\.").replace("(", r"\(")):
        search_configs(**{"methods": ["mcts"], "budgets": ["8"], **arguments})


def test_what_cannot_be_planned_is_refused(half_trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the prompts of .* have no numbers"):
        run_search("tiny", "--set", "env.id=textgym:ToyTwoTurn-v0", "--out", str(tmp_path / "a"))
    run_search(str(half_trained), "--method", "greedy", "--out", str(tmp_path))
    with pytest.raises(ConfigError, match="holds results already"):
        run_search(str(half_trained), "--method", "greedy", "--out", str(tmp_path))
    with pytest.raises(ConfigError, match="cannot load"):
        run_search(str(tmp_path / "nothing"), "--out", str(tmp_path / "b"))
