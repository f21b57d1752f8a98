"""What all TextGen environments of one configuration share: prompts, tokenizer, rewards, memo.

A process keeps one world per configuration for as long as an environment uses it. So 256 scalar
environments in a `SyncVectorEnv` encode each prompt once and share one set of reward workers, and a
pickled environment carries its configuration only. A forked child starts with no worlds: worker
processes and their pipes belong to the process that started them.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gymnasium import spaces

from textgym import Completion, Rubric, Scorer, make_rubric
from textgym.errors import ConfigError
from textgym_envs.arrays import Ints
from textgym_envs.config import TextGenConfig
from textgym_envs.judging import Attempt, Judge, Outcome
from textgym_envs.prompt_pool import PromptPool
from textgym_envs.prompt_table import PromptTable, longest_prompt, make_pool
from textgym_envs.spaces import UnicodeText
from textgym_envs.tokenizers import make_tokenizer

_MEMO_ENTRIES = 1 << 16
_MEMO_BYTES = 1 << 25

_worlds: weakref.WeakValueDictionary[str, TextGenWorld] = weakref.WeakValueDictionary()
os.register_at_fork(after_in_child=_worlds.clear)


def open_world(kind: type[TextGenWorld], config: TextGenConfig) -> TextGenWorld:
    """Return the world of a configuration; call its `release` when it is no longer needed."""
    # prompts may name a relative path
    name = f"{Path.cwd()} {kind.__qualname__} {config.model_dump_json()}"
    world = _worlds.get(name)
    if world is None or world.num_users == 0:
        world = _worlds[name] = kind(config)
    world.num_users += 1
    return world


class TextGenWorld:
    """The parts that a configuration names, and the meaning of a finished completion."""

    def __init__(self, config: TextGenConfig) -> None:
        self.config = config
        self.tokenizer = make_tokenizer(config.tokenizer)
        self.max_prompt, self.max_new = self._columns()
        rubric = make_rubric(config.reward)
        scorer = Scorer(rubric, num_workers=config.num_workers, cache=config.score_cache)
        self.num_users = 0
        # Also runs where environments are collected without having been closed.
        self._close_scorer = weakref.finalize(self, scorer.close)
        self.judge = self._make_judge(rubric, scorer)
        pool = self._make_pool()
        self.judge.check(pool.prompt(0))
        self.table = PromptTable(
            pool,
            self.tokenizer,
            knows_success=self.judge.knows_success,
            max_prompt=self.max_prompt,
            max_new=self.max_new,
        )
        self.is_dense = not config.is_text and self.judge.is_dense(
            pool.prompt(i) for i in range(len(pool))
        )
        """Whether every step of token mode is rewarded for what it added to the score."""
        self.memo: dict[tuple[int, bytes], Outcome] = {}
        self._prefix_memo: dict[tuple[int, bytes], float] = {}
        self._memo_limit = min(_MEMO_ENTRIES, _MEMO_BYTES // (8 * max(1, self.max_new)))

    def release(self) -> None:
        """Stop the reward workers if nobody else uses this world."""
        self.num_users -= 1
        if self.num_users == 0:
            self._close_scorer()

    def _make_pool(self) -> PromptPool:
        return make_pool(self.config)

    def _make_judge(self, rubric: Rubric, scorer: Scorer) -> Judge:
        return Judge(rubric, scorer, score_length_cut=self.config.score_length_cut)

    def _columns(self) -> tuple[int, int]:
        config = self.config
        if config.is_text:
            return 0, 0
        longest = config.max_prompt_tokens or longest_prompt(config, self.tokenizer)
        return longest, config.max_new_tokens

    def observation_space(self) -> UnicodeText | spaces.Box:
        """Return a new space of one environment's observations."""
        if self.config.is_text:
            return UnicodeText()
        width, highest = self.max_prompt + self.max_new, self.tokenizer.vocab_size - 1
        return spaces.Box(0, highest, (width,), dtype=np.int64)

    def action_space(self) -> UnicodeText | spaces.Discrete:
        """Return a new space of one environment's actions."""
        return UnicodeText() if self.config.is_text else spaces.Discrete(self.tokenizer.num_actions)

    def memo_row(self, row: int, *, is_stopped: bool) -> int:
        """Return the row that an outcome depends on, of an unscored cut any with its reward."""
        if self.judge.is_scored("stop" if is_stopped else "length"):
            return row
        return int(self.table.reward_rows[row])

    def judge_tokens(self, rows: Sequence[int], completions: Ints) -> list[Outcome]:
        """Return the outcomes of finished completions, shape (k, max_new), padded with PAD.

        Repeatable outcomes are remembered; a failure never is.
        """
        lengths = (completions != self.tokenizer.pad_id).sum(axis=1).tolist()
        ids = [tuple(c[:n]) for c, n in zip(completions.tolist(), lengths, strict=True)]
        is_stopped = [each[-1] == self.tokenizer.eos_id for each in ids]
        keys = [
            (self.memo_row(row, is_stopped=stopped), completion.tobytes())
            for row, stopped, completion in zip(rows, is_stopped, completions, strict=True)
        ]
        known = [self.memo.get(key) for key in keys]
        new = [i for i, outcome in enumerate(known) if outcome is None]
        contents = [lengths[i] - is_stopped[i] for i in new]
        texts = self.tokenizer.decode_rows(completions[new], contents) if new else []
        attempts = [
            Attempt(
                self.table.prompts[rows[i]],
                text,
                ids[i],
                "stop" if is_stopped[i] else "length",
                lengths[i],
            )
            for i, text in zip(new, texts, strict=True)
        ]
        for i, outcome in zip(new, self.judge.judge(attempts), strict=True):
            known[i] = outcome
            if outcome.is_repeatable:
                self._remember(keys[i], outcome)
        return [outcome for outcome in known if outcome is not None]

    def prefix_values(self, rows: Sequence[int], completions: Ints) -> list[float]:
        """Return the values of unfinished completions, shape (k, max_new), padded with PAD.

        Values of deterministic rewards are remembered.
        """
        keys = [(row, ids.tobytes()) for row, ids in zip(rows, completions, strict=True)]
        values = [self._prefix_memo.get(key) for key in keys]
        new = [i for i, value in enumerate(values) if value is None]
        if new:
            prefixes = completions[new]
            lengths = (prefixes != self.tokenizer.pad_id).sum(axis=1).tolist()
            texts = self.tokenizer.decode_rows(prefixes, lengths)
            attempts = [
                Attempt(self.table.prompts[rows[i]], text, tuple(ids[:length]), "length", length)
                for i, text, ids, length in zip(new, texts, prefixes.tolist(), lengths, strict=True)
            ]
            found = self.judge.prefix_values(attempts)
            for i, value in zip(new, found, strict=True):
                values[i] = value
            if self.judge.rubric.deterministic:
                self._remember_prefixes([keys[i] for i in new], found)
        return [value for value in values if value is not None]

    def _remember_prefixes(self, keys: list[tuple[int, bytes]], values: list[float]) -> None:
        if len(self._prefix_memo) + len(keys) > self._memo_limit:
            self._prefix_memo.clear()
        self._prefix_memo.update(zip(keys, values, strict=True))

    def _remember(self, key: tuple[int, bytes], outcome: Outcome) -> None:
        if len(self.memo) >= self._memo_limit:
            self.memo.clear()
        self.memo[key] = outcome

    def text_attempt(self, row: int, action: object) -> Attempt:
        """Return the attempt of a text-mode action: a plain text, or a `Completion` with its ids.

        Raises:
            ConfigError: the action is no text.
        """
        if not isinstance(action, str):
            raise ConfigError(
                f"a text-mode action must be a str, got {action!r}; for token ids make the "
                "environment with action_mode='token'"
            )
        prompt = self.table.prompts[row]
        if not isinstance(action, Completion):
            return Attempt(prompt, str(action), None, "stop", len(self.tokenizer.encode(action)))
        ids = action.token_ids or None
        length = len(ids) if ids else len(self.tokenizer.encode(action))
        return Attempt(prompt, str(action), ids, action.finish_reason, length)
