"""Outcomes of short completions over a small vocabulary, looked up without a Python loop.

A padded completion of T ids of a vocabulary of V is a number below V**T. Where prompts times
numbers is small, a table holds for each pair where its outcome stands in arrays of outcomes, so
the finished rows of a step gather their infos in a few numpy calls; another one holds the values of
unfinished completions, which dense rewards are differences of. They fill themselves as completions
occur; what they hold is what `TextGenWorld` returned, bit for bit.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from textgym_envs.arrays import Bools, Floats, Ints, extended
from textgym_envs.vector_infos import Outcomes, outcome_table
from textgym_envs.world import TextGenWorld

Places = NDArray[np.int64]
_MAX_CODES = 1 << 22
_MAX_OUTCOMES = 1 << 18


def num_codes(world: TextGenWorld) -> int:
    """Return how many completions there are, padded ones included."""
    count: int = world.tokenizer.vocab_size**world.max_new
    return count


class CompletionCodes:
    """The numbers of pairs of a row of the prompt table and a completion."""

    def __init__(self, world: TextGenWorld) -> None:
        self._num_codes = num_codes(world)
        self.num_pairs = world.table.num_rows * self._num_codes
        powers = np.arange(world.max_new, dtype=np.int64)
        self._weights: Ints = world.tokenizer.vocab_size**powers

    def of(self, rows: Ints, completions: Ints) -> Ints:
        """Return the numbers of rows (k,) with completions (k, max_new)."""
        codes: Ints = completions @ self._weights
        codes += rows * self._num_codes
        return codes


class PrefixTable:
    """The values of a world's unfinished completions, by row of its prompt table and code."""

    def __init__(self, world: TextGenWorld) -> None:
        self._world = world
        self._codes = CompletionCodes(world)
        self._values: Floats = np.full(self._codes.num_pairs, np.nan)  # nan: not known

    @staticmethod
    def suits(world: TextGenWorld) -> bool:
        """Return whether the table of this world is small, and what it holds stays so."""
        return CodeTable.suits(world) and world.judge.rubric.deterministic

    def values(self, rows: Ints, completions: Ints) -> Floats:
        """Return `TextGenWorld.prefix_values` of completions (k, max_new), padded."""
        codes = self._codes.of(rows, completions)
        values: Floats = self._values.take(codes)
        unknown = np.flatnonzero(np.isnan(values))
        if unknown.size:
            new_codes, first = np.unique(codes[unknown], return_index=True)
            new = unknown[first]
            found = self._world.prefix_values(rows[new].tolist(), completions[new])
            self._values[new_codes] = found
            values = self._values.take(codes)
        return values


class CodeTable:
    """The outcomes of one world by row of its prompt table and code of the completion."""

    def __init__(self, world: TextGenWorld) -> None:
        self._world = world
        self._codes = CompletionCodes(world)
        self._places: Places = np.zeros(self._codes.num_pairs, dtype=np.int64)  # 0: not known
        self.outcomes = outcome_table([], world.judge.part_names)
        self._num_kept = 1
        self._scores_cuts = world.judge.is_scored("length")

    @staticmethod
    def suits(world: TextGenWorld) -> bool:
        """Return whether the table of this world is small."""
        return world.table.num_rows * num_codes(world) <= _MAX_CODES

    def places(
        self, rows: Ints, completions: Ints, is_stopped: Bools, ended: Bools, *, some_idle: bool
    ) -> Places:
        """Return where `outcomes` has that of each environment; 0 where `ended` is False.

        Args:
            rows: the prompts; shape (num_envs,).
            completions: what was generated so far, padded; shape (num_envs, max_new).
            is_stopped: whether the last id is the end token; shape (num_envs,).
            ended: whether this step finished the completion; shape (num_envs,).
            some_idle: whether there are completions that an earlier step finished.
        """
        if not self._scores_cuts:  # a cut is worth the same for all prompts of a reward
            rows = np.where(is_stopped, rows, self._world.table.reward_rows.take(rows))
        codes = self._codes.of(rows, completions)
        places: Places = self._places.take(codes)  # an unfinished completion has no place
        if some_idle:
            places *= ended
        if np.count_nonzero(places) < np.count_nonzero(ended):
            return self._judge(codes, rows, completions, ended)
        return places

    def _judge(self, codes: Ints, rows: Ints, completions: Ints, ended: Bools) -> Places:
        """Judge what has no place yet, equal completions once, and return all places."""
        if self._num_kept > _MAX_OUTCOMES:
            self._places[:] = 0
            self._num_kept = 1
        envs = np.flatnonzero(ended & (self._places.take(codes) == 0))
        new_codes, first = np.unique(codes[envs], return_index=True)
        new = envs[first]
        judged = self._world.judge_tokens(rows[new].tolist(), completions[new])
        self._places[new_codes] = self._num_kept + np.arange(len(new))
        self._append(outcome_table(judged, self._world.judge.part_names))
        places: Places = self._places.take(codes) * ended
        # What may differ next time is judged again; its row in the table stays unused.
        may_differ = np.array([not outcome.is_repeatable for outcome in judged], dtype=np.bool_)
        self._places[new_codes[may_differ]] = 0
        return places

    def _append(self, new: Outcomes) -> None:
        numbers, texts = self.outcomes
        begin, end = self._num_kept, self._num_kept + len(new.texts) - 1
        if end > len(texts):
            numbers, texts = extended(numbers, max(end, 1024)), extended(texts, max(end, 1024))
            self.outcomes = Outcomes(numbers, texts)
        numbers[begin:end] = new.numbers[1:]
        # Many prompts have the same completions: one object per text keeps the table in the cache.
        texts[begin:end] = [[sys.intern(text) for text in row] for row in new.texts[1:]]
        self._num_kept = end
