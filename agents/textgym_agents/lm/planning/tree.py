"""The search tree of one prompt: PUCT, virtual loss and backup, in numbers alone.

An edge (s, a) is a token a that is written in state s. It has a visit count N(s, a), a total value
W(s, a) and a prior P(s, a). A simulation goes down from the root by

    a = argmax_a  Q(s, a) + C(s) P(s, a) sqrt(N(s)) / (1 + N(s, a)),
    C(s) = c_init + log((1 + N(s) + c_base) / c_base),        Q(s, a) = W(s, a) / N(s, a),

as AlphaZero does (Silver et al. 2018, Science 362:1140, and its pseudocode), with
N(s) = 1 + sum_a N(s, a), the evaluation of s itself included. An edge without visits has
Q(s, a) = V(s) + cost(s, a), with what the network thinks of s. The simulation's value goes back up
the edges as

    G(s, a) = cost(s, a) + worth of the completion, or + gamma G(s', a'),

where cost(s, a) = w log pi(a | s) is what a search pays for leaving the policy: its objective is
the worth minus w times the nats of the completion. With w = 0 that is AlphaZero's. While a
simulation waits for its evaluation, each edge of its path counts one more visit of value
`virtual_loss`, so that the next simulation of the same batch goes elsewhere (Segal 2010; AlphaGo).

Left out: Dirichlet noise at the root, which is for self-play. A search here is deterministic.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from textgym_agents.lm.planning.states import Floats, State


class Puct(NamedTuple):
    """The constants of the selection."""

    c_init: float = 1.25
    c_base: float = 19652.0
    virtual_loss: float = 0.0
    prior_weight: float = 0.0

    def costs(self, state: State) -> Floats:
        """Return what each action of a state costs, 0 or less."""
        costs: Floats = self.prior_weight * np.log(state.priors)
        return costs

    def scores(self, node: Node) -> Floats:
        """Return what selection maximises, for each action of a node."""
        visits = node.visits + node.pending
        totals = node.totals + node.pending * self.virtual_loss
        q = np.where(visits > 0, totals / np.maximum(visits, 1), node.state.value + node.costs)
        num_visits = 1 + visits.sum()
        c = self.c_init + math.log((1 + num_visits + self.c_base) / self.c_base)
        return q + c * node.state.priors * math.sqrt(num_visits) / (1 + visits)


class Node:
    """A state that was read, and what is known of its actions.

    Args:
        state: the state.
        parent: the edge that leads to it; None for the prompt.
    """

    __slots__ = (
        "children",
        "costs",
        "is_open",
        "parent",
        "pending",
        "state",
        "totals",
        "visits",
        "worth",
    )

    def __init__(self, state: State, costs: Floats, parent: Edge | None = None) -> None:
        n = len(state.actions)
        self.state, self.costs, self.parent = state, costs, parent
        self.visits, self.totals, self.pending = np.zeros(n), np.zeros(n), np.zeros(n)
        self.children: list[Node | None] = [None] * n
        self.worth: dict[int, float] = {}
        """Of the actions that end the completion and were tried."""
        self.is_open = np.ones(n, dtype=np.bool_)
        """False for actions after which nothing is left to be found out."""

    @property
    def best(self) -> int:
        """The action with the most visits; of several the one with the highest mean, the prior."""
        q = self.totals / np.maximum(self.visits, 1)
        return int(np.lexsort((-np.arange(len(q)), q, self.visits))[-1])


class Edge(NamedTuple):
    """An action in a node, by its index."""

    node: Node
    action: int

    @property
    def token(self) -> int:
        """The id that is written."""
        return int(self.node.state.actions[self.action])


def select(root: Node, puct: Puct) -> Edge | None:
    """Go down from the root to an edge that has no node below it, or None if all are closed.

    The edges of the way count as pending until `backup` or `give_up`.
    """
    node = root
    while node.is_open.any():
        scores = np.where(node.is_open, puct.scores(node), -np.inf)
        edge = Edge(node, int(scores.argmax()))
        node.pending[edge.action] += 1
        child = node.children[edge.action]
        if child is None:
            return edge
        node = child
    return None


def backup(edge: Edge, value: float, gamma: float, root: Node) -> None:
    """Add the value of an edge to all edges from it up to the root, which stop to be pending.

    Args:
        edge: the last edge of the simulation.
        value: reward of the edge plus gamma times the value of the state behind it.
        gamma: discount per token.
        root: where the simulation began.
    """
    step: Edge | None = edge
    while step is not None:
        value += step.node.costs[step.action]
        step.node.pending[step.action] -= 1
        step.node.visits[step.action] += 1
        step.node.totals[step.action] += value
        value *= gamma
        step = None if step.node is root else step.node.parent


def give_up(edge: Edge, root: Node) -> None:
    """Take back a simulation that was not evaluated."""
    step: Edge | None = edge
    while step is not None:
        step.node.pending[step.action] -= 1
        step = None if step.node is root else step.node.parent


def close(edge: Edge) -> None:
    """Mark an edge, and all above it behind which nothing is open, as known for good."""
    step: Edge | None = edge
    while step is not None:
        step.node.is_open[step.action] = False
        step = step.node.parent if not step.node.is_open.any() else None
