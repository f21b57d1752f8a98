"""reasoning-gym: every dataset as a prompt source, judged by its own verifier."""

from __future__ import annotations

import importlib.util
import json
import random
from typing import Any

import numpy as np
import pytest

import textgym
from textgym import Sample, Score
from textgym.errors import ConfigError, MissingExtraError, UnknownPromptSourceError
from textgym_plugins.reasoning import ReasoningGym, ReasoningGymReward, datasets
from textgym_plugins.reasoning.reward import EVALUATED, PARSED, is_harmless

if importlib.util.find_spec("reasoning_gym") is None:
    pytest.skip("reasoning-gym is not installed", allow_module_level=True)

NAMES = datasets.dataset_names()
CONFIGS: dict[str, dict[str, Any]] = {
    "composite": {"datasets": [{"name": "chain_sum"}, {"name": "gcd", "weight": 2.0}]},
}
WITHOUT_ANSWER = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
"""Datasets that tell no answer: many are right, and the verifier judges each."""
CONSTANT_EMPTY = {"game_of_life_halting"}
"""Datasets whose verifier takes any other text for the answer "no"."""


def source(name: str, **config: Any) -> ReasoningGym:
    values = {"size": 4, "seed": 3, "config": CONFIGS.get(name, {}), **config}
    return ReasoningGym(dataset=name, **values)


def score(prompt: textgym.Prompt, text: str) -> Score:
    return ReasoningGymReward().score(Sample(prompt, f"<answer>{text}</answer>"))


@pytest.mark.parametrize("name", NAMES)
def test_every_dataset_is_usable(name: str) -> None:
    made = source(name, size=2)
    prompts = [made.prompt(i) for i in range(2)]
    assert all(len(prompt.text.removesuffix(made.text[10:])) > 10 for prompt in prompts)
    datasets._made.cache_clear()
    datasets._open.cache_clear()
    prompt = made.prompt(0)
    assert prompt == prompts[0]  # a pure function of its number
    assert textgym.Prompt.model_validate_json(prompt.model_dump_json()) == prompt
    shown = made.demonstrations(0).right
    assert bool(shown) != (name in WITHOUT_ANSWER)
    for completion in shown:
        result = ReasoningGymReward().score(Sample(prompt, completion))
        assert (result.value, result.label) == (1.0, "correct"), result.reason
    assert (score(prompt, "").value, score(prompt, "").label) == (0.0, "no_answer")
    nonsense = score(prompt, "zq").value
    assert nonsense <= 0.25 or name in CONSTANT_EMPTY
    assert ReasoningGymReward(partial=False).score(Sample(prompt, "zq")).value == 0.0


def test_some_right_answer_of_a_dataset_without_one() -> None:
    prompt = source("graph_color").prompt(0)
    opened = datasets.open_dataset("graph_color", {}, seed=3, size=4)
    known = datasets.item(opened, 0)["metadata"]["possible_answer"]
    assert score(prompt, json.dumps(known)).value == 1.0


def test_seeds_are_not_shifted_and_equal_questions_are_on_one_side() -> None:
    first, second = (source("chain_sum", seed=seed, size=50) for seed in (1, 2))
    questions = [{made.prompt(i).text for i in range(50)} for made in (first, second)]
    assert len(questions[0] & questions[1]) < 5  # of the package's own seeds they share 49
    keys = source("coin_flip", size=60, config={"min_trials": 1, "max_trials": 2}).split_keys()
    assert keys.dtype == np.uint64
    assert len(set(keys.tolist())) < 60


def test_the_global_generator_is_left_alone() -> None:
    random.seed(5)
    before = random.getstate()
    for name in ("chain_sum", "knights_knaves", "maze"):
        source(name).prompt(1)
    assert random.getstate() == before


def test_settings_reach_the_dataset() -> None:
    prompt = source("chain_sum", config={"min_terms": 6, "max_terms": 6}).prompt(0)
    assert prompt.text.count("+") + prompt.text.count("-") >= 5
    assert source("chain_sum", text="Q: {question}").prompt(0).text.startswith("Q: ")


