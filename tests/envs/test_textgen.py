"""The scalar environment: both action modes, what it says, and how it resumes."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError, InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env

import textgym
from textgym.errors import ConfigError, UnknownRewardError
from textgym_envs.textgen import TextGenEnv
from textgym_envs.tokenizers import make_tokenizer

EOS, PAD = 12, 14
PROMPT = 13  # 3+1=
SMALL: dict[str, Any] = {
    "prompts": [{"source": "arithmetic", "config": {"digits": 1}}], "split": "all",
    "tokenizer": "chars:0123456789+=", "reward": "exact", "max_new_tokens": 3,
}  # fmt: skip
TEXT: dict[str, Any] = {**SMALL, "action_mode": "text", "tokenizer": "chars"}


def begin(**config: Any) -> TextGenEnv:
    env = TextGenEnv(**{**SMALL, **config})
    env.reset(seed=0, options={"prompt_index": PROMPT})
    return env


def test_token_mode_answers_a_prompt() -> None:
    env = TextGenEnv(**SMALL)
    observation, info = env.reset(seed=0, options={"prompt_index": PROMPT})
    assert env.observation_space == gymnasium.spaces.Box(0, PAD, (7,), dtype=np.int64)
    assert env.action_space == gymnasium.spaces.Discrete(13)
    assert observation.tolist() == [3, 10, 1, 11, PAD, PAD, PAD]
    assert info == {"prompt": "3+1=", "prompt_id": "3+1", "task": "arithmetic"}
    observation, reward, terminated, truncated, info = env.step(4)
    assert observation.tolist() == [3, 10, 1, 11, 4, PAD, PAD]
    assert (reward, terminated, truncated, info) == (0.0, False, False, {})
    observation, reward, terminated, truncated, info = env.step(EOS)
    assert observation.tolist() == [3, 10, 1, 11, 4, EOS, PAD]
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info == {
        "completion": "4", "finish_reason": "stop", "status": "scored", "label": "correct",
        "reason": "correct", "extracted": "4", "verifier_error": "", "is_success": True,
        "score": 1.0, "reward_parts": {"exact": 1.0}, "n_prompt_tokens": 4,
        "n_completion_tokens": 2,
    }  # fmt: skip


def test_shorter_prompt_is_padded_on_the_left() -> None:
    env = TextGenEnv(**{**SMALL, "prompts": "arithmetic"})
    observation, _ = env.reset(options={"prompt_index": 0})  # 0+0=
    assert observation.tolist() == [PAD, PAD, 0, 10, 0, 11, PAD, PAD, PAD]


def test_length_cut_terminates_unscored() -> None:
    env = begin()
    for action in (0, 0, 4):
        _, reward, terminated, truncated, info = env.step(action)
    assert (reward, terminated, truncated) == (0.0, True, False)
    assert info["finish_reason"] == "length"
    assert (info["status"], info["score"], info["is_success"]) == ("scored", 0.0, False)
    assert info["reward_parts"] == {"exact": 0.0}
    assert textgym.plugin_manager().reward_class("exact").scored == []


def test_length_cut_can_be_scored() -> None:
    env = TextGenEnv(**{**SMALL, "max_new_tokens": 1, "score_length_cut": True})
    env.reset(seed=0, options={"prompt_index": PROMPT})
    _, reward, terminated, _, info = env.step(4)
    assert (reward, terminated, info["finish_reason"]) == (1.0, True, "length")


def test_length_cut_truncates_on_request() -> None:
    env = begin(length_cutoff="truncate")
    for action in (0, 0, 4):
        _, _, terminated, truncated, _ = env.step(action)
    assert (terminated, truncated) == (False, True)
    env = begin(length_cutoff="truncate")
    assert env.step(EOS)[2:4] == (True, False)


def test_text_mode_takes_a_whole_completion() -> None:
    env = TextGenEnv(**TEXT)
    observation, info = env.reset(seed=0, options={"prompt_index": PROMPT})
    assert observation == info["prompt"] == "3+1="
    observation, reward, terminated, truncated, info = env.step("4")
    assert (observation, reward, terminated, truncated) == ("", 1.0, True, False)
    assert info["completion"] == "4"
    assert info["token_ids"] == []
    assert (info["n_prompt_tokens"], info["n_completion_tokens"]) == (4, 1)


def test_completion_hands_its_ids_to_the_reward() -> None:
    env = TextGenEnv(**TEXT)
    env.reset(seed=0, options={"prompt_index": PROMPT})
    action = textgym.Completion("4", token_ids=[9, 8, 7], finish_reason="stop_string")
    _, reward, _, _, info = env.step(action)
    assert reward == 1.0
    assert info["token_ids"] == [9, 8, 7]
    assert info["n_completion_tokens"] == 3
    assert info["finish_reason"] == "stop_string"
    assert type(info["completion"]) is str
    sample = textgym.plugin_manager().reward_class("exact").scored[-1]
    assert (sample.token_ids, sample.finish_reason) == ((9, 8, 7), "stop_string")


@pytest.mark.parametrize(
    ("text", "finish_reason", "status", "reason"),
    [
        ("!", "stop", "failed", "the verifier broke"),
        ("?", "stop", "abstained", "cannot judge"),
        ("4", "abort", "failed", "aborted"),
    ],
)
def test_what_is_not_scored_is_not_zero(
    text: str, finish_reason: Any, status: str, reason: str
) -> None:
    env = TextGenEnv(**TEXT)
    env.reset(seed=0, options={"prompt_index": PROMPT})
    action = textgym.Completion(text, token_ids=[1], finish_reason=finish_reason)
    _, reward, _, _, info = env.step(action)
    assert reward == 0.0
    assert np.isnan(info["score"])
    assert info["status"] == status
    assert reason in info["reason"]
    assert not info["is_success"]
    assert bool(info["verifier_error"]) == (status == "failed")


def test_own_rewards_win_over_what_prompts_name() -> None:
    """The arithmetic prompts name another reward; a route of that name would get them."""
    env = begin(reward={"rewards": ["id_count"], "routes": {"math": "exact"}})
    env.step(4)
    assert env.step(EOS)[1] == 1.0
    env = begin(reward="id_count")
    env.step(4)
    assert env.step(EOS)[1] == pytest.approx(1.2)


def test_reward_is_checked_when_the_environment_is_made() -> None:
    with pytest.raises(UnknownRewardError, match="exact"):
        TextGenEnv(**{**SMALL, "reward": "exactt"})


def test_prompts_are_a_function_of_seed_and_episode() -> None:
    env = TextGenEnv(**SMALL)

    def ids(seed: int, count: int = 200) -> list[str]:
        env.reset(seed=seed)
        return [env.reset()[1]["prompt_id"] for _ in range(count)]

    first, second = ids(1), ids(2)
    assert ids(1) == first
    # Neighbouring seeds are independent, not shifted copies: 1 of 100 prompts agrees by chance.
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 12
    assert sum(a == b for a, b in zip(first[1:], second, strict=False)) < 12


def test_forced_prompt_does_not_disturb_the_stream() -> None:
    env = TextGenEnv(**SMALL)
    env.reset(seed=1)
    expected = [env.reset()[1]["prompt_id"] for _ in range(3)]
    env.reset(seed=1)
    env.reset(options={"prompt_index": 5, "unknown": None})
    assert [env.reset()[1]["prompt_id"] for _ in range(2)] == expected[1:]
    for wrong in (100, -1, "3", 1.5):
        with pytest.raises(ConfigError, match="prompt_index"):
            env.reset(options={"prompt_index": wrong})


def test_splits_share_no_prompt_and_have_one_shape() -> None:
    config = {**SMALL, "evaluation_share": 0.3}
    train, held_out = (TextGenEnv(**{**config, "split": s}) for s in ("train", "evaluation"))
    assert train.num_prompts + held_out.num_prompts == 100
    assert train.observation_space == held_out.observation_space

    def seen(env: TextGenEnv) -> set[str]:
        every = range(env.num_prompts)
        return {env.reset(options={"prompt_index": i})[1]["prompt_id"] for i in every}

    assert not seen(train) & seen(held_out)


def test_state_is_cheap_to_take_and_to_restore() -> None:
    env = begin()
    env.step(4)
    state = env.get_state()
    assert state.token_ids == (4,)
    right = env.step(EOS)
    env.set_state(state)
    wrong = env.step(5)
    assert not wrong[2]
    env.set_state(state)
    again = env.step(EOS)
    np.testing.assert_array_equal(right[0], again[0])
    assert right[1:] == again[1:]
    over = env.get_state()
    env.set_state(over)
    with pytest.raises(ResetNeeded):
        env.step(0)


@pytest.mark.parametrize("config", [SMALL, TEXT])
def test_pickle_is_small_and_goes_on_identically(config: dict[str, Any]) -> None:
    env = gymnasium.make("textgym:TextGen-v0", **config)
    env.action_space.seed(3)
    env.reset(seed=5)
    env.reset()
    if config is SMALL:
        env.step(1)
    data = pickle.dumps(env)
    assert len(data) < 6_000
    twin = pickle.loads(data)
    for _ in range(30):
        action = env.action_space.sample()
        assert twin.action_space.sample() == action
        ours, theirs = env.step(action), twin.step(action)
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[1:] == theirs[1:]
        if ours[2]:
            assert env.reset()[1] == twin.reset()[1]


def test_environments_of_one_configuration_share_their_prompts() -> None:
    first, second = TextGenEnv(**SMALL), TextGenEnv(**SMALL)
    assert first._world is second._world
    first.close()
    first.close()
    second.reset(seed=0)
    with pytest.raises(ClosedEnvironmentError):
        first.reset()
    with pytest.raises(ResetNeeded):
        first.step(0)
    second.close()
    assert TextGenEnv(**SMALL)._world is not first._world


@pytest.mark.parametrize("config", [SMALL, TEXT, {**TEXT, "think_share": 0.5, "template": "qwen3"}])
@pytest.mark.parametrize("render_mode", [None, "ansi", "human"])
def test_gymnasium_finds_nothing_to_warn_of(
    config: dict[str, Any], render_mode: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    del capsys  # keeps what `human` prints out of the report
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make("textgym:TextGen-v0", render_mode=render_mode, **config)
        check_env(env.unwrapped)


def test_stable_baselines_finds_nothing_to_warn_of() -> None:
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(gymnasium.make("textgym:TextGen-v0", **SMALL).unwrapped, warn=True)


def test_stable_baselines_makes_many_and_learns() -> None:
    pytest.importorskip("stable_baselines3")
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    envs = make_vec_env("textgym:TextGen-v0", n_envs=2, env_kwargs=SMALL)
    model = PPO("MlpPolicy", envs, n_steps=8, batch_size=16, n_epochs=1).learn(16)
    assert model.num_timesteps == 16


def test_maskable_ppo_gets_fresh_masks() -> None:
    env = begin()
    masks = env.action_masks()
    assert masks.shape == (13,)
    assert masks.dtype == np.bool_
    assert masks.all()
    masks[:] = False
    assert env.action_masks().all()


def test_async_vector_env_plays_text_without_shared_memory() -> None:
    makers = [lambda: TextGenEnv(**TEXT)] * 2
    env = gymnasium.vector.AsyncVectorEnv(makers, shared_memory=False, context="fork")
    env.reset(seed=0, options={"prompt_index": PROMPT})
    _, rewards, terminated, _, infos = env.step(("4", "é"))
    env.close()
    assert rewards.tolist() == [1.0, 0.0]
    assert terminated.all()
    assert infos["completion"].tolist() == ["4", "é"]


def test_ansi_transcript_ends_with_the_outcome() -> None:
    env = TextGenEnv(render_mode="ansi", **SMALL)
    assert env.render() == ""
    env.reset(seed=0, options={"prompt_index": PROMPT})
    assert env.render() == "3+1="
    env.step(4)
    assert env.render() == "3+1=4"
    env.step(EOS)
    assert env.render() == "3+1=4\n[stop, score 1]"
    assert begin().render() is None


def test_human_mode_prints_as_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    env = TextGenEnv(render_mode="human", **SMALL)
    env.reset(seed=0, options={"prompt_index": PROMPT})
    env.step(4)
    assert capsys.readouterr().out == "3+1=4"
    env.step(EOS)
    assert capsys.readouterr().out == "\n[stop, score 1]\n"
    assert env.render() is None
    assert capsys.readouterr().out == "3+1=4\n[stop, score 1]\n"


def test_malformed_use_is_refused() -> None:
    env = TextGenEnv(**SMALL)
    with pytest.raises(ResetNeeded, match="reset"):
        env.step(0)
    env.reset(seed=0)
    for wrong in (-1, 13):
        with pytest.raises(InvalidAction, match="0 to 12"):
            env.step(wrong)
    with pytest.raises(TypeError):
        env.step(1.0)
    text = TextGenEnv(**TEXT)
    text.reset(seed=0)
    with pytest.raises(ConfigError, match="action_mode='token'"):
        text.step(3)
    with pytest.raises(ConfigError, match="token mode only"):
        text.action_masks()
    with pytest.raises(ConfigError, match="rgb_array"):
        TextGenEnv(render_mode="rgb_array")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"promts": "arithmetic"}, "Did you mean 'prompts'"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"action_mode": "tokens"}, "action_mode"),
        ({"tokenizer": "chars:aa"}, "each once"),
        ({"tokenizer": "chars:"}, "at least one"),
        ({"tokenizer": "no/such/folder"}, "no/such/folder"),
        ({"max_prompt_tokens": 3}, "'9\\+9'|tokens, more than max_prompt_tokens=3"),
    ],
)
def test_wrong_argument_is_named(arguments: dict[str, Any], message: str) -> None:
    def make_and_reset() -> None:
        gymnasium.make("textgym:TextGen-v0", **{**SMALL, **arguments}).reset(seed=0)

    with pytest.raises(ConfigError, match=message):
        make_and_reset()


def test_real_prompts_are_read_as_they_are(shared_data: Any) -> None:
    path = str(shared_data("gsm8k_train.jsonl"))
    env = TextGenEnv(action_mode="text", prompts=path, reward="exact")
    observation, info = env.reset(seed=0)
    assert len(observation) > 20
    env.step("42")
    assert env.num_prompts > 1_500
    assert info["prompt"] == observation


def test_hugging_face_tokenizer_with_its_own_ids(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = {token: i for i, token in enumerate(["[PAD]", "[EOS]", "[UNK]", *"0123456789+="])}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    model.decoder = tokenizers.decoders.Fuse()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=model, eos_token="[EOS]", pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(tmp_path)
    env = TextGenEnv(**{**SMALL, "tokenizer": str(tmp_path)})
    observation, _ = env.reset(seed=0, options={"prompt_index": PROMPT})
    assert observation.tolist() == [6, 13, 4, 14, 15, 15, 15]
    assert env.action_masks().tolist() == [False, True, False] + [True] * 12
    env.step(7)
    assert env.step(1)[1] == 1.0
    assert make_tokenizer(str(tmp_path)).decode([7, 3]) == "40"
