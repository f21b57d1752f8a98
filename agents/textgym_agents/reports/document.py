"""The document behind a report: all that the page draws, as JSON."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from textgym_agents.reports import summary
from textgym_agents.reports.curves import (
    Curve,
    curves_of,
    mean_curve,
    panels_of,
    repetitions,
)
from textgym_agents.reports.reading import RolloutFile, Run, read_rollouts, read_run, rollout_paths
from textgym_agents.reports.rollout_table import MOST_ROLLOUTS, RolloutTable, make_table, thin

MOST_BYTES = 128_000_000
"""Of files of rollouts that are read of one run."""
ReadRollouts = Callable[[Path], RolloutFile]


def read_rollout_files(
    runs: Sequence[Run], read: ReadRollouts = read_rollouts
) -> list[list[RolloutFile]]:
    """Return the files of rollouts of each run; what could not be read joins its problems."""
    files = [[read(path) for path in _chosen_paths(run)] for run in runs]
    for run, own in zip(runs, files, strict=True):
        run.problems.extend(problem for file in own for problem in file.problems)
    return files


def _chosen_paths(run: Run) -> list[Path]:
    """Return the files of rollouts, or as many, evenly spread, as memory should hold."""
    paths = rollout_paths(run.path)
    size = sum(path.stat().st_size for path in paths)
    if size <= MOST_BYTES:
        return paths
    chosen = thin(paths, max(2, int(len(paths) * MOST_BYTES / size)))
    run.problems.append(
        f"rollouts: {len(chosen)} of {len(paths)} files were read, evenly spread; all have "
        f"{size / 1e6:,.0f} MB"
    )
    return chosen


def make_document(
    paths: Sequence[Path], *, most_rollouts: int = MOST_ROLLOUTS, read: ReadRollouts = read_rollouts
) -> bytes:
    """Return the document of runs, compressed: a line of JSON, and a line of tokens per rollout.

    Args:
        paths: of run directories.
        most_rollouts: how many rollouts to keep, evenly spread.
        read: reads a file of rollouts.

    Raises:
        ConfigError: a folder is no run directory.
    """
    runs = [read_run(path) for path in paths]
    table = make_table(read_rollout_files(runs, read), most=most_rollouts)
    head = {**runs_record(runs), "rollouts": rollouts_record(table)}
    text = "\n".join([json.dumps(head, separators=(",", ":"), allow_nan=False), *table.tokens])
    return gzip.compress(text.encode("ascii"), 4, mtime=0)


def runs_record(runs: Sequence[Run]) -> dict[str, Any]:
    """Return all but the rollouts."""
    curves = [curves_of(run) for run in runs]
    return {
        "runs": [run_record(run, own) for run, own in zip(_with_names(runs), curves, strict=True)],
        "panels": panels_of(runs, (name for own in curves for name in own)),
        "groups": [_group(group, curves) for group in repetitions(runs)],
        "differences": summary.differences(runs) if len(runs) > 1 else [],
    }


def _with_names(runs: Sequence[Run]) -> Iterable[tuple[str, Run]]:
    """Yield runs with names that tell them apart: as much of their paths as that takes."""
    paths = [run.path.resolve() for run in runs]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return zip(names, runs, strict=True)


def run_record(named: tuple[str, Run], curves: dict[str, Curve]) -> dict[str, Any]:
    """Return one run."""
    name, run = named
    return {
        "name": name,
        "family": run.family,
        "title": summary.title_of(run),
        "facts": summary.facts_of(run),
        "unit": summary.unit_of(run),
        "done": run.num_done,
        "total": summary.total_of(run),
        "headlines": summary.headlines(run),
        "beforeAfter": summary.before_and_after(run),
        "suites": summary.suites_table(run),
        "alarms": [[row["iteration"], str(row.get("text", ""))] for row in run.alarms],
        "phases": summary.phase_times(run),
        "curves": {name: curve.record() for name, curve in curves.items()},
        "shares": [name for name in curves if summary.is_share(name)],
        "config": summary.flatten(run.config),
        "environment": summary.flatten(run.environment),
        "problems": run.problems,
    }


def _group(group: Sequence[int], curves: Sequence[dict[str, Curve]]) -> dict[str, Any]:
    names = dict.fromkeys(name for index in group for name in curves[index])
    means = {
        name: mean_curve([curves[index][name] for index in group])
        for name in names
        if all(name in curves[index] for index in group)
    }
    return {
        "runs": list(group),
        "curves": {name: curve.record() for name, curve in means.items() if curve is not None},
    }


def rollouts_record(table: RolloutTable) -> dict[str, Any]:
    """Return the rollouts, but for their tokens."""
    return {
        "columns": table.columns,
        "prompts": table.prompts,
        "count": len(table),
        "found": table.num_found,
        "withTokens": sum(map(bool, table.tokens)),
    }
