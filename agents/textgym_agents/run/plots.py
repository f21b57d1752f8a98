"""curves.png: what a run looked like, drawn from metrics.jsonl alone."""

from __future__ import annotations

from typing import Any

from textgym_agents.run.directory import RunDirectory, rows_of
from textgym_agents.run.panels import (
    AGENT_PANELS,
    PANELS,
    RETURN,
    TUNING_PANELS,
    Series,
    held_out_panel,
)


def plot_run(run: RunDirectory) -> None:
    """Draw the curves of a run; nothing is drawn before the first metrics."""
    rows = run.read_metrics()
    updates, evaluations = rows_of(rows, "ppo"), rows_of(rows, "evaluation")
    if not updates and not evaluations:
        return
    known = {key for row in evaluations for key, value in row.items() if value is not None}
    title, series = held_out_panel(known)
    figure, axes = _figure()
    _draw(axes[0], title, series, evaluations, marker="o")
    for panel, (title, series) in zip(axes[1:], PANELS, strict=True):
        _draw(panel, title, series, updates, marker="")
    _save(figure, run)


def plot_agent_run(run: RunDirectory) -> None:
    """Draw the curves of a run over environment steps; nothing before the first metrics."""
    rows = run.read_metrics()
    if not rows:
        return
    figure, axes = _figure()
    for panel, (title, series) in zip(axes, (("return", RETURN), *AGENT_PANELS), strict=True):
        _draw(panel, title, series, rows, marker="", label="environment steps")
    _save(figure, run)


def plot_tuning_run(run: RunDirectory, kind: str) -> None:
    """Draw the curves of SFT or DPO over steps; nothing before the first metrics."""
    rows = run.read_metrics()
    if not rows:
        return
    figure, axes = _figure()
    for panel, (key, title) in zip(axes, TUNING_PANELS[kind], strict=True):
        series = ((f"{kind}/{key}", "training"), (f"evaluation/{key}", "held out"))
        _draw(panel, title, series, rows, marker="", label="step")
    _save(figure, run)


def _figure() -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(2, 3).flat)


def _save(figure: Any, run: RunDirectory) -> None:
    figure.suptitle(run.path.name)
    partial = run.path / ".curves.partial.png"
    figure.savefig(partial, dpi=120)
    partial.replace(run.plot_path)


def _draw(
    axes: Any,
    title: str,
    series: Series,
    rows: list[dict[str, Any]],
    *,
    marker: str,
    label: str = "iteration",
) -> None:
    for key, name in series:
        points = [(r["iteration"], r[key]) for r in rows if r.get(key) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=name, marker=marker, linewidth=1.2)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(label)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=8)
