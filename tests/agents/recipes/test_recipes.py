"""Recipes: their files, their placeholders, their stages, guards and tables."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from textgym.config import load_config
from textgym.errors import ConfigError, UnknownNameError
from textgym.item_files import write_metrics
from textgym.items import Metric
from textgym_agents.lm.config import TrainConfig
from textgym_agents.recipes.config import PLACEHOLDER, filled, load_recipe, recipe_names
from textgym_agents.recipes.report import table_rows, write_report
from textgym_agents.recipes.run import RecipeError, RecipeRun, Settings

RECIPE: dict[str, Any] = {
    "title": "two stages",
    "stages": [
        {"name": "first", "command": "train", "args": ["--model", "${model}"]},
        {
            "name": "second",
            "title": "the second",
            "command": "train",
            "args": ["--model", "${first}"],
            "config": {"iterations": 3, "env": {"prompts": "arithmetic"}},
            "full": {"config": {"iterations": 7}},
        },
    ],
    "measure": {"suites": ["sums"]},
    "guards": [
        {"stage": "second", "against": "first", "metrics": ["sums/success"], "margin": 0.02}
    ],
    "table": [{"title": "sums", "metric": "sums/success"}],
}

Calls = list[list[str]]


def write(tmp_path: Path, **changes: Any) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **changes}))
    return str(path)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[float]], Calls]:
    """Stand in for the processes: a stage makes its folder, a measure writes the next value."""

    def prepare(values: Sequence[float]) -> Calls:
        made: Calls = []
        left = list(values)

        def call(self: RecipeRun, args: Sequence[str], what: str) -> None:
            made.append(list(args))
            if args[0] == "evaluate":
                folder = Path(args[args.index("--out") + 1]) / "sums"
                folder.mkdir(parents=True)
                write_metrics(folder, {"success": Metric(left.pop(0), 0.0, 1.0, 4)})
            else:
                folder = Path(args[args.index("--run") + 1])
                folder.mkdir()
                (folder / "metrics.jsonl").write_text(
                    json.dumps({"phase": "evaluation", "iteration": 0, "evaluation/greedy": 0.5})
                    + "\n"
                )

        monkeypatch.setattr(RecipeRun, "_call", call)
        return made

    return prepare


def start(path: str, out: Path, **settings: Any) -> RecipeRun:
    return RecipeRun(load_recipe(path), out, Settings(**settings), tell=lambda _: None)


def test_every_recipe_of_the_package_can_be_read_at_both_scales() -> None:
    assert recipe_names() == [
        "mixed-kbqa", "ppo-qwen2.5-0.5b", "query-rewrite", "safety", "tiny-world", "two-stage"
    ]  # fmt: skip
    for name in recipe_names():
        for model in ("tiny", "Qwen/Qwen2.5-0.5B-Instruct"):
            given = ["values.reward_model=somewhere"] if name.startswith("ppo") else []
            recipe = load_recipe(name, model=model, overrides=given)
            for stage in recipe.stages:
                names = set(PLACEHOLDER.findall(json.dumps(stage.config)))
                config = filled(stage.config, dict.fromkeys(names, "http://127.0.0.1:1"))
                if stage.command == "train":
                    load_config(TrainConfig, preset=config)


def test_the_seed_recipe_has_the_constants_of_the_preset() -> None:
    recipe = load_recipe(
        "ppo-qwen2.5-0.5b", model="Qwen/X", overrides=["values.reward_model=somewhere"]
    )
    assert [stage.name for stage in recipe.stages] == ["ppo"]
    stage = recipe.stages[0]
    assert "seed" in stage.args
    from textgym.config import merge
    from textgym_agents.lm.presets import SEED

    config = load_config(TrainConfig, preset=merge(SEED, stage.config))
    seed = load_config(TrainConfig, preset=SEED)
    assert config.ppo == seed.ppo
    assert config.rollout == seed.rollout.model_copy(
        update={"max_new_tokens": config.rollout.max_new_tokens}
    )


def test_stages_run_in_order_and_are_measured(
    tmp_path: Path, calls: Callable[[Sequence[float]], Calls]
) -> None:
    made = calls([0.5, 0.75])
    work = start(write(tmp_path), tmp_path / "out", seed=4, engine=["--engine", "vllm"])
    figures = work.run()
    first, second = tmp_path / "out" / "first", tmp_path / "out" / "second"
    assert [args[0] for args in made] == ["train", "evaluate", "train", "evaluate"]
    assert made[0][1:] == [
        "--model", "tiny", "--run", str(first), "--seed", "4", "--engine", "vllm"
    ]  # fmt: skip
    assert made[2][1:4] == [str(tmp_path / "out" / "second.yaml"), "--model", str(first)]
    written = yaml.safe_load((tmp_path / "out" / "second.yaml").read_text())
    assert written == {"iterations": 3, "env": {"prompts": "arithmetic"}}
    assert made[3][1] == str(second)
    assert figures["second"] == {"run/evaluation/greedy": 0.5, "sums/success": 0.75}


def test_what_is_done_is_not_done_again(
    tmp_path: Path, calls: Callable[[Sequence[float]], Calls]
) -> None:
    path, out = write(tmp_path), tmp_path / "out"
    calls([0.5, 0.75])
    figures = start(path, out).run()
    made = calls([])
    assert start(path, out).run() == figures
    assert made == []
    with pytest.raises(ConfigError, match="holds another recipe"):
        start(write(tmp_path, title="another"), out)
    with pytest.raises(ConfigError, match="was begun with"):
        start(write(tmp_path), out, seed=1)


def test_a_stage_that_was_cut_off_goes_on_from_its_checkpoint(
    tmp_path: Path, calls: Callable[[Sequence[float]], Calls]
) -> None:
    path, out = write(tmp_path), tmp_path / "out"
    work = start(path, out)
    checkpoint = out / "first" / "checkpoints" / "iteration-0000002"
    (out / "first").mkdir()
    (out / "first" / "config.yaml").write_text("seed: 0\n")
    without = work._arguments(work.recipe.stages[0], {"model": "tiny"})
    assert without[:1] == ["train"]
    assert "--resume" not in without
    assert not (out / "first").exists()
    checkpoint.mkdir(parents=True)
    (out / "first" / "config.yaml").write_text("seed: 0\n")
    (checkpoint / "state.json").write_text("{}")
    assert work._arguments(work.recipe.stages[0], {"model": "tiny"}) == [
        "train", "--resume", str(out / "first")
    ]  # fmt: skip


def test_the_policy_of_a_stage_that_made_none_is_an_error(
    tmp_path: Path, calls: Callable[[Sequence[float]], Calls]
) -> None:
    first, second = RECIPE["stages"]
    second = {**second, "args": ["--model", "${policy:first}"]}
    calls([0.5, 0.75])
    with pytest.raises(ConfigError, match=r"\$\{policy:first\} is used before there is one"):
        start(write(tmp_path, stages=[first, second]), tmp_path / "out").run()


def test_a_guard_ends_a_recipe_that_costs_too_much(
    tmp_path: Path, calls: Callable[[Sequence[float]], Calls]
) -> None:
    calls([0.9, 0.87])
    work = start(write(tmp_path), tmp_path / "out")
    with pytest.raises(RecipeError, match=r"sums/success is 0\.870, and was 0\.900 after 'first'"):
        work.run()
    calls([])
    with pytest.raises(RecipeError, match="does not hold"):
        start(write(tmp_path), tmp_path / "out").run()
    calls([0.9, 0.89])
    start(write(tmp_path), tmp_path / "other").run()


def test_a_stage_that_fails_ends_the_recipe(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        stages=[
            {"name": "only", "command": "train", "args": ["--model", str(tmp_path / "nothing")]}
        ],
        guards=[],
    )
    with pytest.raises(RecipeError, match="stage 'only' ended with status"):
        start(path, tmp_path / "out").run()


def test_other_models_take_the_full_scale(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert load_recipe(path).stages[1].config["iterations"] == 3
    full = load_recipe(path, model="Qwen/X", overrides=["measure.limit=5"])
    assert (full.model, full.stages[1].config["iterations"]) == ("Qwen/X", 7)
    assert full.measure is not None
    assert full.measure.limit == 5


def test_the_table_has_a_column_for_each_measured_model(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path))
    measured = {"first": {"sums/success": 0.5}, "second": {"other": 1.0}}
    assert list(table_rows(recipe, measured)) == [
        ["", "first", "the second"], ["sums", "50.0 %", "none"]
    ]  # fmt: skip
    write_report(recipe, measured, tmp_path)
    assert "| sums | 50.0 % | none |" in (tmp_path / "table.md").read_text()
    with (tmp_path / "results.csv").open(newline="") as file:
        assert list(csv.reader(file))[1:] == [
            ["first", "sums/success", "0.5"], ["second", "other", "1.0"]
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": [{"name": "a", "command": "train", "args": ["${b}"]}]}, r"names \$\{b\}"),
        ({"stages": [RECIPE["stages"][0]] * 2}, "a stage is named 'first'"),
        ({"values": {"reward_model": ""}}, "needs a value for 'reward_model'"),
        ({"guards": [{"stage": "x", "against": "first", "metrics": ["a/b"]}]}, "names 'x'"),
        ({"measure": None, "measure_model": True}, "does not say by what"),
        ({"stags": []}, "stags"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(write(tmp_path, **changes))


def test_an_unknown_recipe_is_named() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'two-stage'"):
        load_recipe("two-stages")


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("dear reader")
    path = write(tmp_path)
    with pytest.raises(ConfigError, match="holds no recipe"):
        start(path, tmp_path)


def test_a_service_listens_while_its_stage_runs(tmp_path: Path) -> None:
    import urllib.request

    from textgym_agents.recipes.services import serve

    with serve(["rewards", "--reward", "exact_match"], tmp_path / "log") as url:
        with urllib.request.urlopen(f"{url}/healthz") as answer:
            assert json.load(answer) == {"status": "ok"}
    with pytest.raises(OSError, match="refused"), urllib.request.urlopen(f"{url}/healthz"):
        pass
    with pytest.raises(ConfigError, match="did not start"):
        with serve(["rewards", "--reward", "nonsense"], tmp_path / "log"):
            pass


@pytest.mark.slow
def test_a_recipe_from_its_first_stage_to_its_table(tmp_path: Path) -> None:
    rollout = {"num_episodes": 8, "num_envs": 8, "max_new_tokens": 4, "max_length": 32}
    config = {
        "iterations": 0,
        "env": {"prompts": [{"source": "arithmetic", "config": {"below": 10}}]},
        "cold_start": {"steps": 2, "batch_size": 8},
        "rollout": rollout,
        "ppo": {"batch_size": 8},
        "evaluation": {"num_episodes": 8},
    }
    tuned = ["--model", "${start}", "--prompts", "arithmetic"]
    path = write(
        tmp_path,
        stages=[
            {"name": "start", "command": "train", "args": ["--model", "tiny"], "config": config},
            {"name": "lite", "command": "sft", "args": tuned, "config": {"steps": 1}},
        ],
        measure={"suites": ["tiny_arithmetic"], "limit": 4},
        guards=[],
        table=[{"title": "sums", "metric": "tiny_arithmetic/success"}],
    )
    out = tmp_path / "out"
    figures = start(path, out).run()
    assert set(figures) == {"start", "lite"}
    for measured in figures.values():
        assert 0.0 <= measured["tiny_arithmetic/success"] <= 1.0
    assert "run/evaluation/sampled" in figures["start"]
    for name in figures:
        items = out / "measured" / name / "tiny_arithmetic" / "items.jsonl"
        assert len(items.read_text().splitlines()) == 4
    assert start(path, out).run() == figures
