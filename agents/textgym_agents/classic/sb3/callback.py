"""What a wrapped algorithm tells while it learns, in the words that our own agents use."""

from __future__ import annotations

import math
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger

from textgym_agents.classic.reports import Reports
from textgym_agents.episode_statistics import EpisodeStatistics

TRAIN = "train/"


class PartIsOver(Exception):  # no error: it ends `learn` between two rollouts
    """The part of the budget is spent."""


class ReportingCallback(BaseCallback):
    """Counts steps and the episodes that the infos tell of.

    Args:
        reports: is told of steps.
        statistics: is told of episodes.
        total_steps: raise `PartIsOver` before the rollout that would begin after as many.
    """

    def __init__(self, reports: Reports, statistics: EpisodeStatistics, total_steps: int) -> None:
        super().__init__()
        self._reports, self._statistics = reports, statistics
        self._total_steps = total_steps

    def _on_rollout_start(self) -> None:
        # An algorithm that is told of the whole budget has the right schedules; returning False
        # from `_on_step` would stop it in the middle of a rollout, and before the update.
        if self._reports.num_steps >= self._total_steps:
            raise PartIsOver

    def _on_step(self) -> bool:
        infos: list[dict[str, Any]] = self.locals["infos"]
        for info in infos:
            episode = info.get("episode")
            if episode is not None:
                self._statistics.add(episode["r"], episode["l"], info)
        self._reports.add(len(infos), {})
        return True


class ReportingWriter(KVWriter):
    """Passes on what an algorithm logs of its updates: `train/...`, numbers only."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """Take one dump of the logger."""
        del key_excluded, step
        numbers = {
            key: float(value)
            for key, value in key_values.items()
            if key.startswith(TRAIN) and isinstance(value, int | float) and math.isfinite(value)
        }
        self._reports.add(0, numbers)

    def close(self) -> None:
        """Nothing is open."""


def make_logger(reports: Reports) -> Logger:
    """Return a logger that prints nothing and writes no files."""
    return Logger(folder=None, output_formats=[ReportingWriter(reports)])
