"""Gymnasium wrappers for dialogues: what a policy sees of the past, and how long it may talk.

They take text-mode environments of several turns, whose observation is the newest message alone
(`TextGenTools-v0`, `ToyTwoTurn-v0`). The language-model trainer keeps the whole dialogue by itself
and needs no window; a policy that acts on the observation alone does.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
from gymnasium.spaces import Text
from gymnasium.utils import RecordConstructorArgs

from textgym.errors import ConfigError
from textgym_envs.spaces import UnicodeText
from textgym_envs.tokenizers import make_tokenizer

TextEnv = gymnasium.Env[str, str]


class _Exchange(NamedTuple):
    """What was said, and what came back."""

    completion: str
    message: str


class HistoryWindow(gymnasium.Wrapper[str, str, str, str], RecordConstructorArgs):
    """Makes the observation the dialogue, or as much of its end as there is room for.

    The oldest exchanges are left out first and the prompt last of all. Where the prompt and the
    newest exchange alone are too long, the beginning of the text is cut off.

    Args:
        env: text-mode environment.
        turns: most exchanges (a completion and the answer to it) after the prompt.
        characters: most characters.
        tokens: most tokens of `tokenizer`.
        tokenizer: as of `TextGen-v0`; it counts tokens.
        end_of_turn: stands after each completion, such as `<|im_end|>` for the template chatml.
        keep_prompt: whether the prompt stays while there is room for it; otherwise it is left out
            with the first exchange.

    Raises:
        ConfigError: the environment speaks no text, or a limit is no limit.
    """

    def __init__(
        self,
        env: TextEnv,
        *,
        turns: int | None = None,
        characters: int | None = None,
        tokens: int | None = None,
        tokenizer: str = "chars",
        end_of_turn: str = "",
        keep_prompt: bool = True,
    ) -> None:
        RecordConstructorArgs.__init__(
            self, turns=turns, characters=characters, tokens=tokens, tokenizer=tokenizer,
            end_of_turn=end_of_turn, keep_prompt=keep_prompt,
        )  # fmt: skip
        super().__init__(env)
        _check_text(env, "HistoryWindow")
        _check_limit("turns", turns, lowest=0)
        _check_limit("characters", characters, lowest=1)
        _check_limit("tokens", tokens, lowest=1)
        self.observation_space = UnicodeText(characters)
        self._turns, self._characters, self._tokens = turns, characters, tokens
        self._tokenizer = make_tokenizer(tokenizer)
        self._end_of_turn = end_of_turn
        self._keep_prompt = keep_prompt
        self._prompt = ""
        self._said: list[_Exchange] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begin a dialogue."""
        self._prompt, info = self.env.reset(seed=seed, options=options)
        self._said = []
        return self._window(), info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Say something; the observation ends with what came back."""
        message, reward, terminated, truncated, info = self.env.step(action)
        self._said.append(_Exchange(str(action), message))
        return self._window(), float(reward), terminated, truncated, info

    def _window(self) -> str:
        first = 0 if self._turns is None else max(0, len(self._said) - self._turns)
        while first < len(self._said) - 1 and not self._fits(self._text(first)):
            first += 1
        return self._cut(self._text(first))

    def _text(self, first: int) -> str:
        """Return the dialogue without its first exchanges."""
        said = "".join(
            f"{each.completion}{self._end_of_turn}{each.message}" for each in self._said[first:]
        )
        return self._prompt + said if self._keep_prompt or first == 0 else said

    def _fits(self, text: str) -> bool:
        if self._characters is not None and len(text) > self._characters:
            return False
        return self._tokens is None or len(self._tokenizer.encode(text)) <= self._tokens

    def _cut(self, text: str) -> str:
        if self._characters is not None:
            text = text[-self._characters :]
        if self._tokens is not None:
            ids = self._tokenizer.encode(text)
            if len(ids) > self._tokens:
                text = self._tokenizer.decode(ids[-self._tokens :])
        return text


class TurnLimit(gymnasium.Wrapper[str, str, str, str], RecordConstructorArgs):
    """Truncates a dialogue after so many turns; the task itself does not end.

    Unlike an environment's own limit (`max_turns`), which is part of its task and terminates. The
    last info says `finish_reason` "length" where the environment says none.

    Args:
        env: text-mode environment.
        max_turns: steps of an episode.

    Raises:
        ConfigError: the environment speaks no text, or the limit is less than 1.
    """

    def __init__(self, env: TextEnv, max_turns: int) -> None:
        RecordConstructorArgs.__init__(self, max_turns=max_turns)
        super().__init__(env)
        _check_text(env, "TurnLimit")
        _check_limit("max_turns", max_turns, lowest=1)
        self._max_turns = max_turns
        self._num_turns = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begin a dialogue, and count from 0."""
        self._num_turns = 0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take a turn; the last one that is allowed truncates unless it ends the task."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._num_turns += 1
        if self._num_turns >= self._max_turns and not terminated:
            truncated = True
            info = {"finish_reason": "length", **info}
        return observation, float(reward), terminated, truncated, info


def _check_text(env: TextEnv, name: str) -> None:
    for space in (env.observation_space, env.action_space):
        if not isinstance(space, UnicodeText | Text):
            raise ConfigError(
                f"{name} takes environments whose observations and actions are text; one of this "
                f"one's spaces is {space}. Make it with action_mode='text'"
            )


def _check_limit(name: str, value: int | None, *, lowest: int) -> None:
    if value is not None and (isinstance(value, bool) or value < lowest):
        raise ConfigError(f"{name}={value!r}: must be at least {lowest}, or None for no limit")
