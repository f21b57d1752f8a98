"""curves.png: what a run looked like, drawn from metrics.jsonl alone."""

from __future__ import annotations

from typing import Any

from textgym_agents.run.directory import RunDirectory
from textgym_agents.run.metrics import rows_of

PANELS = (
    ("reward", (("rollout/reward", "rollout"),)),
    ("entropy (nats per token)", (("ppo/entropy", "policy"),)),
    ("KL(old || new) (k3, nats per token)", (("ppo/kl_k3", "one update"),)),
    ("explained variance", (("ppo/explained_variance", "value head"),)),
    ("completion length (tokens)", (("rollout/length", "rollout"),)),
)
HELD_OUT = (("evaluation/greedy", "greedy"), ("evaluation/sampled", "sampled"))


def plot_run(run: RunDirectory) -> None:
    """Draw the curves of a run; nothing is drawn before the first metrics."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = run.read_metrics()
    updates, evaluations = rows_of(rows, "ppo"), rows_of(rows, "evaluation")
    if not updates and not evaluations:
        return
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3).flat
    _draw(next(axes), "held-out score", HELD_OUT, evaluations, marker="o")
    for title, series in PANELS:
        _draw(next(axes), title, series, updates, marker="")
    figure.suptitle(run.path.name)
    partial = run.path / ".curves.partial.png"
    figure.savefig(partial, dpi=120)
    partial.replace(run.plot_path)


def _draw(
    axes: Any,
    title: str,
    series: tuple[tuple[str, str], ...],
    rows: list[dict[str, Any]],
    *,
    marker: str,
) -> None:
    for key, label in series:
        points = [(r["iteration"], r[key]) for r in rows if r.get(key) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, marker=marker, linewidth=1.2)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("iteration")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=8)
