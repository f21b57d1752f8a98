"""report.html: written beside a run's other files, or for several runs wherever it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from textgym_agents.reports.document import make_document
from textgym_agents.reports.page import make_page
from textgym_agents.reports.rollout_table import MOST_ROLLOUTS
from textgym_agents.run.directory import RunDirectory, write_atomically


def write_report(
    paths: Sequence[Path], out: Path | None = None, *, most_rollouts: int = MOST_ROLLOUTS
) -> Path:
    """Write the report of one run or several and return its path.

    Args:
        paths: of run directories.
        out: the file; None is `report.html` in the first run.
        most_rollouts: how many rollouts the page holds, evenly spread.

    Raises:
        ConfigError: a folder is no run directory.
        OSError: the file cannot be written.
    """
    document = make_document(paths, most_rollouts=most_rollouts)
    path = RunDirectory(paths[0]).report_path if out is None else out
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, make_page(title_of(paths), document))
    return path


def refresh_report(run: RunDirectory) -> None:
    """Write the report of a run that trains; nothing before its first metrics."""
    if run.metrics_size():
        write_report([run.path])


def title_of(paths: Sequence[Path]) -> str:
    """Return the title of a page: the names of its runs."""
    return ", ".join(path.resolve().name for path in paths)
