"""Prompt sources with levels: what is drawn at each, in scalar and vector environments."""

from __future__ import annotations

import pickle
from collections import Counter
from typing import Any

import gymnasium
import numpy as np
import pytest

from textgym.errors import ConfigError
from textgym_envs.prompt_pool import PromptPool
from textgym_envs.textgen import TextGenEnv
from textgym_envs.textgen_vector import TextGenVectorEnv

SOURCES: list[Any] = [
    {"source": "arithmetic", "config": {"below": 10}, "level": 0},
    {"source": "arithmetic", "config": {"below": 50}, "level": 1, "weight": 3.0},
    {"source": "arithmetic", "config": {"digits": 3}, "level": 5},
]
ARGUMENTS: dict[str, Any] = {"prompts": SOURCES, "action_mode": "text", "reward": "exact"}
KEYS = np.arange(4000, dtype=np.uint64)
EPISODES = np.zeros(4000, dtype=np.int64)


def shares(pool: PromptPool, level: int | None) -> list[float]:
    drawn = Counter(pool.level_of(i) for i in pool.draw_array(KEYS, EPISODES, level=level).tolist())
    return [drawn[each] / 4000 for each in range(3)]


def test_a_level_is_drawn_with_a_share_of_earlier_ones() -> None:
    pool = PromptPool(SOURCES, review_share=0.4)
    assert pool.num_levels == 3
    assert shares(pool, None) == pytest.approx([0.2, 0.6, 0.2], abs=0.04)
    assert shares(pool, 0) == [1.0, 0.0, 0.0]
    assert shares(pool, 1) == pytest.approx([0.4, 0.6, 0.0], abs=0.04)
    assert shares(pool, 2) == pytest.approx([0.1, 0.3, 0.6], abs=0.04)
    assert shares(PromptPool(SOURCES, review_share=0.0), 2) == [0.0, 0.0, 1.0]
    for key in range(50):
        expected = pool.draw_array(KEYS[key : key + 1], EPISODES[:1], level=2)[0]
        assert pool.draw(key, 0, level=2) == expected


def test_prompts_say_their_level_where_there_are_several() -> None:
    pool = PromptPool(SOURCES)
    for index in pool.draw_array(KEYS[:50], EPISODES[:50]).tolist():
        assert pool.prompt(index).metadata["curriculum_level"] == pool.level_of(index)
    alone = PromptPool(SOURCES[:1])
    assert "curriculum_level" not in alone.prompt(0).metadata
    assert alone.num_levels == 1


def test_draws_without_levels_are_what_they_were() -> None:
    plain = [{k: v for k, v in source.items() if k != "level"} for source in SOURCES]
    before, now = PromptPool(plain), PromptPool(SOURCES)
    assert before.draw_array(KEYS, EPISODES).tolist() == now.draw_array(KEYS, EPISODES).tolist()
    assert before.fingerprint != now.fingerprint
    assert PromptPool(SOURCES, review_share=0.5).fingerprint != now.fingerprint
    assert PromptPool(plain, review_share=0.5).fingerprint == before.fingerprint


def test_a_level_holds_from_the_next_episode_on() -> None:
    vector, scalar = TextGenVectorEnv(1, **ARGUMENTS), TextGenEnv(**ARGUMENTS)
    for level in (None, 0, 2, 1):
        vector.set_level(level)
        scalar.set_level(level)
        assert (vector.level, scalar.level, vector.num_levels) == (level, level, 3)
        for seed in (7, None, None):  # with a seed, and where the stream goes on
            observations, _ = vector.reset(seed=seed)
            assert observations == (scalar.reset(seed=seed)[0],)
            if level == 0:
                assert vector.current_prompts[0].metadata["curriculum_level"] == 0


def test_environments_of_one_world_have_their_own_levels() -> None:
    first, second = TextGenVectorEnv(64, **ARGUMENTS), TextGenVectorEnv(64, **ARGUMENTS)
    first.set_level(0)
    first.reset(seed=0)
    second.reset(seed=0)
    levels = {p.metadata["curriculum_level"] for p in second.current_prompts}
    assert levels == {0, 1, 2}
    assert {p.metadata["curriculum_level"] for p in first.current_prompts} == {0}


@pytest.mark.parametrize("kind", [TextGenEnv, TextGenVectorEnv])
def test_a_pickle_keeps_the_level(kind: Any) -> None:
    env = kind(**ARGUMENTS)
    env.set_level(1)
    env.reset(seed=0)
    copy = pickle.loads(pickle.dumps(env))
    assert copy.level == 1
    assert [copy.reset()[0] for _ in range(5)] == [env.reset()[0] for _ in range(5)]


def test_mistakes_are_named() -> None:
    env = gymnasium.make("textgym:TextGen-v0", **ARGUMENTS).unwrapped
    assert isinstance(env, TextGenEnv)
    with pytest.raises(ConfigError, match="level 3: the prompt sources have the levels 0 to 2"):
        env.set_level(3)
    with pytest.raises(ConfigError, match="level"):
        PromptPool([{"source": "arithmetic", "level": -1}])
