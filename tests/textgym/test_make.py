"""Rewards, prompt sources and rubrics from names: what is built, and what each mistake says."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

import textgym
from textgym import ConfigError, FunctionReward, Prompt, Reward, Sample, Score, UnknownRewardError

Install = Callable[..., None]
PROMPT = Prompt(id="1", messages="What is 6 * 7?", target="42")
SAMPLE = Sample(PROMPT, "It is 42.")


class Words(Reward):
    """An inline reward that counts."""

    name: ClassVar[str] = "words"
    isolation = "inline"
    most: int = 10

    def score(self, sample: Sample) -> Score:
        return Score(min(1.0, len(sample.completion.split()) / self.most))


@pytest.fixture
def brevity(install: Install) -> None:
    from textwrap import dedent

    install("textgym-brevity", dedent(BREVITY))


BREVITY = """
    from typing import ClassVar
    import textgym
    from pydantic import PositiveInt

    class Brevity(textgym.Reward):
        name: ClassVar[str] = "brevity"
        max_words: PositiveInt = 50

        def score(self, sample):
            return textgym.Score(max(0.0, 1.0 - len(sample.completion.split()) / self.max_words))

    class Numbers(textgym.PromptSource):
        name: ClassVar[str] = "numbers"
        size: PositiveInt = 3

        def num_prompts(self):
            return self.size

        def prompt(self, index):
            return textgym.Prompt(id=str(index), messages=f"{index}?")

    @textgym.hookimpl
    def textgym_rewards():
        return [Brevity]

    @textgym.hookimpl
    def textgym_prompt_sources():
        return [Numbers]
