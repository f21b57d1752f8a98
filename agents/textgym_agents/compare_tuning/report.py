"""What came of a comparison of tuning modes: results.md, results.csv and rewards.png."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from textgym_agents.compare_tuning.jobs import TuningResult
from textgym_agents.run.directory import write_atomically

MIB = 2**20
COLUMNS = (
    "mode", "trained parameters", "share", "size of what was trained", "peak memory",
    "of it training", "seconds an iteration: rollout, update", "held-out, sampled: before, after",
)  # fmt: skip
NUMBERS = (
    "status", "num_parameters", "num_trainable", "tuned_bytes", "peak_bytes", "training_bytes",
    "rollout_seconds", "update_seconds", "error",
)  # fmt: skip
SUCCESS, REWARD = "evaluation/sampled", "evaluation/sampled_reward"


def write_report(out: Path, results: Mapping[str, TuningResult]) -> list[Path]:
    """Write the table, its numbers and the plot, and return their paths."""
    page, numbers = out / "results.md", out / "results.csv"
    write_atomically(page, as_markdown(results))
    write_atomically(numbers, as_csv(results))
    done = {name: result for name, result in results.items() if result.status == "done"}
    return [page, numbers, *([_plot(out / "rewards.png", done)] if done else [])]


def as_markdown(results: Mapping[str, TuningResult]) -> str:
    """Return one row per mode, and below them the errors of those that failed."""
    rule = ["---", *["---:"] * (len(COLUMNS) - 1)]
    lines = [_row(COLUMNS), _row(rule)]
    lines += [_row(_cells(name, r)) for name, r in results.items()]
    failed = [f"- {name}: {r.error}" for name, r in results.items() if r.status == "failed"]
    if failed:
        lines += ["", "Failed:", "", *failed]
    return "\n".join(lines) + "\n"


def as_csv(results: Mapping[str, TuningResult]) -> str:
    """Return one row per mode; bytes and seconds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("mode", *NUMBERS, "before", "after"))
    for name, result in results.items():
        numbers = [getattr(result, number) for number in NUMBERS]
        ends = [_success_or_reward(e) for e in (result.before, result.after)]
        writer.writerow([name, *numbers, *ends])
    return text.getvalue()


def _cells(name: str, result: TuningResult) -> list[str]:
    if result.status == "failed":
        return [name, "failed", *[""] * (len(COLUMNS) - 2)]
    return [
        name,
        f"{result.num_trainable:,}",
        f"{result.num_trainable / result.num_parameters:.2%}",
        f"{result.tuned_bytes / MIB:.2f} MiB",
        f"{result.peak_bytes / MIB:,.0f} MiB",
        f"{result.training_bytes / MIB:,.0f} MiB",
        f"{result.rollout_seconds:.2f}, {result.update_seconds:.2f}",
        f"{_held_out(result.before)}, {_held_out(result.after)}",
    ]


def _held_out(evaluation: Mapping[str, float | None]) -> str:
    value = _success_or_reward(evaluation)
    if value is None:
        return "none"
    return f"{value:.3f}" if evaluation.get(SUCCESS) is None else f"{value:.1%}"


def _success_or_reward(evaluation: Mapping[str, float | None]) -> float | None:
    """Return the success, or the reward where no best reward is known."""
    success = evaluation.get(SUCCESS)
    return evaluation.get(REWARD) if success is None else success


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plot(path: Path, results: Mapping[str, TuningResult]) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, result in results.items():
        if result.rewards:
            axes.plot(*zip(*result.rewards, strict=True), label=name, linewidth=1.2)
    axes.set_xlabel("iteration")
    axes.set_ylabel("reward of the rollout")
    axes.grid(alpha=0.3)
    axes.legend()
    partial = path.with_name(f".{path.stem}.partial.png")
    figure.savefig(partial, dpi=120)
    partial.replace(path)
    return path
