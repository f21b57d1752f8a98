"""Rows of an RGB file: a query, its answers, passages that hold them and passages that do not.

The files (Chen et al. 2023, arXiv:2309.01431) come in three shapes, all read here: one list of
positive passages; a list per part of the answer, where passages must be put together; and positive
passages with a twin in which the answer was replaced. A line that cannot be used is reported with
file, line and field, and the rest is used.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from textgym.errors import PromptError
from textgym.jsonl import LineError, PromptProblem, read_rows
from textgym.prompt_files import summarise
from textgym.validation import shown

Aliases = tuple[str, ...]
Passages = tuple[str, ...]


@dataclass(frozen=True)
class RgbRow:
    """One question."""

    id: str
    query: str
    answers: tuple[Aliases, ...]
    """Each must be given; any alias of it will do."""
    positive: tuple[Passages, ...]
    """Passages that hold the answer, by part of it where the file parts them."""
    negative: Passages
    """Passages about the topic that do not hold the answer."""
    positive_wrong: Passages = ()
    """The positive passages with the wrong answer in place of the right one."""
    fake_answer: str | None = None
    """That wrong answer."""

    @property
    def is_chinese(self) -> bool:
        """Whether the query has Chinese characters."""
        return any("\u3400" <= c <= "\u9fff" for c in self.query)


@dataclass(frozen=True)
class RgbFile:
    """The rows of a file, and what of it cannot be used."""

    rows: tuple[RgbRow, ...]
    problems: tuple[PromptProblem, ...] = ()


def read_rgb(path: str | Path, *, is_counterfactual: bool = False) -> RgbFile:
    """Read a file once per content; `is_counterfactual` demands the twin passages.

    Raises:
        PromptError: the file cannot be read, or no line of it can be used.
    """
    path = Path(path)
    try:
        status = path.stat()
    except OSError as error:
        raise PromptError(f"{path}: cannot be read: {error.strerror}") from None
    return _read_once(path, status.st_mtime_ns, status.st_size, is_counterfactual)


@functools.lru_cache(maxsize=16)
def _read_once(path: Path, mtime_ns: int, size: int, is_counterfactual: bool) -> RgbFile:
    rows, problems = dict[str, RgbRow](), list[PromptProblem]()
    first_lines: dict[str, int] = {}
    for number, given in read_rows(path):
        if isinstance(given, PromptProblem):
            problems.append(given)
            continue
        try:
            row = read_row(given, default_id=str(number), is_counterfactual=is_counterfactual)
            if row.id in rows:
                first = first_lines[row.id]
                raise LineError("id", f"{shown(row.id)} is the id of line {first} already")
        except LineError as error:
            problems.append(PromptProblem(str(path), number, error.field, str(error)))
        else:
            rows[row.id], first_lines[row.id] = row, number
    if not rows:
        summary = summarise(problems) if problems else "the file is empty"
        raise PromptError(f"{path} holds no usable row of RGB: {summary}")
    return RgbFile(tuple(rows.values()), tuple(problems))


def read_row(
    given: Mapping[str, object], *, default_id: str, is_counterfactual: bool = False
) -> RgbRow:
    """Return one row.

    Raises:
        LineError: names the field that is missing or has the wrong shape.
    """
    for name in ("query", "answer", "positive", "negative"):
        if name not in given:
            raise LineError(name, f"missing; the line has {shown(list(given))}")
    wrong = _texts(given, "positive_wrong") if "positive_wrong" in given else ()
    if is_counterfactual and not wrong:
        raise LineError("positive_wrong", "missing or empty; the counterfactual task needs it")
    row_id = given.get("id", default_id)
    if isinstance(row_id, bool) or not isinstance(row_id, str | int):
        raise LineError("id", f"expected a number or text, got {shown(row_id)}")
    fake = given.get("fakeanswer")
    return RgbRow(
        str(row_id),
        _text("query", given["query"]),
        _answers(given["answer"]),
        _positive(given),
        _texts(given, "negative"),
        wrong,
        fake if isinstance(fake, str) else None,
    )


def _text(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise LineError(field, f"expected text, got {shown(value)}")
    if not value.strip():
        raise LineError(field, "is empty")
    return value.strip()


def _texts(given: Mapping[str, object], field: str) -> Passages:
    return _listed(field, given[field])


def _listed(field: str, value: object) -> Passages:
    if not isinstance(value, list):
        raise LineError(field, f"expected a list of texts, got {shown(value)}")
    return tuple(_text(f"{field}.{i}", item) for i, item in enumerate(value))


def _answers(value: object) -> tuple[Aliases, ...]:
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list) or not parts:
        raise LineError("answer", f"expected text or a list of answers, got {shown(value)}")
    answers = []
    for index, part in enumerate(parts):
        field = f"answer.{index}"
        aliases = _listed(field, part) if isinstance(part, list) else (_text(field, part),)
        if not aliases:
            raise LineError(field, "is empty")
        answers.append(aliases)
    return tuple(answers)


def _positive(given: Mapping[str, object]) -> tuple[Passages, ...]:
    value = given["positive"]
    if not isinstance(value, list) or not value:
        raise LineError("positive", f"expected a list of passages, got {shown(value)}")
    if not isinstance(value[0], list):
        return (_listed("positive", value),)
    groups = tuple(_listed(f"positive.{i}", group) for i, group in enumerate(value))
    empty = next((i for i, group in enumerate(groups) if not group), None)
    if empty is not None:
        raise LineError(f"positive.{empty}", "is empty")
    return groups
