"""`ExactSolution`: the numbers that a trainer is held against.

Everything is exact up to rounding: nothing is sampled and nothing is iterated. A value is the
expected sum of rewards, discounted by `gamma` per action of the policy.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from textgym.errors import ConfigError, MissingExtraError
from textgym_envs.arrays import Floats, Ints
from textgym_envs.exact.dynamics import (
    Dynamics,
    Transitions,
    evaluate,
    row_max,
    sweep_back,
    sweep_forward,
)
from textgym_envs.exact.policies import Policy, policy_rows
from textgym_envs.exact.soft import SoftOptimum, soft_optimum

if TYPE_CHECKING:
    from torch import Tensor

    from textgym_envs.exact.gradient import TorchPolicy

_EVERY = slice(None)


class ExactSolution:
    """The solved MDP of an environment, by `env.unwrapped.exact_solution(gamma)`.

    Arrays by state have `num_states` rows, in one order for all; `observations` shows what a state
    looks like in token mode, and `find` is its inverse. A policy is an array of probabilities
    (num_states, num_actions), or a function from observations (k, length) to probabilities
    (k, num_actions).

    Args:
        dynamics: the MDP.
        gamma: discount per action.
        symbols: what each id of the observations is in text mode. The ids of actions come first;
            the end token and padding are the empty text.
        turn_length: actions after which a turn of text mode is cut off.
    """

    def __init__(
        self, dynamics: Dynamics, gamma: float = 1.0, *, symbols: Sequence[str], turn_length: int
    ) -> None:
        if not 0 <= gamma <= 1:
            raise ConfigError(f"gamma={gamma} is not between 0 and 1")
        self.gamma = gamma
        self.num_states, self.num_actions = dynamics.num_states, dynamics.num_actions
        self.symbols, self.turn_length = tuple(symbols), turn_length
        self._dynamics = dynamics
        self.initial = dynamics.initial()
        """Probability of beginning an episode in each state; shape (num_states,)."""

    def observations(self, rows: slice = _EVERY) -> Ints:
        """Return what token mode shows in the states of `rows`; all by default."""
        return self._dynamics.observations(rows)

    def find(self, observations: Ints) -> Ints:
        """Return the states (n,) of observations (n, length).

        -1 where no policy acts: after the end of an episode, or what the environment never shows.
        """
        given = np.asarray(observations, dtype=np.int64)
        length = self.observations(slice(0, 1)).shape[1]
        if given.ndim != 2 or given.shape[1] != length:
            raise ConfigError(f"observations have the shape (n, {length}), got {given.shape}")
        return self._dynamics.find(given)

    def transitions(self) -> Transitions:
        """Return the MDP as arrays, for whoever wants to solve it in another way."""
        return self._dynamics.transitions()

    @functools.cached_property
    def optimal_values(self) -> Floats:
        """V*(s), the most that can be expected from each state on."""
        return sweep_back(self._dynamics, self.gamma, lambda rows, q: row_max(q))

    @property
    def optimal_value(self) -> float:
        """The value of the best policy before the prompt is drawn."""
        return self._start(self.optimal_values)

    def optimal_q_values(self) -> Floats:
        """Return Q*(s, a)."""
        return self._q_values(self.optimal_values)

    def optimal_actions(self) -> Ints:
        """Return a best action of each state: the first, where several are."""
        actions = np.empty(self.num_states, dtype=np.int64)
        for rows in self._dynamics.blocks:
            q = self._dynamics.backup(rows, self.optimal_values, self.gamma)
            actions[rows] = q.argmax(axis=1)
        return actions

    def value(self, policy: Policy) -> float:
        """Return J(pi), the value of a policy before the prompt is drawn."""
        return self._start(self.values(policy))

    def values(self, policy: Policy) -> Floats:
        """Return V^pi(s)."""
        return evaluate(self._dynamics, self.gamma, policy_rows(policy, self._dynamics))

    def q_values(self, policy: Policy) -> Floats:
        """Return Q^pi(s, a)."""
        return self._q_values(self.values(policy))

    def advantages(self, policy: Policy) -> Floats:
        """Return Q^pi(s, a) - V^pi(s)."""
        values = self.values(policy)
        return self._q_values(values) - values[:, None]

    def visits(self, policy: Policy, *, discounted: bool = False) -> Floats:
        """Return how often an episode is expected to act in each state; at most once, here.

        The sum is the expected number of actions. With `discounted` a visit after t actions counts
        gamma ** t: the weights of the states in the policy gradient.
        """
        gamma = self.gamma if discounted else 1.0
        rows = policy_rows(policy, self._dynamics)
        return sweep_forward(self._dynamics, gamma, rows, self.initial)

    def soft_optimum(self, beta: float, reference: Policy | None = None) -> SoftOptimum:
        """Return the optimum of reward minus `beta` times the KL divergence from a reference.

        Args:
            beta: nats cost this much.
            reference: the policy to stay close to; None is the uniform one.
        """
        uniform = np.full(self.num_actions, 1 / self.num_actions)
        given = (lambda x: np.tile(uniform, (len(x), 1))) if reference is None else reference
        rows = policy_rows(given, self._dynamics)
        return soft_optimum(self._dynamics, self.gamma, beta, rows)

    def torch_value(self, policy: TorchPolicy) -> Tensor:
        """Return J(pi) as a scalar tensor whose backward pass is the exact policy gradient.

        Args:
            policy: a tensor of probabilities (num_states, num_actions), or a function from ids
                (num_states, length) to one, such as `lambda ids: network(ids).softmax(-1)`.
        """
        values = self.torch_values(policy)
        return values.new_tensor(self.initial) @ values

    def torch_values(self, policy: TorchPolicy) -> Tensor:
        """Return V^pi as a tensor (num_states,) that carries its exact gradient; see `torch_value`.

        Raises:
            MissingExtraError: torch is not installed.
        """
        try:
            from textgym_envs.exact.gradient import policy_values
        except ModuleNotFoundError as error:
            raise MissingExtraError("torch", "agents", "the exact policy gradient") from error
        return policy_values(self._dynamics, self.gamma, policy)

    def _start(self, values: Floats) -> float:
        return float(self.initial @ values)

    def _q_values(self, values: Floats) -> Floats:
        q = np.empty((self.num_states, self.num_actions))
        for rows in self._dynamics.blocks:
            q[rows] = self._dynamics.backup(rows, values, self.gamma)
        return q
