"""Steps whose loss or gradient is not finite: each is skipped, too many in a row end a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from textgym.errors import TextGymError


class NotFiniteError(TextGymError):
    """The loss or its gradient was not finite several steps in a row.

    Args:
        message: what happened.
        batch: that of the last of the steps.
    """

    def __init__(self, message: str, batch: Any) -> None:
        super().__init__(message)
        self.batch = batch


@dataclass
class StepGuard:
    """Counts the steps that were skipped one after the other; the weights are as before them."""

    limit: int
    """How many in a row end the run."""
    num_in_a_row: int = 0
    """Skipped steps since the last one that was taken."""

    def take(self) -> None:
        """Note that a step was taken."""
        self.num_in_a_row = 0

    def skip(self, batch: Any) -> None:
        """Note that a step was skipped.

        Raises:
            NotFiniteError: it is one too many.
        """
        self.num_in_a_row += 1
        if self.num_in_a_row >= self.limit:
            raise NotFiniteError(
                f"the loss or its gradient was not finite in {self.num_in_a_row} optimiser steps "
                "in a row; none of them was taken",
                batch,
            )
