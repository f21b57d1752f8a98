"""`textgym train`: who learns what, where the run is kept, and what goes on."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from textgym.cli.command import Command
from textgym.config import read_yaml
from textgym.errors import ConfigError, UnknownNameError, did_you_mean
from textgym_agents.agent_files import AGENTS
from textgym_agents.cli.arguments import add_run, add_shared, new_run_path, resumed_path
from textgym_agents.cli.launched import launched_command
from textgym_agents.lm.presets import PRESETS
from textgym_agents.run.directory import RunDirectory

LANGUAGE_MODEL_AGENT = "ppo"


def _configure_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", type=Path, help="a YAML file")
    parser.add_argument("--agent", help=f"who learns: {', '.join(AGENTS)}; with --model only ppo")
    parser.add_argument("--env", help="Gymnasium id of the environment")
    parser.add_argument("--steps", type=int, help="environment steps (not for language models)")
    parser.add_argument("--preset", help=f"where to start from: {', '.join(PRESETS)}")
    add_run(parser)
    add_shared(parser)


def run_train(args: argparse.Namespace) -> int:
    """Train, or continue a run; print what came of it."""
    with launched_command() as processes:
        console = Console(quiet=not processes.is_main)
        run, is_agents = processes.from_main(lambda: _choose_run(args))
        if is_agents and processes.size > 1:
            raise ConfigError(
                "these agents use one process; start `textgym train` without a launcher"
            )
        if is_agents:
            from textgym_agents.cli import agents

            agents.train(console, args, run)
        else:
            from textgym_agents.cli import language_models

            language_models.train(console, args, run, processes)
    return 0


def _choose_run(args: argparse.Namespace) -> tuple[RunDirectory, bool]:
    """Return the run, and whether it is one of an agent other than a language model's."""
    is_new = args.resume is None
    if not is_new and (args.config or args.preset or args.run or args.agent):
        raise ConfigError(
            "--resume continues a run with the configuration that it stored; leave out the "
            "configuration file, --agent, --preset and --run"
        )
    path = args.run or new_run_path() if is_new else resumed_path(args.resume)
    run = RunDirectory.create(path) if is_new else RunDirectory.open(path)
    if not is_new:
        run.check_kind("train")
    return run, _names_agent(args) if is_new else is_agent_run(path)


def _names_agent(args: argparse.Namespace) -> bool:
    """Return whether a new run is one of an agent: `--agent`, or a file that says `agent`.

    `--agent ppo --model ...` is PPO on a language model.
    """
    if args.agent is None:
        return args.config is not None and "agent" in read_yaml(args.config)
    if args.agent not in AGENTS:
        raise UnknownNameError(
            f"no agent named '{args.agent}'.{did_you_mean(args.agent, AGENTS)} There are: "
            f"{', '.join(AGENTS)}; `--agent ppo --model ...` trains a language model."
        )
    if args.model is not None and args.agent != LANGUAGE_MODEL_AGENT:
        raise ConfigError(
            f"--model: the agent '{args.agent}' takes none; the agent 'ppo' can train one"
        )
    return args.model is None


def is_agent_run(path: Path) -> bool:
    """Return whether a folder is the run of an agent other than a language model's."""
    config = path / "config.yaml"
    return config.exists() and "agent" in read_yaml(config)


train = Command("train a policy on an environment", _configure_train, run_train)
