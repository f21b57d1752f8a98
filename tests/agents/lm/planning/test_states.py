"""States that are read on a branching cache are those of the whole sequences, at one token each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from textgym.errors import ConfigError
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.planning.states import State, StateReader

PROMPTS = [[9, 1, 2], [10], [11, 3, 4, 5, 0]]


def check(network: PolicyValueNetwork, state: State, temperature: float = 1.0) -> None:
    ids = torch.tensor([[*PROMPTS[state.problem], *state.ids]])
    with torch.no_grad():
        hidden = network.hidden_states(ids)[:, -1]
        p = network.next_logits(hidden, temperature).double().softmax(-1)[0]
        assert state.value == pytest.approx(float(network.values_of(hidden)), abs=1e-5)
    likely = p.topk(len(state.actions))
    assert state.actions.tolist() == likely.indices.tolist()
    assert state.priors == pytest.approx((likely.values / likely.values.sum()).numpy(), abs=1e-5)


def test_states_are_those_of_whole_sequences(any_policy: PolicyValueNetwork) -> None:
    reader = StateReader(any_policy, num_actions=4, temperature=0.7, max_rows=2)
    roots = reader.begin(PROMPTS)
    assert reader.num_tokens == [3, 1, 5]
    level = reader.read([roots[0], roots[0], roots[2], roots[1]], [1, 2, 3, 4])
    deeper = reader.read([level[1], level[0], level[1], level[3]], [5, 5, 0, 1])
    deepest = reader.read([deeper[2], roots[1], deeper[0]], [2, 2, 3])
    assert reader.num_tokens == [3 + 2 + 3 + 2, 1 + 1 + 1 + 1, 5 + 1]
    assert [s.ids for s in deepest] == [(2, 0, 2), (2,), (2, 5, 3)]
    for state in (*roots, *level, *deeper, *deepest):
        check(any_policy, state, 0.7)


def test_the_store_grows(tiny_policy: PolicyValueNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textgym_agents.lm.planning.states.FIRST_SLOTS", 2)
    reader = StateReader(tiny_policy, num_actions=3)
    states = reader.begin(PROMPTS)
    for token in (1, 2, 3, 4, 5):
        states = reader.read(states, [token] * 3)
    for state in states:
        check(tiny_policy, state)


def test_a_new_set_of_prompts_begins_anew(tiny_policy: PolicyValueNetwork) -> None:
    reader = StateReader(tiny_policy, num_actions=3)
    reader.read(reader.begin(PROMPTS), [1, 1, 1])
    for state in reader.read(reader.begin(PROMPTS), [2, 2, 2]):
        check(tiny_policy, state)
    assert reader.num_tokens == [4, 2, 6]


def test_ids_are_drawn_from_all_ids(tiny_policy: PolicyValueNetwork) -> None:
    reader = StateReader(tiny_policy, num_actions=1)
    with torch.no_grad():
        hidden = tiny_policy.hidden_states(torch.tensor([PROMPTS[0]]))[:, -1]
        p = tiny_policy.next_logits(hidden)[0].double().softmax(-1).numpy()
    edges = np.concatenate([[0], np.cumsum(p)])
    middles = (edges[:-1] + edges[1:]) / 2
    (state,) = reader.begin(PROMPTS[:1], middles[None])
    assert state.drawn == list(range(len(p)))
    assert len(state.actions) == 1


def test_layers_that_cannot_branch_are_refused(
    make_policy: Callable[..., PolicyValueNetwork],
) -> None:
    network = make_policy("qwen3")
    network.lm.config.use_sliding_window, network.lm.config.sliding_window = True, 4
    network.lm.config.layer_types = ["sliding_attention", "full_attention"]
    with pytest.raises(ConfigError, match="whose cache cannot branch"):
        StateReader(network, num_actions=2)
