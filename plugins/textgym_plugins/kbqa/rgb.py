"""The prompt source `rgb`: the four tasks of the RGB benchmark over its own files.

Noise robustness mixes passages that hold the answer with passages that do not, negative rejection
gives only the latter, information integration spreads the answer over passages, counterfactual
robustness puts a wrong answer into them (Chen et al. 2023, arXiv:2309.01431). Which passages a
prompt holds, and in which order, depends on the seed and the row alone.
"""

from __future__ import annotations

import functools
import hashlib
import warnings
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from textgym import Demonstrations, Message, Prompt, PromptSource
from textgym.errors import PromptError
from textgym.jsonl import PromptProblem
from textgym.prompt_files import summarise
from textgym.seeding import Purpose, stream
from textgym_plugins.kbqa.rgb_rows import Passages, RgbFile, RgbRow, read_rgb

Task = Literal["noise", "rejection", "integration", "counterfactual"]


class Selection(NamedTuple):
    """The passages of one prompt."""

    passages: Passages
    num_holding: int
    """How many of them hold the answer, or its false twin in the counterfactual task."""


class Rgb(PromptSource):
    """Questions over passages of which some, all or none hold the answer."""

    name: ClassVar[str] = "rgb"

    path: Path
    """A file of the benchmark, such as `en_refine.json` or `zh_int.json`: a JSON object a line."""
    task: Task = "noise"
    """`noise`: some passages hold the answer; `rejection`: none does; `integration`: each part of
    it is in another passage; `counterfactual`: the passages hold a wrong answer."""
    noise_rate: float = Field(default=0.4, ge=0, le=1)
    """Share of the passages that do not hold the answer; `rejection` does not read it."""
    num_passages: int = Field(default=5, ge=1, le=100)
    """Passages of a prompt; fewer where the row has no more, more where the parts of an answer to
    integrate are."""
    seed: int = Field(default=0, ge=0)
    """Which passages, in which order."""
    language: Literal["auto", "en", "zh"] = "auto"
    """Language of the instructions; `auto` is that of the question."""
    instructions: bool = True
    """Whether a system message asks to answer from the passages and to refuse where they do not
    hold the answer."""

    @property
    def problems(self) -> tuple[PromptProblem, ...]:
        """The lines that cannot be used."""
        return self._usable.problems

    def num_prompts(self) -> int:
        """Return how many rows can be used for the task."""
        return len(self._usable.rows)

    def prompt(self, index: int) -> Prompt:
        """Return the question of one row with its passages."""
        if not 0 <= index < self.num_prompts():
            raise IndexError(f"prompt {index} of {self.num_prompts()}")
        row = self._usable.rows[index]
        chosen = self._select(row)
        language = self.language if self.language != "auto" else "zh" if row.is_chinese else "en"
        user = Message(role="user", content=_render(row.query, chosen.passages, language))
        system = (Message(role="system", content=_INSTRUCTIONS[language]),)
        return Prompt(
            id=f"{self.path.stem}/{self.task}/{row.id}",
            messages=(*(system if self.instructions else ()), user),
            target=[list(aliases) for aliases in row.answers],
            reward="kbqa",
            passages=chosen.passages,
            answerable=chosen.num_holding > 0,
            metadata={
                "task": f"rgb/{self.task}",
                "question": row.query,
                "num_holding": chosen.num_holding,
                **({"fake_answer": row.fake_answer} if self.task == "counterfactual" else {}),
            },
        )

    def demonstrations(self, index: int) -> Demonstrations:
        """Return an answer that names every part, or a refusal where no passage holds one."""
        row = self._usable.rows[index]
        language = "zh" if row.is_chinese else "en"
        if self._select(row).num_holding == 0:
            return Demonstrations((_REFUSALS[language],))
        separator = "、" if row.is_chinese else ", "
        return Demonstrations((separator.join(aliases[0] for aliases in row.answers),))

    def split_keys(self) -> NDArray[np.uint64]:
        """Return a hash of each question, so that its tasks and seeds fall on one side."""
        return np.array([_key(row.query) for row in self._usable.rows], dtype=np.uint64)

    @functools.cached_property
    def _usable(self) -> RgbFile:
        file = read_rgb(self.path, is_counterfactual=self.task == "counterfactual")
        if file.problems:
            warnings.warn(f"{self.path}: left out {summarise(file.problems)}", stacklevel=3)
        if self.task != "rejection":
            return file
        rows = tuple(row for row in map(_without_holding, file.rows) if row.negative)
        if not rows:
            raise PromptError(
                f"{self.path}: no row has a negative passage without the answer, which the task "
                "'rejection' needs"
            )
        return RgbFile(rows, file.problems)

    def _select(self, row: RgbRow) -> Selection:
        rng = stream(self.seed, Purpose.PROMPTS, _key(f"{self.task}/{row.id}/{row.query}") >> 1)
        if self.task == "rejection":
            return Selection(_draw(row.negative, self.num_passages, rng), 0)
        if self.task == "counterfactual":
            holding: tuple[Passages, ...] = (row.positive_wrong,)
        else:
            holding = row.positive
        num_noise = min(round(self.num_passages * self.noise_rate), len(row.negative))
        wanted = self.num_passages - num_noise
        chosen = _one_of_each(holding, wanted, rng, at_least=self.task == "integration")
        noise = _draw(row.negative, max(0, self.num_passages - len(chosen)), rng)
        mixed = chosen + noise
        order = rng.permutation(len(mixed))
        return Selection(tuple(mixed[i] for i in order), len(chosen))


