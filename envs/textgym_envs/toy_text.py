"""`ToyText-v0`: sums answered character by character, a TextGen-v0 small enough to be solved.

The environment class, the prompts, the tokenizer and the rewards are those of TextGen-v0; a
`ToyTextConfig` chooses them, and `exact_solution` gives the values of every policy. With `noise` an
action in token mode may be replaced by a uniformly drawn one, end token included. Chance is a hash
of stream key, episode and position, so an episode can be replayed from its seed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from textgym.errors import ConfigError
from textgym_envs.arrays import Bools, Ints
from textgym_envs.exact.solution import ExactSolution
from textgym_envs.exact.tree import PrefixTree
from textgym_envs.prompt_table import longest_prompt
from textgym_envs.streams import chance, chance_of
from textgym_envs.textgen import StepResult, TextGenEnv
from textgym_envs.textgen_vector import TextGenVectorEnv
from textgym_envs.toy_text_config import ToyTextConfig, parse_toy_config
from textgym_envs.vector_base import Advance
from textgym_envs.world import TextGenWorld


class ToyTextEnv(TextGenEnv):
    """One expression per episode.

    Args:
        render_mode: `ansi` returns the transcript, `human` prints it while it grows.
        arguments: the fields of `ToyTextConfig`.
    """

    def __init__(self, *, render_mode: str | None = None, **arguments: Any) -> None:
        self.toy = parse_toy_config(arguments)
        super().__init__(render_mode=render_mode, **self.toy.textgen())

    def _open(self) -> None:
        super()._open()
        encoded_targets(self._world)  # raises where the vocabulary lacks a character

    def exact_solution(self, gamma: float = 1.0) -> ExactSolution:
        """Return the values of this task, in token mode, discounted per token."""
        return solve(self.toy, self._world, gamma)

    def _step_token(self, action: Any) -> StepResult:
        return super()._step_token(self._heard(action) if self.toy.noise else action)

    def _heard(self, action: Any) -> Any:
        """Return the action that is taken, perhaps in the place of this one."""
        stream, noise = self._stream, self.toy.noise
        assert stream.key is not None
        drawn = chance_of(stream.key, stream.episode, self._cursor - self._start)
        if drawn >= noise or action not in self.action_space:
            return action  # where there is no such action, the step says so
        return int(drawn / noise * self._num_actions)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the configuration as well; see `TextGenEnv.__getstate__`."""
        return super().__getstate__() | {"toy": self.toy}


class ToyTextVectorEnv(TextGenVectorEnv):
    """`num_envs` expressions at a time.

    Args:
        num_envs: rows; row i seeded with `seed + i` is the scalar environment seeded so.
        autoreset_mode: `same_step` (no step is lost on resets), `next_step` or `disabled`.
        render_mode: `ansi` returns one transcript per row, `human` prints them on `render()`.
        arguments: the fields of `ToyTextConfig`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        **arguments: Any,
    ) -> None:
        self.toy = parse_toy_config(arguments)
        super().__init__(
            num_envs,
            autoreset_mode=autoreset_mode,
            render_mode=render_mode,
            **self.toy.textgen(),
        )

    def _open(self, num_envs: int, autoreset_mode: AutoresetMode | str) -> None:
        super()._open(num_envs, autoreset_mode)
        encoded_targets(self._world)

    def exact_solution(self, gamma: float = 1.0) -> ExactSolution:
        """Return the values of this task, in token mode, discounted per token."""
        return solve(self.toy, self._world, gamma)

    def _advance_tokens(self, ids: Ints, idle: Bools | None) -> Advance:
        return super()._advance_tokens(self._heard(ids) if self.toy.noise else ids, idle)

    def _heard(self, ids: Ints) -> Ints:
        """Return the actions that are taken, perhaps in the place of these; shape (num_envs,)."""
        streams, noise = self._streams, self.toy.noise
        drawn = chance(streams.keys, streams.episodes, self._cursors - self._starts)
        replacements = (drawn / noise * self._num_actions).astype(np.int64)
        return np.where(drawn < noise, replacements, ids)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the configuration as well; see `NativeVectorEnv.__getstate__`."""
        return super().__getstate__() | {"toy": self.toy}


def encoded_targets(world: TextGenWorld) -> list[list[int]]:
    """Return the ids of the target of each prompt.

    Raises:
        ConfigError: the vocabulary lacks a character.
    """
    pool, tokenizer = world.table.pool, world.tokenizer
    targets = []
    for index in range(len(pool)):
        text = str(pool.prompt(index).target)
        targets.append(tokenizer.encode(text))
        ids = tokenizer.encode(pool.render(index, 0, 0)) + targets[-1]
        if max(ids) >= tokenizer.num_actions:
            written = pool.render(index, 0, 0) + text
            raise ConfigError(
                f"the vocabulary {world.config.tokenizer.partition(':')[2]!r} lacks "
                f"{written[np.argmax(ids)]!r} of {written!r}; add it to 'vocabulary'"
            )
    return targets


def solve(toy: ToyTextConfig, world: TextGenWorld, gamma: float) -> ExactSolution:
    """Return the exact solution of a task."""
    pool, tokenizer = world.table.pool, world.tokenizer
    width = longest_prompt(world.config, tokenizer)
    prompts = np.full((len(pool), width), tokenizer.pad_id, dtype=np.int64)
    for index, row in enumerate(prompts):
        ids = tokenizer.encode(pool.render(index, 0, 0))
        row[width - len(ids) :] = ids
    tree = PrefixTree(
        prompts,
        encoded_targets(world),
        num_content=tokenizer.eos_id,
        max_new=toy.max_new_tokens,
        pad=tokenizer.pad_id,
        noise=toy.noise,
        dense=toy.dense,
    )
    symbols = [*toy.vocabulary, *[""] * (tokenizer.vocab_size - len(toy.vocabulary))]
    return ExactSolution(tree, gamma, symbols=symbols, turn_length=toy.max_new_tokens)
