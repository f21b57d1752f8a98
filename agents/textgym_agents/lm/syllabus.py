"""A curriculum in a run: outcomes of rollouts go in, the level of the environments comes out.

The level holds for a whole rollout, whose prompts are then a function of seed, iteration and level.
Only episodes of prompts of the current level count; those of earlier levels are for review.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gymnasium.vector import VectorEnv

from textgym.curriculum import Curriculum, CurriculumConfig, CurriculumState
from textgym.errors import ConfigError
from textgym_agents.lm.config import TrainConfig
from textgym_agents.lm.transcript import Rollout

KEY = "curriculum_level"
"""Where prompt pools with levels say a prompt's, in its metadata."""

Envs = Sequence[VectorEnv[Any, Any, Any]]


class Syllabus:
    """The curriculum of a run.

    Args:
        config: the rule of promotion.
        envs: the training environments, which are set to the level.
        num_levels: of their prompt sources.
    """

    def __init__(self, config: CurriculumConfig, envs: Envs, num_levels: int) -> None:
        self._config = config
        self._envs = envs
        self._num_levels = num_levels
        self.restore(CurriculumState())

    def restore(self, state: CurriculumState) -> None:
        """Stand where `state` was taken."""
        self._curriculum = Curriculum(self._config, self._num_levels, state)
        self._set_level()

    def state(self) -> CurriculumState:
        """Return where the curriculum stands."""
        return self._curriculum.state()

    def observe(self, rollout: Rollout) -> dict[str, float]:
        """Count the episodes of a rollout, go on if it is time, and return the metrics.

        They are of the level that the rollout was played at.
        """
        curriculum = self._curriculum
        level = curriculum.level
        outcomes = [
            bool(t.info["is_success"])
            for t in rollout.scored()
            if "is_success" in t.info and t.task is not None and t.task.metadata[KEY] == level
        ]
        metrics = {
            "curriculum/level": float(level),
            "curriculum/success": sum(outcomes) / len(outcomes) if outcomes else 0.0,
            "curriculum/num_outcomes": float(len(outcomes)),
        }
        if curriculum.observe(outcomes):
            self._set_level()
        return metrics

    def _set_level(self) -> None:
        for envs in self._envs:
            envs.unwrapped.set_level(self._curriculum.level)  # type: ignore[attr-defined]  # checked


def make_syllabus(config: TrainConfig, envs: Envs) -> Syllabus | None:
    """Return the curriculum of a run, None where its configuration has none.

    Raises:
        ConfigError: the environment has no levels.
    """
    if config.curriculum is None:
        return None
    num_levels = getattr(envs[0].unwrapped, "num_levels", 1)
    if num_levels < 2:
        raise ConfigError(
            f"curriculum: the prompts of {config.env.id} have one level; give the sources in "
            "env.prompts a `level` each, such as 0 and 1"
        )
    return Syllabus(config.curriculum, envs, num_levels)
