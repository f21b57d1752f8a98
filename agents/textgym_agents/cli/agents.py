"""Training and evaluating every agent but the language model's from the command line."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from textgym.config import load_config, read_yaml
from textgym.errors import ConfigError
from textgym.seeding import Purpose, derive_seed
from textgym_agents.agent import check_count, evaluate
from textgym_agents.baselines.suites import settings_for, task_name, task_of
from textgym_agents.env_source import exact_solution_of, opened, spec_of
from textgym_agents.run.agent_run import AgentRunConfig, load_trained, train_agent
from textgym_agents.run.directory import RunDirectory, rows_of
from textgym_agents.run.progress import ConsoleProgress

TABLE_COLUMNS = (
    ("return", "evaluation/reward", ".3f"),
    ("length", "evaluation/length", ".1f"),
    ("success", "evaluation/success", ".1%"),
    ("not scored", "evaluation/num_unscored", ".0f"),
)


def _new_config(args: argparse.Namespace) -> AgentRunConfig:
    """Return the configuration of a new run.

    Settings that a suite has for the agent on the environment are where it starts from.
    """
    given = read_yaml(args.config) if args.config else {}
    agent, env = args.agent or given.get("agent"), args.env or given.get("env")
    if env is None:
        raise ConfigError("--env: say where the agent learns, e.g. --env CartPole-v1")
    preset: dict[str, Any] = {"agent": agent, "env": env}
    preset["settings"] = settings_for(str(agent), str(env))
    task = task_of(str(env))
    preset |= {} if task is None else {"total_steps": task.budget}
    if task_name(str(env)) == "TextGen-v0":
        preset["evaluation_kwargs"] = {"split": "evaluation"}
    return load_config(AgentRunConfig, path=args.config, preset=preset, overrides=_overrides(args))


def _overrides(args: argparse.Namespace) -> list[str]:
    """Return the command line's shorthands as overrides, before those of `--set`."""
    for name in ("device", "threads"):
        if getattr(args, name) is not None:
            raise ConfigError(f"--{name} is for language models; these agents use one core")
    for name in ("steps", "episodes"):
        if getattr(args, name, None) is not None:
            check_count(f"--{name}", getattr(args, name))
    if getattr(args, "engine", None) is not None or getattr(args, "urls", None) is not None:
        raise ConfigError("--engine and --url are for language models")
    shorthands = {
        "agent": getattr(args, "agent", None),
        "env": getattr(args, "env", None),
        "total_steps": getattr(args, "steps", None),
        "env_kwargs.prompts": args.prompts,
        "env_kwargs.reward": args.reward,
        "evaluation_episodes": getattr(args, "episodes", None),
        "seed": args.seed,
        "report_to": getattr(args, "report_to", None),
    }
    given = [f"{name}={json.dumps(v)}" for name, v in shorthands.items() if v is not None]
    return [*given, *args.overrides]


def train(console: Console, args: argparse.Namespace, run: RunDirectory) -> None:
    """Train an agent, or continue its run; print what its evaluations found."""
    is_new = args.resume is None
    if args.preset is not None:
        raise ConfigError(f"--preset {args.preset}: presets are for language models")
    config = _new_config(args) if is_new else _stored_config(args, run)
    console.print(f"run {run.path}", highlight=False)
    with ConsoleProgress(console) as progress:
        try:
            train_agent(config, run.path, progress=progress, resume=not is_new)
        except KeyboardInterrupt:
            progress.note(f"stopped; continue with: textgym train --resume {run.path}")
            raise
    rows = rows_of(run.read_metrics(), "evaluation")
    console.print(_table(f"{config.agent} on {task_name(config.env)}", rows, _optimum(config)))
    console.print(f"curves: {run.plot_path}", highlight=False, soft_wrap=True)
    console.print(f"report: {run.report_path}", highlight=False, soft_wrap=True)


def _stored_config(args: argparse.Namespace, run: RunDirectory) -> AgentRunConfig:
    overrides = _overrides(args)
    if overrides:
        raise ConfigError(f"--resume: '{overrides[0]}' cannot change within a run")
    return load_config(AgentRunConfig, path=run.path / "config.yaml")


def evaluate_run(args: argparse.Namespace) -> None:
    """Play episodes with the agent of a run and print what came of them."""
    if args.best:
        raise ConfigError("--best is for the runs of language models; these keep the newest only")
    path = Path(args.policy)
    config = load_config(AgentRunConfig, path=path / "config.yaml", overrides=_overrides(args))
    metrics = evaluate(
        load_trained(path),
        spec_of(config.env, **{**config.env_kwargs, **config.evaluation_kwargs}),
        num_episodes=config.evaluation_episodes,
        seed=derive_seed(config.seed, Purpose.EVALUATION),
    ).metrics()
    if args.json:
        print(json.dumps({k: v if math.isfinite(v) else None for k, v in metrics.items()}))
    else:
        title = f"{config.agent} on {task_name(config.env)}, {config.evaluation_episodes} episodes"
        Console().print(_table(title, [metrics], _optimum(config)))


def _optimum(config: AgentRunConfig) -> float | None:
    """Return the return of the best policy, where the environment knows it."""
    with opened(spec_of(config.env, **config.env_kwargs)) as env:
        solution = exact_solution_of(env)
    return None if solution is None else float(solution.optimal_value)


def _table(title: str, rows: list[dict[str, Any]], optimum: float | None) -> Table:
    caption = None if optimum is None else f"the best policy: {optimum:.3f}"
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    knows_steps = all("iteration" in row for row in rows)
    for column in (["steps"] if knows_steps else []) + [name for name, _, _ in TABLE_COLUMNS]:
        table.add_column(column, justify="right")
    for row in rows:
        shown = [_shown(row.get(key), style) for _, key, style in TABLE_COLUMNS]
        table.add_row(*([f"{row['iteration']:,}"] if knows_steps else []), *shown)
    return table


def _shown(value: float | None, style: str) -> str:
    return "none" if value is None or math.isnan(value) else format(value, style)
