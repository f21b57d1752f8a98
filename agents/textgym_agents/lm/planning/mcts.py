"""Monte Carlo tree search for completions, many prompts side by side.

Each round takes a few simulations of every prompt, and what they have to read goes through the
network in one batch. What is known without the network costs nothing: a completion that has ended
is judged, and one that is reached again is remembered.

Where a reward judges completions, what it said is exact, for the text MDP is deterministic. Then no
completion is tried twice, a search ends with its first success, and the answer is the best one that
was found; once the budget is spent, completions that need nothing more to be read are still tried.
Otherwise the answer is the way of the most visits, as in AlphaZero.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textgym_agents.lm.planning.answers import Answer, Rules
from textgym_agents.lm.planning.config import MctsConfig
from textgym_agents.lm.planning.states import State, StateReader
from textgym_agents.lm.planning.tree import Edge, Node, Puct, backup, close, give_up, select
from textgym_agents.lm.planning.worth import Finished, Worth, WorthSource


class TreeSearch:
    """The search for one prompt.

    Args:
        state: the prompt.
        config: constants and limits.
        rules: how completions end.
        gamma: discount per token.
        is_exact: whether completions are judged once and for good.
    """

    def __init__(
        self, state: State, config: MctsConfig, rules: Rules, *, gamma: float, is_exact: bool
    ) -> None:
        self.num_read = 0
        self.found: dict[tuple[int, ...], tuple[Finished, Worth]] = {}
        self._config, self._rules = config, rules
        self._gamma, self._is_exact = gamma, is_exact
        self._puct = Puct(config.c_init, config.c_base, config.virtual_loss, config.prior_weight)
        self.root = Node(state, self._puct.costs(state))
        self._left = int(config.budget * config.simulations_per_token)
        self._next_move = config.move_budget
        self.is_done = False

    def collect(self) -> list[Edge]:
        """Return the edges to be evaluated next; the search is done if there are none."""
        chosen: list[Edge] = []
        room = self._config.budget - self.num_read
        while len(chosen) < self._config.leaves and self._left > 0 and (room > 0 or self._is_exact):
            edge = select(self.root, self._puct)
            if edge is None:
                break
            if edge.node.pending[edge.action] > 1:  # it waits for its evaluation already
                give_up(edge, self.root)
                break
            is_read = self._rules.finish(edge.node.state, edge.token) is None
            if is_read and room <= 0:  # what is left to be had are completions
                give_up(edge, self.root)
                close(edge)
                continue
            self._left -= 1
            if (worth := edge.node.worth.get(edge.action)) is not None:
                backup(edge, worth, self._gamma, self.root)
                continue
            chosen.append(edge)
            room -= is_read
        self.is_done |= not chosen
        return chosen

    def take_state(self, edge: Edge, state: State) -> None:
        """Let an edge lead to the state that was read for it."""
        self.num_read += 1
        edge.node.children[edge.action] = Node(state, self._puct.costs(state), edge)
        backup(edge, self._gamma * state.value, self._gamma, self.root)

    def take_worth(self, edge: Edge, finished: Finished, worth: Worth) -> None:
        """Let an edge end the completion."""
        self.found[finished.ids] = finished, worth
        edge.node.worth[edge.action] = worth.value
        backup(edge, worth.value, self._gamma, self.root)
        if self._is_exact and worth.is_known:
            close(edge)
        self.is_done |= worth.is_success

    def move(self) -> None:
        """Go on to the most visited action, once as much was read for this one as is allowed."""
        if self._next_move is None or self.num_read < self._next_move or self.is_done:
            return
        assert self._config.move_budget is not None
        self._next_move = self.num_read + self._config.move_budget
        child = self.root.children[self.root.best]
        if child is None:
            self.is_done = True
        else:
            self.root = child

    def best_known(self) -> tuple[Finished, Worth] | None:
        """Return the completion that a reward judged best, or None if it judged none."""
        known = [each for each in self.found.values() if each[1].is_known]
        return max(known, key=lambda each: each[1].value) if known else None

    def way_down(self) -> Edge:
        """Return the end of the way of the most visits: an edge without a node below it."""
        node = self.root
        while True:
            action = node.best if node.visits.any() else 0
            child = node.children[action]
            if child is None:
                return Edge(node, action)
            node = child


def tree_search(
    reader: StateReader,
    prompts: Sequence[State],
    rules: Rules,
    judge: WorthSource,
    config: MctsConfig,
    *,
    gamma: float = 1.0,
) -> list[Answer]:
    """Return a completion for each prompt.

    Args:
        reader: reads states; its number of actions and temperature are those of the prior.
        prompts: what `reader.begin` returned.
        rules: how completions end.
        judge: says what a finished completion is worth.
        config: constants and limits.
        gamma: discount per token, that of the value head.
    """
    searches = [
        TreeSearch(state, config, rules, gamma=gamma, is_exact=judge.is_exact) for state in prompts
    ]
    while live := [search for search in searches if not search.is_done]:
        _evaluate(reader, rules, judge, [(s, edge) for s in live for edge in s.collect()])
        for search in live:
            search.move()
    _write_to_the_end(reader, rules, judge, searches)
    return [_answer(search) for search in searches]


def _evaluate(
    reader: StateReader,
    rules: Rules,
    judge: WorthSource,
    edges: Iterable[tuple[TreeSearch, Edge]],
) -> None:
    """Read the states that edges lead to, and judge the completions that they end."""
    reading: list[tuple[TreeSearch, Edge]] = []
    ending: list[tuple[TreeSearch, Edge, Finished]] = []
    for search, edge in edges:
        finished = rules.finish(edge.node.state, edge.token)
        if finished is None:
            reading.append((search, edge))
        else:
            ending.append((search, edge, finished))
    if reading:
        parents, tokens = [e.node.state for _, e in reading], [e.token for _, e in reading]
        for (search, edge), state in zip(reading, reader.read(parents, tokens), strict=True):
            search.take_state(edge, state)
    if ending:
        worths = judge([finished for _, _, finished in ending])
        for (search, edge, finished), worth in zip(ending, worths, strict=True):
            search.take_worth(edge, finished, worth)


def _write_to_the_end(
    reader: StateReader, rules: Rules, judge: WorthSource, searches: Sequence[TreeSearch]
) -> None:
    """Finish the ways that the budget left unfinished, with the most likely tokens."""
    open_ends = [s for s in searches if s.best_known() is None]
    while open_ends:
        edges = [(search, search.way_down()) for search in open_ends]
        unread = [(s, e) for s, e in edges if e.action not in e.node.worth]
        for search, edge in unread:
            _mark(edge, search)
        _evaluate(reader, rules, judge, unread)
        open_ends = [s for s, _ in unread if s.way_down().action not in s.way_down().node.worth]


def _mark(edge: Edge, search: TreeSearch) -> None:
    """Let an edge count as pending, for `backup`."""
    step: Edge | None = edge
    while step is not None:
        step.node.pending[step.action] += 1
        step = None if step.node is search.root else step.node.parent


def _answer(search: TreeSearch) -> Answer:
    best = search.best_known()
    if best is None:
        edge = search.way_down()
        best = search.found[(*edge.node.state.ids, edge.token)]
    return Answer(*best, num_finished=len(search.found))
