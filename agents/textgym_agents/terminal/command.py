"""`textgym view`: metrics and rollouts of a run, in the terminal."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from textgym.cli.command import Command
from textgym.errors import ConfigError


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory; it may still train")


def _run(args: argparse.Namespace) -> int:
    """Show the run until its reader has seen enough."""
    from textgym_agents.reports.reading import read_run

    read_run(args.run)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(
            "`textgym view` needs a terminal; `textgym report RUN` writes a page instead"
        )
    from textgym_agents.terminal.app import RunApp

    RunApp(args.run).run()
    return 0


view = Command("look into a run in the terminal", _configure, _run)
