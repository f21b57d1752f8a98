"""Our rewards as other trainers call them; a failure is never a number."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from textgym.errors import ConfigError, PromptError
from textgym.interop import (
    NoScoreError,
    OpenRLHFReward,
    TRLReward,
    VerifiersReward,
    VerlScore,
)

FRAGILE = """
from textgym import Score

def fragile(sample):
    if "raise" in sample.completion:
        raise ValueError("broken")
    if "unsure" in sample.completion:
        return Score.unscored("cannot tell")
    return float(len(sample.completion))
"""


@pytest.fixture
def fragile(tmp_path: Path) -> str:
    (tmp_path / "fragile_reward.py").write_text(FRAGILE)
    return f"{tmp_path}/fragile_reward.py:fragile"


@pytest.fixture
def trl_math() -> Iterator[TRLReward]:
    reward = TRLReward("math")
    yield reward
    reward.close()


def test_trl_gets_a_number_per_completion(trl_math: TRLReward) -> None:
    values = trl_math(
        prompts=["1+1=", "2+2="], completions=["2", "5"], target=["2", "4"], unrelated=[1, 2],
        trainer_state=None, log_metric=print,
    )  # fmt: skip
    assert values == [1.0, 0.0]
    assert trl_math.__name__ == "math"


def test_trl_chats_are_chats(trl_math: TRLReward) -> None:
    prompt = [{"role": "user", "content": "1+1="}]
    said = [[{"role": "assistant", "content": text}] for text in ("2", "3")]
    assert trl_math(prompts=[prompt] * 2, completions=said, target=["2"] * 2) == [1.0, 0.0]
    parts = [[{"role": "assistant", "content": [{"type": "text", "text": "2"}]}]]
    assert trl_math(prompts=[prompt], completions=parts, target=["2"]) == [1.0]


def test_trl_takes_another_column_and_fields_of_prompts() -> None:
    reward = TRLReward(["exact_match", {"reward": "length", "config": {"maximum": 3}}])
    assert reward.__name__ == "exact_match_length"
    reward.close()
    named = TRLReward(None, target="solution", name="mine")
    values = named(prompts=["1+1="], completions=["2"], solution=["2"], reward=["math"])
    assert (values, named.__name__) == ([1.0], "mine")
    named.close()


def test_trl_is_told_none_where_there_is_no_score(fragile: str) -> None:
    reward = TRLReward(fragile)
    assert reward(["a"] * 4, ["four", "raise", "unsure", ""]) == [4.0, None, None, 0.0]
    assert reward.scorer.counts["failed/raised"] == 1
    assert reward.scorer.counts["abstained"] == 1
    reward.close()


def test_the_ids_of_the_tokens_reach_the_reward(tmp_path: Path) -> None:
    (tmp_path / "ids_reward.py").write_text("def ids(sample):\n    return sum(sample.token_ids)\n")
    reward = TRLReward(f"{tmp_path}/ids_reward.py:ids")
    assert reward(["a", "b"], ["c", "d"], completion_ids=[[5, 6], [7]]) == [11.0, 7.0]
    reward.close()


def test_functions_can_be_pickled(trl_math: TRLReward) -> None:
    again = pickle.loads(pickle.dumps(trl_math))
    assert again(prompts=["1+1="], completions=["2"], target=["2"]) == [1.0]
    assert again.__name__ == "math"
    again.close()


def test_a_prompt_that_is_none_is_explained(trl_math: TRLReward) -> None:
    with pytest.raises(PromptError, match="a prompt that cannot be used"):
        trl_math(prompts=[[]], completions=["2"], target=["2"])


def test_verifiers_calls_with_a_task_and_its_trace(fragile: str) -> None:
    reward = VerifiersReward("math")
    task = SimpleNamespace(prompt="1+1=", answer="2")
    value = asyncio.run(reward(task=task, trace=SimpleNamespace(last_reply="2")))
    assert value == 1.0
    said = [SimpleNamespace(role="user", content="1+1=")]
    task = SimpleNamespace(prompt=said, answer="2")
    assert asyncio.run(reward(task=task, trace=SimpleNamespace(last_reply="3"))) == 0.0
    reward.close()
    with pytest.raises(NoScoreError, match="has no score for a completion of the prompt '1"):
        asyncio.run(VerifiersReward(fragile)(task=task, trace=SimpleNamespace(last_reply="raise")))


def test_verifiers_before_tasks_calls_with_columns() -> None:
    reward = VerifiersReward("math")
    completion = [{"role": "assistant", "content": "2"}]
    prompt = [{"role": "user", "content": "1+1="}]
    value = asyncio.run(reward(prompt=prompt, completion=completion, answer="2"))
    assert value == 1.0
    reward.close()


def test_verl_asks_for_one_score(fragile: str) -> None:
    score = VerlScore("math")
    assert score("gsm8k", "so 4", "4", {"question": "2+2?"}) == 1.0
    assert score(data_source="gsm8k", solution_str="5", ground_truth="4") == 0.0
    score.close()
    with pytest.raises(NoScoreError, match="abstained: cannot tell"):
        VerlScore(fragile)("gsm8k", "unsure", "4")


def test_openrlhf_asks_for_a_batch_of_queries(fragile: str) -> None:
    reward = OpenRLHFReward("math")
    found = reward(["1+1=2", "2+2=5"], ["1+1=", "2+2="], ["2", "4"])
    assert found["rewards"].tolist() == found["scores"].tolist() == [1.0, 0.0]
    with pytest.raises(ConfigError, match="does not begin with its prompt"):
        reward(["x"], ["y"], ["2"])
    reward.close()
    with pytest.raises(NoScoreError, match="raised"):
        OpenRLHFReward(fragile)(["a raise"], ["a"], [None])
