"""The last table of a recipe: a row for each metric, a column for each measured model."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

from textgym_agents.recipes.config import Recipe, TableRow
from textgym_agents.recipes.run import Figures
from textgym_agents.run.directory import write_atomically

TABLE_FILE = "table.md"
CSV_FILE = "results.csv"


def titles_of(recipe: Recipe) -> dict[str, str]:
    """Return what the table calls each measured model, in order."""
    titles = {stage.name: stage.title or stage.name for stage in recipe.stages}
    return {name: titles.get(name, recipe.model) for name in recipe.measured}


def table_rows(recipe: Recipe, measured: Mapping[str, Figures]) -> Iterator[list[str]]:
    """Yield the table: the titles of the models that have been measured, then a row a metric."""
    models = {name: title for name, title in titles_of(recipe).items() if name in measured}
    yield ["", *models.values()]
    for row in recipe.table:
        yield [row.title, *(_shown(row, measured[model].get(row.metric)) for model in models)]


def _shown(row: TableRow, value: float | None) -> str:
    if value is None:
        return "none"
    return f"{100 * value:.1f} %" if row.kind == "share" else f"{value:g}"


def write_report(recipe: Recipe, measured: Mapping[str, Figures], path: Path) -> None:
    """Write the table as Markdown, and every figure as CSV."""
    head, *rows = table_rows(recipe, measured)
    lines = [_line(head), _line(["---"] * len(head)), *map(_line, rows)]
    write_atomically(path / TABLE_FILE, "\n".join(lines) + "\n")
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["model", "metric", "value"])
    for name in recipe.measured:
        writer.writerows([name, key, value] for key, value in measured.get(name, {}).items())
    write_atomically(path / CSV_FILE, text.getvalue())


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
