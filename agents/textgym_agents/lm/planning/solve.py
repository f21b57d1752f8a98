"""One method on a set of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.planning.answers import Answer, Rules
from textgym_agents.lm.planning.baselines import beam_search, best_of_n, draws_of, greedy
from textgym_agents.lm.planning.config import BeamConfig, BestOfNConfig, MctsConfig, SearchConfig
from textgym_agents.lm.planning.mcts import tree_search
from textgym_agents.lm.planning.states import StateReader
from textgym_agents.lm.planning.worth import WorthSource


class Solved(NamedTuple):
    """The answer to a prompt and its price."""

    answer: Answer
    num_tokens: int
    """Tokens that the network read, those of the prompt included."""


def solve(
    network: PolicyValueNetwork,
    prompts: Sequence[Sequence[int]],
    judge: WorthSource,
    config: SearchConfig,
    *,
    max_new_tokens: Sequence[int],
    gamma: float = 1.0,
    seed: int = 0,
    prompt_numbers: Sequence[int] | None = None,
    max_rows: int = 256,
) -> list[Solved]:
    """Return an answer for each prompt.

    Args:
        network: policy and value head.
        prompts: token ids; none may be empty.
        judge: says what a finished completion is worth; `State.problem` is the place of its prompt.
        config: of the method.
        max_new_tokens: limit per prompt, at least 1; the end token counts.
        gamma: discount per token, that of the value head.
        seed: of samples; nothing else is random.
        prompt_numbers: from which the random numbers of each prompt are derived; None are their
            places.
        max_rows: states in one forward pass at most.
    """
    temperature = network.temperature
    num_actions = 1
    if isinstance(config, MctsConfig):
        num_actions, temperature = config.actions, temperature * config.prior_temperature
    elif isinstance(config, BestOfNConfig):
        temperature *= config.temperature
    elif isinstance(config, BeamConfig):
        num_actions = config.budget
    reader = StateReader(
        network, num_actions=num_actions, temperature=temperature, max_rows=max_rows
    )
    rules = Rules(network.stop_ids, max_new_tokens)
    answers: list[Answer]
    if isinstance(config, BestOfNConfig):
        numbers = range(len(prompts)) if prompt_numbers is None else prompt_numbers
        uniform = [
            draws_of(seed, number, config.budget, longest)
            for number, longest in zip(numbers, max_new_tokens, strict=True)
        ]
        states = reader.begin(prompts, np.stack([each[:, 0] for each in uniform]))
        answers = best_of_n(reader, states, rules, judge, config, uniform)
    elif isinstance(config, MctsConfig):
        states = reader.begin(prompts)
        answers = tree_search(reader, states, rules, judge, config, gamma=gamma)
    elif isinstance(config, BeamConfig):
        answers = beam_search(reader, reader.begin(prompts), rules, judge, config)
    else:
        answers = greedy(reader, reader.begin(prompts), rules, judge)
    return [Solved(answer, spent) for answer, spent in zip(answers, reader.num_tokens, strict=True)]
