"""What the policy answered: `Completion` on its way into an environment, `Sample` into a reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from textgym.prompt import Message, Prompt

FinishReason = Literal["stop", "length", "stop_string", "abort"]


class Completion(str):
    """A completion as text that carries the ids it was sampled as.

    It is an ordinary `str` to spaces and wrappers, so it can be the action of a text-mode
    environment; a reward sees the sampled ids and the engine's finish reason, and nothing is ever
    encoded a second time (BPE round trips are not the identity).
    """

    token_ids: tuple[int, ...]
    finish_reason: FinishReason

    __slots__ = ("finish_reason", "token_ids")

    def __new__(
        cls, text: str, *, token_ids: Sequence[int] = (), finish_reason: FinishReason = "stop"
    ) -> Completion:
        """Attach the sampled `token_ids` (end token included) and the `finish_reason` to a text."""
        self = super().__new__(cls, text)
        self.token_ids = tuple(token_ids)
        self.finish_reason = finish_reason
        return self

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, object]]:
        """Pickle the three parts."""
        return (str(self),), {"token_ids": self.token_ids, "finish_reason": self.finish_reason}


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt and one completion: all that a reward may look at."""

    prompt: Prompt
    completion: str
    token_ids: tuple[int, ...] | None = None
    """The ids that were sampled, end token included; None when only the text is known."""
    finish_reason: FinishReason = "stop"
    turns: tuple[Message, ...] = ()
    """The conversation after the prompt, when the episode had more than one turn."""
