"""Rollouts as columns: what the page embeds, and both viewers filter.

A page holds them all in memory, so many are thinned out evenly over the run, and the figures of
tokens, the larger part by far, are lines of their own that are parsed when they are looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from textgym_agents.reports.reading import RolloutFile, Row, number

AnyThing = TypeVar("AnyThing")

MOST_ROLLOUTS = 10_000
MOST_CHARACTERS = 48_000_000
"""Of prompts and completions together."""
MOST_TOKEN_CHARACTERS = 48_000_000
"""Of the lines of tokens."""
TOKEN_FIELDS = ("text", "logprobs", "values", "advantages", "kl")
_KNOWN = {
    "prompt", "completion", "reward", "num_tokens", "failure", "status", "is_success", "label",
    "prompt_id", "finish_reason", "reason", "extracted", "target", "reward_parts",
    "verifier_error", "tokens", "score", "reward_steps", "messages", "turns",
}  # fmt: skip
"""Fields that have columns of their own, or that others imply."""


class Place(NamedTuple):
    """A rollout and where it comes from."""

    run: int
    phase: str
    iteration: int
    record: Row


@dataclass(frozen=True)
class RolloutTable:
    """Rollouts of one or several runs."""

    columns: dict[str, list[Any]]
    """By name, each of one length; a missing value is None, or the empty text."""
    prompts: list[str]
    """The distinct ones, which the column `prompt` numbers."""
    tokens: list[str]
    """Of each rollout a JSON list of lists, in the order of `TOKEN_FIELDS`; empty if unknown."""
    num_found: int
    """Before they were thinned out."""

    def __len__(self) -> int:
        return len(self.tokens)


def make_table(runs: Sequence[Iterable[RolloutFile]], *, most: int = MOST_ROLLOUTS) -> RolloutTable:
    """Return the rollouts of runs, thinned out evenly to as many as a page can hold.

    Args:
        runs: the files of each run.
        most: how many rollouts to keep.
    """
    places = [
        Place(index, file.phase, file.iteration, record)
        for index, files in enumerate(runs)
        for file in files
        for record in file.records
    ]
    kept = thin(places, most)
    size = sum(map(_num_characters, kept))
    if size > MOST_CHARACTERS:
        kept = thin(kept, int(len(kept) * MOST_CHARACTERS / size))
    numbers: dict[str, int] = {}
    rows = [_row(place, numbers) for place in kept]
    names = rows[0] if rows else ()
    columns = {name: [row[name] for row in rows] for name in names}
    return RolloutTable(columns, list(numbers), _token_lines(kept), len(places))


def thin(things: Sequence[AnyThing], most: int) -> list[AnyThing]:
    """Return at most so many, evenly spread; the first and the last are among them."""
    count = len(things)
    if count <= most:
        return list(things)
    if most < 2:
        return list(things[:most])
    return [things[round(i * (count - 1) / (most - 1))] for i in range(most)]


def _num_characters(place: Place) -> int:
    return sum(len(_text(place.record.get(name))) for name in ("prompt", "completion"))


def _row(place: Place, prompts: dict[str, int]) -> dict[str, Any]:
    record = place.record
    prompt = _text(record.get("prompt"))
    return {
        "run": place.run,
        "phase": place.phase,
        "iteration": place.iteration,
        "id": _text(record.get("prompt_id")),
        "prompt": prompts.setdefault(prompt, len(prompts)),
        "completion": _text(record.get("completion")),
        "reward": number(record.get("reward")),
        "status": _status(record),
        "success": _truth(record.get("is_success")),
        "label": _text(record.get("label")),
        "task": _task(record.get("metadata")),
        "length": number(record.get("num_tokens")),
        "finish": _text(record.get("finish_reason")),
        "target": _text(record.get("target")),
        "extracted": _text(record.get("extracted")),
        "reason": _text(record.get("reason")),
        "error": _text(record.get("verifier_error")),
        "parts": _parts(record.get("reward_parts")),
        "steps": _steps(record.get("reward_steps")),
        "more": {name: _text(record[name]) for name in record if name not in _KNOWN},
    }


def _status(record: Row) -> str:
    """Return `scored`, or why there is no score."""
    return _text(record.get("failure")) or _text(record.get("status")) or "scored"


def _truth(value: object) -> int | None:
    return int(value) if isinstance(value, bool) else None


def _text(value: object) -> str:
    """Return text as it is, other values as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _task(metadata: object) -> str:
    return _text(metadata.get("task")) if isinstance(metadata, dict) else ""


def _parts(value: object) -> dict[str, float | None]:
    if not isinstance(value, dict):
        return {}
    return {str(name): number(part) for name, part in value.items()}


def _steps(value: object) -> list[tuple[float | None, float | None, str]]:
    """Return value, end and reason of each stretch of a completion that earned something."""
    found = value if isinstance(value, list) else []
    return [
        (number(step.get("value")), number(step.get("stop")), _text(step.get("reason")))
        for step in found
        if isinstance(step, dict)
    ]


def _token_lines(places: Sequence[Place]) -> list[str]:
    """Return the lines of tokens; some are empty, evenly, where there are too many."""
    lines = [_token_line(place.record.get("tokens")) for place in places]
    size = sum(map(len, lines))
    if size <= MOST_TOKEN_CHARACTERS:
        return lines
    share = MOST_TOKEN_CHARACTERS / size
    return [line if int((i + 1) * share) > int(i * share) else "" for i, line in enumerate(lines)]


def _token_line(tokens: object) -> str:
    if not isinstance(tokens, dict):
        return ""
    columns = list(_token_columns(tokens))
    texts = columns[0]
    if texts is None or any(column is not None and len(column) != len(texts) for column in columns):
        return ""
    return json.dumps(columns, separators=(",", ":"))


def _token_columns(tokens: Row) -> Iterator[list[Any] | None]:
    """Yield the columns of a record's tokens; None for those that it does not have."""
    for name in TOKEN_FIELDS:
        column = tokens.get(name)
        if not isinstance(column, list):
            yield None
        elif name == "text":
            yield list(map(_text, column))
        else:
            yield list(map(number, column))
