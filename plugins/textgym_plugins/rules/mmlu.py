"""The prompt source `mmlu`: questions with four options, as prompts of the reward `choice`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import JsonValue

from textgym import Prompt
from textgym.jsonl import LineError
from textgym_plugins.row_source import Row, RowSource, Task, text_of
from textgym_plugins.rules.choice import read_question

_LETTERS = "ABCDEFGHIJ"
_REQUEST = (
    "Answer the following multiple choice question about {subject}. Respond with a single sentence "
    'of the form "The correct answer is _", filling the blank with the letter of the correct '
    "answer ({letters}).\n\nQuestion: {question}\n{options}"
)


class Mmlu(RowSource):
    """Rows of `question`, `choices`, `answer` (a letter or an index from 0) and `subject`.

    MMLU is Hendrycks et al. 2020 (arXiv:2009.03300). The subject may be called `type`, too.
    """

    name: ClassVar[str] = "mmlu"

    def _read(self, row: Row, number: int) -> Task:
        subject = text_of(row, "subject", "type")
        choices = row["choices"]
        if not isinstance(choices, list) or not 2 <= len(choices) <= len(_LETTERS):
            raise LineError("choices", f"'choices' is {choices!r:.80}; expected 2 to 10 options")
        answer, letters = row["answer"], _LETTERS[: len(choices)]
        target: JsonValue = {"answer": answer, "choices": list(map(str, choices))}  # type: ignore[dict-item]  # `read_question` checks it
        asked = read_question(target)
        if asked is None:
            raise LineError("answer", f"'answer' is {answer!r:.80}; expected one of {letters}")
        options = [f"{letter}) {choice}" for letter, choice in zip(letters, choices, strict=True)]
        prompt = Prompt(
            id=f"mmlu/{number}",
            messages=_REQUEST.format(
                subject=subject.replace("_", " "),
                letters=f"{', '.join(letters[:-1])} or {letters[-1]}",
                question=text_of(row, "question").strip(),
                options="\n".join(options),
            ),
            target=target,
            reward="choice",
            metadata={"task": f"mmlu/{subject}"},
        )
        return Task(prompt, f"The correct answer is {asked.letter}.")
