"""Every method on a random policy: prices, determinism, batches, an oracle, failures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from textgym_agents.lm.config import EnvConfig, PolicyConfig
from textgym_agents.lm.engine import TransformersEngine
from textgym_agents.lm.exact import ExactTask
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.planning import (
    BeamConfig,
    BestOfNConfig,
    GreedyConfig,
    Judge,
    MctsConfig,
    RewardWorth,
    SearchConfig,
    ValueWorth,
    Worth,
    solve,
)
from textgym_agents.lm.planning.answers import Rules
from textgym_agents.lm.planning.mcts import tree_search
from textgym_agents.lm.planning.states import State, StateReader
from textgym_agents.lm.planning.worth import Finished

PROMPTS = [[9, 1, 2], [10], [11, 3, 4, 5, 0], [9, 9]]
CONFIGS: list[SearchConfig] = [
    GreedyConfig(),
    BestOfNConfig(budget=24),
    BeamConfig(budget=24, branches=2),
    MctsConfig(budget=24),
    MctsConfig(budget=24, leaves=1, prior_weight=0.0),
    MctsConfig(budget=24, move_budget=6),
]
LONGEST = 5


class Parity:
    """A reward of 1 for completions of a certain sum."""

    is_exact = True

    def __call__(self, finished: Sequence[Finished]) -> list[Worth]:
        return [Worth(float(sum(f.ids) % 5 == 1), True, sum(f.ids) % 5 == 1) for f in finished]


def outcome(network: PolicyValueNetwork, config: SearchConfig, prompts: Any, **kw: Any) -> Any:
    kw = {"judge": ValueWorth(), "max_new_tokens": [LONGEST] * len(prompts), **kw}
    solved = solve(network, prompts, config=config, **kw)
    return [
        (s.answer.finished.ids, s.answer.finished.finish_reason, s.num_tokens,
         s.answer.num_finished, pytest.approx(s.answer.worth.value, abs=1e-5))
        for s in solved
    ]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.kind)
@pytest.mark.parametrize("judge", [ValueWorth(), Parity()], ids=["value", "reward"])
def test_prompts_side_by_side_are_those_one_at_a_time(
    tiny_policy: PolicyValueNetwork, config: SearchConfig, judge: Any
) -> None:
    together = outcome(tiny_policy, config, PROMPTS, judge=judge, prompt_numbers=[4, 5, 6, 7])
    alone = [
        outcome(tiny_policy, config, [ids], judge=judge, prompt_numbers=[4 + i])[0]
        for i, ids in enumerate(PROMPTS)
    ]
    narrow = outcome(
        tiny_policy, config, PROMPTS, judge=judge, prompt_numbers=[4, 5, 6, 7], max_rows=3
    )
    assert together == alone == narrow


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.kind)
def test_budgets_hold_and_completions_are_whole(
    tiny_policy: PolicyValueNetwork, config: SearchConfig
) -> None:
    for ids, reason, num_tokens, num_finished, _ in outcome(tiny_policy, config, PROMPTS):
        assert reason == ("stop" if ids[-1] in tiny_policy.stop_ids else "length")
        assert len(ids) <= LONGEST
        assert not any(i in tiny_policy.stop_ids for i in ids[:-1])
        assert num_finished >= 1
        assert num_tokens <= 5 + config.budget + LONGEST - 1


def test_a_seed_repeats_samples_and_another_does_not(tiny_policy: PolicyValueNetwork) -> None:
    config = BestOfNConfig(budget=24)
    first = outcome(tiny_policy, config, PROMPTS, seed=3)
    assert first == outcome(tiny_policy, config, PROMPTS, seed=3)
    assert first != outcome(tiny_policy, config, PROMPTS, seed=4)


def test_greedy_is_the_engines(tiny_policy: PolicyValueNetwork) -> None:
    solved = outcome(tiny_policy, GreedyConfig(), PROMPTS)
    generations = TransformersEngine(tiny_policy).generate(
        PROMPTS, max_new_tokens=[LONGEST] * 4, temperature=0.0, generator=torch.Generator()
    )
    assert [list(s[0]) for s in solved] == [g.token_ids for g in generations]
    # each written token but the last is read
    assert [s[2] for s in solved] == [
        len(p) + len(g.token_ids) - 1 for p, g in zip(PROMPTS, generations, strict=True)
    ]


def test_a_beam_of_one_is_greedy(tiny_policy: PolicyValueNetwork) -> None:
    beam = outcome(tiny_policy, BeamConfig(budget=1, branches=1), PROMPTS)
    assert [b[0] for b in beam] == [g[0] for g in outcome(tiny_policy, GreedyConfig(), PROMPTS)]


def test_rewards_end_a_search_with_its_first_success(tiny_policy: PolicyValueNetwork) -> None:
    found = [
        (s.answer.worth, s.num_tokens)
        for s in solve(
            tiny_policy, PROMPTS, Parity(), MctsConfig(budget=256), max_new_tokens=[LONGEST] * 4
        )
    ]
    assert all(worth.is_success for worth, _ in found), found
    assert all(tokens < 256 for _, tokens in found)


class OracleReader(StateReader):
    """Knows V* of every state of an exactly solved environment."""

    exact: ExactTask

    def _states(self, hidden: Any, problems: Any, ids: Any, slots: Any, draws: Any) -> list[State]:
        states = super()._states(hidden, problems, ids, slots, draws)
        return [s._replace(value=self._value(s)) for s in states]

    def _value(self, state: State) -> float:
        solution = self.exact.solution
        shown = solution.observations(slice(0, solution.num_states))[state.problem].copy()
        place = {token: a for a, token in enumerate(self.exact.symbols.actions)}
        for i, token in enumerate(state.ids):
            shown[-solution.turn_length + i] = place[token]
        (index,) = solution.find(shown[None])  # type: ignore[attr-defined]
        return float(solution.optimal_values[index])  # type: ignore[attr-defined]


def test_with_an_exact_value_oracle_search_finds_the_optimum_at_once() -> None:
    env = EnvConfig(id="textgym:ToyTextSmall-v0")
    policy = PolicyConfig(model="tiny")
    network = PolicyValueNetwork.from_config(policy, seed=0)
    exact = ExactTask.of(gymnasium.make("ToyTextSmall-v0"), network.tokenizer)
    network = PolicyValueNetwork.from_config(
        policy.model_copy(update={"legal_ids": exact.symbols.actions}), seed=0
    )
    starts = np.flatnonzero(exact.solution.initial)
    prompts = exact.symbols.read(exact.solution.observations(slice(0, int(starts[-1]) + 1)))
    prompts = [[i for i in ids if i != network.tokenizer.pad_token_id] for ids in prompts]
    judge = Judge(env, network, seed=0, indices=range(len(prompts)))
    reader = OracleReader(network, num_actions=32)
    reader.exact = exact
    rules = Rules(network.stop_ids, [exact.solution.turn_length] * len(prompts))
    config = MctsConfig(budget=16, leaves=1, c_init=0.05, prior_weight=0.0)
    answers = tree_search(reader, reader.begin(prompts), rules, RewardWorth(judge), config)
    judge.close()
    assert np.mean([a.worth.value for a in answers]) == exact.solution.optimal_value == 1.0
    # at worst each of the 13 tokens is read once; the end after the right one is free
    assert max(reader.num_tokens) <= len(prompts[0]) + 13


UNSURE = """
from textgym import Score

