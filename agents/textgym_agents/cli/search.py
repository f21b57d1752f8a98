"""`textgym search`: what planning at test time adds to a policy, and at what price."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from textgym.cli.command import Command
from textgym.config import load_config, parse_override
from textgym.errors import ConfigError, UnknownNameError, did_you_mean
from textgym_agents.cli.arguments import add_shared, names
from textgym_agents.cli.train import is_agent_run

if TYPE_CHECKING:
    from textgym_agents.lm.planning.config import SearchConfig
    from textgym_agents.lm.planning.experiment import Experiment
    from textgym_agents.lm.planning.report import Row


def _configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("policy", metavar="RUN|MODEL", help="a run directory, a folder, a hub id")
    add("--method", type=names, default=["mcts", "best_of_n", "beam", "greedy"],
        help="mcts,best_of_n,beam,greedy (default: all of them)")  # fmt: skip
    add("--budgets", type=names, default=["32", "64", "128"], metavar="TOKENS",
        help="tokens that a method may read for a prompt (default: 32,64,128)")  # fmt: skip
    add("--terminals", default="value",
        help="what says how much a finished completion is worth: value (the value head, the "
        "default), reward (the environment's own), or another reward by name or YAML")  # fmt: skip
    add("--search", action="append", default=[], metavar="METHOD.FIELD=VALUE",
        help="set a field of a method, e.g. mcts.c_init=2")  # fmt: skip
    add("--episodes", type=int, help="prompts (default: what the run's evaluation has)")
    add("--split", choices=("train", "evaluation", "all"), help="of the prompts")
    add("--out", type=Path, help="folder of the results (default: RUN/search)")
    add("--data", type=Path, metavar="FILE",
        help="write the right answers of the first method at its largest budget as demonstrations "
        "for `textgym sft --data`")  # fmt: skip
    add("--best", action="store_true", help="the best checkpoint of a run, not its newest")
    add_shared(parser)


def _run(args: argparse.Namespace) -> int:
    if is_agent_run(Path(args.policy)):
        raise ConfigError(f"the agent of {args.policy} writes no text; there is nothing to plan")
    configs = search_configs(args.method, args.budgets, args.search)
    out = _out_folder(args)
    if args.split is not None:
        args.overrides = [f"env.kwargs.split={args.split}", *args.overrides]

    from transformers.utils import logging as transformers_logging

    from textgym_agents.cli.language_models import evaluated_agent
    from textgym_agents.lm.planning.experiment import Experiment

    transformers_logging.disable_progress_bar()
    agent = evaluated_agent(args)
    experiment = Experiment(agent, terminals=parse_override(f"x={args.terminals}")["x"])
    try:
        _search(args, experiment, configs, out)
    finally:
        experiment.close()
        agent.engine.close()
    return 0


def search_configs(
    methods: Sequence[str], budgets: Sequence[str], settings: Sequence[str] = ()
) -> list[SearchConfig]:
    """Return a configuration per method and budget; one for `greedy`, which has no budget.

    Args:
        methods: names.
        budgets: tokens, as text.
        settings: `METHOD.FIELD=VALUE` each.

    Raises:
        UnknownNameError: there is no such method.
        ConfigError: a budget or a field that cannot be used.
    """
    from textgym_agents.lm.planning.config import METHODS

    own: dict[str, list[str]] = {name: [] for name in METHODS}
    for setting in settings:
        name, _, field = setting.partition(".")
        _check_method(name)
        own[name].append(field)
    for name in methods:
        _check_method(name)
    sizes = [_budget(text) for text in budgets]
    if not methods or not sizes:
        raise ConfigError("--method and --budgets: name at least one of each")
    return [
        load_config(METHODS[name], preset={"budget": size}, overrides=own[name])
        for name in dict.fromkeys(methods)
        for size in sorted(set(sizes if name != "greedy" else sizes[:1]))
    ]


def _check_method(name: str) -> None:
    from textgym_agents.lm.planning.config import METHODS

    if name not in METHODS:
        raise UnknownNameError(
            f"no method named '{name}'.{did_you_mean(name, METHODS)} There are: "
            f"{', '.join(METHODS)}."
        )


def _budget(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"--budgets {text}: expected a whole number above 0")
    return int(text)


def _out_folder(args: argparse.Namespace) -> Path:
    is_run = (Path(args.policy) / "config.yaml").exists()
    out: Path = args.out or (Path(args.policy) / "search" if is_run else Path("search"))
    if (out / "results.json").exists():
        raise ConfigError(f"{out} holds results already; choose another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    return out


def _search(
    args: argparse.Namespace,
    experiment: Experiment,
    configs: Sequence[SearchConfig],
    out: Path,
) -> None:
    """Run all methods; files are written after each of them."""
    from textgym_agents.lm.planning import report
    from textgym_agents.run.progress import ConsoleProgress

    console, title = Console(), _title(args, experiment)
    rows: list[Row] = []
    records: list[dict[str, Any]] = []
    if experiment.num_left_out:
        console.print(f"{experiment.num_left_out} prompts are too long and left out")
    with ConsoleProgress(console) as progress:
        for config in configs:
            results = experiment.run(config, seed=args.seed or 0, progress=progress)
            rows.append(report.summarise(config, results))
            records += report.answer_records(config, results)
            report.write_results(out, rows, records, title=title, optimum=experiment.optimum)
            if args.data is not None and config is _teacher(configs):
                count = report.write_demonstrations(args.data, results)
                console.print(f"{count} demonstrations: {args.data}", highlight=False)
    table = Table(*report.COLUMNS, title=title, title_justify="left")
    for cells in report.table_rows(rows):
        table.add_row(*cells)
    console.print(table)
    if experiment.optimum is not None:
        console.print(f"the best policy: {experiment.optimum:.4f}", highlight=False)
    console.print(f"results: {out}", highlight=False, soft_wrap=True)


def _teacher(configs: Sequence[SearchConfig]) -> SearchConfig:
    """Return the first method at its largest budget."""
    return max((c for c in configs if c.kind == configs[0].kind), key=lambda c: c.budget)


def _title(args: argparse.Namespace, experiment: Experiment) -> str:
    return f"{args.policy}: {len(experiment.problems)} prompts, terminals by {args.terminals}"


search = Command("plan completions with a policy's value head", _configure, _run)
