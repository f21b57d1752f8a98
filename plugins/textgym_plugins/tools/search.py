"""The tool `search`: the passages of a prompt, ranked by BM25.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, with the
idf of Lucene, which is never negative. Words are runs of letters and digits without their case;
in scripts without blanks each character is a word.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from textgym import Prompt, Tool, ToolArguments, ToolError

_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
_MAX_QUERY_WORDS = 64


class Query(ToolArguments):
    """The arguments of `search`."""

    query: str
    """Words to look for."""


class PassageSearch(Tool):
    """Finds the prompt's passages that share words with a query."""

    name: ClassVar[str] = "search"
    description: ClassVar[str] = "Search the passages that belong to the question."
    arguments: ClassVar[type[Query]] = Query
    runs: ClassVar[Literal["inline", "thread", "timed"]] = "inline"

    top: PositiveInt = 3
    """Most passages of one answer."""
    k1: float = Field(default=1.2, ge=0, le=10)
    """How soon further occurrences of a word stop to count."""
    b: float = Field(default=0.75, ge=0, le=1)
    """How much long passages are marked down."""

    def call(self, arguments: Query, prompt: Prompt) -> str:
        """Return the best passages by their numbers, or say that none has a word of the query."""
        words = _words(arguments.query)[:_MAX_QUERY_WORDS]
        if not words:
            raise ToolError("the query has no words")
        scores = bm25(words, [_words(each) for each in prompt.passages], k1=self.k1, b=self.b)
        found = sorted((-score, i) for i, score in enumerate(scores) if score > 0)[: self.top]
        if not found:
            return f"None of the {len(scores)} passages has a word of the query."
        return "\n\n".join(f"[{i + 1}] {prompt.passages[i]}" for _, i in found)


def bm25(
    query: Sequence[str], passages: Sequence[Sequence[str]], *, k1: float, b: float
) -> list[float]:
    """Return the relevance of each passage, 0.0 where it has no word of the query.

    Args:
        query: words; one that is there twice counts twice.
        passages: the words of each passage.
        k1: saturation of the frequency of a word.
        b: weight of the length.
    """
    counts = [Counter(passage) for passage in passages]
    mean = sum(map(len, passages)) / max(len(passages), 1) or 1.0
    norms = [k1 * (1 - b + b * len(passage) / mean) for passage in passages]
    scores = [0.0] * len(passages)
    for word in query:
        known = sum(word in count for count in counts)
        idf = math.log(1 + (len(passages) - known + 0.5) / (known + 0.5))
        for i, count in enumerate(counts):
            if word in count:
                scores[i] += idf * count[word] * (k1 + 1) / (count[word] + norms[i])
    return scores


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
