"""Preference pairs: JSON Lines with prompt, chosen, rejected and, if wanted, margin and head.

A malformed line is reported with file, line and field; the other lines are used. Fields that are
not needed are ignored, because preference files carry many.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from textgym import Prompt, PromptSource, Sample
from textgym.errors import ConfigError, PromptError
from textgym.jsonl import LineError, PromptProblem
from textgym.sample_files import read_samples
from textgym.training_rows import parse_preference, read_usable, spread_pairs
from textgym.validation import shown


@dataclass(frozen=True)
class Pair:
    """One prompt with the completion that was preferred and the one that was not."""

    prompt: Prompt
    chosen: str
    rejected: str
    margin: float = 0.0
    """How much better the chosen one must score, in units of the raw reward."""
    head: str | None = None
    """The head that the preference is about; None for the completion as a whole."""

    @property
    def samples(self) -> tuple[Sample, Sample]:
        """The chosen and the rejected one as samples."""
        return Sample(self.prompt, self.chosen), Sample(self.prompt, self.rejected)


@dataclass(frozen=True)
class PairFile:
    """What a file of pairs holds, and what of it cannot be used."""

    pairs: tuple[Pair, ...]
    problems: tuple[PromptProblem, ...] = ()


def read_pairs(path: str | Path) -> PairFile:
    """Read a JSONL file of pairs; lines that cannot be used are among the `problems`.

    Raises:
        PromptError: the file cannot be read, or no line of it can be used.
    """
    return PairFile(*read_usable(path, read_pair, what="pair"))


def write_pairs(path: str | Path, pairs: Iterable[Pair]) -> None:
    """Write pairs as JSONL that `read_pairs` reads back, ids aside."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for pair in pairs:
            messages = [message.model_dump() for message in pair.prompt.messages]
            row = {"prompt": messages, "chosen": pair.chosen, "rejected": pair.rejected}
            margin = {"margin": pair.margin} if pair.margin else {}
            head = {"head": pair.head} if pair.head else {}
            file.write(json.dumps(row | margin | head, ensure_ascii=False) + "\n")


def pairs_from_verdicts(path: str | Path, *, most: int = 16) -> PairFile:
    """Pair each correct completion of a prompt with each wrong one, of a file with verdicts.

    Args:
        path: a completion file as `textgym score` takes it, with a verdict per completion.
        most: pairs per prompt, so that a prompt with many completions does not outweigh the rest.

    Raises:
        PromptError: the file cannot be read, or no prompt has both.
    """
    file = read_samples(path)
    prompts: dict[str, Prompt] = {}
    completions: dict[tuple[str, bool], dict[str, None]] = defaultdict(dict)
    for judged in file.samples:
        prompt = judged.sample.prompt
        if judged.verdict is None or not judged.sample.completion.strip():
            continue
        key = _key(prompt)
        prompts.setdefault(key, prompt)
        completions[key, judged.verdict][judged.sample.completion] = None
    pairs = [
        Pair(prompt, chosen, rejected)
        for key, prompt in prompts.items()
        for chosen, rejected in spread_pairs(completions[key, True], completions[key, False], most)
    ]
    if not pairs:
        raise PromptError(
            f"{path}: no prompt has a completion judged correct and one judged wrong, so there is "
            "no pair"
        )
    return PairFile(tuple(pairs), file.problems)


def pairs_from_demonstrations(source: PromptSource, *, most: int = 16) -> PairFile:
    """Pair each right demonstration of a prompt with each wrong one.

    Args:
        source: where the prompts come from.
        most: pairs per prompt.

    Raises:
        PromptError: the source demonstrates nothing wrong.
    """
    pairs = []
    for index in range(source.num_prompts()):
        prompt, shown = source.prompt(index), source.demonstrations(index)
        pairs += [Pair(prompt, *texts) for texts in spread_pairs(shown.right, shown.wrong, most)]
    if not pairs:
        raise PromptError(
            f"the prompt source '{source.name}' has no wrong demonstrations, so there is no pair; "
            "give a file of completions with verdicts"
        )
    return PairFile(tuple(pairs))


def check_heads(pairs: Iterable[Pair], heads: Sequence[str]) -> None:
    """See that a model has the heads that pairs are about.

    Raises:
        ConfigError: it has not.
    """
    for pair in pairs:
        if pair.head is not None and pair.head not in heads:
            raise ConfigError(
                f"the pair {pair.prompt.id} is about the head '{pair.head}'; the model has "
                f"{', '.join(heads)}"
            )


def split_pairs(pairs: Sequence[Pair], held_out: float) -> tuple[list[Pair], list[Pair]]:
    """Return the pairs to train on and those held out, about a share of `held_out`.

    A hash of the prompt decides, so that no prompt is in both, whatever the order of the file.
    """
    train: list[Pair] = []
    test: list[Pair] = []
    for pair in pairs:
        digest = hashlib.sha256(_key(pair.prompt).encode()).digest()
        is_held_out = int.from_bytes(digest[:8], "big") < held_out * 2**64
        (test if is_held_out else train).append(pair)
    return train, test


def _key(prompt: Prompt) -> str:
    return json.dumps([(message.role, message.content) for message in prompt.messages])


def read_pair(row: Mapping[str, object], name: str) -> Pair:
    """Return the pair of a row, its prompt named so.

    Raises:
        LineError: names the field that is missing or of the wrong type.
    """
    prompt, chosen, rejected = parse_preference(row, name)
    margin = row.get("margin")
    margin = 0.0 if margin is None else margin
    if isinstance(margin, bool) or not isinstance(margin, int | float):
        raise LineError("margin", f"{shown(margin)} is no number")
    if not math.isfinite(margin):
        raise LineError("margin", f"{margin} is not finite")
    head = row.get("head")
    if head is not None and (not isinstance(head, str) or not head):
        raise LineError("head", f"{shown(head)} is no name of a head")
    return Pair(prompt, chosen, rejected, float(margin), head)
