"""What a scalar and a vector environment tell of their prompts."""

from __future__ import annotations

from textgym_envs.prompt_pool import PromptPool
from textgym_envs.prompt_table import PromptTable
from textgym_envs.streams import LevelDraws


class PoolAccess:
    """The prompts of an environment, and the level of a curriculum that it draws them at."""

    _table: PromptTable
    _draws: LevelDraws

    def _draw_anew(self) -> None:
        """Forget the draws of future episodes."""
        raise NotImplementedError

    @property
    def pool(self) -> PromptPool:
        """The prompts of the split, with their targets: what a cold start demonstrates."""
        return self._table.pool

    @property
    def num_levels(self) -> int:
        """How many levels the prompt sources have."""
        return self._table.pool.num_levels

    @property
    def level(self) -> int | None:
        """The level of the curriculum that prompts are drawn at; None draws from all alike."""
        return self._draws.level

    def set_level(self, level: int | None) -> None:
        """Draw the prompts of the next episodes at another level.

        Raises:
            ConfigError: there is no such level.
        """
        self._draws.set_level(level)
        self._draw_anew()