"""


@pytest.mark.usefixtures("brevity")
def test_make_reward_by_name_with_configuration() -> None:
    reward = textgym.make_reward("brevity", max_words=4)
    assert reward.score(Sample(PROMPT, "one two")).value == 0.5
    assert reward.model_dump() == {"max_words": 4}


@pytest.mark.usefixtures("brevity")
@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"max_word": 3},
            "reward 'brevity': no field 'max_word'. Did you mean 'max_words'? "
            "The fields are max_words.",
        ),
        ({"max_words": 0}, "reward 'brevity': 'max_words' is 0: Input should be greater than 0"),
    ],
)
def test_make_reward_mistake_names_the_field(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        textgym.make_reward("brevity", **config)


@pytest.mark.usefixtures("brevity")
def test_make_reward_unknown_name() -> None:
    with pytest.raises(UnknownRewardError, match=r"no reward named 'brevty'\. Did you mean 'brev"):
        textgym.make_reward("brevty")


@pytest.mark.usefixtures("brevity")
def test_make_prompt_source_by_name_and_its_mistakes() -> None:
    assert textgym.make_prompt_source("numbers", size=2).num_prompts() == 2
    with pytest.raises(textgym.UnknownPromptSourceError, match="Did you mean 'numbers'"):
        textgym.make_prompt_source("number")
    with pytest.raises(ConfigError, match=r"prompt source 'numbers': no field 'siz'\. Did you"):
        textgym.make_prompt_source("numbers", siz=2)


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "my_functions.py"
    path.write_text(
        "def contains(sample):\n"
        "    return float(sample.prompt.target in sample.completion)\n"
        "def word(sample):\n    return 'good'\n"
        "LIMIT = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return path


@pytest.mark.parametrize("reference", ["my_functions:contains", "{path}:contains"])
def test_make_reward_of_a_function(functions: Path, reference: str) -> None:
    reward = textgym.make_reward(reference.format(path=functions))

    assert isinstance(reward, FunctionReward)
    assert reward.title == "contains"
    assert reward.score(SAMPLE) == Score(1.0)
    assert pickle.loads(pickle.dumps(reward)) == reward
    assert hash(reward) == hash(textgym.make_reward(reference.format(path=functions)))
    with textgym.Scorer(reward) as scorer:  # in a worker, where it is imported again
        assert scorer.score_batch([SAMPLE])[0].value == 1.0


def test_make_reward_of_a_file_holds_its_whole_path(
    functions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(functions.parent)
    reward = textgym.make_reward("my_functions.py:contains")
    assert reward.model_dump() == {"function": f"{functions.resolve()}:contains"}


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("no_such_module:f", "importing no_such_module raised ModuleNotFoundError"),
        ("no_such_file.py:f", "no_such_file.py raised FileNotFoundError"),
        ("my_functions:contain", "has no function 'contain'. Did you mean 'contains'?"),
        ("my_functions:LIMIT", "my_functions has no function 'LIMIT', which is 3"),
        ("my_functions:", "it names no function; write module:function"),
        (":f", "it names no function; write module:function"),
    ],
)
@pytest.mark.usefixtures("functions")
def test_make_reward_of_no_function(reference: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        textgym.make_reward(reference)


@pytest.mark.usefixtures("functions")
def test_make_reward_of_a_function_takes_no_configuration() -> None:
    with pytest.raises(ConfigError, match="takes no configuration, got size"):
        textgym.make_reward("my_functions:contains", size=3)


def test_make_rubric_none_has_nothing_of_its_own() -> None:
    rubric = textgym.make_rubric(None)
    assert (rubric.rewards, rubric.part_names, rubric.range) == ((), (), (0.0, 1.0))
    assert not rubric.deterministic


@pytest.mark.usefixtures("brevity", "functions")
@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("brevity", ("brevity",)),
        ("my_functions:contains", ("contains",)),
        (Words(most=3), ("words",)),
        (len, ("len",)),
        ({"reward": "brevity", "config": {"max_words": 3}, "name": "short"}, ("short",)),
        (
            ["brevity", Words(), {"reward": "my_functions:contains"}],
            ("brevity", "words", "contains"),
        ),
        ({"rewards": "brevity", "routes": {"w": Words()}}, ("brevity", "words")),
    ],
)
def test_make_rubric_takes_every_form(spec: Any, names: tuple[str, ...]) -> None:
    rubric = textgym.make_rubric(spec)
    assert rubric.part_names == names
    assert textgym.make_rubric(rubric) is rubric


@pytest.mark.usefixtures("brevity", "functions")
def test_make_rubric_of_its_own_dump_is_equal() -> None:
    rubric = textgym.make_rubric(
        {
            "rewards": [
                {"reward": "brevity", "weight": 0.5, "config": {"max_words": 3}},
                {"reward": "brevity", "name": "gate", "gate": {"threshold": 0.1}},
            ],
            "routes": {"other": "my_functions:contains"},
        }
    )
    assert textgym.make_rubric(rubric.model_dump()) == rubric
    assert textgym.make_rubric(rubric.model_dump(mode="json")) == rubric


@pytest.mark.usefixtures("brevity")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("brevty", "no reward named 'brevty' (rubric). Did you mean 'brevity'?"),
        (["brevity", "brevty"], "no reward named 'brevty' (rubric.rewards[1])."),
        ([{"reward": "brevty"}], "no reward named 'brevty' (rubric.rewards[0].reward)."),
        ({"routes": {"a": "brevty"}}, "no reward named 'brevty' (rubric.routes['a'])."),
    ],
)
def test_make_rubric_unknown_name_says_where(spec: Any, message: str) -> None:
    with pytest.raises(UnknownRewardError, match=re.escape(message)):
        textgym.make_rubric(spec)


@pytest.mark.usefixtures("brevity")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (3, "rubric is 3; expected a reward, its name, or a function"),
        (Words, "or a function; write Words(...)"),
        ([{"rewrd": "x"}], "rubric.rewards[0]: no field 'rewrd'. Did you mean 'reward'?"),
        ({"rewards": [], "routs": {}}, "rubric: no field 'routs'. Did you mean 'routes'?"),
        ({"routes": ["a"]}, "rubric.routes is ['a']; expected name: rubric"),
        ({"routes": {"a": {"routes": {"b": "brevity"}}}}, "the route 'a' has routes of its own"),
        (
            [{"reward": "brevity", "config": {"max_word": 1}}],
            "rubric.rewards[0].reward: reward 'brevity': no field 'max_word'. Did you mean",
        ),
        ([{"reward": "brevity", "config": 3}], "rubric.rewards[0].config is 3; expected"),
        ([{"reward": Words(), "config": {"most": 1}}], "is a reward already; its 'config' has no"),
        ([{"reward": "brevity", "weight": "a"}], "rubric.rewards[0]: 'weight' is 'a'"),
        ([{"reward": "brevity", "weight": float("nan")}], "a weight must be finite"),
        (
            [{"reward": "brevity", "gate": {"treshold": 1}}],
            "no field 'gate.treshold'. Did you mean 'gate.threshold'?",
        ),
        (["brevity", "brevity"], "two rewards are named 'brevity'; give one of them another"),
    ],
)
def test_make_rubric_mistake_says_where(spec: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        textgym.make_rubric(spec)
