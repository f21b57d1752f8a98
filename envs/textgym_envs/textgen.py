"""`TextGen-v0`: answering a prompt as a Gymnasium environment.

Token mode: an observation is the ids of the prompt (padded on the left) and of the completion so
far (padded on the right), an action is the next id. Text mode: an observation is the rendered
prompt, an action is a whole completion, and an episode has one step. Both draw the same prompts
and score the same samples. What step and info say is decided in `judging.py` and `world.py`, which
the vector environment uses as well.

Nothing is decoded, scored or copied deeply before the last step of an episode.
"""

from __future__ import annotations

import operator
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.error import ClosedEnvironmentError, InvalidAction, ResetNeeded

from textgym.errors import ConfigError
from textgym_envs.arrays import Bools, Ints
from textgym_envs.config import TextGenConfig, parse_config
from textgym_envs.judging import Attempt, Outcome
from textgym_envs.pool_access import PoolAccess
from textgym_envs.prompt_table import RESET_KEYS
from textgym_envs.streams import EpisodeState, EpisodeStream, LevelDraws
from textgym_envs.transcript import TranscriptPrinter, check_render_mode, transcript
from textgym_envs.world import TextGenWorld, open_world

Observation = Any
"""An id array of shape (max_prompt + max_new,) in token mode, a `str` in text mode."""
StepResult = tuple[Observation, float, bool, bool, dict[str, Any]]


