"""The supervised start: what is demonstrated, what is learnt from, and that it learns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from textgym.errors import ConfigError, PromptError
from textgym.prompt import Prompt
from textgym.prompt_source import Demonstrations
from textgym_agents.lm.cold_start import (
    ColdStart,
    Demonstration,
    PoolDemonstrator,
    demonstration_batch,
    make_demonstrator,
)
from textgym_agents.lm.config import ColdStartConfig
from textgym_agents.lm.network import PolicyValueNetwork

MakePolicy = Callable[..., PolicyValueNetwork]
NAMES = "ABCx"


class Targets:
    """A pool of prompts `A`, `B`, ... with given targets."""

    def __init__(self, *targets: object) -> None:
        self.prompts = [
            Prompt(id=f"p{i}", messages=NAMES[i], target=target) for i, target in enumerate(targets)
        ]

    def draw(self, key: int, episode: int) -> int:
        return key % len(self.prompts)

    def demonstrations(self, index: int) -> Demonstrations:
        return Demonstrations.of_target(self.prompts[index])

    def prompt(self, index: int) -> Prompt:
        return self.prompts[index]

    def render(self, index: int, key: int, episode: int) -> str:
        return NAMES[index]


def draws(pool: Targets, wrong_share: float, count: int = 2000) -> list[Demonstration]:
    demonstrator = PoolDemonstrator(pool, wrong_share)
    rng = np.random.default_rng(0)
    return [demonstrator.draw(rng) for _ in range(count)]


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_a_share_of_the_demonstrations_is_wrong(share: float) -> None:
    targets = ["12", "7", "100", "-3"]
    drawn = draws(Targets(*targets), share)
    wrong = [d for d in drawn if d.completion != targets[NAMES.index(d.prompt)]]
    assert len(wrong) / len(drawn) == pytest.approx(share, abs=0.04)
    for demonstration in wrong:
        target = targets[NAMES.index(demonstration.prompt)]
        pairs = zip(demonstration.completion, target, strict=True)
        assert sum(a != b for a, b in pairs) == 1  # one digit
        assert int(demonstration.completion) != int(target)


def test_a_target_without_digits_is_replaced_by_another() -> None:
    drawn = draws(Targets("yes", "no"), 1.0, 50)
    assert all(d.completion == ("no" if d.prompt == "A" else "yes") for d in drawn)


class Shown(Targets):
    """A pool whose source has demonstrations of its own; the first prompt is drawn more often."""

    def demonstrations(self, index: int) -> Demonstrations:
        return Demonstrations(("r", "R"), ("w1", "w2", "w3"))

    def draw(self, key: int, episode: int) -> int:
        return int(key % 4 == 0)


def test_demonstrations_of_the_source_come_before_the_target() -> None:
    drawn = draws(Shown("7", "8"), 0.75, 4000)
    counts = Counter(d.completion for d in drawn)
    shares = {text: count / len(drawn) for text, count in counts.items()}
    assert shares == pytest.approx(
        {"r": 0.125, "R": 0.125, "w1": 0.25, "w2": 0.25, "w3": 0.25}, abs=0.03
    )
    assert sum(d.prompt == "A" for d in drawn) / len(drawn) == pytest.approx(0.75, abs=0.03)


def test_targets_that_cannot_be_wrong_or_shown_are_errors() -> None:
    with pytest.raises(ConfigError, match=r"cold_start\.wrong_share: \(nearly\) all prompts"):
        draws(Targets("yes", "yes"), 1.0)
    with pytest.raises(ConfigError, match="the target of prompt 'p0' is no text"):
        draws(Targets(None), 0.0)


def test_the_completion_and_its_end_are_learnt_from(tiny_policy: PolicyValueNetwork) -> None:
    demonstrations = [Demonstration("A12", "34"), Demonstration("B", "5"), Demonstration("C", "")]
    batch = demonstration_batch(tiny_policy, demonstrations, 16)
    assert batch.input_ids.tolist() == [
        [9, 1, 2, 3, 4, 6],
        [10, 5, 6, 0, 0, 0],
        [11, 6, 0, 0, 0, 0],
    ]
    assert batch.action_mask.sum(dim=1).tolist() == [3, 2, 1]
    cut = demonstration_batch(tiny_policy, demonstrations, 4)
    assert cut.action_mask.sum(dim=1).tolist() == [1, 2, 1]


def test_it_learns_what_it_is_shown(make_policy: MakePolicy) -> None:
    network = make_policy(std=0.1)
    config = ColdStartConfig(steps=100, batch_size=16, learning_rate=1e-2, wrong_share=0.0)
    demonstrator = PoolDemonstrator(Targets("3", "4", "5"), 0.0)
    head = network.value_head.weight.clone()
    start = ColdStart(network, config, demonstrator, seed=0, max_length=16)
    losses = [start.step(i)["cold_start/loss"] for i in range(config.steps)]
    assert losses[0] > 1.5
    assert losses[-1] < 0.1
    assert torch.equal(network.value_head.weight, head)


def test_a_step_is_a_function_of_the_seed_and_its_number(make_policy: MakePolicy) -> None:
    def losses(seed: int) -> list[float]:
        start = ColdStart(
            make_policy(), ColdStartConfig(steps=5, batch_size=4),
            PoolDemonstrator(Targets("3", "4", "5"), 0.5), seed=seed, max_length=16,
        )  # fmt: skip
        return [start.step(i)["cold_start/loss"] for i in range(3)]

    assert losses(1) == losses(1)
    assert losses(1) != losses(2)


def test_demonstrations_of_a_file_are_taken_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"prompt": "A", "completion": "12"}\n\n{"prompt": "B", "completion": ""}\n')
    config = ColdStartConfig(demonstrations=str(path), wrong_share=1.0)
    demonstrator = make_demonstrator(config, None)
    rng = np.random.default_rng(0)
    drawn = {demonstrator.draw(rng) for _ in range(20)}
    assert drawn == {Demonstration("A", "12"), Demonstration("B", "")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no demonstrations"),
        ('{"prompt": "A"}\n', "line 1: field 'completion' is missing or not text"),
        ('{"prompt": "A", "completion": "1"}\n{"prompt": 1, "completion": "1"}\n', "line 2: field"),
        ("[1]\n", "line 1: field 'prompt' is missing"),
        ("{\n", "line 1: not JSON"),
    ],
)
def test_a_malformed_file_names_line_and_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(text)
    with pytest.raises(PromptError, match=message):
        make_demonstrator(ColdStartConfig(demonstrations=str(path)), None)


def test_a_missing_file_or_pool_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"none\.jsonl: cannot be read"):
        make_demonstrator(ColdStartConfig(demonstrations=str(tmp_path / "none.jsonl")), None)
    with pytest.raises(ConfigError, match="this environment has no prompt pool"):
        make_demonstrator(ColdStartConfig(), None)
