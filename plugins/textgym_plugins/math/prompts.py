"""The prompt sources `gsm8k` and `math500`: rows of the public files, as prompts of `math`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from textgym import Message
from textgym.prompt_files import read_row
from textgym_plugins.row_source import Row, RowSource, Task

_FIELDS = ("problem", "question", "answer", "expected_answer", "solution", "level", "type",
           "subject", "unique_id")  # fmt: skip


class _Problems(RowSource):
    """Problems with a reference answer."""

    text: str = Field(
        default="{problem}\n\nReason step by step, and put your final answer within \\boxed{}.",
        pattern=r"\{problem\}",
    )
    """The user message; `{problem}` is where the problem goes."""

    def _read(self, row: Row, number: int) -> Task:
        kept = {name: row[name] for name in _FIELDS if row.get(name) is not None}
        own_id = row.get("unique_id") or row.get("id") or number
        prompt = read_row(kept, default_id=f"{self.name}/{own_id}")
        kind = row.get("subject") or row.get("type")
        message = Message(role="user", content=self.text.replace("{problem}", prompt.text))
        task = f"{self.name}/{kind}" if isinstance(kind, str) else self.name
        metadata = {**prompt.metadata, "task": task}
        changed = {"messages": (message,), "metadata": metadata, "reward": "math"}
        prompt = prompt.model_copy(update=changed)
        solution = row.get("solution") or f"\\boxed{{{prompt.target}}}"
        return Task(prompt, str(solution))


class Gsm8k(_Problems):
    """Word problems of grade school, rows of `question` and `answer` (arXiv:2110.14168)."""

    name: ClassVar[str] = "gsm8k"


class Math500(_Problems):
    """Competition problems, rows of `problem` and `answer` or `expected_answer`.

    MATH is Hendrycks et al. 2021 (arXiv:2103.03874), the 500 are those of Lightman et al. 2023
    (arXiv:2305.20050).
    """

    name: ClassVar[str] = "math500"
