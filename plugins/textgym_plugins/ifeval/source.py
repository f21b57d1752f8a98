"""The prompt source `ifeval`: a file in the form of IFEval's own prompts.

One JSON object a line: `prompt`, `instruction_id_list`, `kwargs`, and `key` for an id. Other fields
are ignored, because copies of the data set carry their own.
"""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from textgym import Prompt, PromptSource
from textgym.errors import PromptError
from textgym.jsonl import LineError, PromptProblem, read_rows
from textgym.prompt_files import summarise
from textgym.validation import dotted, explain, shown
from textgym_plugins.ifeval.instruction import read_instructions


class IFEvalPrompts(PromptSource):
    """Prompts with verifiable instructions, each scored by the reward `ifeval`."""

    name: ClassVar[str] = "ifeval"

    path: Path
    """The JSONL file."""

    @functools.cached_property
    def _prompts(self) -> tuple[Prompt, ...]:
        prompts, problems = read_ifeval_prompts(self.path)
        if problems:
            warnings.warn(f"{self.path}: left out {summarise(problems)}", stacklevel=3)
        return prompts

    def num_prompts(self) -> int:
        """Return how many usable lines the file has."""
        return len(self._prompts)

    def prompt(self, index: int) -> Prompt:
        """Return the prompt of usable line `index`."""
        if not 0 <= index < len(self._prompts):
            raise IndexError(f"prompt {index} of {len(self._prompts)}")
        return self._prompts[index]

    def split_keys(self) -> NDArray[np.uint64]:
        """Return a hash of each prompt's text."""
        return np.array([_hash(prompt.text) for prompt in self._prompts], dtype=np.uint64)


def read_ifeval_prompts(
    path: str | Path,
) -> tuple[tuple[Prompt, ...], tuple[PromptProblem, ...]]:
    """Return the prompts of a file, and what is wrong with the lines that cannot be used.

    Raises:
        PromptError: the file cannot be read, or no line of it can be used.
    """
    prompts, problems = dict[str, Prompt](), list[PromptProblem]()
    for number, row in read_rows(path):
        if isinstance(row, PromptProblem):
            problems.append(row)
            continue
        try:
            prompt = _read(row, default_id=f"{Path(path).stem}:{number}")
            if prompt.id in prompts:
                raise LineError("key", f"{shown(row.get('key'))} occurs in an earlier line")
        except LineError as error:
            problems.append(PromptProblem(str(path), number, error.field, str(error)))
        else:
            prompts[prompt.id] = prompt
    if not prompts:
        summary = summarise(problems) if problems else "the file is empty"
        raise PromptError(f"{path} holds no usable prompt: {summary}")
    return tuple(prompts.values()), tuple(problems)


def _read(row: Mapping[str, object], *, default_id: str) -> Prompt:
    text = row.get("prompt")
    if not isinstance(text, str) or not text.strip():
        raise LineError("prompt", f"expected text, got {shown(text)}")
    target = {"instruction_id_list": row.get("instruction_id_list"), "kwargs": row.get("kwargs")}
    try:
        read_instructions(target, prompt=text)
    except PromptError as error:
        raise LineError("instruction_id_list", str(error)) from None
    key = row.get("key")
    values = {
        "id": default_id if key is None else f"ifeval:{key}",
        "messages": text,
        "target": target,
        "reward": "ifeval",
    }
    try:
        return Prompt.model_validate(values)
    except ValidationError as error:
        location, message = explain(error, Prompt, values)[0]
        raise LineError(dotted(location), message) from None


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
