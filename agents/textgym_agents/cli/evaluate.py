"""`textgym evaluate`: what a run or a model is worth."""

from __future__ import annotations

import argparse
from pathlib import Path

from textgym.cli.command import Command
from textgym.errors import ConfigError
from textgym_agents.cli.arguments import add_shared
from textgym_agents.cli.suites import OF_SUITES, add_suite_arguments, run_suites
from textgym_agents.cli.train import is_agent_run


def _configure_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("policy", metavar="RUN|MODEL", help="a run directory, a folder, a hub id")
    parser.add_argument("--episodes", type=int, help="held-out prompts")
    parser.add_argument(
        "--best", action="store_true", help="the best checkpoint of a run, not its newest"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_shared(parser)
    add_suite_arguments(parser)


def run_evaluate(args: argparse.Namespace) -> int:
    """Answer suites, play with the agent of a run, or answer held-out prompts with any model."""
    if args.suites:
        if is_agent_run(Path(args.policy)):
            raise ConfigError(f"--suite: the agent of {args.policy} writes no text; leave it out")
        run_suites(args)
        return 0
    given = [name for name in OF_SUITES if getattr(args, name) is not None]
    if given:
        raise ConfigError(f"--{given[0].replace('_', '-')} goes with --suite, which names none")
    if is_agent_run(Path(args.policy)):
        from textgym_agents.cli import agents

        agents.evaluate_run(args)
    else:
        from textgym_agents.cli import language_models

        language_models.evaluate_policy(args)
    return 0


evaluate = Command("measure a run or a model", _configure_evaluate, run_evaluate)
