"""The rules of `ToyTwoTurn-v0` as tables, and its exact solution.

Ids: 0-5 content, 6 EOS, 7-8 what the environment says between the turns, 9-11 the prompts, 12 pad.
Prompt p is uniform over {0, 1, 2}. Turn 1: content p earns 0.05 and ends; content 3+p earns nothing
and the environment answers 7 (probability 0.75) or 8 (0.25); anything else ends with 0. Turn 2:
after 7, content (p+1) mod 3 earns 1.0; after 8, content (p+2) mod 3 earns 0.5; either way it ends.
So a myopic policy earns 0.05, and a good one must listen to the environment.

A state is (prompt, stage) with stage 0 for turn 1, 1 after a 7 and 2 after an 8: nine states, and
the value of any policy is a sum over them. The discount applies per policy token.
"""

from __future__ import annotations

import numpy as np

from textgym_envs.arrays import Bools, Floats
from textgym_envs.exact.dynamics import Transitions
from textgym_envs.exact.solution import ExactSolution
from textgym_envs.exact.table import TableDynamics

NUM_PROMPTS = 3
NUM_STAGES = 3
NUM_ACTIONS = 7
NUM_COLUMNS = 4
"""Ids of the longest interaction: prompt, turn, answer, turn."""
EOS, FIRST_ANSWER, FIRST_PROMPT, PAD = 6, 7, 9, 12
SYMBOLS = "012345$xyABC_"
"""The text of each id; EOS is also the empty text."""
ANSWER_SHARES = (0.75, 0.25)
"""Probability of the answers 7 and 8."""
BEST_REWARD = 1.0


def _build() -> tuple[Floats, Bools]:
    rewards = np.zeros((NUM_PROMPTS, NUM_STAGES, NUM_ACTIONS))
    continues = np.zeros_like(rewards, dtype=np.bool_)
    for p in range(NUM_PROMPTS):
        rewards[p, 0, p] = 0.05
        continues[p, 0, 3 + p] = True
        rewards[p, 1, (p + 1) % 3] = BEST_REWARD
        rewards[p, 2, (p + 2) % 3] = 0.5
    return rewards, continues


REWARDS, CONTINUES = _build()
"""Both (prompt, stage, action): the reward, and whether the environment answers."""


def states() -> list[tuple[int, ...]]:
    """Return the nine states as ids: the prompt alone, or prompt, first action, answer."""
    return [
        (FIRST_PROMPT + p,) if stage == 0 else (FIRST_PROMPT + p, 3 + p, FIRST_ANSWER + stage - 1)
        for p in range(NUM_PROMPTS)
        for stage in range(NUM_STAGES)
    ]


def exact_solution(gamma: float) -> ExactSolution:
    """Return the values of the dialogue; states in the order of `states()`."""
    listed = states()
    size = len(listed)
    outcomes = (size, NUM_ACTIONS, len(ANSWER_SHARES))
    next_states = np.full(outcomes, size)
    for p, stage, action in zip(*np.nonzero(CONTINUES), strict=True):
        first = p * NUM_STAGES
        next_states[first + stage, action] = (first + 1, first + 2)
    initial = np.zeros(size)
    initial[::NUM_STAGES] = 1 / NUM_PROMPTS
    transitions = Transitions(
        next_states,
        np.broadcast_to(ANSWER_SHARES, outcomes),
        np.broadcast_to(REWARDS.reshape(size, NUM_ACTIONS, 1), outcomes),
        initial,
    )
    shown = np.full((size, NUM_COLUMNS), PAD)
    for row, ids in zip(shown, listed, strict=True):
        row[: len(ids)] = ids
    blocks = [slice(stage, size, NUM_STAGES) for stage in range(NUM_STAGES)]
    return ExactSolution(
        TableDynamics(transitions, blocks, shown),
        gamma,
        symbols=["" if i in (EOS, PAD) else symbol for i, symbol in enumerate(SYMBOLS)],
        turn_length=1,
    )
