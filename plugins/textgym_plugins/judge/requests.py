"""The prompt source `requests`: instructions without a verifier, for a judge or a classifier.

Rows of AlpacaEval (`instruction`, `output` of the baseline, `dataset`) and plain files of prompts
are read as they are.
"""

from __future__ import annotations

from typing import ClassVar

from textgym import Prompt
from textgym_plugins.row_source import Row, RowSource, Task, text_of

_REQUESTS = ("instruction", "prompt", "question", "goal", "text")
_BASELINES = ("output", "baseline", "target")
_KINDS = ("task", "category", "subset", "dataset")


class Requests(RowSource):
    """Rows of a request, with a baseline's answer and a category where there is one.

    The request is the first of `instruction`, `prompt`, `question`, `goal` and `text`; the answer
    to compare with, which becomes the target, `output`, `baseline` or `target`.
    """

    name: ClassVar[str] = "requests"

    def _read(self, row: Row, number: int) -> Task:
        has_baseline = any(row.get(name) is not None for name in _BASELINES)
        kind = next((row[name] for name in _KINDS if isinstance(row.get(name), str)), None)
        prompt = Prompt(
            id=f"{self.path.stem}/{number}",
            messages=text_of(row, *_REQUESTS),
            target=text_of(row, *_BASELINES) if has_baseline else None,
            metadata={} if kind is None else {"task": str(kind)},
        )
        return Task(prompt)  # nobody knows the best answer
