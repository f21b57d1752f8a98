"""What the commands print with: one console, tables, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import IO

from rich.console import Console
from rich.table import Table

_PIPE_WIDTH = 160


class _Console(Console):
    """A console that leaves a reader's going away to the caller."""

    def on_broken_pipe(self) -> None:
        """Raise, where rich would end the process with an exit code of its own."""
        raise BrokenPipeError


def console(file: IO[str] | None = None) -> Console:
    """Return a console that takes text literally and does not squeeze what goes to a pipe."""
    file = sys.stdout if file is None else file
    width = None if file.isatty() else _PIPE_WIDTH
    return _Console(file=file, width=width, markup=False, emoji=False, highlight=False)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Return a table; cells that are too long are folded, never cut."""
    made = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*("" if cell is None else str(cell) for cell in row))
    return made


def print_json(value: object) -> None:
    """Print a value as JSON on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
