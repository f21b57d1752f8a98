"""What a language model is worth in a solved environment: computed, enumerated, and played."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import VectorEnv
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from textgym.errors import ConfigError
from textgym.sample import Completion
from textgym_agents.core.buffer import collate
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.config import EnvConfig, EvaluationConfig, PolicyConfig, TrainConfig
from textgym_agents.lm.envs import make_envs
from textgym_agents.lm.evaluation import evaluate, make_held_out
from textgym_agents.lm.exact import ExactTask, SymbolIds, action_probabilities, limits_for
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.rollout import collect
from textgym_agents.lm.texts import encode
from textgym_agents.lm.tiny import tiny_tokenizer

SUMS = EnvConfig(
    id="textgym:ToyText-v0", kwargs={"below": 2, "vocabulary": "012+=", "max_new_tokens": 2}
)
DENSE = SUMS.model_copy(update={"id": "textgym:ToyTextDense-v0"})
DIALOGUE = EnvConfig(id="textgym:ToyTwoTurn-v0")
TASKS = {"sums": SUMS, "dense": DENSE, "dialogue": DIALOGUE}
NUM_EPISODES = 2048


def make_agent(env: EnvConfig, **changes: Any) -> PPOAgent:
    """Return a random tiny model that can write the environment's actions and nothing else."""
    limits = limits_for(env, "tiny")
    rollout = limits["rollout"] | {"num_episodes": NUM_EPISODES, "num_envs": NUM_EPISODES}
    rollout |= changes.pop("rollout", {})
    config = TrainConfig.model_validate(
        {"env": env, "policy": limits["policy"], "rollout": rollout, **changes}
    )
    return PPOAgent(PolicyValueNetwork.from_config(config.policy, seed=0), config)


def task_of(agent: PPOAgent) -> ExactTask:
    envs = make_envs(agent.config.env, 1)
    return ExactTask.of(envs, agent.network.tokenizer)


@pytest.mark.parametrize(
    ("name", "temperature"), [("sums", 1.0), ("dense", 0.5), ("dialogue", 1.0)]
)
def test_the_mean_of_rollouts_is_the_exact_value(name: str, temperature: float) -> None:
    agent = make_agent(TASKS[name], rollout={"temperature": temperature})
    rollout = collect(
        make_envs(agent.config.env, NUM_EPISODES), agent.engine, agent.network,
        agent.config.rollout, seed=1, generator=torch.Generator().manual_seed(2),
    )  # fmt: skip
    returns = np.array([sum(t.rewards) for t in rollout.scored()])
    error = returns.std() / math.sqrt(NUM_EPISODES)
    exact = task_of(agent).metrics(agent.network)
    assert len(returns) == NUM_EPISODES
    assert error > 0
    assert abs(returns.mean() - exact["evaluation/exact_sampled"]) <= 4 * error
    assert exact["evaluation/exact_sampled"] <= exact["evaluation/optimum"]


def completions(task: ExactTask) -> Iterator[tuple[list[int], str]]:
    """Yield every completion of a single turn: its ids, and how it ends."""
    *contents, end = task.symbols.actions
    longest = task.solution.turn_length
    for length in range(longest):
        for ids in itertools.product(contents, repeat=length):
            yield [*ids, end], "stop"
    for ids in itertools.product(contents, repeat=longest):
        yield list(ids), "length"


@pytest.mark.parametrize("name", ["sums", "dense"])
def test_the_value_is_the_sum_over_all_completions(name: str, episode: Any) -> None:
    agent = make_agent(TASKS[name])
    task, network = task_of(agent), agent.network
    every = list(completions(task))
    envs = make_envs(agent.config.env, len(every))
    total = 0.0
    for prompt in range(num_prompts := envs.unwrapped.num_prompts):  # type: ignore[attr-defined]
        texts, _ = envs.reset(seed=0, options={"prompt_index": [prompt] * len(every)})
        prompt_ids = encode(network, texts[:1])[0]
        actions = [
            Completion(
                network.tokenizer.decode(ids[: len(ids) - (reason == "stop")]),
                token_ids=ids, finish_reason=reason,
            )
            for ids, reason in every
        ]  # fmt: skip
        _, rewards, *_ = envs.step(actions)
        with torch.no_grad():
            batch = collate([episode(prompt_ids, ids) for ids, _ in every])
            logprobs = network.evaluate(batch).logprobs.sum(dim=1).double()
        assert float(logprobs.exp().sum()) == pytest.approx(1.0, abs=1e-5)
        total += float(logprobs.exp() @ torch.from_numpy(rewards)) / num_prompts
    found = task.metrics(network)
    assert found["evaluation/exact_sampled"] == pytest.approx(total, rel=1e-4)
    assert found["evaluation/share_sampled"] == pytest.approx(total, rel=1e-4)  # V* is 1


