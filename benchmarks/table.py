"""The one row that every benchmark returns, and the one table that shows them all.

A row is a paired measurement: the same work done by this library and by a peer, in one unit. For
speeds a higher ratio is better, for costs (seconds of start-up, bytes of memory) a lower one; the
row knows which, so the verdict cannot be read the wrong way round.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

LOG_WIDTH = 150
"""Columns where the output is no terminal, which would have said how many it has."""


@dataclass(frozen=True)
class Row:
    """One measurement against a peer, in one unit, and the target for their ratio."""

    name: str
    ours: float
    peer: float
    unit: str
    target: float | None
    """None where neither side is meant to win."""
    is_cost: bool = False
    """True where lower is better; the ratio must then be at most `target`, otherwise at least."""
    note: str = ""
    missing: str = ""
    """Why nothing could be measured here, such as `no GPU`; ours and the peer are then nan."""

    @classmethod
    def not_measured(
        cls, name: str, unit: str, target: float, reason: str, *, is_cost: bool = False
    ) -> Row:
        """Return the row of what cannot be measured here."""
        return cls(name, math.nan, math.nan, unit, target, is_cost=is_cost, missing=reason)

    @property
    def ratio(self) -> float:
        """`ours / peer`, of costs as of speeds."""
        return self.ours / self.peer

    @property
    def is_met(self) -> bool:
        """Whether the ratio reaches the target in the better direction; nan never does."""
        if self.target is None:
            return True
        return self.ratio <= self.target if self.is_cost else self.ratio >= self.target


def write_json(rows: Iterable[Row], path: Path) -> None:
    """Write the rows, with their ratios and verdicts, as a JSON list; null: not measured."""
    records = [
        {
            "name": row.name,
            "ours": None if row.missing else row.ours,
            "peer": None if row.missing else row.peer,
            "unit": row.unit,
            "ratio": None if row.missing else row.ratio,
            "target": row.target,
            "is_cost": row.is_cost,
            "is_met": None if row.missing else row.is_met,
            "note": row.note or row.missing,
        }
        for row in rows
    ]
    path.write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")


def print_table(rows: Iterable[Row], console: Console | None = None) -> None:
    """Print ours, peer, ratio, target and verdict, one line a row."""
    table = Table(title="textgym against its peers")
    table.add_column("benchmark", overflow="fold")
    for heading in ("ours", "peer"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for heading in ("ratio", "target"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in rows:
        bound = "<=" if row.is_cost else ">="
        measured = (format_number(row.ours), format_number(row.peer), f"{row.ratio:.2f}x")
        ours, peer, ratio = ("-", "-", "-") if row.missing else measured
        name = f"{row.name} ({row.note})" if row.note else row.name
        table.add_row(
            escape(name),
            ours,
            peer,
            row.unit,
            ratio,
            "-" if row.target is None else f"{bound} {row.target:g}x",
            verdict_of(row),
        )
    console = console or Console()
    if not console.is_terminal:
        console.width = LOG_WIDTH
    console.print(table)


def verdict_of(row: Row) -> str:
    """Return what the table says of a row, in rich's markup."""
    if row.missing:
        return f"[yellow]not measured: {escape(row.missing)}[/]"
    if row.target is None:
        return "-"
    return "[green]met[/]" if row.is_met else "[bold red]missed[/]"


def format_number(value: float) -> str:
    """Four significant digits, thousands in full: 5823000 reads '5,823,000'."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
