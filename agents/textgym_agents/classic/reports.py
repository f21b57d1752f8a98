"""Tells a callback how learning goes: not at every update, and once at the end."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping

from textgym_agents.agent import OnMetrics
from textgym_agents.episode_statistics import EpisodeStatistics

FEWEST_STEPS = 1_000
REPORTS = 100


class Reports:
    """Collects metrics between two calls of the callback.

    Args:
        on_metrics: the callback.
        statistics: of episodes.
        whole_steps: the whole budget, by which the distance of reports is chosen.
    """

    def __init__(
        self, on_metrics: OnMetrics | None, statistics: EpisodeStatistics, whole_steps: int
    ) -> None:
        self.num_steps = 0
        self._on_metrics, self._statistics = on_metrics, statistics
        self._every = max(FEWEST_STEPS, whole_steps // REPORTS)
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)
        self._reported_steps, self._reported_at = 0, time.perf_counter()

    def add(self, num_steps: int, metrics: Mapping[str, float]) -> None:
        """Count the steps and the metrics of one update; report when it is time."""
        self.num_steps += num_steps
        for name, value in metrics.items():
            self._sums[name] += value
            self._counts[name] += 1
        if self.num_steps - self._reported_steps >= self._every:
            self._report()

    def finish(self) -> None:
        """Report what has not been reported yet."""
        if self.num_steps > self._reported_steps:
            self._report()

    def _report(self) -> None:
        now = time.perf_counter()
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        rate = (self.num_steps - self._reported_steps) / (now - self._reported_at)
        metrics = {**self._statistics.take(), **means, "time/steps_per_second": rate}
        self._sums.clear()
        self._counts.clear()
        self._reported_steps, self._reported_at = self.num_steps, now
        if self._on_metrics is not None:
            self._on_metrics(self.num_steps, metrics)
