"""`QueryRewrite-v0`: the action is a query, the reward what a downstream generator makes of it.

Prompts, observations, action modes, seeds and resuming are those of TextGen-v0, whose environments
these are; what a finished completion is worth is decided in `rewriting.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from textgym_envs.arrays import Bools
from textgym_envs.judging import Outcome
from textgym_envs.rewriting import QueryRewriteConfig, RewriteOutcome, RewriteWorld
from textgym_envs.textgen import TextGenEnv
from textgym_envs.textgen_vector import TextGenVectorEnv
from textgym_envs.vector_infos import Final, object_info


class QueryRewriteEnv(TextGenEnv):
    """One query per episode.

    Args:
        render_mode: `ansi` returns the transcript, `human` prints it while it grows.
        arguments: the fields of `QueryRewriteConfig`.
    """

    config_class = QueryRewriteConfig
    world_class = RewriteWorld

    def _final_info(self, outcome: Outcome) -> dict[str, Any]:
        assert isinstance(outcome, RewriteOutcome)
        return super()._final_info(outcome) | {"answer": outcome.answer}


class QueryRewriteVectorEnv(TextGenVectorEnv):
    """`num_envs` queries at a time; those of a step are answered and scored in one batch.

    Args:
        num_envs: rows; row i seeded with `seed + i` is the scalar environment seeded so.
        autoreset_mode: `same_step` (no step is lost on resets), `next_step` or `disabled`.
        render_mode: `ansi` returns one transcript per row, `human` prints them on `render()`.
        arguments: the fields of `QueryRewriteConfig`.
    """

    config_class = QueryRewriteConfig
    world_class = RewriteWorld

    def _open(self, num_envs: int, autoreset_mode: AutoresetMode | str) -> None:
        super()._open(num_envs, autoreset_mode)
        self._codes = None  # outcomes are not repeatable, and a table holds no answers

    def _final(self, judged: Sequence[Outcome], ended: Bools) -> Final:
        final = super()._final(judged, ended)
        answers = [outcome.answer for outcome in judged if isinstance(outcome, RewriteOutcome)]
        final.infos["answer"] = object_info(answers, np.flatnonzero(ended), self.num_envs)
        final.infos["_answer"] = ended.copy()
        return final
