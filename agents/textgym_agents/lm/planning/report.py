"""What came of an experiment: answers.jsonl, results.json, results.md and accuracy.png."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from textgym.errors import ConfigError
from textgym.item_files import write_json
from textgym.item_statistics import mean, wilson
from textgym.items import Metric
from textgym_agents.lm.planning.config import SearchConfig
from textgym_agents.lm.planning.experiment import Result
from textgym_agents.run.directory import write_atomically, write_records

ANSWERS_FILE, RESULTS_FILE = "answers.jsonl", "results.json"
COLUMNS = ("method", "budget", "accuracy", "95 %", "reward", "tokens", "finished", "not scored")


class Row(NamedTuple):
    """A method at a budget."""

    config: SearchConfig
    success: Metric
    """Share of the answers that are successes, of those of which it is known."""
    reward: Metric
    num_tokens: float
    """Read per prompt, the prompt included."""
    num_prompt_tokens: float
    num_finished: float
    """Different completions found per prompt."""
    num_unscored: int

    @property
    def figure(self) -> Metric:
        """Success where it is known, else the reward."""
        return self.success if self.success.count else self.reward

    def record(self) -> dict[str, Any]:
        """Return the row for results.json."""
        return {
            "config": self.config.model_dump(mode="json"),
            **{
                name: [None if math.isnan(x) else x for x in metric[:3]]
                for name, metric in (("success", self.success), ("reward", self.reward))
            },
            "num_prompts": self.reward.count,
            "num_tokens": self.num_tokens,
            "num_prompt_tokens": self.num_prompt_tokens,
            "num_finished": self.num_finished,
            "num_unscored": self.num_unscored,
        }


def summarise(config: SearchConfig, results: Sequence[Result]) -> Row:
    """Return the figures of a method; answers without a score are counted and left out."""
    scored = [r for r in results if not r.verdict.failure]
    known = [r.verdict.is_success for r in scored if r.verdict.is_success is not None]
    return Row(
        config,
        wilson(sum(known), len(known)),
        mean([r.verdict.reward for r in scored]),
        _mean(r.num_tokens for r in results),
        _mean(len(r.problem.ids) for r in results),
        _mean(r.answer.num_finished for r in results),
        len(results) - len(scored),
    )


def _mean(values: Iterable[int]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


def answer_records(config: SearchConfig, results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return a line per answer; `textgym score` can score them again."""
    return [
        {
            "method": config.kind,
            "budget": config.budget,
            "prompt_id": r.problem.task.id,
            "prompt": r.problem.text,
            "completion": r.verdict.text,
            "finish_reason": r.answer.finished.finish_reason,
            "reward": None if r.verdict.failure else r.verdict.reward,
            "is_success": r.verdict.is_success,
            "failure": r.verdict.failure or None,
            "worth": r.answer.worth.value,
            "num_tokens": r.num_tokens,
            "num_finished": r.answer.num_finished,
            "messages": [message.model_dump() for message in r.problem.task.messages],
            "target": r.problem.task.target,
        }
        for r in results
    ]


def demonstrations(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return what `textgym sft --data` learns from: the answers that ended and were successes.

    Where no reward tells success, those that were scored.
    """
    return [
        {
            "prompt": [message.model_dump() for message in r.problem.task.messages],
            "completion": r.verdict.text,
            "reward": r.verdict.reward,
            "num_tokens": r.num_tokens,
        }
        for r in results
        if r.answer.finished.finish_reason == "stop"
        and not r.verdict.failure
        and r.verdict.is_success is not False
        and r.verdict.text.strip()
    ]


def table_rows(rows: Sequence[Row]) -> list[list[str]]:
    """Return the cells of a table with `COLUMNS`."""
    return [
        [
            row.config.kind,
            "-" if row.config.kind == "greedy" else str(row.config.budget),
            "none" if not row.success.count else f"{row.success.value:.1%}",
            "none"
            if not row.success.count
            else f"{100 * row.success.low:.0f}-{100 * row.success.high:.0f}",
            f"{row.reward.value:.3f}",
            f"{row.num_tokens:.1f}",
            f"{row.num_finished:.1f}",
            str(row.num_unscored),
        ]
        for row in rows
    ]


def as_markdown(rows: Sequence[Row]) -> str:
    """Return the table of an experiment."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in table_rows(rows)), ""])


def write_demonstrations(path: Path, results: Sequence[Result]) -> int:
    """Write `demonstrations` to a file and return how many there are.

    Raises:
        ConfigError: there is none.
    """
    records = demonstrations(results)
    if not records:
        raise ConfigError(f"--data {path}: no answer is right, so there is nothing to learn from")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_records(path, records)
    return len(records)


def write_results(
    out: Path,
    rows: Sequence[Row],
    answers: Sequence[dict[str, Any]],
    *,
    title: str,
    optimum: float | None = None,
) -> None:
    """Write all files of an experiment, as far as it has come."""
    write_records(out / ANSWERS_FILE, answers)
    write_json(out / RESULTS_FILE, {"title": title, "rows": [row.record() for row in rows]})
    write_atomically(out / "results.md", f"{title}\n\n{as_markdown(rows)}")
    plot(out / "accuracy.png", rows, title=title, optimum=optimum)


def plot(path: Path, rows: Sequence[Row], *, title: str, optimum: float | None = None) -> None:
    """Draw accuracy, or reward where no success is known, against tokens."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for kind in dict.fromkeys(row.config.kind for row in rows):
        own = sorted((r for r in rows if r.config.kind == kind), key=lambda r: r.num_tokens)
        x, y = [r.num_tokens for r in own], [r.figure.value for r in own]
        below = [r.figure.value - r.figure.low for r in own]
        above = [r.figure.high - r.figure.value for r in own]
        axes.errorbar(x, y, yerr=(below, above), marker="o", capsize=2, linewidth=1.2, label=kind)
    if optimum is not None:
        axes.axhline(optimum, color="grey", linestyle=":", label="optimum")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel("tokens that the network reads for a prompt")
    axes.set_ylabel("accuracy" if rows[0].success.count else "reward")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
