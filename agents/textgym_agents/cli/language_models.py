"""Training and evaluating a language model from the command line."""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers.utils import logging as transformers_logging

from textgym.config import load_config, merge, parse_override, read_yaml
from textgym.errors import ConfigError, UnknownNameError, did_you_mean
from textgym_agents.baselines.suites import task_name
from textgym_agents.cli.arguments import engine_of
from textgym_agents.env_source import has_exact_solution
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.build import build_agent
from textgym_agents.lm.checkpoint import find_checkpoint
from textgym_agents.lm.config import EnvConfig, PolicyConfig, TrainConfig
from textgym_agents.lm.evaluation import evaluate as evaluate_agent
from textgym_agents.lm.evaluation import make_held_out
from textgym_agents.lm.exact import limits_for
from textgym_agents.lm.policy_files import POLICY_FOLDER
from textgym_agents.lm.presets import PRESETS, SOLVED, WORLDS, preset
from textgym_agents.lm.trainer import learn
from textgym_agents.processes import Processes, check_replicated
from textgym_agents.run.directory import RunDirectory, rows_of
from textgym_agents.run.progress import ConsoleProgress, SilentProgress

TABLE_ROWS = (
    ("greedy", "evaluation/greedy", ".1%"),
    ("sampled", "evaluation/sampled", ".1%"),
    ("reward, greedy", "evaluation/greedy_reward", ".2f"),
    ("reward, sampled", "evaluation/sampled_reward", ".2f"),
    ("tokens, sampled", "evaluation/sampled_length", ".2f"),
    ("not scored", "evaluation/sampled_failed", ".0f"),
    ("exact return, greedy", "evaluation/exact_greedy", ".4f"),
    ("exact return, sampled", "evaluation/exact_sampled", ".4f"),
    ("optimum", "evaluation/optimum", ".4f"),
    ("share of it, greedy", "evaluation/share_greedy", ".4f"),
    ("share of it, sampled", "evaluation/share_sampled", ".4f"),
)
"""Label, metric and format."""
OPTIONAL = ("evaluation/greedy", "evaluation/sampled", "evaluation/exact_greedy",
            "evaluation/exact_sampled", "evaluation/optimum", "evaluation/share_greedy",
            "evaluation/share_sampled")  # fmt: skip
"""Metrics that have no row where no column knows them."""
RESUMABLE = (
    "iterations", "checkpoint_every", "keep_checkpoints", "log_rollouts", "log_tokens", "threads",
    "report_to",
)  # fmt: skip
EMBEDDED = {"TextGen-v0": "arithmetic", "TextGenTools-v0": "tools"}
"""The world of an environment, where nothing else is given."""
RESUMABLE_SECTIONS = ("evaluation", "engine")


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
        config = new_config(args) if args.resume is None else _stored_config(args, run)
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


def new_config(args: argparse.Namespace) -> TrainConfig:
    """Return the configuration of a new run."""
    world = _world(args)
    return _load_config(args, _preset(args, world), is_solved=world == SOLVED)


def _load_config(
    args: argparse.Namespace, values: Mapping[str, Any], *given: str, is_solved: bool
) -> TrainConfig:
    """Return the configuration of preset values, overrides that are given, and the arguments."""
    overrides = [*given, *_overrides(args)]
    path = getattr(args, "config", None)
    config = load_config(TrainConfig, path=path, preset=values, overrides=overrides)
    if not is_solved:
        return config
    values = merge(values, limits_for(config.env, config.policy.model))
    return load_config(TrainConfig, path=path, preset=values, overrides=overrides)


def _stored_config(args: argparse.Namespace, run: RunDirectory) -> TrainConfig:
    overrides = _overrides(args)
    for override in overrides:
        name = override.partition("=")[0]
        if name not in RESUMABLE and name.partition(".")[0] not in RESUMABLE_SECTIONS:
            raise ConfigError(
                f"--resume: '{name}' cannot change within a run; {', '.join(RESUMABLE)}, "
                f"{' and '.join(f'{section}.*' for section in RESUMABLE_SECTIONS)} can. Start a "
                "new run instead."
            )
    return load_config(TrainConfig, path=run.path / "config.yaml", overrides=overrides)


