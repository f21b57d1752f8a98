"""Damaged copies of completions, which a reward model is to rank below the completion itself.

Pairs of what is wanted and what is not say nothing about texts that nobody would write, and a
policy that follows the reward finds those: it repeats, stops early, and answers something else
(reward hacking; Gao et al. 2023, arXiv:2210.10760). Ranked against damaged copies, a model learns
that more than a few characters of a good completion have to be there.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Sequence

import numpy as np

from textgym_plugins.reward_model.pairs import Pair

_WORDS = re.compile(r"\s*\S+|\s+$")
_MOST_REPEATS = 6
_MOST_MISSES = 32
_ANOTHER = 0.2
"""How often the copy is what was chosen for another prompt."""


def with_damaged(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """Return pairs and `count` more per chosen completion, with damaged copies of it as rejected.

    Each copy is damaged in one way: a span is repeated or left out, the end is cut off, two spans
    change places, or it is what was chosen for another prompt. Spans are of words or of characters.
    No copy is a completion that the pairs of its prompt have already. What is drawn depends on the
    prompt and the completion alone; a very short completion has fewer copies.
    """
    everything = [pair.chosen for pair in pairs]
    known: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        known[pair.prompt.text] |= {pair.chosen, pair.rejected}
    chosen = {(pair.prompt.text, pair.chosen): pair for pair in pairs}
    more = []
    for (text, completion), pair in chosen.items():
        digest = hashlib.sha256(f"{text}\0{completion}".encode(errors="surrogatepass")).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        for copy in itertools.islice(_damaged(completion, everything, known[text], rng), count):
            more.append(Pair(pair.prompt, completion, copy, head=pair.head))
    return [*pairs, *more]


def _damaged(
    text: str, others: Sequence[str], known: Container[str], rng: np.random.Generator
) -> Iterator[str]:
    """Yield different copies, none of them known or blank, until they are hard to find."""
    found: set[str] = set()
    misses = 0
    while misses < _MOST_MISSES:
        copy = _another(others, rng) if rng.random() < _ANOTHER else _spoilt(text, rng)
        if copy in known or copy in found or not copy.strip():
            misses += 1
            continue
        found.add(copy)
        yield copy


def _another(others: Sequence[str], rng: np.random.Generator) -> str:
    return others[int(rng.integers(len(others)))]


def _spoilt(text: str, rng: np.random.Generator) -> str:
    """Return the text with one kind of damage, to words or to characters."""
    words = _WORDS.findall(text)
    pieces = words if len(words) > 1 and rng.random() < 0.5 else list(text)
    kinds: tuple[Callable[[list[str], np.random.Generator], list[str]], ...]
    kinds = (_repeat, _repeat, _leave_out, _cut, _swap)  # repeating is what policies do most
    return "".join(kinds[int(rng.integers(len(kinds)))](pieces, rng))


def _span(pieces: Sequence[str], rng: np.random.Generator) -> tuple[int, int]:
    start = int(rng.integers(len(pieces)))
    return start, int(rng.integers(start, len(pieces))) + 1


def _repeat(pieces: list[str], rng: np.random.Generator) -> list[str]:
    start, end = _span(pieces, rng)
    times = int(rng.integers(2, _MOST_REPEATS + 1))
    rest = pieces[end:] if rng.random() < 0.5 else []
    return pieces[:start] + pieces[start:end] * times + rest


def _leave_out(pieces: list[str], rng: np.random.Generator) -> list[str]:
    start, end = _span(pieces, rng)
    return pieces[:start] + pieces[end:]


def _cut(pieces: list[str], rng: np.random.Generator) -> list[str]:
    return pieces[: int(rng.integers(len(pieces)))]


def _swap(pieces: list[str], rng: np.random.Generator) -> list[str]:
    first, second = sorted(int(i) for i in rng.integers(len(pieces), size=2))
    swapped = list(pieces)
    swapped[first], swapped[second] = swapped[second], swapped[first]
    return swapped