class TextGenEnv(PoolAccess, gymnasium.Env[Any, Any]):
    """One prompt per episode, one completion, one score.

    Args:
        render_mode: `ansi` returns the transcript, `human` prints it while it grows.
        arguments: the fields of `TextGenConfig`.
    """

    metadata = {"render_modes": ["human", "ansi"], "render_fps": 4}  # noqa: RUF012
    config_class: ClassVar[type[TextGenConfig]] = TextGenConfig
    world_class: ClassVar[type[TextGenWorld]] = TextGenWorld

    def __init__(self, *, render_mode: str | None = None, **arguments: Any) -> None:
        self.config = parse_config(self.config_class, arguments)
        self.render_mode = check_render_mode(render_mode)
        self._open()

    def _open(self) -> None:
        world = self._world = open_world(self.world_class, self.config)
        self._is_closed = False
        self.observation_space = world.observation_space()
        self.action_space = world.action_space()
        self._table = world.table
        self._draws = LevelDraws(world.table.pool)
        self._stream = EpisodeStream(self._draws)
        self._is_text = self.config.is_text
        self._start = world.max_prompt
        self._num_actions, self._eos = world.tokenizer.num_actions, world.tokenizer.eos_id
        self._tokens: Ints = np.empty(0, dtype=np.int64)
        self._index = self._row = self._cursor = 0
        self._left = 0
        self._emitted = 0.0
        self._outcome: Outcome | None = None
        self._printer = TranscriptPrinter()

    @property
    def num_prompts(self) -> int:
        """How many prompts the split has."""
        return len(self._table.pool)

    def _draw_anew(self) -> None:
        self._stream.draw_anew()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin the next episode; `options={"prompt_index": i}` forces its prompt.

        A seed fixes this and all following episodes; without one the stream goes on.
        """
        if self._is_closed:
            raise ClosedEnvironmentError("the environment is closed; make a new one")
        if seed is not None:
            super().reset(seed=seed)
        self._begin(self._stream.next_index(seed, options))
        info = dict(zip(RESET_KEYS, self._table.infos[self._row], strict=True))
        if self.render_mode == "human":
            self._printer.show(self._transcript(), begins=True)
        return (info["prompt"] if self._is_text else self._tokens.copy()), info

    def _begin(self, index: int) -> None:
        stream, table = self._stream, self._table
        assert stream.key is not None
        self._index = index
        self._row = row = table.row(index, stream.key, stream.episode)
        if self._is_text:
            self._left = 1
        else:
            self._tokens = table.tokens[row].copy()
            self._cursor = self._start
            self._left = self.config.max_new_tokens
        self._emitted = 0.0
        self._outcome = None

    def step(self, action: Any) -> StepResult:
        """Append one id, or take the whole completion; the last step carries score and info."""
        if self._left <= 0:
            raise ResetNeeded("no episode is running: call reset() before step()")
        return self._step_text(action) if self._is_text else self._step_token(action)

    def _step_token(self, action: Any) -> StepResult:
        token = operator.index(action)
        if not 0 <= token < self._num_actions:
            raise InvalidAction(f"the action {token} is no id of 0 to {self._num_actions - 1}")
        tokens = self._tokens
        tokens[self._cursor] = token
        self._cursor += 1
        self._left -= 1
        if token == self._eos:
            self._left = 0
        if self._left:
            reward = self._dense_reward() if self._world.is_dense else 0.0
            result: StepResult = (tokens.copy(), reward, False, False, {})
        else:
            result = self._finish_tokens(is_stopped=token == self._eos)
        if self.render_mode == "human":
            self._printer.show(self._transcript())
        return result

    def _dense_reward(self) -> float:
        """Return what the last id added to the value of the completion."""
        before, self._emitted = self._emitted, self._prefix_value()
        return self._emitted - before

    def _prefix_value(self) -> float:
        completion = self._tokens[None, self._start :]
        return self._world.prefix_values([self._row], completion)[0]

    def _finish_tokens(self, *, is_stopped: bool) -> StepResult:
        world, completion = self._world, self._tokens[self._start :]
        key = world.memo_row(self._row, is_stopped=is_stopped), completion.tobytes()
        outcome = world.memo.get(key)
        if outcome is None:
            (outcome,) = world.judge_tokens([self._row], completion[None])
        truncates = self.config.length_cutoff == "truncate" and not is_stopped
        info = self._final_info(outcome)
        reward = outcome.reward - self._emitted
        return self._tokens.copy(), reward, not truncates, truncates, info

    def _step_text(self, action: Any) -> StepResult:
        world = self._world
        attempt: Attempt = world.text_attempt(self._row, action)
        (outcome,) = world.judge.judge([attempt])
        self._left = 0
        info = self._final_info(outcome)
        info["token_ids"] = list(attempt.token_ids or ())
        if outcome.steps:
            info["reward_steps"] = list(outcome.steps)
        if self.render_mode == "human":
            self._printer.show(self._transcript())
        return "", outcome.reward, True, False, info

    def _final_info(self, outcome: Outcome) -> dict[str, Any]:
        self._outcome = outcome
        table, row = self._table, self._row
        return outcome.info(
            self._world.judge.part_names,
            table.num_tokens[row],
            knows_success=table.know_success[row],
        )

    def action_masks(self) -> Bools:
        """Return which ids may follow, shape (num_actions,), as sb3-contrib's MaskablePPO asks."""
        if self._is_text:
            raise ConfigError("action_masks() exists in token mode only")
        return self._world.tokenizer.legal.copy()

    def get_state(self) -> EpisodeState:
        """Return where this environment stands: a few integers, cheap enough for tree search."""
        stream = self._stream
        if stream.key is None:
            raise ResetNeeded("no episode has begun: call reset() before get_state()")
        ids = tuple(self._tokens[self._start : self._cursor].tolist())
        return EpisodeState(stream.key, stream.episode, self._index, ids, self._left <= 0)

    def set_state(self, state: EpisodeState) -> None:
        """Stand where `state` was taken, by whatever environment of the same configuration."""
        self._stream.seek(state.stream_key, state.episode)
        self._begin(state.prompt_index)
        end = self._start + len(state.token_ids)
        if not self._is_text:
            self._tokens[self._start : end] = state.token_ids
            self._cursor = end
            if self._world.is_dense and state.token_ids and not state.is_over:
                self._emitted = self._prefix_value()
        self._left = 0 if state.is_over else self._left - len(state.token_ids)

    def render(self) -> str | None:
        """Return the transcript (`ansi`) or print it (`human`)."""
        text = self._transcript()
        if self.render_mode == "human":
            print(text)
            return None
        return text if self.render_mode == "ansi" else None

    def _transcript(self) -> str:
        if self._stream.key is None:
            return ""
        prompt = self._table.infos[self._row][0]
        if self._is_text:
            completion = self._outcome.texts[0] if self._outcome else ""
        else:
            ids = self._tokens[self._start : self._cursor].tolist()
            content = ids[:-1] if ids and ids[-1] == self._eos else ids
            completion = self._world.tokenizer.decode(content)
        return transcript(prompt, completion, self._outcome)

    def close(self) -> None:
        """Give up the rewards' workers, unless another environment shares them."""
        if not self._is_closed:
            self._is_closed = True
            self._left = 0
            self._world.release()

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the configuration and where the environment stands; the rest is rebuilt."""
        kept = {n: v for n, v in self.__dict__.items() if n in _PICKLED}
        state = None if self._stream.key is None else self.get_state()
        return kept | {"state": state, "level": self.level}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        state, level = kept.pop("state"), kept.pop("level")
        action_space = kept.pop("action_space")
        self.__dict__.update(kept)
        self._open()
        self.action_space = action_space
        self.set_level(level)
        if state is not None:
            self.set_state(state)


_PICKLED = ("config", "render_mode", "spec", "action_space", "_np_random", "_np_random_seed")
