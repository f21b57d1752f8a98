"""Rendered prompts, encoded once: rows of one integer matrix that resets copy from.

A row is one rendering of one prompt (with a thinking share a prompt has two), filled when it is
first drawn, so a pool of a million prompts costs nothing until they are used.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from textgym import Prompt
from textgym.errors import ConfigError
from textgym_envs.arrays import Bools, Ints, Texts, extended, row_items
from textgym_envs.config import TextGenConfig
from textgym_envs.prompt_pool import PromptPool
from textgym_envs.streams import EpisodeStreams
from textgym_envs.tokenizers import Tokenizer

RESET_KEYS = ("prompt", "prompt_id", "task")
"""The keys of the reset info; all values are text."""
_NO_PROMPT = Prompt(id="none", messages="")


class PromptTable:
    """The rows of one pool; they stay where they are once they exist.

    Row 0 is that of no prompt: in the arrays it is 0 and None.

    Args:
        pool: the prompts.
        tokenizer: encodes their renderings.
        knows_success: says whether a prompt's rewards tell success from failure.
        max_prompt: columns of the prompt; it is padded on the left, so that the newest token of the
            prompt and every token of the completion keep their columns.
        max_new: columns of the completion, PAD in the table.
    """

    def __init__(
        self,
        pool: PromptPool,
        tokenizer: Tokenizer,
        *,
        knows_success: Callable[[Prompt], bool],
        max_prompt: int,
        max_new: int,
    ) -> None:
        self.pool = pool
        self.num_rows = 1 + len(pool) * (2 if _renders_vary(pool) else 1)
        """Most rows there can be."""
        self.prompts: list[Prompt] = [_NO_PROMPT]
        self.indices: list[int] = [-1]
        """Places in the pool."""
        self.num_tokens: list[int] = [0]
        self.infos: list[tuple[str, ...]] = [("",) * len(RESET_KEYS)]
        """Values of `RESET_KEYS`."""
        self.know_success: list[bool] = [True]
        self.all_know_success = True
        self.tokens: Ints = np.empty((1, max_prompt + max_new), dtype=np.int64)
        self.token_items = row_items(self.tokens)
        self.num_tokens_array: Ints = np.zeros(1, dtype=np.int64)
        self.infos_array: Texts = np.empty((1, len(RESET_KEYS)), dtype=object)
        self.know_success_array: Bools = np.ones(1, dtype=np.bool_)
        self._tokenizer = tokenizer
        self._knows_success = knows_success
        self._max_prompt = max_prompt
        self.reward_rows: Ints = np.zeros(1, dtype=np.int64)
        """The first row whose prompt names the same reward."""
        self._row_of_reward: dict[str | None, int] = {}
        self._renders_vary = _renders_vary(pool)
        self._rows: dict[int | tuple[int, bool], int] = {}
        self._row_of_index: Ints = np.zeros(len(pool), dtype=np.int64)

    def row(self, index: int, key: int, episode: int) -> int:
        """Return the row of prompt `index` as it is rendered in this episode."""
        row = self._rows.get(index)
        return self._find(index, key, episode) if row is None else row

    def rows(self, indices: Ints, envs: Ints, streams: EpisodeStreams) -> Ints:
        """Return the row of each prompt (k,) that the environments `envs` (k,) have drawn."""
        rows = self._row_of_index.take(indices)
        if np.count_nonzero(rows) < len(rows):
            keys, episodes = streams.keys[envs], streams.episodes[envs]
            for i in np.flatnonzero(rows == 0).tolist():
                rows[i] = self._find(int(indices[i]), int(keys[i]), int(episodes[i]))
        return rows

    def _find(self, index: int, key: int, episode: int) -> int:
        varies = self._renders_vary
        name = (index, self.pool.thinks(index, key, episode)) if varies else index
        row = self._rows.get(name)
        if row is None:
            row = self._rows[name] = self._append(index, self.pool.render(index, key, episode))
            if not varies:
                self._row_of_index[index] = row
        return row

    def _append(self, index: int, text: str) -> int:
        prompt, ids, row = self.pool.prompt(index), self._tokenizer.encode(text), len(self.prompts)
        if row == len(self.num_tokens_array):
            self._grow()
        if self.tokens.shape[1]:
            self._write_tokens(row, ids, prompt)
        self.prompts.append(prompt)
        self.indices.append(index)
        self.num_tokens.append(len(ids))
        self.infos.append((text, prompt.id, str(prompt.metadata.get("task", ""))))
        self.know_success.append(self._knows_success(prompt))
        self.all_know_success &= self.know_success[row]
        self.know_success_array[row] = self.know_success[row]
        self.reward_rows[row] = self._row_of_reward.setdefault(prompt.reward, row)
        self.num_tokens_array[row] = len(ids)
        self.infos_array[row] = self.infos[row]
        return row

    def _write_tokens(self, row: int, ids: Sequence[int], prompt: Prompt) -> None:
        width = self._max_prompt
        if len(ids) > width:
            raise ConfigError(
                f"prompt '{prompt.id}' has {len(ids)} tokens, more than max_prompt_tokens={width}; "
                "raise it, or pass max_prompt_tokens=None to measure all prompts"
            )
        self.tokens[row] = self._tokenizer.pad_id
        self.tokens[row, width - len(ids) : width] = ids

    def _grow(self) -> None:
        more = max(64, len(self.num_tokens_array))
        self.tokens = extended(self.tokens, more)
        self.token_items = row_items(self.tokens)
        self.num_tokens_array = extended(self.num_tokens_array, more)
        self.know_success_array = extended(self.know_success_array, more)
        self.reward_rows = extended(self.reward_rows, more)
        self.infos_array = extended(self.infos_array, more)


def longest_prompt(config: TextGenConfig, tokenizer: Tokenizer) -> int:
    """Return the tokens of the longest rendered prompt of all splits, the same for each split."""
    shares = (None,) if config.think_share is None else (0.0, 1.0)
    return max(
        len(tokenizer.encode(text)) for share in shares for text in _renderings(config, share)
    )


def make_pool(config: TextGenConfig) -> PromptPool:
    """Return the prompts that the configuration names."""
    return PromptPool(
        config.prompts, split=config.split, evaluation_share=config.evaluation_share,
        template=config.template, system=config.system, think_share=config.think_share,
        review_share=config.review_share,
    )  # fmt: skip


def _renderings(config: TextGenConfig, think_share: float | None) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the pool of the split itself warns of malformed lines
        pool = make_pool(config.model_copy(update={"split": "all", "think_share": think_share}))
    return (pool.render(index, 0, 0) for index in range(len(pool)))


def _renders_vary(pool: PromptPool) -> bool:
    return pool.think_share not in (None, 0.0, 1.0)
