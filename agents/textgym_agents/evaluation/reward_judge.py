"""A reward as an answerer: it says which of the answers that a prompt shows scores higher.

For suites of preferences, whose prompts hold the request in `metadata["conversation"]` and two
answers in `metadata["answers"]`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from textgym.benchmark import Benchmark
from textgym.config import parse_override
from textgym.errors import ConfigError
from textgym.make import make_rubric
from textgym.prompt import Prompt
from textgym.sample import Sample
from textgym.score import Score
from textgym.scoring import Scorer
from textgym_agents.evaluation.answerers import Answer, Question
from textgym_agents.evaluation.weights import weights_mark

PREFIX = "reward:"
_LETTERS = "AB"


class RewardJudge:
    """Prefers the answer that a reward scores higher; equal scores are no preference.

    Args:
        reward: what `make_rubric` takes.
    """

    batch_size = 64

    def __init__(self, reward: JsonValue) -> None:
        self.reward = reward
        spec: Any = reward  # JSON, which `make_rubric` checks
        self._scorer = Scorer(make_rubric(spec))

    def describe(self) -> dict[str, JsonValue]:
        """Return the reward, with a mark of the weights where it is a model in a folder."""
        config = self.reward.get("config") if isinstance(self.reward, dict) else None
        model = config.get("model") if isinstance(config, dict) else None
        mark = weights_mark(Path(model)) if isinstance(model, str) else ""
        return {"kind": "reward", "reward": self.reward, "weights": mark}

    def rendering(self, benchmark: Benchmark) -> Mapping[str, JsonValue]:
        """Return the plain template; a reward reads the messages."""
        del benchmark
        return {"template": "plain"}

    def answer(
        self, questions: Sequence[Question], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[Answer]:
        """Return the letter of the better answer to each question."""
        del max_new_tokens, temperature, seed
        pairs = [_samples(question.prompt) for question in questions]
        scores = iter(self._scorer.score_batch([sample for pair in pairs for sample in pair]))
        return [_verdict([next(scores) for _ in pair]) for pair in pairs]

    def close(self) -> None:
        """End the workers of the reward."""
        self._scorer.close()


def reward_of(model: str, device: str) -> JsonValue:
    """Return the reward that a name on the command line stands for, None where it is no reward.

    `reward:NAME`, `reward:{reward: NAME, config: {...}}`, or the folder of a sequence classifier.
    """
    if model.startswith(PREFIX):
        return parse_override(model.replace(PREFIX, "reward=", 1))["reward"]  # type: ignore[no-any-return]
    if not _is_classifier(Path(model)):
        return None
    return {"reward": "reward_model", "config": {"model": model, "device": device}}


def _is_classifier(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    names = config.get("architectures") or [] if isinstance(config, dict) else []
    return any(str(name).endswith("ForSequenceClassification") for name in names)


def _samples(prompt: Prompt) -> list[Sample]:
    answers, messages = prompt.metadata.get("answers"), prompt.metadata.get("conversation")
    if not isinstance(answers, list) or len(answers) != len(_LETTERS):
        raise ConfigError(
            f"the prompt '{prompt.id}' shows no two answers; a reward can only answer suites of "
            "preferences, such as 'preference'"
        )
    asked = Prompt.model_validate({"id": prompt.id, "messages": messages})
    return [Sample(asked, str(answer)) for answer in answers]


def _verdict(scores: Sequence[Score]) -> Answer:
    broken = next((score for score in scores if not score.is_scored), None)
    if broken is not None:
        return Answer("", "abort" if broken.status == "failed" else "stop", failure=broken.reason)
    a, b = (score.value for score in scores)
    if a == b:
        return Answer(f"Both answers score {a:g}.")
    return Answer(f"The correct answer is {_LETTERS[b > a]}.")
