"""Answers that were kept, scored again with another reward."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from textgym.errors import ConfigError, PromptError
from textgym.item_files import SUITE, read_items, read_json, suite_folders
from textgym.items import Item
from textgym.jsonl import PromptProblem, read_rows
from textgym.sample import Sample
from textgym.sample_files import read_samples
from textgym.score import Score
from textgym.scoring import Scorer


class Answers(NamedTuple):
    """Answers that belong together."""

    items: list[Item]
    scores_cut: bool
    """Whether answers that were cut off had been scored as far as they went."""


def read_answers(path: Path) -> dict[str, Answers]:
    """Return kept answers with the scores they had, by suite or file.

    Args:
        path: a folder of evaluated suites, a file of rollouts, or the directory of a run.

    Raises:
        ConfigError: it is none of these.
    """
    rollouts = [path] if path.is_file() else sorted(path.glob("rollouts/*.jsonl"))
    if rollouts:
        return {file.stem: Answers(read_rollouts(file), False) for file in rollouts}
    return {
        name: Answers(read_items(folder), bool(_settings(folder).get("score_length_cut", True)))
        for name, folder in suite_folders(path).items()
    }


def _settings(folder: Path) -> Mapping[str, object]:
    settings = read_json(folder / SUITE)
    return settings if isinstance(settings, dict) else {}


def read_rollouts(path: Path) -> list[Item]:
    """Return the episodes of a file as answers; their scores are the rewards that they got.

    Raises:
        ConfigError: a line cannot be used.
    """
    rows = dict(read_rows(path))
    try:
        file = read_samples(path)
    except PromptError as error:
        raise ConfigError(str(error)) from error
    if file.problems:
        raise ConfigError(f"{path} holds lines that are no episode: {file.problems[0]}")
    indices: dict[str, int] = {}
    counts: dict[int, int] = {}
    items = []
    for judged in file.samples:
        row = rows[judged.line]
        assert not isinstance(row, PromptProblem)
        sample = judged.sample
        index = indices.setdefault(sample.prompt.id, len(indices))
        counts[index] = counts.get(index, 0) + 1
        known = row.get("is_success", judged.verdict)
        items.append(
            Item(
                sample.prompt, sample.completion, _score(row),
                known if isinstance(known, bool) else None, counts[index] - 1, index,
                "length" if row.get("finish_reason") == "length" else "stop",
            )
        )  # fmt: skip
    return items


def _score(row: dict[str, object]) -> Score:
    value = row.get("reward", row.get("score"))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Score.unscored("it had no reward")
    return Score(float(value))


def rescore(answers: Answers, scorer: Scorer) -> list[Item]:
    """Return the answers with other scores.

    One that was cut off, and not scored for that, gets `Scorer.cut_off` again.
    """
    again = [answers.scores_cut or item.finish_reason != "length" for item in answers.items]
    samples = [
        Sample(item.prompt, item.completion, finish_reason=item.finish_reason)
        for item, is_scored in zip(answers.items, again, strict=True)
        if is_scored
    ]
    scores = iter(scorer.score_batch(samples) if samples else ())
    return [
        _with_score(item, next(scores), scorer) if is_scored else _cut_off(item, scorer)
        for item, is_scored in zip(answers.items, again, strict=True)
    ]


def _with_score(item: Item, score: Score, scorer: Scorer) -> Item:
    return item._replace(score=score, is_success=scorer.is_success(item.prompt, score))


def _cut_off(item: Item, scorer: Scorer) -> Item:
    score = scorer.cut_off(item.prompt)
    is_known = scorer.is_success(item.prompt, score) is not None
    return item._replace(score=score, is_success=False if is_known else None)
