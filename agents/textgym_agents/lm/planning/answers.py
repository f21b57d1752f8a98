"""What a method is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from textgym_agents.lm.planning.states import State
from textgym_agents.lm.planning.worth import Finished, Worth


class Answer(NamedTuple):
    """The completion that a method chose for a prompt."""

    finished: Finished
    worth: Worth
    """As the method saw it."""
    num_finished: int
    """Different completions it had to choose from."""


class Rules(NamedTuple):
    """How completions end."""

    stop_ids: frozenset[int]
    limits: Sequence[int]
    """Most tokens of each problem's completion, the end token included."""

    def finish(self, state: State, token: int) -> Finished | None:
        """Return the completion that a token finishes, or None if it goes on."""
        if token in self.stop_ids:
            return Finished(state, token, "stop")
        if len(state.ids) + 1 >= self.limits[state.problem]:
            return Finished(state, token, "length")
        return None
