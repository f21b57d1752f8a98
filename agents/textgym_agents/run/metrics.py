"""Metrics go to metrics.jsonl, which a resumed run cuts and continues, and to TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from textgym_agents.run.directory import RunDirectory


class MetricsLog:
    """Appends rows of metrics.

    Args:
        run: where to.
        first_step: steps from here on that TensorBoard has seen before are forgotten.
    """

    def __init__(self, run: RunDirectory, *, first_step: int = 0) -> None:
        self.run = run
        self._writer = SummaryWriter(str(run.path / "tensorboard"), purge_step=first_step or None)

    def write(self, phase: str, step: int, metrics: Mapping[str, float]) -> None:
        """Append one row; a value that is not finite is written as null."""
        finite = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
        self.run.append_metrics({"phase": phase, "iteration": step, **finite})
        for name, value in metrics.items():
            if math.isfinite(value):
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush what TensorBoard has not seen."""
        self._writer.close()


def rows_of(rows: list[dict[str, Any]], phase: str) -> list[dict[str, Any]]:
    """Return the rows of one phase."""
    return [row for row in rows if row["phase"] == phase]
