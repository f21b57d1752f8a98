"""A language model's policy in an exactly solvable environment, and what it is worth, computed.

The environment solves its token mode; the model plays its text mode, in tokens of its own. Where
the model may write nothing but the environment's actions, one token each, the two are the same
decision process, and the exact value of the model's probabilities is the mean of its rollouts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import gymnasium
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase as Tokenizer

from textgym.errors import ConfigError
from textgym_agents.env_source import exact_solution_of
from textgym_agents.lm.config import EnvConfig
from textgym_agents.lm.envs import make_envs
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.policy_files import load_tokenizer

AnyEnv: TypeAlias = gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any]
Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
MAX_LOGITS = 1 << 24
MAX_ROWS = 1024


class Solution(Protocol):
    """What is asked of an environment's `exact_solution()`."""

    num_states: int
    num_actions: int
    symbols: tuple[str, ...]
    """What each id of the observations is in text mode, those of actions first; the end token and
    padding are the empty text."""
    turn_length: int
    """Actions of one turn at most."""

    @property
    def initial(self) -> Floats:
        """Probability of beginning an episode in each state."""
        ...

    @property
    def optimal_value(self) -> float:
        """The expected return of the best policy."""
        ...

    def observations(self, rows: slice = ...) -> Ints:
        """Return what token mode shows in these states, all by default (n, length)."""
        ...

    def value(self, policy: Floats) -> float:
        """Return the expected return of probabilities (num_states, num_actions)."""
        ...


class SymbolIds:
    """The ids that token mode shows, in the tokens of a model.

    Args:
        symbols: the text of each id; see `Solution.symbols`.
        num_actions: how many of them are actions.
        tokenizer: the model's.

    Raises:
        ConfigError: an action is not one token of its own.
    """

    def __init__(self, symbols: Sequence[str], num_actions: int, tokenizer: Tokenizer) -> None:
        self._symbols, self._tokenizer = symbols, tokenizer
        self._ids = [encode(tokenizer, symbol) for symbol in symbols]
        for action, symbol in enumerate(symbols[:num_actions]):
            if not symbol:
                self._ids[action] = [tokenizer.eos_token_id]
        actions = self._ids[:num_actions]
        if any(len(ids) != 1 for ids in actions) or len({i for (i,) in actions}) < num_actions:
            written = dict(zip(symbols, actions, strict=False))
            raise ConfigError(
                f"the model's tokenizer does not give each action one token of its own: {written}"
            )
        self.actions: tuple[int, ...] = tuple(i for (i,) in actions)
        """The model's id of each action."""
        self.longest = max(map(len, self._ids))
        """Tokens of the longest symbol."""

    def read(self, observations: Ints) -> list[list[int]]:
        """Return the model's ids of what token mode shows (n, length)."""
        return [[t for i in row for t in self._ids[i]] for row in observations.tolist()]

    def check_prompts(self, prompts: Ints) -> None:
        """Check that the text of prompts, as token mode shows them (n, length), reads the same.

        Raises:
            ConfigError: the tokenizer joins symbols.
        """
        for row, ids in zip(prompts.tolist(), self.read(prompts), strict=True):
            text = "".join(self._symbols[i] for i in row)
            joined = encode(self._tokenizer, text)
            if joined != ids:
                raise ConfigError(
                    f"the model's tokenizer reads the prompt {text!r} as {joined}, and symbol by "
                    f"symbol as {ids}"
                )


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids of a text as it is."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


class ExactTask(NamedTuple):
    """An environment that is solved, and its symbols in the tokens of a model."""

    solution: Solution
    symbols: SymbolIds

    @classmethod
    def of(cls, env: AnyEnv, tokenizer: Tokenizer) -> ExactTask:
        """Solve an environment, undiscounted.

        Raises:
            ConfigError: it has no exact solution or too many states, or the tokenizer does not fit.
        """
        solution = exact_solution_of(env)
        if solution is None:
            raise ConfigError(f"{env} has no exact solution")
        symbols = SymbolIds(solution.symbols, solution.num_actions, tokenizer)
        starts = np.flatnonzero(solution.initial)
        symbols.check_prompts(solution.observations(slice(0, int(starts[-1]) + 1))[starts])
        return cls(solution, symbols)

    def limits(self) -> dict[str, Any]:
        """Return the fields of a configuration under which rollouts are those of token mode."""
        num_symbols = self.solution.observations(slice(0, 1)).shape[1]
        return {
            "policy": {"legal_ids": list(self.symbols.actions)},
            "rollout": {
                "max_new_tokens": self.solution.turn_length,
                "max_length": num_symbols * self.symbols.longest,
            },
        }

    def metrics(self, network: PolicyValueNetwork) -> dict[str, float]:
        """Return what the policy is worth, sampled at its temperature and greedily."""
        solution = self.solution
        sampled = action_probabilities(network, self.symbols, solution.observations())
        greedy = np.eye(solution.num_actions)[sampled.argmax(axis=1)]
        found = {"sampled": solution.value(sampled), "greedy": solution.value(greedy)}
        optimum = solution.optimal_value
        return {
            "evaluation/optimum": optimum,
            **{f"evaluation/exact_{name}": value for name, value in found.items()},
            **{
                f"evaluation/share_{name}": value / optimum if optimum else math.nan
                for name, value in found.items()
            },
        }


def limits_for(env: EnvConfig, model: str) -> dict[str, Any]:
    """Return `ExactTask.limits` of an environment and a model by name, for a new configuration."""
    envs = make_envs(env, 1)
    try:
        return ExactTask.of(envs, load_tokenizer(model)).limits()
    finally:
        envs.close()


@torch.no_grad()
def action_probabilities(
    network: PolicyValueNetwork, symbols: SymbolIds, observations: Ints
) -> Floats:
    """Return the probabilities (n, num_actions) of sampling, given that an action is sampled."""
    actions = torch.tensor(symbols.actions, device=network.device)
    found = np.empty((len(observations), len(actions)))
    contexts = symbols.read(observations)
    for rows in _batches([len(ids) for ids in contexts], network.head_weight.shape[0]):
        ids = torch.tensor([contexts[row] for row in rows], device=network.device)
        logits = network.next_logits(network.hidden_states(ids)[:, -1])
        found[rows] = logits[:, actions].double().softmax(-1).cpu().numpy()
    return found


def _batches(lengths: list[int], vocabulary: int) -> Iterator[Ints]:
    """Yield rows of equal length, as many as their logits allow."""
    of = np.array(lengths)
    size = min(MAX_ROWS, max(1, MAX_LOGITS // vocabulary))
    for length in np.unique(of):
        rows = np.flatnonzero(of == length)
        for start in range(0, len(rows), size):
            yield rows[start : start + size]
