"""`TextGenTools-v0`: a prompt is answered in several turns, in which tools may be called.

Text mode: an action is a completion. One that calls tools is answered by them, and the observation
is what the policy reads next: their answers in the chat template, up to where its next turn begins.
It is to be appended to what was read and said; the first observation is the prompt. A completion
without a call ends the episode, and is what the reward scores.
"""

from __future__ import annotations

from typing import Any

from textgym_envs.streams import EpisodeState
from textgym_envs.textgen import StepResult, TextGenEnv
from textgym_envs.tools.config import ToolsConfig
from textgym_envs.tools.dialogue import Dialogue
from textgym_envs.tools.world import ToolsWorld
from textgym_envs.transcript import transcript


class ToolsEnv(TextGenEnv):
    """One dialogue per episode.

    Args:
        render_mode: `ansi` returns the transcript, `human` prints it while it grows.
        arguments: the fields of `ToolsConfig`.
    """

    config_class = ToolsConfig
    world_class = ToolsWorld
    config: ToolsConfig
    _world: ToolsWorld

    def _open(self) -> None:
        super()._open()
        self._dialogue: Dialogue | None = None

    def _begin(self, index: int) -> None:
        super()._begin(index)
        self._close_dialogue()
        stream = self._stream
        assert stream.key is not None
        self._dialogue = Dialogue(self._world, self._row, stream.key, stream.episode)

    def _step_text(self, action: Any) -> StepResult:
        dialogue, info = self._dialogue, dict[str, Any]()
        assert dialogue is not None
        if dialogue.say(action):
            dialogue.serve()
        reward, truncates = 0.0, False
        if dialogue.attempt is not None:
            (outcome,) = self._world.outcomes([dialogue])
            self._left = 0
            reward, info = outcome.reward, self._final_info(outcome) | dialogue.info()
            if outcome.steps:
                info["reward_steps"] = list(outcome.steps)
            truncates = self.config.length_cutoff == "truncate" and dialogue.was_cut
        if self.render_mode == "human":
            self._printer.show(self._transcript())
        is_over = dialogue.is_over
        return dialogue.message, reward, is_over and not truncates, truncates, info

    def get_state(self) -> EpisodeState:
        """Return where this environment stands, with what was said; see `set_state`."""
        turns = tuple(self._dialogue.turns) if self._dialogue is not None else ()
        return super().get_state()._replace(turns=turns)

    def set_state(self, state: EpisodeState) -> None:
        """Stand where `state` was taken. No tool is called; an interpreter runs its code again."""
        super().set_state(state)
        assert self._dialogue is not None
        self._dialogue.recall(state.turns, is_over=state.is_over)

    def _transcript(self) -> str:
        if self._dialogue is None:
            return ""
        return transcript(self._dialogue.text, "", self._outcome)

    def _close_dialogue(self) -> None:
        if self._dialogue is not None:
            self._dialogue.close()

    def close(self) -> None:
        """Release the tools, and the rewards' workers unless another environment shares them."""
        if not self._is_closed:
            self._close_dialogue()
        super().close()
