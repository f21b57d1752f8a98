"""Native vector environment of `TextGen-v0`: all rows in arrays, one scatter per step.

It equals `SyncVectorEnv` of `TextGenEnv` (see `vector_base.py` for the two exceptions): same
prompts, same scores, same infos. In text mode the finished rows of a step, that is all of them, are
scored in one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium.error import InvalidAction
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from textgym import Prompt
from textgym.errors import ConfigError
from textgym_envs.arrays import Bools, Floats, Ints, row_items
from textgym_envs.code_table import CodeTable, PrefixTable
from textgym_envs.config import TextGenConfig, parse_config
from textgym_envs.judging import Outcome
from textgym_envs.pool_access import PoolAccess
from textgym_envs.streams import EpisodeState, LevelDraws
from textgym_envs.transcript import check_render_mode, transcript
from textgym_envs.vector_base import Advance, Infos, NativeVectorEnv
from textgym_envs.vector_infos import (
    Final,
    Outcomes,
    final_infos,
    leave_success_open,
    object_info,
    outcome_table,
    reset_infos,
)
from textgym_envs.world import TextGenWorld, open_world


class TextGenVectorEnv(PoolAccess, NativeVectorEnv):
    """`num_envs` prompts at a time.

    Args:
        num_envs: rows; row i seeded with `seed + i` is the scalar environment seeded so.
        autoreset_mode: `same_step` (no step is lost on resets), `next_step` or `disabled`.
        render_mode: `ansi` returns one transcript per row, `human` prints them on `render()`.
        arguments: the fields of `TextGenConfig`.
    """

    config_class: ClassVar[type[TextGenConfig]] = TextGenConfig
    world_class: ClassVar[type[TextGenWorld]] = TextGenWorld

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        **arguments: Any,
    ) -> None:
        self.config = parse_config(self.config_class, arguments)
        self.render_mode = check_render_mode(render_mode)
        self._open(num_envs, autoreset_mode)

    def _open(self, num_envs: int, autoreset_mode: AutoresetMode | str) -> None:
        world = self._world = open_world(self.world_class, self.config)
        single_spaces = world.observation_space(), world.action_space()
        self._draws = LevelDraws(world.table.pool)
        self._setup(num_envs, self._draws, single_spaces, autoreset_mode)
        self._table = world.table
        self._num_actions, self._eos = world.tokenizer.num_actions, world.tokenizer.eos_id
        has_codes = not self.config.is_text and CodeTable.suits(world)
        self._codes = CodeTable(world) if has_codes else None
        has_prefixes = world.is_dense and PrefixTable.suits(world)
        self._prefixes = PrefixTable(world) if has_prefixes else None
        self._rows: Ints = np.zeros(num_envs, dtype=np.int64)  # of the prompt table
        self._last_texts: list[str] = [""] * num_envs
        if not self.config.is_text:
            self._open_buffer(num_envs)

    def _open_buffer(self, num_envs: int) -> None:
        """Lay out the ids of all rows; cursors are positions in the flat buffer."""
        length = self._world.max_prompt + self._world.max_new
        self._buffer: Ints = np.zeros((num_envs, length), dtype=np.int64)
        self._flat = self._buffer.reshape(-1)
        self._items = row_items(self._buffer)
        self._completions = self._buffer[:, self._world.max_prompt :]
        self._ends: Ints = np.arange(1, num_envs + 1, dtype=np.int64) * length
        self._starts = self._ends - self._world.max_new
        self._cursors = self._ends.copy()
        self._emitted: Floats = np.zeros(num_envs)  # of the rewards of dense rubrics

    @property
    def current_prompts(self) -> list[Prompt]:
        """The prompts of the episodes that the rows play, with what their rewards need."""
        return [self._table.prompts[row] for row in self._rows.tolist()]

    def _draw_anew(self) -> None:
        self._streams.draw_anew()

    def action_masks(self) -> Bools:
        """Return which ids may follow, shape (num_envs, num_actions), row by row the same."""
        if self.config.is_text:
            raise ConfigError("action_masks() exists in token mode only")
        return np.tile(self._world.tokenizer.legal, (self.num_envs, 1))

    def _restart(self, rows: Ints, indices: Ints) -> None:
        found = self._table.rows(indices, rows, self._streams)
        self._rows[rows] = found
        if not self.config.is_text:
            self._items[rows] = self._table.token_items.take(found)
            self._cursors[rows] = self._starts.take(rows)
            self._emitted[rows] = 0.0

    def _observe(self) -> Any:
        if not self.config.is_text:
            return self._buffer.copy()
        texts = self._table.infos
        each = zip(self._rows.tolist(), self._over.tolist(), strict=True)
        return tuple("" if is_over else texts[row][0] for row, is_over in each)

    def _final_observations(self, ended: Bools) -> Any:
        if not self.config.is_text:
            return self._buffer.copy()
        return object_info([""] * int(ended.sum()), np.flatnonzero(ended), self.num_envs)

    def _reset_infos(self, mask: Bools) -> Infos:
        return reset_infos(self._table.infos_array.take(self._rows * mask, axis=0), mask)

    def _advance(self, actions: Any, idle: Bools | None) -> Advance:
        if self.config.is_text:
            return self._advance_texts(actions, idle)
        return self._advance_tokens(self._checked_ids(actions, idle), idle)

    def _checked_ids(self, actions: Any, idle: Bools | None) -> Ints:
        ids = np.asarray(actions)
        if ids.shape != (self.num_envs,) or ids.dtype.kind not in "iu":
            raise InvalidAction(
                f"actions must be {self.num_envs} integers, got {ids.dtype} of shape {ids.shape}"
            )
        if ids.dtype != np.int64:
            ids = ids.astype(np.int64)
        wrong = ids.view(np.uint64) >= self._num_actions
        if idle is not None:
            wrong &= ~idle
        if np.count_nonzero(wrong):
            row = int(np.flatnonzero(wrong)[0])
            raise InvalidAction(
                f"the action {ids[row]} of row {row} is no id of 0 to {self._num_actions - 1}"
            )
        return ids

    def _advance_tokens(self, ids: Ints, idle: Bools | None) -> Advance:
        cursors = self._cursors
        is_stopped = ids == self._eos
        if idle is None:
            self._flat[cursors] = ids
            cursors += 1
            ended = is_stopped | (cursors == self._ends)
        else:
            active = ~idle
            self._flat[cursors[active]] = ids[active]
            cursors += active
            ended = (is_stopped | (cursors == self._ends)) & active
        if np.count_nonzero(ended):
            rewards, infos = self._finish_tokens(ended, is_stopped, some_idle=idle is not None)
        else:
            rewards, infos = Final(np.zeros(self.num_envs), {})
        if self._world.is_dense:
            rewards = self._dense_rewards(rewards, ended if idle is None else ended | idle, ended)
        if self.config.length_cutoff == "truncate":
            return Advance(rewards, ended & is_stopped, ended & ~is_stopped, infos, ended)
        none = np.zeros(self.num_envs, dtype=np.bool_)
        return Advance(rewards, ended, none, infos, ended)

    def _dense_rewards(self, rewards: Floats, is_over: Bools, ended: Bools) -> Floats:
        """Return what this step added to the value of each completion."""
        values = np.where(ended, rewards, self._emitted)
        live = np.flatnonzero(~is_over)
        if live.size:
            values[live] = self._prefix_values(live)
        rewards = values - self._emitted
        self._emitted = values
        return rewards

    def _prefix_values(self, envs: Ints) -> Floats:
        rows, completions = self._rows.take(envs), self._completions[envs]
        if self._prefixes is not None:
            return self._prefixes.values(rows, completions)
        return np.array(self._world.prefix_values(rows.tolist(), completions))

    def _finish_tokens(self, ended: Bools, is_stopped: Bools, *, some_idle: bool) -> Final:
        if self._codes is not None:
            places = self._codes.places(
                self._rows, self._completions, is_stopped, ended, some_idle=some_idle
            )
            return self._final_at(self._codes.outcomes, places, ended)
        finished = ended.nonzero()[0]
        rows = self._rows.take(finished).tolist()
        return self._final(self._world.judge_tokens(rows, self._completions[finished]), ended)

    def _final(self, judged: Sequence[Outcome], ended: Bools) -> Final:
        outcomes = outcome_table(judged, self._world.judge.part_names)
        places = np.zeros(self.num_envs, dtype=np.int64)
        places[ended] = np.arange(1, len(judged) + 1)
        return self._final_at(outcomes, places, ended)

    def _final_at(self, outcomes: Outcomes, places: NDArray[np.integer], ended: Bools) -> Final:
        table = self._table
        num_prompt = table.num_tokens_array.take(self._rows * ended)
        final = final_infos(outcomes, places, num_prompt, self._world.judge.part_names, ended)
        if not table.all_know_success:
            leave_success_open(final.infos, ended & ~table.know_success_array.take(self._rows))
        return final

    def _advance_texts(self, actions: Sequence[object], idle: Bools | None) -> Advance:
        if isinstance(actions, str) or len(actions) != self.num_envs:
            raise InvalidAction(
                f"actions must be {self.num_envs} texts, got {type(actions).__name__} of length "
                f"{len(actions)}"
            )
        ended = np.ones(self.num_envs, dtype=np.bool_) if idle is None else ~idle
        none = np.zeros(self.num_envs, dtype=np.bool_)
        finished = np.flatnonzero(ended)
        if not finished.size:
            return Advance(np.zeros(self.num_envs), ended, none, {}, ended)
        world = self._world
        attempts = [
            world.text_attempt(int(self._rows[row]), actions[row]) for row in finished.tolist()
        ]
        outcomes = world.judge.judge(attempts)
        rewards, infos = self._final(outcomes, ended)
        ids = [list(attempt.token_ids or ()) for attempt in attempts]
        infos["token_ids"] = object_info(ids, finished, self.num_envs)
        infos["_token_ids"] = ended.copy()
        self._add_steps(infos, finished, outcomes)
        for row, attempt in zip(finished.tolist(), attempts, strict=True):
            self._last_texts[row] = attempt.completion
        return Advance(rewards, ended.copy(), none, infos, ended)

    def _add_steps(self, infos: Infos, rows: Ints, outcomes: Sequence[Outcome]) -> None:
        have_steps = [bool(outcome.steps) for outcome in outcomes]
        if any(have_steps):
            rows = rows[have_steps]
            steps = [list(outcome.steps) for outcome in outcomes if outcome.steps]
            infos["reward_steps"] = object_info(steps, rows, self.num_envs)
            infos["_reward_steps"] = np.isin(np.arange(self.num_envs), rows)

    def _standing(self) -> list[tuple[int, tuple[int, ...]]]:
        indices = [self._table.indices[row] for row in self._rows.tolist()]
        return list(zip(indices, self._generated(), strict=True))

    def _generated(self) -> list[tuple[int, ...]]:
        if self.config.is_text:
            return [()] * self.num_envs
        flat, starts, ends = self._flat, self._starts.tolist(), self._cursors.tolist()
        return [tuple(flat[i:j].tolist()) for i, j in zip(starts, ends, strict=True)]

    def _restore(self, states: Sequence[EpisodeState]) -> None:
        is_cut = np.zeros(self.num_envs, dtype=np.bool_)
        for row, state in enumerate(states):
            if ids := state.token_ids:
                start = self._starts[row]
                self._flat[start : start + len(ids)] = ids
                self._cursors[row] = start + len(ids)
                is_cut[row] = ids[-1] != self._eos
        if not self.config.is_text and self._world.is_dense:
            self._restore_emitted(states)
        truncates = is_cut & (self.config.length_cutoff == "truncate")
        self._terminated, self._truncated = self._over & ~truncates, self._over & truncates

    def _restore_emitted(self, states: Sequence[EpisodeState]) -> None:
        going_on = [i for i, state in enumerate(states) if state.token_ids and not state.is_over]
        self._emitted[:] = 0.0
        if going_on:
            self._emitted[going_on] = self._prefix_values(np.array(going_on))

    def _transcripts(self) -> list[str]:
        prompts = [self._table.infos[row][0] for row in self._rows.tolist()]
        if self.config.is_text:
            pairs = zip(self._last_texts, self._over, strict=True)
            completions = [text if over else "" for text, over in pairs]
        else:
            eos, decode = self._eos, self._world.tokenizer.decode
            completions = [decode([i for i in ids if i != eos]) for ids in self._generated()]
        return [transcript(*each, None) for each in zip(prompts, completions, strict=True)]

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the configuration, where the rows stand and the level."""
        return super().__getstate__() | {"level": self.level}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        level = kept.pop("level")
        super().__setstate__(kept)
        self.set_level(level)

    def close_extras(self, **kwargs: Any) -> None:
        """Give up the rewards' workers, unless another environment shares them."""
        del kwargs
        self._is_running = False
        self._world.release()