def _world(args: argparse.Namespace) -> str:
    """Return the world whose preset fits: the one named, or by environment, prompts and model."""
    if args.preset in WORLDS:
        return str(args.preset)
    env_id = _env_id(args)
    if has_exact_solution(env_id):
        return SOLVED
    is_default = (
        args.config is None and args.prompts is None and args.model in (None, PolicyConfig().model)
    )
    if is_default and task_name(env_id) in EMBEDDED:
        return EMBEDDED[task_name(env_id)]
    return "seed" if args.preset is None else "llm"


def _preset(args: argparse.Namespace, world: str) -> Mapping[str, Any]:
    """Return what to start from."""
    if args.preset is None or args.preset in WORLDS:
        return WORLDS[world]
    if args.preset not in PRESETS:
        raise UnknownNameError(
            f"no preset named '{args.preset}'.{did_you_mean(args.preset, PRESETS)} "
            f"There are: {', '.join(PRESETS)}."
        )
    return preset(args.preset, world)


def _env_id(args: argparse.Namespace) -> str:
    """Return the environment that the file and the arguments name; the default one without."""
    path = getattr(args, "config", None)
    given: dict[str, Any] = {} if path is None else read_yaml(path)
    for override in _overrides(args):
        given = merge(given, parse_override(override))
    env = given.get("env")
    return str(env.get("id", EnvConfig().id)) if isinstance(env, dict) else EnvConfig().id


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
        "engine": engine_of(args),
    }
    given = [f"{name}={json.dumps(v)}" for name, v in shorthands.items() if v is not None]
    return [*given, *args.overrides]


def _print_before_after(console: Console, run: RunDirectory) -> None:
    rows = rows_of(run.read_metrics(), "evaluation")
    before, after = rows[0], rows[-1]
    columns = ("before PPO", f"after {after['iteration']} iterations")
    console.print(_table("held-out prompts", columns, [before, after]))
    console.print(f"curves: {run.plot_path}", highlight=False, soft_wrap=True)
    console.print(f"report: {run.report_path}", highlight=False, soft_wrap=True)


def _table(title: str, columns: Iterable[str], rows: list[dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for label, key, style in TABLE_ROWS:
        values = [_number(row.get(key)) for row in rows]
        if key in OPTIONAL and all(value is None for value in values):
            continue
        table.add_row(label, *("none" if v is None else format(v, style) for v in values))
    for label, key, style in _task_rows(rows):
        values = [_number(row.get(key)) for row in rows]
        table.add_row(label, *("none" if v is None else format(v, style) for v in values))
    return table


def _task_rows(rows: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Yield label, metric and format for each task: success, or reward where none knows it."""
    prefix = "evaluation/greedy/"
    keys = {key for row in rows for key in row if key.startswith(prefix)}
    for key, name in itertools.product(sorted(keys), ("greedy", "sampled")):
        task = key.removeprefix(prefix)
        success, reward = f"evaluation/{name}/{task}", f"evaluation/{name}_reward/{task}"
        if any(_number(row.get(success)) is not None for row in rows):
            yield f"{task}, {name}", success, ".1%"
        else:
            yield f"{task}, reward, {name}", reward, ".2f"


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def evaluate_policy(args: argparse.Namespace) -> None:
    """Answer held-out prompts with the policy of a run, or with any model."""
    transformers_logging.disable_progress_bar()
    agent = evaluated_agent(args)
    held_out = make_held_out(agent)
    try:
        metrics = evaluate_agent(agent, held_out).metrics()
    finally:
        held_out.envs.close()
        agent.engine.close()
    if args.json:
        finite = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
        print(json.dumps(finite))
    else:
        title = f"held-out prompts ({held_out.envs.num_envs})"
        Console().print(_table(title, [args.policy], [metrics]))


def evaluated_agent(args: argparse.Namespace) -> PPOAgent:
    """Return the policy of a run, or any model, as the arguments of an evaluation say."""
    path = Path(args.policy)
    is_run = (path / "config.yaml").exists()
    if not is_run or RunDirectory(path).kind != "train":  # a model, or tuned without a reward
        policy = args.policy
        if args.best:
            policy = str(find_checkpoint(RunDirectory.open(path), best=True) / POLICY_FOLDER)
        is_solved = has_exact_solution(_env_id(args))
        values = WORLDS[SOLVED if is_solved else "seed"]
        model = f"policy.model={json.dumps(policy)}"
        return build_agent(_load_config(args, values, model, is_solved=is_solved))
    checkpoint = find_checkpoint(RunDirectory.open(path), best=args.best)
    config = load_config(TrainConfig, path=path / "config.yaml", overrides=_overrides(args))
    return build_agent(config, checkpoint=checkpoint)