def _without_holding(row: RgbRow) -> RgbRow:
    """Return the row without the negative passages that name its whole answer after all.

    In the published files about one row in ten has such a passage.
    """
    from textgym_plugins.kbqa.target import names_all, read_target  # compiles patterns

    target = read_target([list(aliases) for aliases in row.answers])
    if target is None:
        return row
    return replace(row, negative=tuple(p for p in row.negative if not names_all(target, p)))


def _draw(passages: Passages, count: int, rng: np.random.Generator) -> Passages:
    """Return `count` passages, or as many as there are, without repeats."""
    distinct = tuple(dict.fromkeys(passages))
    order = rng.permutation(len(distinct))[: max(0, count)]
    return tuple(distinct[i] for i in order)


def _one_of_each(
    groups: tuple[Passages, ...], count: int, rng: np.random.Generator, *, at_least: bool
) -> Passages:
    """Return `count` passages, from each group in turn; at least one of each if so asked."""
    queues = [list(_draw(group, len(group), rng)) for group in groups]
    count = max(count, len(groups)) if at_least else count
    chosen: dict[str, None] = {}
    while len(chosen) < count and any(queues):
        for queue in queues:
            if queue and len(chosen) < count:
                chosen[queue.pop()] = None
    return tuple(chosen)


def _key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


_INSTRUCTIONS = {
    "en": "Answer the question from the documents below. They may be incomplete or irrelevant. If "
    "they do not hold the answer, say that you cannot answer from them. If they contradict known "
    "facts, say that they contain errors and give the correct answer.",
    "zh": "请根据下面的文档回答问题。文档可能不完整，也可能与问题无关。如果文档中没有答案，请说明"
    "无法根据文档回答。如果文档与事实不符，请指出其中有错误，并给出正确答案。",
}
_REFUSALS = {"en": "I cannot answer from the documents.", "zh": "根据这些文档无法回答。"}
_LABELS = {"en": ("Document", "Question: "), "zh": ("文档", "问题：")}


def _render(query: str, passages: Passages, language: str) -> str:
    document, question = _LABELS[language]
    blocks = [f"{document} {i}: {text}" for i, text in enumerate(passages, 1)]
    return "\n\n".join([*blocks, f"{question}{query}"])
