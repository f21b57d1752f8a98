"""The trainer of language models as an agent among the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import textgym  # noqa: F401  # registers the environments
from textgym.errors import ConfigError
from textgym_agents.agent import Agent, evaluate
from textgym_agents.agent_files import load_agent
from textgym_agents.lm.presets import TOY
from textgym_agents.lm.token_agent import LanguageModelAgent, LanguageModelConfig
from textgym_agents.run.agent_run import make_agent

SMALL = {"num_episodes": 32, "ppo": {"batch_size": 16}}


def sums(**arguments: Any) -> gymnasium.Env[Any, Any]:
    """Return `a+b=` with operands of 0 and 1."""
    given = {"below": 2, "vocabulary": "012+=", "max_new_tokens": 2} | arguments
    return gymnasium.make("textgym:ToyText-v0", **given)


@pytest.fixture(scope="module")
def learnt() -> LanguageModelAgent:
    """An agent after three updates."""
    agent = make_agent("lm:ppo", SMALL)
    assert isinstance(agent, LanguageModelAgent)
    assert isinstance(agent, Agent)
    agent.learn(sums(), total_steps=150, seed=3)
    return agent


def test_it_learns_and_reports_as_every_agent_does() -> None:
    agent, reports = LanguageModelAgent(LanguageModelConfig(num_episodes=256)), []
    env = sums()
    agent.learn(env, total_steps=6_000, seed=2, on_metrics=lambda n, m: reports.append((n, m)))
    assert agent.state is not None
    assert reports[-1][0] == agent.state.num_steps >= 6_000
    assert reports[-1][1]["rollout/num_episodes"] == 256 * agent.state.num_updates
    assert reports[-1][1]["rollout/reward"] > 0.9
    assert reports[-1][1].keys() >= {"rollout/length", "rollout/success", "ppo/kl_k3"}
    assert evaluate(agent, env, num_episodes=50, seed=0).mean == 1.0


def test_acts_alone_as_in_a_batch(learnt: LanguageModelAgent) -> None:
    shown = sums().unwrapped.exact_solution().observations()  # type: ignore[attr-defined]
    at_once = learnt.act_batch(shown)
    assert [learnt.act(each) for each in shown] == at_once.tolist()
    drawn = {learnt.act(shown[0], deterministic=False) for _ in range(100)}
    assert len(drawn) > 1


def test_a_saved_agent_goes_on_as_it_would_have(tmp_path: Path, learnt: LanguageModelAgent) -> None:
    shown = sums().unwrapped.exact_solution().observations()  # type: ignore[attr-defined]
    learnt.save(tmp_path / "saved")
    again = load_agent(tmp_path / "saved")
    assert isinstance(again, LanguageModelAgent)
    assert again.config == learnt.config
    assert again.state == learnt.state
    learnt.save(tmp_path / "other")
    other = LanguageModelAgent.load(tmp_path / "other")
    for agent in (again, other):
        agent.learn(sums(), total_steps=100, seed=4)
    assert again.state == other.state
    np.testing.assert_array_equal(again.probabilities(shown), other.probabilities(shown))
    assert (again.probabilities(shown) != learnt.probabilities(shown)).any()
    again.learn(sums(), total_steps=1, seed=5)
    other.learn(sums(), total_steps=1, seed=6)
    assert (again.probabilities(shown) != other.probabilities(shown)).any()


def test_the_policy_is_a_hugging_face_folder(tmp_path: Path, learnt: LanguageModelAgent) -> None:
    from transformers import AutoModelForCausalLM

    learnt.save(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "policy").num_parameters() > 100_000


def test_what_is_not_given_is_the_preset() -> None:
    config = make_agent("lm:ppo", {"ppo": {"optimizer": {"learning_rate": 0.5}}}).config
    assert isinstance(config, LanguageModelConfig)
    assert config.ppo.optimizer.learning_rate == 0.5
    assert config.ppo.optimizer.schedule == TOY["ppo"]["optimizer"]["schedule"]
    assert config.ppo.batch_size == TOY["ppo"]["batch_size"]


def test_other_environments_are_refused(learnt: LanguageModelAgent, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has learnt with"):
        learnt.learn(sums(below=3, vocabulary="01234+="), total_steps=10)
    with pytest.raises(ConfigError, match="has no exact solution"):
        LanguageModelAgent().learn("textgym:TextGen-v0", total_steps=10)
    with pytest.raises(ConfigError, match="cannot be made as a text environment"):
        LanguageModelAgent().learn("CartPole-v1", total_steps=10)
    with pytest.raises(ConfigError, match="a whole text is not misheard"):
        LanguageModelAgent().learn("textgym:ToyTextNoisy-v0", total_steps=10)
    with pytest.raises(ConfigError, match="call learn"):
        LanguageModelAgent().act(np.zeros(6))
    with pytest.raises(ConfigError, match="nothing to save"):
        LanguageModelAgent().save(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_episodes": 8}, "is larger than num_episodes"),
        ({"ppo": {"kl_penalty": {"beta": 0.1}}}, "keeps no reference policy"),
        ({"ppo": {"estimator": {"kind": "grpo"}}}, "PPO with a critic"),
        ({"ppo": {"gama": 1}}, "Did you mean 'ppo.gamma'"),
        ({"modell": "tiny"}, "Did you mean 'model'"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_agent("lm:ppo", settings)


def test_a_damaged_folder_is_one_clear_error(tmp_path: Path, learnt: LanguageModelAgent) -> None:
    learnt.save(tmp_path)
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds no complete 'lm:ppo' agent"):
        load_agent(tmp_path)
