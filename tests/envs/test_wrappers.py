"""Windows on the history of a dialogue, and limits of its turns."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv

from textgym.errors import ConfigError
from textgym_envs.wrappers import HistoryWindow, TurnLimit

TOOLS: dict[str, Any] = {
    "prompts": [{"source": "arithmetic", "config": {"below": 10}}],
    "describe_tools": False,
    "split": "all",
}


def tools(**arguments: Any) -> gymnasium.Env[str, str]:
    return gymnasium.make("textgym:TextGenTools-v0", **{**TOOLS, **arguments})


def toy() -> gymnasium.Env[str, str]:
    return gymnasium.make("textgym:ToyTwoTurn-v0", action_mode="text")


def told(env: gymnasium.Env[str, str], *said: str) -> list[str]:
    """Return the observations of an episode about 4+3."""
    observations = [env.reset(seed=0, options={"prompt_index": 34})[0]]
    return observations + [env.step(text)[0] for text in said]


CALLS = ("calculator: 1+1", "calculator: 2+2", "calculator: 3+3")
EXCHANGES = tuple(f"{call}|\n{2 * i}\n" for i, call in enumerate(CALLS, 1))


def window(**limits: Any) -> list[str]:
    return told(HistoryWindow(tools(), end_of_turn="|", **limits), *CALLS)


def test_without_limits_it_is_the_whole_dialogue() -> None:
    whole = "4+3=" + "".join(EXCHANGES)
    assert window() == ["4+3=", *(("4+3=" + "".join(EXCHANGES[:i])) for i in (1, 2, 3))]
    assert window(characters=1000, tokens=1000, turns=3)[-1] == whole


def test_last_turns_stay() -> None:
    assert window(turns=1) == ["4+3=", *("4+3=" + each for each in EXCHANGES)]
    assert window(turns=0)[-1] == "4+3="
    assert window(turns=2)[-1] == "4+3=" + EXCHANGES[1] + EXCHANGES[2]
    assert window(turns=1, keep_prompt=False) == ["4+3=", "4+3=" + EXCHANGES[0], *EXCHANGES[1:]]


@pytest.mark.parametrize("unit", ["characters", "tokens"])
def test_as_much_stays_as_there_is_room_for(unit: str) -> None:
    size = len(EXCHANGES[0])
    assert window(**{unit: 4 + 2 * size})[-1] == "4+3=" + EXCHANGES[1] + EXCHANGES[2]
    assert window(**{unit: 4 + 2 * size - 1})[-1] == "4+3=" + EXCHANGES[2]
    assert window(**{unit: size})[-1] == EXCHANGES[2]  # the prompt's beginning is cut off
    assert window(**{unit: 3}) == ["+3=", *(each[-3:] for each in EXCHANGES)]


def test_an_episode_begins_anew() -> None:
    env = HistoryWindow(tools())
    told(env, *CALLS)
    assert told(env) == ["4+3="]


def test_turns_are_limited_by_truncation() -> None:
    env = TurnLimit(tools(), max_turns=2)
    for _ in range(2):
        env.reset(seed=0)
        assert env.step(CALLS[0])[2:4] == (False, False)
        observation, reward, terminated, truncated, info = env.step(CALLS[1])
        assert (observation, reward, terminated, truncated) == ("\n4\n", 0.0, False, True)
        assert info == {"finish_reason": "length"}
    env.reset(seed=0)
    env.step(CALLS[0])
    _, _, terminated, truncated, info = env.step("9999")  # the task ends with the limit
    assert (terminated, truncated, info["finish_reason"]) == (True, False, "stop")


@pytest.mark.parametrize("make", [tools, toy])
def test_wrapped_environments_keep_gymnasiums_rules(make: Any) -> None:
    for wrapped in (
        HistoryWindow(make(), turns=1, characters=20),
        HistoryWindow(make(), tokens=5),
        TurnLimit(make(), max_turns=1),
        TurnLimit(HistoryWindow(make(), turns=2), max_turns=3),
    ):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*different from the unwrapped version.*")
            check_env(wrapped, skip_render_check=True)


def test_they_work_in_vector_environments() -> None:
    def make() -> gymnasium.Env[str, str]:
        return TurnLimit(HistoryWindow(tools(), turns=1), max_turns=2)

    envs = SyncVectorEnv([make] * 3)
    envs.reset(seed=0, options={"prompt_index": 34})
    envs.step(CALLS[:1] * 3)
    observations, _, _, truncated, infos = envs.step(CALLS[1:2] * 3)
    assert observations == ("4+3=calculator: 2+2\n4\n",) * 3
    assert truncated.all()
    assert list(infos["finish_reason"]) == ["length"] * 3


def test_a_made_environment_knows_how_it_was_wrapped() -> None:
    env = TurnLimit(HistoryWindow(tools(), turns=1), max_turns=2)
    assert env.spec is not None
    again = gymnasium.make(env.spec)
    assert told(again, *CALLS[:2])[-1] == "4+3=calculator: 2+2\n4\n"


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match="TurnLimit takes environments whose observations"):
        TurnLimit(gymnasium.make("CartPole-v1"), max_turns=2)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ConfigError, match="Make it with action_mode='text'"):
        HistoryWindow(gymnasium.make("textgym:TextGen-v0"))
    with pytest.raises(ConfigError, match="turns=-1: must be at least 0"):
        HistoryWindow(toy(), turns=-1)
    with pytest.raises(ConfigError, match="max_turns=0: must be at least 1"):
        TurnLimit(toy(), max_turns=0)
