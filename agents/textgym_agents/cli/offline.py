"""`textgym sft` and `textgym dpo`: learn from demonstrations, or from preferences."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from textgym.cli.command import Command
from textgym.config import load_config
from textgym.errors import ConfigError
from textgym_agents.cli.arguments import add_common, add_run, new_run_path, resumed_path
from textgym_agents.cli.launched import launched_command
from textgym_agents.run.directory import RunDirectory, rows_of
from textgym_agents.run.progress import ConsoleProgress, SilentProgress

RESUMABLE = ("checkpoint_every", "keep_checkpoints", "threads", "report_to")
COLUMNS = {
    "sft": (("loss", "loss", ".4f"), ("token accuracy", "mean_token_accuracy", ".1%")),
    "dpo": (
        ("loss", "loss", ".4f"),
        ("margin", "rewards/margins", ".4f"),
        ("right way round", "rewards/accuracies", ".1%"),
        ("reward, chosen", "rewards/chosen", ".4f"),
        ("reward, rejected", "rewards/rejected", ".4f"),
    ),
}


def _configure(kind: str, parser: argparse.ArgumentParser) -> None:
    rows = "{prompt, completion} or {messages}" if kind == "sft" else "{prompt, chosen, rejected}"
    parser.add_argument("config", nargs="?", type=Path, help="a YAML file")
    parser.add_argument("--data", help=f"JSONL of {rows}")
    parser.add_argument("--prompts", help="prompt source by name, or a file, in place of --data")
    if kind == "sft":
        parser.add_argument(
            "--completion", help="what to learn of a prompt, e.g. metadata.solution"
        )
    add_run(parser)
    parser.add_argument("--steps", type=int, help="optimiser steps")
    add_common(parser, example="policy.mode.kind=lora")


def _run(kind: str, args: argparse.Namespace) -> int:
    """Learn, and print what came of it."""
    with launched_command() as processes:
        from transformers.utils import logging as transformers_logging

        from textgym_agents.lm.offline.config import RUN_CONFIGS
        from textgym_agents.lm.offline.run import tune

        transformers_logging.disable_progress_bar()
        console = Console(quiet=not processes.is_main)
        run = processes.from_main(lambda: _choose_run(kind, args))
        is_new = args.resume is None
        with processes.together():
            path = args.config if is_new else run.path / "config.yaml"
            overrides = _overrides(args) if is_new else _resumable(args)
            config = load_config(RUN_CONFIGS[kind], path=path, overrides=overrides)
        console.print(f"run {run.path}", highlight=False)
        with ConsoleProgress(console) if processes.is_main else SilentProgress() as progress:
            try:
                tune(config, run.path, progress=progress, processes=processes, resume=not is_new)
            except KeyboardInterrupt:
                progress.note(f"stopped; continue with: textgym {kind} --resume {run.path}")
                raise
        if processes.is_main:
            _report(console, run, kind)
    return 0


def _choose_run(kind: str, args: argparse.Namespace) -> RunDirectory:
    if args.resume is None:
        return RunDirectory.create(args.run or new_run_path())
    if args.config or args.run:
        raise ConfigError(
            "--resume continues a run with the configuration that it stored; leave out the "
            "configuration file and --run"
        )
    run = RunDirectory.open(resumed_path(args.resume))
    run.check_kind(kind)
    return run


def _resumable(args: argparse.Namespace) -> list[str]:
    """Return the overrides of a run that is continued.

    Raises:
        ConfigError: one of them would make another run of it.
    """
    overrides = _overrides(args)
    for override in overrides:
        name = override.partition("=")[0]
        if name not in RESUMABLE:
            raise ConfigError(
                f"--resume: '{name}' cannot change within a run; {', '.join(RESUMABLE)} can. "
                "Start a new run instead."
            )
    return overrides


def _overrides(args: argparse.Namespace) -> list[str]:
    """Return the command line's shorthands as overrides, before those of `--set`."""
    shorthands = {
        "data.file": args.data,
        "data.completion": getattr(args, "completion", None),
        "env.prompts": args.prompts,
        "policy.model": args.model,
        "steps": args.steps,
        "seed": args.seed,
        "threads": args.threads,
        "device": args.device,
        "report_to": args.report_to,
    }
    given = [f"{name}={json.dumps(v)}" for name, v in shorthands.items() if v is not None]
    return [*given, *args.overrides]


def _report(console: Console, run: RunDirectory, kind: str) -> None:
    rows = rows_of(run.read_metrics(), "evaluation")
    if rows:
        console.print(_table(kind, rows))
    policy = run.latest_checkpoint()
    console.print(f"policy: {policy}/policy", highlight=False, soft_wrap=True)
    console.print(f"curves: {run.plot_path}", highlight=False, soft_wrap=True)
    console.print(f"report: {run.report_path}", highlight=False, soft_wrap=True)


def _table(kind: str, rows: list[dict[str, Any]]) -> Table:
    before, after = rows[0], rows[-1]
    table = Table(title="held-out rows", title_justify="left")
    for column in ("", "before", f"after {after['iteration']} steps"):
        table.add_column(column, justify="right" if column else "left")
    for label, key, style in COLUMNS[kind]:
        values = [row.get(f"evaluation/{key}") for row in (before, after)]
        table.add_row(label, *("none" if v is None else format(v, style) for v in values))
    return table


sft = Command(
    "fine-tune a language model on demonstrations", partial(_configure, "sft"), partial(_run, "sft")
)
dpo = Command(
    "tune a language model on preference pairs", partial(_configure, "dpo"), partial(_run, "dpo")
)
