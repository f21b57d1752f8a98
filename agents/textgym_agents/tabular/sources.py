"""Where a process comes from: the table of an environment, or every move in it.

Gymnasium's toy-text environments carry their table as `P`, the toy text ones theirs in
`exact_solution()`. Other text environments have none, but they can be put into any state
(`get_state`, `set_state`), so every action is tried in every state that occurs, from every prompt;
all prompts are taken as equally likely. What an agent sees is the state: two states that look the
same must behave the same, and it is an error where they do not.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Hashable
from typing import Any, Protocol

import gymnasium
import numpy as np

from textgym.errors import ConfigError
from textgym_agents.env_source import EnvSource, opened
from textgym_agents.tabular.arrays import Floats, Ints
from textgym_agents.tabular.mdp import TabularMDP
from textgym_agents.tabular.states import action_count, check_observations, observation_key
from textgym_agents.tabular.successors import Outcome, SuccessorTable

MAX_STATES = 1_000_000
NUM_CHECKS = 16
"""Prompts that are played again under other seeds to see whether chance decides."""
_END = -1
_Outcome = tuple[int, float]
"""Next state, or `_END`, and reward."""


def mdp_of(
    env: EnvSource, *, gamma: float, max_states: int = MAX_STATES, num_samples: int = 1
) -> TabularMDP:
    """Return the process that an environment plays.

    Args:
        env: an environment with a table `P`, with `exact_solution`, or with `get_state` and
            `set_state`; actions Discrete, and observations that a table can have as keys.
        gamma: the discount.
        max_states: give up beyond this many.
        num_samples: episodes by which chance is measured where an environment without a table
            draws: 1 demands that nothing is left to chance.

    Raises:
        ConfigError: the environment cannot be read as a table; the message says why.
    """
    with opened(env) as game:
        core = game.unwrapped
        action_count(core.action_space)
        check_observations(core.observation_space)
        if getattr(core, "P", None) is not None:
            return _from_table(core, gamma)
        if hasattr(core, "exact_solution"):
            return _from_solution(core.exact_solution(), gamma, max_states, _name(core))
        if hasattr(core, "get_state") and hasattr(core, "set_state"):
            return enumerate_mdp(core, gamma=gamma, max_states=max_states, num_samples=num_samples)
    raise ConfigError(
        f"{_name(core)} has neither a transition table (P) nor get_state and set_state to make one "
        "from; take an agent that learns from experience, such as q_learning"
    )


def _from_table(core: gymnasium.Env[Any, Any], gamma: float) -> TabularMDP:
    table = SuccessorTable.from_gymnasium(core.P, name=f"the table of {_name(core)}")  # type: ignore[attr-defined]  # checked by the caller
    initial = getattr(core, "initial_state_distrib", None)
    if initial is None:
        raise ConfigError(f"{_name(core)} has a table P but no initial_state_distrib")
    initial = np.asarray(initial, dtype=np.float64)
    if len(initial) != len(core.P):  # type: ignore[attr-defined]  # as above
        raise ConfigError(f"{_name(core)}: {len(initial)} initial probabilities do not fit P")
    try:
        return TabularMDP.from_successors(table, gamma=gamma, initial=initial)
    except ConfigError as error:
        raise ConfigError(f"the table P of {_name(core)}: {error}") from None


def _from_solution(solution: _Tabulated, gamma: float, max_states: int, name: str) -> TabularMDP:
    """Read the table of a toy text environment, in which the state S is the end."""
    after, probabilities, rewards, initial = solution.transitions()
    num_states = len(initial)
    if num_states > max_states:
        raise ConfigError(_too_large(name, max_states))
    by_action = (1, 0, 2)
    shape = -1, after.shape[2]
    after = after.transpose(by_action).reshape(shape)
    is_end = after == num_states
    table = SuccessorTable(
        probabilities.transpose(by_action).reshape(shape),
        np.where(is_end, 0, after).astype(np.int32),
        rewards.transpose(by_action).reshape(shape),
        is_end,
    )
    keys = [tuple(row) for row in solution.observations().tolist()]
    return TabularMDP.from_successors(table, gamma=gamma, initial=initial, observations=keys)


def _too_large(name: str, max_states: int) -> str:
    return (
        f"{name} has more than {max_states} states; allow more with max_states, or make the "
        "environment smaller"
    )


def enumerate_mdp(
    core: gymnasium.Env[Any, Any], *, gamma: float, max_states: int, num_samples: int = 1
) -> TabularMDP:
    """Return the process of an environment that can be put into any state, by trying every move."""
    if num_samples < 1:
        raise ConfigError(f"num_samples is {num_samples}; it must be a positive integer")
    moves = _Moves(action_count(core.action_space), max_states, _name(core))
    num_prompts = int(getattr(core, "num_prompts", 1))
    plays = [(seed, prompt) for seed in range(num_samples) for prompt in range(num_prompts)]
    for play in plays:
        first = moves.explore(core, *play)
        moves.firsts[first] = moves.firsts.get(first, 0) + 1
    if num_samples == 1:
        for seed in range(1, NUM_CHECKS + 1):  # again under other seeds: is it the same game?
            moves.explore(core, seed, seed % num_prompts)
        moves.check_certain()
    return moves.mdp(gamma)


class _Tabulated(Protocol):
    """What the toy text environments know of themselves."""

    def transitions(self) -> tuple[Ints, Floats, Floats, Floats]:
        """Return next states, probabilities and rewards (S, A, K), and the first states (S,)."""
        ...

    def observations(self) -> Ints:
        """Return what is seen in each state, shape (S, L)."""
        ...


class _Moves:
    """What has been tried: numbers of observations, and what came of each action.

    The first outcome of a move is in flat arrays, a few bytes a move; the others, which only chance
    can bring, are in a dictionary.
    """

    def __init__(self, num_actions: int, max_states: int, name: str) -> None:
        self.num_actions, self.max_states, self.name = num_actions, max_states, name
        self.numbers: dict[Hashable, int] = {}
        self.firsts: dict[int, int] = {}
        self._after, self._reward = array("i"), array("d")
        self._visits = array("i")
        self._others: dict[int, dict[_Outcome, int]] = {}

    def number(self, observation: Any) -> int:
        """Return the state of an observation, a new one if it was never seen."""
        key = observation_key(observation)
        found = self.numbers.get(key)
        if found is not None:
            return found
        if len(self.numbers) >= self.max_states:
            raise ConfigError(_too_large(self.name, self.max_states))
        self.numbers[key] = state = len(self.numbers)
        self._after.extend([_END] * self.num_actions)
        self._reward.extend([0.0] * self.num_actions)
        self._visits.extend([0] * self.num_actions)
        return state

    def explore(self, core: Any, seed: int, prompt: int) -> int:
        """Try every action in every state that follows a prompt; return the first state."""
        options = {"prompt_index": prompt} if hasattr(core, "num_prompts") else None
        first = self.number(core.reset(seed=seed, options=options)[0])
        queue = deque([(first, core.get_state())])
        seen = {queue[0][1]}
        while queue:
            state, place = queue.popleft()
            for action in range(self.num_actions):
                core.set_state(place)
                observation, reward, terminated, truncated, info = core.step(action)
                if info.get("status", "scored") == "failed":
                    raise ConfigError(
                        f"{self.name}: the reward failed after state {state}, action {action}: "
                        f"{info.get('verifier_error', '')}"
                    )
                is_over = bool(terminated or truncated)
                after = _END if is_over else self.number(observation)
                self._note(state * self.num_actions + action, after, float(reward))
                if not is_over:
                    next_place = core.get_state()
                    if next_place not in seen:
                        seen.add(next_place)
                        queue.append((after, next_place))
        return first

    def _note(self, move: int, after: int, reward: float) -> None:
        if not self._visits[move]:
            self._after[move], self._reward[move] = after, reward
        elif (self._after[move], self._reward[move]) != (after, reward):
            counts = self._others.setdefault(move, {})
            counts[after, reward] = counts.get((after, reward), 0) + 1
        self._visits[move] += 1

    def check_certain(self) -> None:
        """Raise where one move had two outcomes."""
        for move, counts in self._others.items():
            state, action = divmod(move, self.num_actions)
            outcomes = [(self._after[move], self._reward[move]), *counts]
            raise ConfigError(
                f"{self.name}: state {state}, action {action} has several outcomes (next state or "
                f"{_END} for the end, reward): {outcomes}. Chance decides, or two states look the "
                "same. Set num_samples to measure the probabilities."
            )

    def mdp(self, gamma: float) -> TabularMDP:
        """Return the process, with shares of the samples as probabilities."""
        initial = np.zeros(len(self.numbers))
        initial[list(self.firsts)] = list(self.firsts.values())
        return TabularMDP.from_successors(
            self._sampled() if self._others else self._certain(),
            gamma=gamma,
            initial=initial / initial.sum(),
            observations=list(self.numbers),
        )

    def _certain(self) -> SuccessorTable:
        shape = len(self.numbers), self.num_actions
        after = np.array(self._after, np.int32).reshape(shape).T.reshape(-1, 1)
        rewards = np.array(self._reward).reshape(shape).T.reshape(-1, 1)
        return SuccessorTable(np.ones(after.shape), np.maximum(after, 0), rewards, after == _END)

    def _sampled(self) -> SuccessorTable:
        moves = np.arange(len(self._after)).reshape(-1, self.num_actions).T.reshape(-1)
        return SuccessorTable.from_outcomes([self._shares(move) for move in moves.tolist()])

    def _shares(self, move: int) -> list[Outcome]:
        others = self._others.get(move, {})
        counts = {(self._after[move], self._reward[move]): self._visits[move]}
        counts = {key: n - sum(others.values()) for key, n in counts.items()} | others
        visits = self._visits[move]
        return [(n / visits, max(s, 0), r, s == _END) for (s, r), n in counts.items()]


def _name(core: gymnasium.Env[Any, Any]) -> str:
    return core.spec.id if core.spec is not None else type(core).__name__
