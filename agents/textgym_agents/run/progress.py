"""Live progress: phase, tokens per second, reward, KL, entropy and the time that is left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

SHOWN = {
    "rollout/reward": "reward",
    "ppo/kl_k3": "KL",
    "ppo/entropy": "entropy",
    "cold_start/loss": "loss",
    "sft/loss": "loss",
    "sft/mean_token_accuracy": "accuracy",
    "dpo/loss": "loss",
    "dpo/rewards/margins": "margin",
    "dpo/rewards/accuracies": "accuracy",
}
PLAIN_LINE_EVERY = 10.0


class Progress(Protocol):
    """What the training loop tells of itself."""

    def start_phase(self, name: str, total: int, done: int = 0, *, unit: str = "tokens") -> None:
        """Begin a phase of `total` steps, whose speed is told in a unit."""
        ...

    def advance(
        self, metrics: Mapping[str, float], per_second: float, *, num_steps: int = 1
    ) -> None:
        """Finish steps of the phase."""
        ...

    def note(self, text: str) -> None:
        """Say one line."""
        ...


class SilentProgress:
    """Says nothing."""

    def __enter__(self) -> SilentProgress:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""

    def start_phase(self, name: str, total: int, done: int = 0, *, unit: str = "tokens") -> None:
        """Ignore it."""

    def advance(
        self, metrics: Mapping[str, float], per_second: float, *, num_steps: int = 1
    ) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""


class ConsoleProgress:
    """A bar on a terminal; elsewhere one line every ten seconds."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar = RichProgress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._phase, self._total, self._done, self._unit = "", 0, 0, ""
        self._started = self._last_line = 0.0

    def __enter__(self) -> ConsoleProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def start_phase(self, name: str, total: int, done: int = 0, *, unit: str = "tokens") -> None:
        """Show a new bar."""
        self._phase, self._total, self._done, self._unit = name, total, done, unit
        self._started = time.monotonic()
        self._first_done = done
        self._task = self._bar.add_task(name, total=total, completed=done, numbers="")

    def advance(
        self, metrics: Mapping[str, float], per_second: float, *, num_steps: int = 1
    ) -> None:
        """Move the bar, and show the numbers of the step."""
        self._done += num_steps
        shown = [f"{label} {metrics[key]:.3f}" for key, label in SHOWN.items() if key in metrics]
        numbers = "  ".join([f"{per_second:,.0f} {self._unit}/s", *shown])
        if self._task is not None:
            self._bar.update(self._task, completed=self._done, numbers=numbers)
        now = time.monotonic()
        is_due = now - self._last_line >= PLAIN_LINE_EVERY or self._done >= self._total
        if not self.console.is_terminal and is_due:
            self._last_line = now
            per_step = (now - self._started) / max(self._done - self._first_done, 1)
            left = per_step * (self._total - self._done)
            place = f"{self._phase} {self._done}/{self._total}"
            self.console.print(f"{place}  {numbers}  ETA {left:.0f} s", highlight=False)

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, highlight=False, soft_wrap=True)
