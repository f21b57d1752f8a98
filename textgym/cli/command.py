"""The contract of a sub-command that another distribution adds to `textgym`.

An entry point of the group `textgym.commands` names a `Command`; the command line loads it only
when the user calls it, so `textgym --help` stays quick whatever the command itself imports.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass

GROUP = "textgym.commands"


@dataclass(frozen=True)
class Command:
    """One sub-command: what it is for, its arguments, and what it does."""

    help: str
    """One line that says what the command does."""
    configure: Callable[[ArgumentParser], None]
    """Adds the command's arguments to its parser."""
    run: Callable[[Namespace], int]
    """Does the work with the parsed arguments and returns the exit code."""
