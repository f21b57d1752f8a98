"""Native vector environment of `TextGenTools-v0`: it serves calls side by side.

It equals `SyncVectorEnv` of `ToolsEnv`, see `vector_base.py` for the exceptions. The dialogues that
end in a step are scored in one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.error import InvalidAction
from gymnasium.vector import AutoresetMode

from textgym_envs.arrays import Bools, Ints
from textgym_envs.streams import EpisodeState
from textgym_envs.textgen_vector import TextGenVectorEnv
from textgym_envs.tools.config import ToolsConfig
from textgym_envs.tools.dialogue import Dialogue
from textgym_envs.tools.world import ToolsWorld
from textgym_envs.transcript import transcript
from textgym_envs.vector_base import Advance
from textgym_envs.vector_infos import Final, object_info


class ToolsVectorEnv(TextGenVectorEnv):
    """`num_envs` dialogues at a time.

    Args:
        num_envs: rows; row i seeded with `seed + i` is the scalar environment seeded so.
        autoreset_mode: `same_step` (no step is lost on resets), `next_step` or `disabled`.
        render_mode: `ansi` returns one transcript per row, `human` prints them on `render()`.
        arguments: the fields of `ToolsConfig`.
    """

    config_class = ToolsConfig
    world_class = ToolsWorld
    config: ToolsConfig
    _world: ToolsWorld

    def _open(self, num_envs: int, autoreset_mode: AutoresetMode | str) -> None:
        super()._open(num_envs, autoreset_mode)
        self._dialogues: list[Dialogue] = []

    def _restart(self, rows: Ints, indices: Ints) -> None:
        super()._restart(rows, indices)
        if not self._dialogues:  # the first reset is of all rows
            self._dialogues = [self._new_dialogue(row) for row in range(self.num_envs)]
            return
        for row in rows.tolist():
            self._dialogues[row].close()
            self._dialogues[row] = self._new_dialogue(row)

    def _new_dialogue(self, row: int) -> Dialogue:
        streams = self._streams
        key, episode = int(streams.keys[row]), int(streams.episodes[row])
        return Dialogue(self._world, int(self._rows[row]), key, episode)

    def _observe(self) -> Any:
        return tuple(dialogue.message for dialogue in self._dialogues)

    def _advance_texts(self, actions: Sequence[object], idle: Bools | None) -> Advance:
        if isinstance(actions, str) or len(actions) != self.num_envs:
            raise InvalidAction(
                f"actions must be {self.num_envs} texts, got {type(actions).__name__} of length "
                f"{len(actions)}"
            )
        active = [row for row in range(self.num_envs) if idle is None or not idle[row]]
        dialogues = self._dialogues
        asking = [row for row in active if dialogues[row].say(actions[row])]
        self._world.each(lambda row: dialogues[row].serve(), asking)
        ended = np.zeros(self.num_envs, dtype=np.bool_)
        ended[[row for row in active if dialogues[row].attempt is not None]] = True
        truncated = np.zeros(self.num_envs, dtype=np.bool_)
        if not ended.any():
            return Advance(np.zeros(self.num_envs), ended, truncated, {}, ended.copy())
        rewards, infos = self._end(np.flatnonzero(ended), ended)
        if self.config.length_cutoff == "truncate":
            truncated |= ended & [dialogue.was_cut for dialogue in dialogues]
        return Advance(rewards, ended & ~truncated, truncated, infos, ended.copy())

    def _end(self, rows: Ints, ended: Bools) -> Final:
        finished = [self._dialogues[row] for row in rows.tolist()]
        outcomes = self._world.outcomes(finished)
        final = self._final(outcomes, ended)
        self._add_steps(final.infos, rows, outcomes)
        added = [dialogue.info() for dialogue in finished]
        for key in ("token_ids", "dialogue"):
            values = [each[key] for each in added]
            final.infos[key] = object_info(values, rows, self.num_envs)
            final.infos[f"_{key}"] = ended.copy()
        for key in ("num_turns", "tool_calls", "tool_errors"):
            counts = np.zeros(self.num_envs, dtype=np.int64)
            counts[rows] = [each[key] for each in added]
            final.infos[key], final.infos[f"_{key}"] = counts, ended.copy()
        return final

    def get_state(self) -> list[EpisodeState]:
        """Return where each row stands, with what was said."""
        pairs = zip(super().get_state(), self._dialogues, strict=True)
        return [state._replace(turns=tuple(dialogue.turns)) for state, dialogue in pairs]

    def _restore(self, states: Sequence[EpisodeState]) -> None:
        for dialogue, state in zip(self._dialogues, states, strict=True):
            dialogue.recall(state.turns, is_over=state.is_over)
        was_cut = np.array([dialogue.was_cut for dialogue in self._dialogues], dtype=np.bool_)
        truncates = was_cut & (self.config.length_cutoff == "truncate")
        self._terminated, self._truncated = self._over & ~truncates, self._over & truncates

    def _transcripts(self) -> list[str]:
        return [transcript(dialogue.text, "", None) for dialogue in self._dialogues]

    def close_extras(self, **kwargs: Any) -> None:
        """Release the tools, and the rewards' workers unless another environment shares them."""
        for dialogue in self._dialogues:
            dialogue.close()
        super().close_extras(**kwargs)
