"""Training and evaluating a language model from the command line."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers.utils import logging as transformers_logging

from textgym.config import load_config, read_yaml
from textgym.errors import ConfigError, UnknownNameError, did_you_mean
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.checkpoint import find_checkpoint
from textgym_agents.lm.config import TrainConfig
from textgym_agents.lm.evaluation import evaluate as evaluate_agent
from textgym_agents.lm.evaluation import make_held_out
from textgym_agents.lm.policy_files import POLICY_FOLDER
from textgym_agents.lm.presets import PRESETS
from textgym_agents.lm.trainer import build_agent, learn
from textgym_agents.processes import Processes, check_replicated
from textgym_agents.run.directory import RunDirectory
from textgym_agents.run.metrics import rows_of
from textgym_agents.run.progress import ConsoleProgress, SilentProgress

TABLE_ROWS = (
    ("greedy", "evaluation/greedy", ".1%"),
    ("sampled", "evaluation/sampled", ".1%"),
    ("reward, greedy", "evaluation/greedy_reward", ".2f"),
    ("reward, sampled", "evaluation/sampled_reward", ".2f"),
    ("tokens, sampled", "evaluation/sampled_length", ".2f"),
    ("not scored", "evaluation/sampled_failed", ".0f"),
)
"""Label, metric and format; success has no row where no column knows it."""
RESUMABLE = (
    "iterations", "checkpoint_every", "keep_checkpoints", "log_rollouts", "threads", "report_to",
)  # fmt: skip


def train(
    console: Console, args: argparse.Namespace, run: RunDirectory, processes: Processes
) -> None:
    """Train a language model, or continue its run; print the table before and after."""
    transformers_logging.disable_progress_bar()
    if args.steps is not None:
        raise ConfigError("--steps: a language model's run is as long as `epochs` or `iterations`")
    check_replicated()
    checkpoint = processes.from_main(run.latest_checkpoint)
    with processes.together():
        config = _new_config(args) if args.resume is None else _stored_config(args, run)
    console.print(f"run {run.path}", highlight=False)
    with ConsoleProgress(console) if processes.is_main else SilentProgress() as progress:
        with processes.together():
            agent = build_agent(config, checkpoint=checkpoint, processes=processes)
        try:
            learn(agent, run.path, progress=progress, resume_from=checkpoint)
        except KeyboardInterrupt:
            progress.note(f"stopped; continue with: textgym train --resume {run.path}")
            raise
    if processes.is_main:
        _print_before_after(console, run)


def _new_config(args: argparse.Namespace) -> TrainConfig:
    preset = PRESETS[_preset(args)]
    return load_config(TrainConfig, path=args.config, preset=preset, overrides=_overrides(args))


def _stored_config(args: argparse.Namespace, run: RunDirectory) -> TrainConfig:
    overrides = _overrides(args)
    for override in overrides:
        name = override.partition("=")[0]
        if name not in RESUMABLE and not name.startswith("evaluation."):
            raise ConfigError(
                f"--resume: '{name}' cannot change within a run; {', '.join(RESUMABLE)} and "
                "evaluation.* can. Start a new run instead."
            )
    return load_config(TrainConfig, path=run.path / "config.yaml", overrides=overrides)


def _preset(args: argparse.Namespace) -> str:
    """Return the preset: the embedded world, or `seed` for other prompts, models and files."""
    if args.preset is None:
        is_default = args.config is None and args.prompts is None and args.model is None
        return "arithmetic" if is_default else "seed"
    if args.preset not in PRESETS:
        raise UnknownNameError(
            f"no preset named '{args.preset}'.{did_you_mean(args.preset, PRESETS)} "
            f"There are: {', '.join(PRESETS)}."
        )
    return str(args.preset)


def _overrides(args: argparse.Namespace) -> list[str]:
    """Return the command line's shorthands as overrides, before those of `--set`."""
    shorthands = {
        "env.id": getattr(args, "env", None),
        "env.prompts": args.prompts,
        "env.reward": args.reward,
        "policy.model": getattr(args, "model", None),
        "evaluation.num_episodes": getattr(args, "episodes", None),
        "seed": args.seed,
        "threads": args.threads,
        "device": args.device,
        "report_to": getattr(args, "report_to", None),
    }
    given = [f"{name}={json.dumps(v)}" for name, v in shorthands.items() if v is not None]
    return [*given, *args.overrides]


def _print_before_after(console: Console, run: RunDirectory) -> None:
    rows = rows_of(run.read_metrics(), "evaluation")
    before, after = rows[0], rows[-1]
    columns = ("before PPO", f"after {after['iteration']} iterations")
    console.print(_table("held-out prompts", columns, [before, after]))
    console.print(f"curves: {run.plot_path}", highlight=False, soft_wrap=True)


def _table(title: str, columns: Iterable[str], rows: list[dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for label, key, style in TABLE_ROWS:
        values = [_number(row[key]) for row in rows]
        if label in ("greedy", "sampled") and all(value is None for value in values):
            continue
        table.add_row(label, *("none" if v is None else format(v, style) for v in values))
    return table


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def evaluate_policy(args: argparse.Namespace) -> None:
    """Answer held-out prompts with the policy of a run, or with any model."""
    transformers_logging.disable_progress_bar()
    agent = _evaluated_agent(args)
    held_out = make_held_out(agent)
    try:
        metrics = evaluate_agent(agent, held_out).metrics()
    finally:
        held_out.envs.close()
    if args.json:
        finite = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
        print(json.dumps(finite))
    else:
        title = f"held-out prompts ({held_out.envs.num_envs})"
        Console().print(_table(title, [args.policy], [metrics]))


def _evaluated_agent(args: argparse.Namespace) -> PPOAgent:
    path = Path(args.policy)
    overrides = _overrides(args)
    stored = read_yaml(path / "config.yaml") if (path / "config.yaml").exists() else {}
    if not stored or "kind" in stored:  # a model, or what was tuned without an environment
        if args.best:
            path = find_checkpoint(RunDirectory.open(path), best=True) / POLICY_FOLDER
        model = [f"policy.model={json.dumps(str(path))}"]
        config = load_config(TrainConfig, preset=PRESETS["seed"], overrides=model + overrides)
        return build_agent(config)
    checkpoint = find_checkpoint(RunDirectory.open(path), best=args.best)
    config = load_config(TrainConfig, path=path / "config.yaml", overrides=overrides)
    return build_agent(config, checkpoint=checkpoint)
