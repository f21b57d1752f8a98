"""What info says of success, and which reward a prompt gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from textgym import Completion
from textgym_envs.textgen import TextGenEnv
from textgym_envs.textgen_vector import TextGenVectorEnv

ARITHMETIC = {"source": "arithmetic", "config": {"digits": 1}}
TEXT: dict[str, Any] = {"action_mode": "text", "prompts": [ARITHMETIC], "split": "all"}
END = 12  # of the tokenizer of thirteen actions
CUT = Completion("", token_ids=(1,), finish_reason="length")
ABORTED = Completion("", token_ids=(1,), finish_reason="abort")


def final_info(action: str, index: int = 0, **config: Any) -> dict[str, Any]:
    """Return the last info of one episode of text mode."""
    env = TextGenEnv(**{**TEXT, **config})
    env.reset(seed=0, options={"prompt_index": index})
    info = env.step(action)[4]
    env.close()
    return info


@pytest.fixture
def mixed(tmp_path: Path) -> dict[str, Any]:
    """Ten prompts that name `exact`, ten that name nothing and get `length`."""
    rows: list[dict[str, Any]] = []
    for i in range(10):
        rows.append({"messages": f"{i}=", "target": str(i), "reward": "exact"})
        rows.append({"messages": f"{i}+", "target": str(i)})
    path = tmp_path / "mixed.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reward = {"rewards": ["length"], "routes": {"exact": "exact"}}
    return {"prompts": str(path), "split": "all", "reward": reward}


@pytest.mark.parametrize("action", ["4", "", CUT, ABORTED])
def test_success_is_unknown_without_a_best_value(action: str) -> None:
    assert "is_success" not in final_info(action, reward="length")
    assert "is_success" not in final_info(action, reward=["exact", "length"])


def test_success_of_a_function_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text("def one(sample):\n    return 1.0\n")
    info = final_info("4", reward=f"{tmp_path}/reward.py:one")
    assert info["score"] == 1.0
    assert "is_success" not in info


def test_success_is_the_top_of_the_weighted_range() -> None:
    """2 * exact + 0.5 * penalty is at most 2.0; 0+0= is the prompt."""
    weighted = [{"reward": "exact", "weight": 2}, {"reward": "penalty", "weight": 0.5}]
    right, wrong = (final_info(text, reward=weighted) for text in ("0", "1"))
    assert (right["score"], right["is_success"]) == (2.0, True)
    assert (wrong["score"], wrong["is_success"]) == (-0.5, False)


@pytest.mark.parametrize("action", [CUT, ABORTED])
def test_what_no_reward_has_seen_is_no_success(action: Completion) -> None:
    assert final_info("0", reward="penalty")["is_success"] is True
    assert final_info(action, reward="penalty")["is_success"] is False


@pytest.mark.parametrize(
    ("reward", "score", "parts"),
    [
        ("exact", 0.0, {"exact": 0.0}),
        ("penalty", -1.0, {"penalty": -1.0}),
        (
            [{"reward": "exact", "weight": 2}, {"reward": "penalty", "weight": 0.5}],
            -0.5,
            {"exact": 0.0, "penalty": -1.0},
        ),
    ],
)
def test_never_ending_is_worth_no_more_than_any_answer(
    reward: Any, score: float, parts: dict[str, float]
) -> None:
    info = final_info(CUT, reward=reward)
    assert (info["score"], info["status"], info["reward_parts"]) == (score, "scored", parts)
    assert info["reason"] == "the completion was cut off before its end token"
    assert final_info("no number", reward=reward)["score"] == score


def test_a_cut_is_worth_what_the_prompts_own_reward_says(mixed: dict[str, Any]) -> None:
    """In the table of outcomes a cut has one place for all prompts of a reward."""
    mixed["reward"] = {"rewards": ["penalty"], "routes": {"exact": "exact"}}
    config = {**mixed, "action_mode": "token", "max_new_tokens": 1}
    envs = TextGenVectorEnv(20, autoreset_mode=AutoresetMode.DISABLED, **config)
    envs.reset(seed=0)
    wanted = [0.0 if prompt.reward == "exact" else -1.0 for prompt in envs.current_prompts]
    assert {*wanted} == {0.0, -1.0}
    for _ in range(2):  # judged, then looked up
        assert envs.step(np.zeros(20, dtype=np.int64))[1].tolist() == wanted
        envs.reset(seed=0)
    alone = TextGenEnv(**config)
    alone.reset(options={"prompt_index": 0})
    assert alone.step(0)[1] == 0.0
    alone.reset(options={"prompt_index": 1})
    assert alone.step(0)[1] == -1.0


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_success_is_what_the_reward_says_of_the_prompt(
    tmp_path: Path, named: bool, weight: float
) -> None:
    if named and weight != 1.0:
        pytest.skip("a prompt names a reward without a weight")
    name = {"reward": "reachable"} if named else {}
    rows = [{"messages": "a", "target": "A", **name}, {"messages": "b", **name}]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reward = None if named else [{"reward": "reachable", "weight": weight}]
    config = {"prompts": str(path), "reward": reward}
    for index, action, value, is_success in [
        (0, "A", 0.9, True), (0, "", 0.0, False), (1, "", 0.2, True), (1, "A", 0.0, False),
    ]:  # fmt: skip
        info = final_info(action, index=index, **config)
        assert (info["score"], info["is_success"]) == (pytest.approx(weight * value), is_success)


def test_success_is_known_by_prompt(mixed: dict[str, Any]) -> None:
    config = {**mixed, "action_mode": "text"}
    assert final_info("0", index=0, **config)["is_success"] is True
    assert "is_success" not in final_info("0", index=1, **config)
    assert final_info(CUT, index=2, **config)["is_success"] is False
    assert "is_success" not in final_info(CUT, index=3, **config)


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("reward", ["length", None])
@pytest.mark.parametrize("action_mode", ["token", "text"])
def test_vector_masks_success_as_sync_does(
    mixed: dict[str, Any], mode: AutoresetMode, reward: str | None, action_mode: str
) -> None:
    config = {**mixed, "action_mode": action_mode, "max_new_tokens": 3}
    config |= {"tokenizer": "chars:0123456789+="} | ({"reward": reward} if reward else {})
    native = TextGenVectorEnv(8, autoreset_mode=mode, **config)
    sync = SyncVectorEnv([lambda: TextGenEnv(**config)] * 8, autoreset_mode=mode)
    rng = np.random.default_rng(0)
    native.reset(seed=1)
    sync.reset(seed=1)
    num_known = num_open = num_right = 0
    for _ in range(300):
        ids = rng.choice([*range(10), *[END] * 6], size=8)
        actions: Any = ids if action_mode == "token" else tuple(str(i % 10) for i in ids)
        (*_, ended, cut, ours), (*_, theirs) = native.step(actions), sync.step(actions)
        if mode is AutoresetMode.DISABLED and (ended | cut).any():
            for envs in (native, sync):
                envs.reset(options={"reset_mask": ended | cut})
        if mode is AutoresetMode.SAME_STEP:
            ours, theirs = ours.get("final_info", {}), theirs.get("final_info", {})
        assert ours.keys() == theirs.keys()
        if "is_success" in ours:
            for key in ("is_success", "_is_success"):
                assert ours[key].dtype == theirs[key].dtype == np.bool_
                np.testing.assert_array_equal(ours[key], theirs[key])
            num_known += int(ours["_is_success"].sum())
            num_right += int(ours["is_success"].sum())
        num_open += int((ended | cut).sum())
    num_open -= num_known
    assert num_open > 100
    assert (num_known > 100, num_right > 5) == (reward is None, reward is None)


def test_a_prompt_without_any_reward_fails_alone(tmp_path: Path) -> None:
    """Such a prompt is found when the environment is made only where it is the first."""
    rows = [{"messages": "a", "target": "a", "reward": "exact"}, {"messages": "b", "target": "b"}]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    good = final_info("a", index=0, prompts=str(path), reward=None)
    bad = final_info("b", index=1, prompts=str(path), reward=None)
    assert (good["status"], good["is_success"]) == ("scored", True)
    assert (bad["status"], "is_success" in bad) == ("failed", False)
    assert "names no reward" in bad["verifier_error"]


def test_stable_baselines_logs_no_success_rate_where_none_is_known() -> None:
    pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor

    seen: list[bool] = []

    class AlwaysFour:
        def predict(self, observations: Any, **_: Any) -> tuple[Any, None]:
            return np.full(len(observations), 4), None

    env = gymnasium.make(
        "textgym:TextGen-v0", tokenizer="chars:0123456789+=", reward="length", max_new_tokens=1
    )
    evaluate_policy(
        AlwaysFour(), Monitor(env), n_eval_episodes=3,
        callback=lambda local, _: seen.append("is_success" in local["info"]),
    )  # fmt: skip
    assert seen == [False] * 3
