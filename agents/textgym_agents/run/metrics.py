"""Metrics go to metrics.jsonl, which a resumed run cuts and continues, TensorBoard and trackers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pydantic import BaseModel
from torch.utils.tensorboard import SummaryWriter

from textgym_agents.run.directory import RunDirectory
from textgym_agents.run.trackers import TrackerName, Trackers


class MetricsLog:
    """Appends rows of metrics.

    Args:
        run: where to.
        first_step: steps from here on that TensorBoard has seen before are forgotten.
        report_to: names of trackers.
        config: of the run, for the trackers.

    Raises:
        ConfigError: a tracker does not let a run begin.
    """

    def __init__(
        self,
        run: RunDirectory,
        *,
        first_step: int = 0,
        report_to: Sequence[TrackerName] = (),
        config: BaseModel | None = None,
    ) -> None:
        self.run = run
        self._trackers = Trackers(report_to, run, config.model_dump(mode="json") if config else {})
        self._writer = SummaryWriter(str(run.path / "tensorboard"), purge_step=first_step or None)

    def write(self, phase: str, step: int, metrics: Mapping[str, float]) -> None:
        """Append one row; a value that is not finite is written as null."""
        finite = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
        self.run.append_metrics({"phase": phase, "iteration": step, **finite})
        known = {k: v for k, v in metrics.items() if math.isfinite(v)}
        for name, value in known.items():
            self._writer.add_scalar(name, value, step)
        self._trackers.log(step, known)

    def alarm(self, step: int, text: str) -> None:
        """Append an alarm: a row of the phase `alarm`, with a text."""
        self.run.append_metrics({"phase": "alarm", "iteration": step, "text": text})
        self._writer.add_text("alarm", text, step)
        self._trackers.alarm(step, text)

    def close(self) -> None:
        """Flush what TensorBoard has not seen, and end what the trackers have begun."""
        self._writer.close()
        self._trackers.close()


class SilentLog:
    """Writes nothing: the log of a process that is not the main one."""

    def write(self, phase: str, step: int, metrics: Mapping[str, float]) -> None:
        """Ignore it."""

    def alarm(self, step: int, text: str) -> None:
        """Ignore it."""

    def close(self) -> None:
        """Do nothing."""
