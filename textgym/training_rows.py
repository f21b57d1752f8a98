"""Rows that something is trained on: a prompt and what was, or should have been, answered.

Demonstrations and preference pairs come in files with many other fields, so fields that nobody asks
for are ignored here, other than in prompt files. A malformed line costs that line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from pydantic import ValidationError

from textgym.errors import PromptError
from textgym.jsonl import LineError, PromptProblem, read_rows
from textgym.prompt import Prompt
from textgym.prompt_files import summarise
from textgym.validation import dotted, explain, shown

Row = Mapping[str, object]
T = TypeVar("T")


class Rows(NamedTuple, Generic[T]):
    """What a file holds, and what of it cannot be used."""

    usable: tuple[T, ...]
    problems: tuple[PromptProblem, ...]


def read_usable(path: str | Path, parse: Callable[[Row, str], T], *, what: str) -> Rows[T]:
    """Read a JSONL file; lines that cannot be used are among the `problems`.

    Args:
        path: of the file.
        parse: returns what a row holds, given a name for it; raises `LineError`.
        what: what a row is called.

    Raises:
        PromptError: the file cannot be read, or no line of it can be used.
    """
    usable: list[T] = []
    problems: list[PromptProblem] = []
    for number, row in read_rows(path):
        if isinstance(row, PromptProblem):
            problems.append(row)
            continue
        try:
            usable.append(parse(row, f"{Path(path).stem}:{number}"))
        except LineError as error:
            problems.append(PromptProblem(str(path), number, error.field, str(error)))
    if not usable:
        summary = summarise(problems) if problems else "the file is empty"
        raise PromptError(f"{path} holds no usable {what}: {summary}")
    return Rows(tuple(usable), tuple(problems))


def spread_pairs(
    right: Iterable[str], wrong: Iterable[str], most: int
) -> Iterator[tuple[str, str]]:
    """Yield up to `most` of the pairs of a right and a wrong one, spread over all of them."""
    everything = [(a, b) for a, b in product(right, wrong) if a != b]
    step = max(1.0, len(everything) / most)
    yield from (everything[int(i * step)] for i in range(min(most, len(everything))))


def require(row: Row, *fields: str) -> None:
    """See that a row has fields.

    Raises:
        LineError: it has not.
    """
    for field in fields:
        if field not in row:
            raise LineError(field, f"the field is missing; the line has {', '.join(row) or 'none'}")


def parse_prompt(messages: object, name: str, *, field: str = "prompt") -> Prompt:
    """Return the prompt of a row: a text, which the user says, or a list of messages.

    Raises:
        LineError: it is neither, or empty.
    """
    if isinstance(messages, str) and not messages.strip():
        raise LineError(field, "is empty")
    given = {"id": name, "messages": messages}
    try:
        return Prompt.model_validate(given)
    except ValidationError as error:
        location, message = explain(error, Prompt, given)[0]
        where = dotted(location).replace("messages", field, 1)
        raise LineError(where, message.replace("'messages", f"'{field}", 1)) from None


def parse_completion(row: Row, field: str) -> str:
    """Return a completion: a text, or messages of which the assistant says the last.

    Raises:
        LineError: it is neither, or empty.
    """
    value = row[field]
    if isinstance(value, list):
        last = parse_prompt(value, "row", field=field).messages[-1]
        if last.role != "assistant":
            raise LineError(field, f"ends with a message of the {last.role}, not of the assistant")
        value = last.content
    if not isinstance(value, str):
        raise LineError(field, f"{shown(value)} is a {type(value).__name__}; give a text")
    if not value.strip():
        raise LineError(field, "is empty")
    return value


def parse_preference(row: Row, name: str) -> tuple[Prompt, str, str]:
    """Return the prompt, the chosen and the rejected completion of a row.

    Raises:
        LineError: one of them is missing or malformed, or both completions are equal.
    """
    require(row, "prompt", "chosen", "rejected")
    chosen, rejected = parse_completion(row, "chosen"), parse_completion(row, "rejected")
    if chosen == rejected:
        raise LineError("rejected", f"is equal to 'chosen', {shown(chosen)}; drop the pair")
    return parse_prompt(row["prompt"], name), chosen, rejected