def test_greedy_is_what_the_greedy_answers_earn() -> None:
    agent = make_agent(DENSE)
    held_out = make_held_out(agent)
    result = evaluate(agent, held_out)
    metrics = result.metrics()
    assert held_out.envs.num_envs == 4  # every prompt once: nothing is left to chance
    assert metrics["evaluation/exact_greedy"] == pytest.approx(
        metrics["evaluation/greedy_reward"], abs=1e-12
    )


def test_probabilities_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_agent(SUMS)
    solution, symbols = task_of(agent)
    shown = solution.observations()
    at_once = action_probabilities(agent.network, symbols, shown)
    assert at_once.shape == (solution.num_states, solution.num_actions)
    monkeypatch.setattr("textgym_agents.lm.exact.MAX_ROWS", 3)
    np.testing.assert_allclose(action_probabilities(agent.network, symbols, shown), at_once, 1e-4)


UNFIT: dict[str, dict[str, Any]] = {
    "may write anything": {"policy": PolicyConfig()},
    "may write less": {"policy": PolicyConfig(legal_ids=(15, 16, 256))},
    "writes longer": {"rollout": {"max_new_tokens": 3, "max_length": 16}},
    "is cut shorter": {"rollout": {"max_length": 5}},
    "has too many states": {"evaluation": EvaluationConfig(exact_states=23)},
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_policy_that_plays_another_game_is_only_sampled(name: str) -> None:
    agent = make_agent(SUMS, **UNFIT[name])
    held_out = make_held_out(agent)
    assert held_out.exact is None
    metrics = evaluate(agent, held_out).metrics()
    assert "evaluation/exact_sampled" not in metrics
    assert metrics["evaluation/greedy_reward"] >= 0


def test_limits_are_those_of_token_mode() -> None:
    digits = [tiny_tokenizer().convert_tokens_to_ids(c) for c in "012+="]
    assert limits_for(SUMS, "tiny") == {
        "policy": {"legal_ids": [*digits, tiny_tokenizer().eos_token_id]},
        "rollout": {"max_new_tokens": 2, "max_length": 6},
    }
    dialogue = limits_for(DIALOGUE, "tiny")
    assert len(dialogue["policy"]["legal_ids"]) == 7
    assert dialogue["rollout"] == {"max_new_tokens": 1, "max_length": 4}


def joining_tokenizer(*merges: tuple[str, str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer of single characters, some of which it joins."""
    symbols = [*"012+=", "$", *("".join(pair) for pair in merges)]
    vocabulary = {symbol: i for i, symbol in enumerate(symbols)}
    model = models.BPE(vocab=vocabulary, merges=list(merges), unk_token="$")
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), eos_token="$")


def test_a_tokenizer_that_joins_symbols_is_refused() -> None:
    envs: VectorEnv[Any, Any, Any] = make_envs(SUMS, 1)
    assert ExactTask.of(envs, joining_tokenizer()).symbols.actions == (0, 1, 2, 3, 4, 5)
    with pytest.raises(ConfigError, match=r"reads the prompt '0\+0=' as \[6, 0, 4\]"):
        ExactTask.of(envs, joining_tokenizer(("0", "+")))


def test_an_action_must_be_one_token() -> None:
    with pytest.raises(ConfigError, match="each action one token of its own"):
        SymbolIds(["0", "12", ""], 3, joining_tokenizer())
    with pytest.raises(ConfigError, match="each action one token of its own"):
        SymbolIds(["x", "y", ""], 3, joining_tokenizer())


def test_an_environment_that_is_not_solved() -> None:
    with pytest.raises(ConfigError, match="has no exact solution"):
        limits_for(EnvConfig(), "tiny")