def unsure(sample):
    return Score.unscored("cannot tell")
"""


def test_what_a_reward_cannot_judge_is_worth_what_the_value_head_says(tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text(UNSURE)
    network = PolicyValueNetwork.from_config(PolicyConfig(model="tiny"), seed=0)
    env = EnvConfig(prompts="arithmetic", reward=f"{tmp_path}/rewards.py:unsure")
    judge = Judge(env, network, seed=0, indices=[0, 1])
    with torch.no_grad():
        network.value_head.bias.fill_(0.25)
    reader = StateReader(network, num_actions=2)
    state = reader.begin([[1, 2]])[0]
    stop = min(network.stop_ids)
    found = RewardWorth(judge, first=1)([Finished(state, stop, "stop")])
    assert found == [Worth(pytest.approx(0.25), is_known=False, is_success=False)]
    (verdict,) = judge([(1, (stop,), "stop")])
    assert verdict.failure.startswith("abstained")
    assert verdict.is_success is None
    judge.close()


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: MctsConfig(budget=0), "budget"),
        (lambda: MctsConfig(c_init=-1), "c_init"),
        (lambda: MctsConfig(leaves=0), "leaves"),
        (lambda: MctsConfig(prior_temperature=0), "prior_temperature"),
        (lambda: MctsConfig(move_budget=0), "move_budget"),
        (lambda: MctsConfig(noise=1), "noise"),
        (lambda: BestOfNConfig(temperature=0), "temperature"),
        (lambda: BeamConfig(branches=0), "branches"),
    ],
)
def test_malformed_configurations_are_refused(make: Callable[[], Any], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        make()
