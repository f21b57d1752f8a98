"""PromptPool: mixes prompt sources, holds prompts out for evaluation, draws and renders.

A draw is a pure function of `(key, episode)`: a counter-based hash and no generator, so a scalar
and a vector environment see the same prompts, and a run resumes exactly by knowing how far it
was. Prompts are drawn with replacement. The split of a prompt depends on its content alone, so
duplicates never straddle it and appended lines move nothing.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from textgym.errors import ConfigError, PromptError
from textgym.jsonl import PromptProblem
from textgym.prompt import Message, Prompt
from textgym.prompt_source import Demonstrations
from textgym.seeding import Purpose, mix64, mix64_array
from textgym.tool import ToolCall
from textgym_envs.prompt_sources import (
    FilePrompts,
    Prompts,
    SourceConfig,
    SourceSpec,
    content_digest,
    hash_text,
    open_source,
    source_configs,
)
from textgym_envs.templates import ToolSchemas, make_template

K = TypeVar("K")
V = TypeVar("V")
Split = Literal["train", "evaluation", "all"]

_SPLITS = ("train", "evaluation", "all")  # the position is part of every draw
_WHOLE = 1 << 64
_MOST_CACHED = 1 << 16


class _Part(NamedTuple):
    """One source as the pool uses it: the indices of its prompts that are in the split."""

    config: SourceConfig
    prompts: Prompts
    members: NDArray[np.int64]


class PromptPool:
    """A weighted mix of prompt sources, one split of it, rendered by one chat template.

    Args:
        sources: a name, a JSONL path, or a list of those and of `SourceConfig` mappings.
        split: which prompts are in the pool.
        evaluation_share: the share of the prompts that is held out for evaluation.
        template: how prompts are rendered; see `textgym_envs.templates`.
        system: system message of prompts that have none.
        think_share: share of the draws rendered with thinking, in whole percent, for templates
            that can switch it; None always thinks there, as those templates do by themselves.
        tools: what the template shows as tools.
        review_share: share of the draws at a level of a curriculum that are of earlier ones.

    Raises:
        ConfigError: an argument that cannot be used.
        PromptError: a file without a usable prompt, or a split without any prompt.
    """

    def __init__(
        self,
        sources: SourceSpec | Sequence[SourceSpec],
        *,
        split: Split = "train",
        evaluation_share: float = 0.1,
        template: str = "plain",
        system: str | None = None,
        think_share: float | None = None,
        tools: ToolSchemas = (),
        review_share: float = 0.2,
    ) -> None:
        if split not in _SPLITS:
            raise ConfigError(f"split={split!r}; expected one of {', '.join(_SPLITS)}")
        if not 0 <= evaluation_share <= 1:
            raise ConfigError(f"evaluation_share={evaluation_share} is not between 0 and 1")
        self.split = split
        self.evaluation_share = evaluation_share
        self.template = template
        self.system = system
        self._template = make_template(template)
        self.think_share = think_share
        self._tools = tuple(tools)
        self._think_percent = self._checked_percent(think_share)
        opened = [(config, open_source(config)) for config in source_configs(sources)]
        parts = [_Part(config, prompts, self._members(prompts)) for config, prompts in opened]
        self._parts = [part for part in parts if len(part.members)]
        self._report_empty([part for part in parts if not len(part.members)])
        self._sizes = [len(part.members) for part in self._parts]
        self._offsets = [0, *itertools.accumulate(self._sizes)]
        self._thresholds = _thresholds([part.config.weight for part in self._parts])
        self._review_share = review_share
        self._levels = sorted({config.level for config, _ in opened})
        self._source_tag = mix64(Purpose.PROMPTS, _SPLITS.index(split), 0)
        self._index_tag = mix64(Purpose.PROMPTS, _SPLITS.index(split), 1)
        self._prompts: dict[int, Prompt] = {}
        self._rendered: dict[tuple[int, bool], str] = {}

    def __len__(self) -> int:
        """Return how many prompts are in the split, over all sources."""
        return self._offsets[-1]

    @property
    def num_levels(self) -> int:
        """How many levels the sources have, in order and without gaps; 1 where they say none."""
        return len(self._levels)

    def level_of(self, index: int) -> int:
        """Return the level of a prompt, counted from 0."""
        part = bisect.bisect_right(self._offsets, index) - 1
        return self._levels.index(self._parts[part].config.level)

    def draw(self, key: int, episode: int, *, level: int | None = None) -> int:
        """Return the index of the prompt of one episode of the stream `key`.

        Args:
            key: of the stream.
            episode: its number there.
            level: of a curriculum; None draws from all levels alike.
        """
        part, thresholds = 0, self._shares(level)
        if thresholds:
            part = bisect.bisect_right(thresholds, mix64(self._source_tag, key, episode))
        return self._offsets[part] + mix64(self._index_tag, key, episode) % self._sizes[part]

    def draw_array(
        self,
        keys: NDArray[np.uint64],
        episodes: NDArray[np.integer[Any]],
        *,
        level: int | None = None,
    ) -> NDArray[np.int64]:
        """Return `draw` of each pair; both arrays and the result have shape (N,)."""
        counters = episodes.astype(np.uint64)
        hashed = mix64_array(self._index_tag, keys, counters)
        if not self._thresholds:
            return (hashed % np.uint64(self._sizes[0])).astype(np.int64)
        chosen = mix64_array(self._source_tag, keys, counters)
        thresholds = np.array(self._shares(level), dtype=np.uint64)
        part = np.searchsorted(thresholds, chosen, side="right")
        local = (hashed % np.array(self._sizes, dtype=np.uint64)[part]).astype(np.int64)
        return np.array(self._offsets, dtype=np.int64)[part] + local

    def _shares(self, level: int | None) -> list[int]:
        """Return the thresholds between the parts at a level of a curriculum."""
        if level is None or not self._thresholds:
            return self._thresholds
        current = self._levels[level]
        weights = [part.config.weight for part in self._parts]
        levels = [part.config.level for part in self._parts]
        before = sum(w for w, at in zip(weights, levels, strict=True) if at < current)
        now = sum(w for w, at in zip(weights, levels, strict=True) if at == current)
        if not now:
            raise PromptError(f"split='{self.split}' has no prompts of level {level}")
        review = self._review_share if before else 0.0
        scales = {True: review / before if before else 0.0, False: (1 - review) / now}
        return _thresholds(
            [
                0.0 if at > current else weight * scales[at < current]
                for weight, at in zip(weights, levels, strict=True)
            ]
        )

    def spread(self, number: int, rng: np.random.Generator) -> list[int]:
        """Return the indices of distinct random prompts, each source in order and all in turn.

        Of each source there are as many as its weight asks for, as long as it has so many.
        """
        counts, turns = [0] * len(self._parts), list[int]()
        for _ in range(min(number, len(self))):
            part = min(
                (i for i, count in enumerate(counts) if count < self._sizes[i]),
                key=lambda i: (counts[i] + 1) / self._parts[i].config.weight,
            )
            counts[part] += 1
            turns.append(part)
        chosen = [
            iter(sorted(rng.permutation(size)[:count].tolist()))
            for size, count in zip(self._sizes, counts, strict=True)
        ]
        return [self._offsets[part] + next(chosen[part]) for part in turns]

    def prompt(self, index: int) -> Prompt:
        """Return prompt `index` of `range(len(pool))`."""
        prompt = self._prompts.get(index)
        if prompt is None:
            source, member = self._find(index)
            prompt = source.prompt(member)
            if self.num_levels > 1:
                level = {"curriculum_level": self.level_of(index)}
                prompt = prompt.model_copy(update={"metadata": prompt.metadata | level})
            _remember(self._prompts, index, prompt)
        return prompt

    def demonstrations(self, index: int) -> Demonstrations:
        """Return what a supervised start can show of prompt `index`."""
        source, member = self._find(index)
        return source.demonstrations(member)

    def tool_calls(self, index: int) -> tuple[ToolCall, ...]:
        """Return calls of tools that lead to the right completion of prompt `index`."""
        source, member = self._find(index)
        return source.tool_calls(member)

    def _find(self, index: int) -> tuple[Prompts, int]:
        """Return the source of a prompt, and its number there."""
        if not 0 <= index < len(self):
            raise IndexError(f"prompt {index} of a pool of {len(self)}")
        part = bisect.bisect_right(self._offsets, index) - 1
        members = self._parts[part].members
        return self._parts[part].prompts, int(members[index - self._offsets[part]])

    def thinks(self, index: int, key: int, episode: int) -> bool:
        """Return whether this draw of a prompt is rendered with thinking."""
        if self._think_percent is None:
            return self._template.has_thinking
        word = mix64(Purpose.TEMPLATE, hash_text(self.prompt(index).id), key, episode)
        return word % 100 < self._think_percent

    def reply(
        self, index: int, messages: Sequence[Message], key: int, episode: int, *, ended: bool
    ) -> str:
        """Return what follows a turn of the policy in an episode, see `Template.reply`."""
        think = self.thinks(index, key, episode)
        return self._template.reply(messages, think=think, ended=ended)

    @property
    def marks_turns(self) -> bool:
        """Whether the template has forms for turns, tools and their answers."""
        return self._template.marks_turns

    def render(self, index: int, key: int, episode: int) -> str:
        """Return the observation of a draw: the prompt in its chat template."""
        think = self.thinks(index, key, episode)
        text = self._rendered.get((index, think))
        if text is None:
            messages = self._messages(self.prompt(index))
            text = self._template.render(messages, think=think, tools=self._tools)
            _remember(self._rendered, (index, think), text)
        return text

    @property
    def problems(self) -> tuple[PromptProblem, ...]:
        """The malformed lines of all files."""
        files = [part.prompts for part in self._parts if isinstance(part.prompts, FilePrompts)]
        return tuple(problem for file in files for problem in file.problems)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the prompts, the split, the weights and the template: equal, same draws."""
        settings = (self.split, self.template, self.system, self.think_share, *self._tools)
        hashed = hashlib.blake2b(repr(settings).encode(), digest_size=16)
        for part in self._parts:
            hashed.update(f"{part.config.weight!r} {content_digest(part.prompts)}".encode())
            if self.num_levels > 1:
                hashed.update(f"{part.config.level} {self._review_share!r}".encode())
            hashed.update(part.members.tobytes())
        return hashed.hexdigest()

    def _messages(self, prompt: Prompt) -> tuple[Message, ...]:
        if self.system is None or prompt.messages[0].role == "system":
            return prompt.messages
        return (Message(role="system", content=self.system), *prompt.messages)

    def _checked_percent(self, think_share: float | None) -> int | None:
        if think_share is None:
            return None
        percent = round(think_share * 100)
        if not 0 <= think_share <= 1 or abs(think_share * 100 - percent) > 1e-9:
            raise ConfigError(f"think_share={think_share} is not a whole percentage from 0 to 1")
        if not self._template.has_thinking:
            raise ConfigError(
                f"think_share={think_share} needs a template that can switch thinking, such as "
                f"qwen3; template='{self.template}' cannot. Leave think_share out."
            )
        return percent

    def _members(self, prompts: Prompts) -> NDArray[np.int64]:
        """Return the indices of the prompts that are in the split."""
        if self.split == "all":
            return np.arange(prompts.num_prompts(), dtype=np.int64)
        threshold = int(self.evaluation_share * _WHOLE)
        keys = prompts.split_keys()
        held_out = keys < np.uint64(threshold) if threshold < _WHOLE else np.ones_like(keys, bool)
        chosen = held_out if self.split == "evaluation" else ~held_out
        return np.flatnonzero(chosen).astype(np.int64)

    def _report_empty(self, empty: list[_Part]) -> None:
        names = ", ".join(part.config.source for part in empty)
        if not self._parts:
            held_out, change = ("none", "Raise") if self.split == "evaluation" else ("all", "Lower")
            raise PromptError(
                f"split='{self.split}' is empty: evaluation_share={self.evaluation_share} holds "
                f"out {held_out} of the {sum(part.prompts.num_prompts() for part in empty)} "
                f"prompts of {names}. {change} it, add prompts, or use split='all'."
            )
        if empty:
            warnings.warn(
                f"split='{self.split}' has no prompt of {names}; the mix goes without",
                stacklevel=3,
            )