@pytest.mark.parametrize(
    ("completion", "value", "label"),
    [
        ("<answer>{}</answer>", 1.0, "correct"),
        ("<answer>1</answer>, no: <answer> {} </answer>", 1.0, "correct"),
        ("<think><answer>{}</answer></think>none", 0.0, "no_answer"),
        ("{}", 0.0, "no_answer"),
        ("<answer>{}", 0.0, "no_answer"),
        ("<answer>-99999</answer>", 0.0, "wrong"),
    ],
)
def test_the_answer_is_the_last_tag_after_the_thoughts(
    completion: str, value: float, label: str
) -> None:
    prompt = source("leg_counting").prompt(0)
    assert isinstance(prompt.target, dict)
    said = completion.format(prompt.target["answer"])
    result = ReasoningGymReward().score(Sample(prompt, said))
    assert (result.value, result.label) == (value, label)


def test_tags_can_be_others_or_none() -> None:
    made = source("leg_counting", tag="final")
    assert made.demonstrations(0).right[0].startswith("<final>")
    sample = Sample(made.prompt(0), made.demonstrations(0).right[0])
    assert ReasoningGymReward(tag="final").score(sample).value == 1.0
    bare = source("leg_counting", tag=None)
    sample = Sample(bare.prompt(0), bare.demonstrations(0).right[0])
    assert ReasoningGymReward(tag=None).score(sample).value == 1.0


def test_partial_credit_can_be_refused() -> None:
    prompt = source("leg_counting").prompt(0)
    assert isinstance(prompt.target, dict)
    padded = f"<answer>it is {prompt.target['answer']}</answer>"
    result = ReasoningGymReward().score(Sample(prompt, padded))
    assert 0 < result.value < 1
    assert result.label == "partial"
    assert ReasoningGymReward(partial=False).score(Sample(prompt, padded)).value == 0.0


@pytest.mark.parametrize("name", sorted(EVALUATED | PARSED))
def test_no_verifier_runs_what_an_answer_says(name: str, tmp_path: Any) -> None:
    """Each of these verifiers would."""
    mark = tmp_path / "ran"
    made, reward = source(name), ReasoningGymReward()
    attacks = [
        f"__import__('pathlib').Path({str(mark)!r}).touch()",
        f"open({str(mark)!r}, 'w')",
        "eval(chr(49)+chr(43)+chr(49))",
        "print(1)",
        "(lambda: 1)()",
        "x.__class__",
    ]
    for attack in attacks:
        result = reward.score(Sample(made.prompt(0), f"<answer>{attack}</answer>"))
        assert result.value <= 0.05, attack
        assert not mark.exists()
    assert is_harmless("chain_sum", attacks[0])  # whose verifier compares texts
    for i in range(4):
        answer = made.prompt(i).target
        assert isinstance(answer, dict)
        assert is_harmless(name, str(answer["answer"]))


def test_mistakes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownPromptSourceError, match=r"no dataset 'leg_count'\. Did you"):
        source("leg_count").prompt(0)
    with pytest.raises(ConfigError, match="dataset 'chain_sum' cannot be made"):
        source("chain_sum", config={"no_such_field": 1}).prompt(0)
    with pytest.raises(ConfigError, match="dataset 'composite' cannot be made"):
        source("composite", config={}).prompt(0)
    with pytest.raises(ConfigError, match="text"):
        textgym.make_prompt_source("reasoning_gym", dataset="chain_sum", text="no place")
    prompt = textgym.Prompt(id="1", messages="?", target={"dataset": "nowhere", "index": 0})
    assert ReasoningGymReward().score(Sample(prompt, "x")).status == "abstained"
    monkeypatch.setattr(datasets, "_factory", _not_installed)
    datasets._open.cache_clear()
    with pytest.raises(MissingExtraError, match="pip install 'textgym\\[reasoning-gym\\]'"):
        source("chain_sum").prompt(0)
    known = textgym.Prompt(id="1", messages="?", target={"dataset": "chain_sum", "index": 0})
    result = ReasoningGymReward().score(Sample(known, "x"))
    assert (result.status, result.kind) == ("failed", "unavailable")


def _not_installed() -> Any:
    raise MissingExtraError("reasoning-gym", "reasoning-gym", "this dataset")
