"""Where a `PromptPool` gets its prompts: named sources and files, behind one face."""

from __future__ import annotations

import functools
import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from textgym.errors import ConfigError, PromptError
from textgym.jsonl import PromptProblem
from textgym.make import make_prompt_source
from textgym.plugins import plugin_manager
from textgym.prompt import Message, Prompt
from textgym.prompt_files import read_prompts, summarise
from textgym.prompt_source import Demonstrations, PromptSource
from textgym.tool import ToolCall
from textgym.validation import explain

SourceSpec: TypeAlias = str | os.PathLike[str] | Mapping[str, Any]


class SourceConfig(BaseModel):
    """One source of a mix."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    source: str = Field(min_length=1)
    """A prompt source by name, or the path of a JSONL file."""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Share of the draws, relative to the other sources."""
    level: int = Field(default=0, ge=0, le=1000)
    """How hard its prompts are, for a curriculum; 0 is where one begins."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Fields of the named source."""


class Prompts(Protocol):
    """What a pool needs of a source; every `PromptSource` has it."""

    def num_prompts(self) -> int:
        """Return how many prompts there are."""

    def prompt(self, index: int) -> Prompt:
        """Return one of them."""

    def demonstrations(self, index: int) -> Demonstrations:
        """Return what a supervised start can show of one of them."""

    def tool_calls(self, index: int) -> tuple[ToolCall, ...]:
        """Return calls that lead to its right completion."""

    def split_keys(self) -> NDArray[np.uint64]:
        """Return one uniform key per prompt, equal for equal prompts."""


@dataclass(frozen=True)
class FilePrompts:
    """The prompts of one file, held in memory."""

    prompts: tuple[Prompt, ...]
    problems: tuple[PromptProblem, ...]

    def num_prompts(self) -> int:
        """Return how many usable lines the file has."""
        return len(self.prompts)

    def prompt(self, index: int) -> Prompt:
        """Return the prompt of a usable line."""
        return self.prompts[index]

    def demonstrations(self, index: int) -> Demonstrations:
        """Return the target of the prompt of a usable line, where it is text."""
        return Demonstrations.of_target(self.prompts[index])

    def tool_calls(self, index: int) -> tuple[ToolCall, ...]:
        """Return no calls: a file says none."""
        del index
        return ()

    def split_keys(self) -> NDArray[np.uint64]:
        """Return a hash of the messages of each prompt."""
        return np.array([_text_key(p.messages) for p in self.prompts], dtype=np.uint64)


def source_configs(sources: SourceSpec | Sequence[SourceSpec]) -> list[SourceConfig]:
    """Return what `sources` says, one entry per source.

    Raises:
        ConfigError: names the entry and the field that cannot be used.
    """
    listed = [sources] if isinstance(sources, str | os.PathLike | Mapping) else list(sources)
    if not listed:
        raise ConfigError("sources is empty; name at least one prompt source or JSONL file")
    configs = []
    for index, spec in enumerate(listed):
        given = spec if isinstance(spec, Mapping) else {"source": _path_text(spec)}
        try:
            configs.append(SourceConfig.model_validate(given))
        except ValidationError as error:
            reasons = [reason for _, reason in explain(error, SourceConfig, given)]
            raise ConfigError(f"sources[{index}]: {'; '.join(reasons)}") from None
    return configs


def _path_text(spec: object) -> object:
    return os.fspath(spec) if isinstance(spec, os.PathLike) else spec


def open_source(config: SourceConfig) -> Prompts:
    """Return the prompts of a source: a path that is there or ends in `.jsonl`, or a name.

    Raises:
        PromptError: a file that cannot be read or holds no usable prompt.
        ConfigError: settings that do not fit the source.
        UnknownPromptSourceError: neither a file nor the name of an installed source.
    """
    names = plugin_manager().prompt_sources
    path = Path(config.source)
    if path.suffix == ".jsonl" or (config.source not in names and path.exists()):
        if config.config:
            raise ConfigError(f"'{config.source}' is a file, which takes no config; remove it")
        return _read(path)
    return make_prompt_source(config.source, **config.config)


def _read(path: Path) -> FilePrompts:
    try:
        status = path.stat()
    except OSError as error:
        raise PromptError(f"{path}: cannot be read: {error.strerror}") from None
    return _read_once(path.resolve(), status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=8)  # a pool per sub-environment, but one copy of the prompts
def _read_once(path: Path, mtime_ns: int, size: int) -> FilePrompts:
    read = read_prompts(path)
    if read.problems:
        warnings.warn(f"{path}: left out {summarise(read.problems)}", stacklevel=5)
    return FilePrompts(read.prompts, read.problems)


def content_digest(prompts: Prompts) -> str:
    """Return a hash of a source's content; of a generated one, its settings and its ends."""
    if isinstance(prompts, PromptSource):
        ends = (prompts.prompt(0), prompts.prompt(prompts.num_prompts() - 1))
        content = [prompts.name, prompts.model_dump_json(), *(p.model_dump_json() for p in ends)]
    else:
        content = [prompts.prompt(i).model_dump_json() for i in range(prompts.num_prompts())]
    return hashlib.blake2b("\n".join(content).encode(), digest_size=16).hexdigest()


def _text_key(messages: Sequence[Message]) -> int:
    return hash_text("\0".join(f"{message.role}\0{message.content}" for message in messages))


def hash_text(text: str) -> int:
    """Return a uniform 64-bit hash, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
