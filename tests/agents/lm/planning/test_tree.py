"""PUCT by hand: selection, virtual loss, backup and what is closed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from textgym_agents.lm.planning.states import State
from textgym_agents.lm.planning.tree import Edge, Node, Puct, backup, close, give_up, select


def state(value: float, *priors: float, ids: tuple[int, ...] = ()) -> State:
    actions = np.arange(len(priors))
    return State(0, ids, value, actions, np.array(priors), [], [], np.empty(0, dtype=np.int64))


def node(puct: Puct, value: float, *priors: float, parent: Edge | None = None) -> Node:
    made = state(value, *priors)
    return Node(made, puct.costs(made), parent)


def visit(root: Node, action: int, value: float) -> None:
    root.pending[action] += 1
    backup(Edge(root, action), value, 1.0, root)


def test_scores_are_those_of_the_formula() -> None:
    puct = Puct(c_init=2.0, c_base=1.0)
    root = node(puct, 0.5, 0.6, 0.3, 0.1)
    for action, value in ((0, 1.0), (0, 0.0), (1, 0.25)):
        visit(root, action, value)
    # N(s) = 1 + 2 + 1 = 4, C(s) = 2 + log((1 + 4 + 1) / 1); Q = 1/2, 1/4, and V(s) where N = 0
    c = 2 + math.log(6)
    expected = [0.5 + c * 0.6 * 2 / 3, 0.25 + c * 0.3 * 2 / 2, 0.5 + c * 0.1 * 2 / 1]
    assert puct.scores(root) == pytest.approx(expected)
    assert select(root, puct) == Edge(root, int(np.argmax(expected)))


def test_a_waiting_simulation_counts_as_a_loss() -> None:
    puct = Puct(c_init=1.0, c_base=1e12, virtual_loss=-1.0)
    root = node(puct, 0.5, 0.5, 0.5)
    visit(root, 0, 1.0)
    first = select(root, puct)
    # action 0: Q = 1, U = 0.5 sqrt(2) / 2; action 1: Q = V = 0.5, U = 0.5 sqrt(2)
    assert first == Edge(root, 0)
    # now N = 2 with one of them pending: Q = (1 - 1) / 2 = 0, U = 0.5 sqrt(3) / 3
    assert puct.scores(root) == pytest.approx([0.5 * math.sqrt(3) / 3, 0.5 + 0.5 * math.sqrt(3)])
    assert select(root, puct) == Edge(root, 1)
    give_up(Edge(root, 1), root)
    assert root.pending.tolist() == [1, 0]
    backup(Edge(root, 0), 0.0, 1.0, root)
    assert root.pending.tolist() == [0, 0]
    assert root.visits.tolist() == [2, 0]
    assert root.totals.tolist() == [1, 0]


def test_backup_discounts_per_token_and_charges_nats() -> None:
    puct = Puct(prior_weight=0.5)
    root = node(puct, 0.0, 0.25, 0.75)
    child = node(puct, 0.0, 0.5, 0.5, parent=Edge(root, 1))
    root.children[1] = child
    root.pending[1] = child.pending[0] = 1
    backup(Edge(child, 0), 1.0, 0.9, root)
    at_child = 1.0 + 0.5 * math.log(0.5)
    assert child.totals[0] == pytest.approx(at_child)
    assert root.totals[1] == pytest.approx(0.9 * at_child + 0.5 * math.log(0.75))
    assert root.totals[0] == 0


def test_backup_ends_at_the_root_of_the_search() -> None:
    puct = Puct()
    top = node(puct, 0.0, 1.0)
    root = node(puct, 0.0, 1.0, parent=Edge(top, 0))
    top.children[0] = root
    assert select(root, puct) == Edge(root, 0)
    backup(Edge(root, 0), 1.0, 1.0, root)
    assert top.visits.tolist() == top.pending.tolist() == [0]


def test_what_is_known_for_good_is_not_selected_again() -> None:
    puct = Puct()
    root = node(puct, 0.0, 0.9, 0.1)
    child = node(puct, 1.0, 0.5, 0.5, parent=Edge(root, 0))
    root.children[0] = child
    close(Edge(child, 0))
    assert select(root, puct) == Edge(child, 1)
    close(Edge(child, 1))
    assert root.is_open.tolist() == [False, True]
    assert select(root, puct) == Edge(root, 1)
    close(Edge(root, 1))
    assert select(root, puct) is None


@pytest.mark.parametrize(
    ("visits", "totals", "best"),
    [([1, 3, 2], [1, 0, 2], 1), ([2, 2, 2], [0, 1, 0.5], 1), ([2, 2, 1], [1, 1, 1], 0)],
)
def test_best_is_by_visits_then_value_then_prior(
    visits: list[Any], totals: list[Any], best: int
) -> None:
    root = node(Puct(), 0.0, 0.5, 0.3, 0.2)
    root.visits[:], root.totals[:] = visits, totals
    assert root.best == best
