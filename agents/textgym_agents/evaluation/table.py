"""Metrics as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich.table import Table

from textgym.items import Metric

NUMBERS = ("reward", "length")
"""First parts of the names of figures that are no shares."""


def metrics_table(title: str, suites: Mapping[str, Mapping[str, Metric]]) -> Table:
    """Return a table with a row per metric and its 95 % interval."""
    table = Table(title=title, title_justify="left")
    for name in ("suite", "metric"):
        table.add_column(name)
    for name in ("value", "95 % interval", "prompts"):
        table.add_column(name, justify="right")
    for suite, metrics in suites.items():
        for row, (name, metric) in enumerate(metrics.items()):
            cells = (figure(name, metric.value), interval(name, metric), str(metric.count))
            table.add_row(suite if row == 0 else "", name, *cells)
        table.add_section()
    return table


def figure(name: str, value: float) -> str:
    """Return a share in percent, any other figure as a number."""
    if math.isnan(value):
        return "none"
    return f"{value:,.3f}" if name.split("/")[0] in NUMBERS else f"{value:.1%}"


def interval(name: str, metric: Metric) -> str:
    """Return the interval of a metric."""
    if math.isnan(metric.value):
        return ""
    return f"{figure(name, metric.low)} to {figure(name, metric.high)}"
