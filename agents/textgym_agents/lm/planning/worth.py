"""What a finished completion is worth to a search.

With `value` only the value head is asked, as when nobody knows the right answer. A completion that
ended is worth V of the state in which it was ended: the state behind the end token is one that the
value head was never trained on. One that was cut off is worth 0 at most, as in TextGen-v0.

With a reward, the environment scores the completion. Where that is a verifier, the search knows the
target: right for making training data, cheating as a measure of what a deployed policy can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from textgym.errors import ConfigError
from textgym.sample import Completion, FinishReason
from textgym_agents.lm.config import EnvConfig
from textgym_agents.lm.envs import make_envs
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.planning.states import State
from textgym_agents.lm.texts import decode


class Finished(NamedTuple):
    """A completion that has come to its end."""

    state: State
    """Before the last token."""
    token: int
    finish_reason: FinishReason

    @property
    def ids(self) -> tuple[int, ...]:
        """All tokens, the end token included."""
        return (*self.state.ids, self.token)


class Worth(NamedTuple):
    """What a finished completion is worth."""

    value: float
    is_known: bool = False
    """Whether a reward said so; if not, it is the value head's guess."""
    is_success: bool = False
    """Whether the reward cannot be higher."""

    def rank(self, cost: float) -> tuple[bool, float]:
        """Return what completions are compared by: rewards before guesses, which cost nats."""
        return self.is_known, self.value if self.is_known else self.value + cost


class WorthSource(Protocol):
    """Says what completions are worth."""

    is_exact: bool
    """Whether what it says cannot change, so that no completion has to be tried twice."""

    def __call__(self, finished: Sequence[Finished]) -> list[Worth]:
        """Return the worth of each completion."""
        ...


class ValueWorth:
    """Asks the value head."""

    is_exact = False

    def __call__(self, finished: Sequence[Finished]) -> list[Worth]:
        """Return V of the state in which a completion was ended; at most 0 if it was cut off."""
        return [
            Worth(f.state.value if f.finish_reason == "stop" else min(f.state.value, 0.0))
            for f in finished
        ]


class RewardWorth:
    """Asks the reward of an environment; what it could not judge is worth what V says.

    Args:
        judge: of the problems' completions.
        first: the judge's number of the search's first problem.
    """

    is_exact = True

    def __init__(self, judge: Judge, *, first: int = 0) -> None:
        self.judge, self.first = judge, first
        self._guess = ValueWorth()

    def __call__(self, finished: Sequence[Finished]) -> list[Worth]:
        """Return the score of each completion."""
        guesses = self._guess(finished)
        verdicts = self.judge(
            [(self.first + f.state.problem, f.ids, f.finish_reason) for f in finished]
        )
        return [
            guess if verdict.failure else Worth(verdict.reward, True, bool(verdict.is_success))
            for guess, verdict in zip(guesses, verdicts, strict=True)
        ]


class Verdict(NamedTuple):
    """What an environment said of a completion."""

    text: str
    reward: float
    """The return of the episode."""
    is_success: bool | None
    """None where no reward tells success from failure."""
    failure: str
    """Why there is no reward; empty where there is one."""


Attempt = tuple[int, tuple[int, ...], FinishReason]
"""Problem, token ids and how they ended."""


class Judge:
    """Plays completions in the text mode of an environment, and remembers what came of them.

    Args:
        env: the environment; every prompt of it must have a number and take one completion.
        network: decodes completions.
        seed: of the environment.
        indices: the number of each problem's prompt.

    Raises:
        ConfigError: the environment is none of that kind.
    """

    def __init__(
        self,
        env: EnvConfig,
        network: PolicyValueNetwork,
        *,
        seed: int,
        indices: Sequence[int],
        **arguments: Any,
    ) -> None:
        self._env, self._network, self._seed, self._indices = env, network, seed, list(indices)
        self._arguments = arguments
        self._open = make_envs(env, 1, **arguments)  # keeps its world alive
        self._known: dict[tuple[int, tuple[int, ...]], Verdict] = {}

    def __call__(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        """Return what the environment says of each completion."""
        new = list(dict.fromkeys(a for a in attempts if a[:2] not in self._known))
        if new:
            for attempt, verdict in zip(new, self._play(new), strict=True):
                self._known[attempt[:2]] = verdict
        return [self._known[attempt[:2]] for attempt in attempts]

    def _play(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        envs = make_envs(self._env, len(attempts), **self._arguments)
        try:
            envs.reset(
                seed=self._seed,
                options={"prompt_index": [self._indices[problem] for problem, _, _ in attempts]},
            )
            actions = [self._completion(ids, reason) for _, ids, reason in attempts]
            _, rewards, terminated, truncated, infos = envs.step(actions)
        finally:
            envs.close()
        if not (terminated | truncated).all():
            raise ConfigError(
                f"env.id: {self._env.id} goes on after a completion; planning searches for one "
                "completion of a prompt"
            )
        return [
            Verdict(str(action), float(rewards[i]), *_status(infos, i))
            for i, action in enumerate(actions)
        ]

    def _completion(self, ids: tuple[int, ...], finish_reason: FinishReason) -> Completion:
        text = decode(self._network, ids[:-1] if finish_reason == "stop" else ids)
        return Completion(text, token_ids=ids, finish_reason=finish_reason)

    def close(self) -> None:
        """Give up the environment."""
        self._open.close()


def _status(infos: dict[str, Any], i: int) -> tuple[bool | None, str]:
    """Return whether an episode was a success, and why it has no reward."""
    status = str(infos["status"][i]) if "status" in infos else "scored"
    if status != "scored":
        return None, f"{status}: {infos['verifier_error'][i] or infos['reason'][i]}"
    knows = "is_success" in infos and bool(infos["_is_success"][i])
    return (bool(infos["is_success"][i]) if knows else None), ""
