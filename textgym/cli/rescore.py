"""`textgym rescore`: what kept answers are worth by another reward."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from textgym.cli.command import Command
from textgym.cli.output import console, print_json, table
from textgym.cli.score import add_reward, rubric_spec
from textgym.errors import ConfigError
from textgym.item_files import (
    ITEMS,
    SUITE,
    metrics_record,
    open_items,
    write_items,
    write_json,
    write_metrics,
)
from textgym.item_statistics import reward, share, success, summarise
from textgym.items import Item, Metric
from textgym.make import make_rubric
from textgym.plugins import plugin_manager
from textgym.rescoring import read_answers, rescore
from textgym.scoring import Scorer


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `textgym rescore`."""
    add = parser.add_argument
    add("path", type=Path, help="folder of evaluated suites, a run, or a rollouts file")
    add_reward(parser)
    add("--score-cut", action="store_true", help="score answers that were cut off, too")
    add("--out", type=Path, metavar="DIR", help="write the answers with their new scores here")
    add("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Score every answer again, and print both results."""
    rubric = make_rubric(rubric_spec(arguments.reward, arguments.overrides))
    before = read_answers(arguments.path)
    if arguments.score_cut:
        before = {name: each._replace(scores_cut=True) for name, each in before.items()}
    with Scorer(rubric) as scorer:
        for answers in before.values():
            scorer.check_routes(item.prompt for item in answers.items)
        after = {name: rescore(answers, scorer) for name, answers in before.items()}
    if arguments.out is not None:
        source: dict[str, JsonValue] = {"rescored": str(arguments.path)}
        source["reward"] = rubric.model_dump(mode="json")
        for name, items in after.items():
            _write(arguments.out / name, items, {"suite": name, **source})
    figures = {name: _figures(before[name].items, after[name]) for name in before}
    if arguments.json:
        print_json({name: metrics_record(each) for name, each in figures.items()})
    else:
        _print(str(arguments.path), figures)
    return 0


def _figures(before: Sequence[Item], after: Sequence[Item]) -> dict[str, Metric]:
    return {
        "success_before": success(before),
        "success": success(after),
        "reward_before": reward(before),
        "reward": reward(after),
        "unscored": share(after, lambda item: not item.score.is_scored),
    }


def _print(title: str, figures: Mapping[str, Mapping[str, Metric]]) -> None:
    rows = [
        (
            name,
            str(each["unscored"].count),
            *(_shown(each[key].value, is_share=not key.startswith("reward")) for key in each),
        )
        for name, each in figures.items()
    ]
    columns = ("answers", "prompts", "success before", "success", "reward before", "reward",
               "unscored")  # fmt: skip
    console().print(table(title, columns, rows))


def _shown(value: float, *, is_share: bool) -> str:
    if math.isnan(value):
        return "none"
    return f"{value:.1%}" if is_share else f"{value:.3f}"


def _write(path: Path, items: Sequence[Item], settings: dict[str, JsonValue]) -> None:
    """Write the answers as an evaluated suite, with the figures of the suite they are of."""
    if (path / ITEMS).exists():
        raise ConfigError(f"--out: {path} holds answers already; name another folder")
    write_json(path / SUITE, settings)
    with open_items(path) as file:
        write_items(file, items)
    known = plugin_manager().benchmarks.get(path.name)
    metrics = summarise(items) if known is None else known.value.metrics(items)
    write_metrics(path, metrics)


COMMAND = Command("score kept answers with another reward, and compare", configure, run)