@dataclass(frozen=True, slots=True)
class Drawn:
    """One draw of a `PromptStream`."""

    index: int
    prompt: Prompt
    text: str


class PromptStream(Iterator[Drawn]):
    """An endless iterator over the draws of a pool that resumes exactly where it stopped."""

    def __init__(self, pool: PromptPool, seed: int, *, position: int = 0) -> None:
        self._pool = pool
        self._seed = seed
        self._position = position
        self._key = mix64(Purpose.PROMPTS, seed)

    def __next__(self) -> Drawn:
        """Return the next draw."""
        position = self._position
        self._position += 1
        index = self._pool.draw(self._key, position)
        text = self._pool.render(index, self._key, position)
        return Drawn(index, self._pool.prompt(index), text)

    def state(self) -> dict[str, str | int]:
        """Return what `from_state` needs, as JSON."""
        fingerprint = self._pool.fingerprint
        return {"fingerprint": fingerprint, "seed": self._seed, "position": self._position}

    @classmethod
    def from_state(cls, pool: PromptPool, state: Mapping[str, str | int]) -> Self:
        """Return the stream that goes on where the one that gave `state` stopped.

        Raises:
            ConfigError: the pool does not hold what the stream drew from.
        """
        if state["fingerprint"] != pool.fingerprint:
            raise ConfigError(
                f"the prompts changed since the stream was saved (fingerprint {pool.fingerprint}, "
                f"saved {state['fingerprint']}): restore the files and settings, or start anew"
            )
        return cls(pool, int(state["seed"]), position=int(state["position"]))


def _thresholds(weights: list[float]) -> list[int]:
    """Return where each source's share of the 64-bit range ends, but for the last one."""
    sums = list(itertools.accumulate(weights))
    return [min(int(end / sums[-1] * _WHOLE), _WHOLE - 1) for end in sums[:-1]]


def _remember(cache: dict[K, V], key: K, value: V) -> None:
    """Keep a value; a full cache starts again, which costs less than to keep an order."""
    if len(cache) >= _MOST_CACHED:
        cache.clear()
    cache[key] = value
