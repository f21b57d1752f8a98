"""When to go on to harder prompts: once enough of the latest answers are right.

The state is a level and the latest outcomes at it. Whoever plays the episodes feeds them back and
tells the environment the level; equal outcomes give equal levels, so a run resumes exactly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class CurriculumConfig(BaseModel):
    """The rule of promotion."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    threshold: float = Field(default=0.8, gt=0, le=1)
    """Share of successes at which the next level begins."""
    window: PositiveInt = 256
    """How many of the latest episodes of a level count; with fewer, nobody is promoted."""


class CurriculumState(BaseModel):
    """Where a curriculum stands, as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    level: int = Field(default=0, ge=0)
    """Levels left behind."""
    outcomes: str = Field(default="", pattern="^[01]*$")
    """The latest episodes of the level, oldest first; 1 is a success."""


class Curriculum:
    """The level that is played, and what came of it.

    Args:
        config: the rule.
        num_levels: levels that there are; the last one is never left.
        state: where to go on.
    """

    def __init__(
        self,
        config: CurriculumConfig,
        num_levels: int,
        state: CurriculumState | None = None,
    ) -> None:
        state = state or CurriculumState()
        self.config = config
        self.num_levels = num_levels
        self.level = min(state.level, num_levels - 1)
        self._outcomes = deque((c == "1" for c in state.outcomes), maxlen=config.window)

    def observe(self, outcomes: Iterable[bool]) -> bool:
        """Count episodes of the current level; return whether the next one begins.

        All of them are counted before the rule is asked, so at most one level is left.
        """
        self._outcomes.extend(outcomes)
        is_full = len(self._outcomes) == self.config.window
        if not is_full or self.success < self.config.threshold:
            return False
        if self.level == self.num_levels - 1:
            return False
        self.level += 1
        self._outcomes.clear()
        return True

    @property
    def success(self) -> float:
        """The share of successes in the window; 0.0 before the first episode."""
        return sum(self._outcomes) / max(len(self._outcomes), 1)

    @property
    def num_outcomes(self) -> int:
        """How many episodes of the level are in the window."""
        return len(self._outcomes)

    def state(self) -> CurriculumState:
        """Return what goes on from here."""
        outcomes = "".join("01"[outcome] for outcome in self._outcomes)
        return CurriculumState(level=self.level, outcomes=outcomes)
