"""The transcript that `render` returns or prints: prompt, completion, and how it ended."""

from __future__ import annotations

from textgym.errors import ConfigError
from textgym_envs.judging import Outcome

RENDER_MODES = ("human", "ansi")


class RenderModeError(ConfigError, TypeError):
    """A render mode that does not exist.

    Also a TypeError: `stable_baselines3.common.env_util.make_vec_env` first asks every environment
    for `rgb_array`, and makes it without a render mode if it answers with one.
    """


def check_render_mode(render_mode: str | None) -> str | None:
    """Return the render mode, or say which ones there are."""
    if render_mode is not None and render_mode not in RENDER_MODES:
        raise RenderModeError(f"render_mode={render_mode!r}: must be None, 'human' or 'ansi'")
    return render_mode


def transcript(prompt: str, completion: str, outcome: Outcome | None) -> str:
    """Return prompt and completion, with a last line once the outcome is known."""
    if outcome is None:
        return prompt + completion
    texts = outcome.named_texts()
    verdict = f"{outcome.score:g}" if texts["status"] == "scored" else texts["status"]
    return f"{prompt}{completion}\n[{texts['finish_reason']}, score {verdict}]"


class TranscriptPrinter:
    """Prints a transcript as it grows, each character once."""

    def __init__(self) -> None:
        self._shown = 0

    def show(self, text: str, *, begins: bool = False) -> None:
        """Print what `text` has more than at the last call; `begins` starts a new transcript."""
        if begins:
            self._shown = 0
        print(text[self._shown :], end="\n" if text.endswith("]") else "", flush=True)
        self._shown = len(text)
