"""gem's environments and the tasks of verifiers; stand-ins with their interfaces where missing."""

from __future__ import annotations

import importlib.util
import random
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env
from pydantic import BaseModel, ConfigDict

import textgym
from textgym.errors import ConfigError, PromptError
from textgym.interop import gem_env, verifiers_prompts
from textgym.prompt_files import read_prompts, write_prompts

EASY = "game:GuessTheNumber-v0-easy"


class GuessTheNumber:
    """The interface of gem.core.Env, and what gem's game does."""

    def __init__(self, max_number: int = 10, max_turns: int = 4) -> None:
        self.max_number, self.max_turns = max_number, max_turns

    def reset(self, seed: int | None = None) -> tuple[str, dict[str, Any]]:
        if seed is not None:
            random.seed(seed)  # as gem does
        self.number, self.turn = random.randint(1, self.max_number), 0
        return f"guess a number up to {self.max_number}", {"suffix": "guess"}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.turn += 1
        digits = "".join(c for c in action if c.isdigit())
        if digits and int(digits) == self.number:
            return "right", 1.0, True, self.turn == self.max_turns, {"suffix": ""}
        is_last = self.turn == self.max_turns
        return "wrong", 0.0, is_last, is_last, {"suffix": "guess"}


@pytest.fixture
def gem(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("gem") is None:
        package, envs, registration = (
            ModuleType(name) for name in ("gem", "gem.envs", "gem.envs.registration")
        )
        registration.ENV_REGISTRY = {EASY: GuessTheNumber}  # type: ignore[attr-defined]
        package.make = lambda env, **kw: GuessTheNumber(**kw)  # type: ignore[attr-defined]
        for module in (package, envs, registration):
            monkeypatch.setitem(sys.modules, module.__name__, module)


def test_an_environment_of_gem_is_one_of_gymnasium(gem: None) -> None:
    env = gem_env(EASY)
    check_env(env.unwrapped, skip_render_check=True)
    observation, info = env.reset(seed=0)
    assert isinstance(observation, str)
    assert "suffix" in info
    rewards, ends = [], []
    for guess in range(1, 11):
        _, reward, terminated, truncated, _ = env.step(f"\\boxed{{{guess}}}")
        rewards.append(reward)
        ends.append((terminated, truncated))
        if terminated or truncated:
            break
    assert ends[-1] == (True, False)  # gem says that the last turn did both
    assert 1 <= len(rewards) <= 4


def test_a_seed_repeats_an_episode(gem: None) -> None:
    env = gem_env(EASY, max_number=9)
    played = []
    for _ in range(2):
        played.append(env.reset(seed=3)[0])
        played.append(str([env.step(f"\\boxed{{{n}}}")[:4] for n in (2, 3)]))
    assert played[:2] == played[2:]


def test_trainers_make_it_by_its_id(gem: None) -> None:
    envs = gymnasium.make_vec(
        "textgym:Gem-v0", num_envs=2, vectorization_mode="sync", env=EASY, action_mode="text"
    )
    observations, _ = envs.reset(seed=0)
    assert len(observations) == 2
    envs.close()
    assert textgym.__name__ in sys.modules


def test_what_gem_does_not_have_is_explained(gem: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'game:GuessTheNumber-v0-easy'"):
        gem_env("game:GuessTheNumber-v0-eas")
    with pytest.raises(ConfigError, match="has the mode 'text' alone"):
        gymnasium.make("Gem-v0", env=EASY, action_mode="token")
    for name in ("gem", "gem.envs"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match="pip install gem-llm"):
        gem_env(EASY)


class Data(BaseModel):
    """The fields of verifiers.v1.TaskData that matter, and one of a taskset's own."""

    model_config = ConfigDict(frozen=True)

    idx: int | None = None
    id: str | None = None
    name: str | None = None
    prompt: Any = None
    system_prompt: str | None = None
    answer: str = ""
    level: int = 1


def test_tasks_of_verifiers_are_prompts(tmp_path: Any) -> None:
    tasks = [
        SimpleNamespace(data=Data(idx=0, prompt="1+1=", answer="2", system_prompt="Be brief.")),
        SimpleNamespace(
            data=Data(id="b", prompt=[{"role": "user", "content": "2+2="}], answer="4", level=2)
        ),
    ]
    first, second = prompts = list(verifiers_prompts(tasks, reward="math"))
    assert [m.role for m in first.messages] == ["system", "user"]
    assert (first.id, first.target, first.reward, first.metadata) == (
        "0",
        "2",
        "math",
        {"level": 1},
    )
    assert (second.id, second.text, second.metadata) == ("b", "2+2=", {"level": 2})
    write_prompts(tmp_path / "tasks.jsonl", prompts)
    assert list(read_prompts(tmp_path / "tasks.jsonl").prompts) == prompts
    env = gymnasium.make(
        "TextGen-v0", prompts=str(tmp_path / "tasks.jsonl"), action_mode="text", split="all",
        template="chatml",
    )  # fmt: skip
    env.reset(options={"prompt_index": 1})
    assert env.step("4")[1] == 1.0


def test_a_task_without_a_prompt_is_explained() -> None:
    with pytest.raises(PromptError, match="the task 'x' has no prompt"):
        list(verifiers_prompts([SimpleNamespace(data=Data(id="x"))]))
    picture = [{"role": "user", "content": [{"type": "image_url"}]}]
    with pytest.raises(PromptError, match="is no prompt of text"):
        list(verifiers_prompts([SimpleNamespace(data=Data(id="x", prompt=picture))]))
