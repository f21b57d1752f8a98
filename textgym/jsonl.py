"""Read JSON Lines that others wrote: one bad line costs that line and is reported.

Bounded on purpose: a line above `MAX_LINE_BYTES` is skipped without being held in memory.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from textgym.errors import PromptError

MAX_LINE_BYTES = 16 << 20


@dataclass(frozen=True)
class PromptProblem:
    """One line that cannot be used."""

    path: str
    line: int
    """Counted from 1; 0 stands for the file as a whole."""
    field: str
    """Dotted path of the field, empty where the line as a whole is wrong."""
    message: str
    """What is wrong, which value, what to do."""

    def __str__(self) -> str:
        """Return `file:line: field 'x': message`."""
        field = f"field '{self.field}': " if self.field else ""
        return f"{self.path}:{self.line}: {field}{self.message}"


class LineError(Exception):
    """A line that cannot be used, before file and line number are known."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def read_rows(path: str | Path) -> Iterator[tuple[int, dict[str, object] | PromptProblem]]:
    """Yield the number and the object of each line that is not empty, or what is wrong with it.

    Raises:
        PromptError: the file cannot be read, or is UTF-16.
    """
    try:
        with open(path, "rb") as file:
            if file.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                raise PromptError(f"{path}: the file is UTF-16; save it as UTF-8")
            for number, line in _lines(file):
                try:
                    row = _parse(line)
                except LineError as error:
                    yield number, PromptProblem(str(path), number, error.field, str(error))
                    continue
                if row is not None:
                    yield number, row
    except OSError as error:
        raise PromptError(f"{path}: cannot be read: {error.strerror}") from None


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield numbered lines; one that is too long comes cut, one byte above the limit."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        yield number, line
        while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES + 1)


def _parse(line: bytes) -> dict[str, object] | None:
    if len(line) > MAX_LINE_BYTES:
        raise LineError("", f"the line is longer than {MAX_LINE_BYTES >> 20} MiB; split or drop it")
    line = line.strip()
    if not line:
        return None
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise LineError("", f"byte {error.start + 1} is not UTF-8; save it as UTF-8") from None
    try:
        row = json.loads(text, parse_constant=_refuse_constant)
        if "\\u" in text:  # an escape can hold half a character, which nothing can encode
            json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise LineError("", "an escape such as \\ud800 is half a character; remove it") from None
    except json.JSONDecodeError as error:
        raise LineError("", f"not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise LineError("", f"not usable as JSON: {error}") from None
    if not isinstance(row, dict):
        raise LineError("", f"expected a JSON object in each line, got a {type(row).__name__}")
    return row


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value; use null or a number")
