"""The prompt source `preferences`: which of two answers is better, a question to a model.

Half of the pairs show the preferred answer first, by a hash of the pair, so that a policy which
always says the same letter is right half of the time. A language model reads the question; a reward
model is asked for a score of either answer, which stand in the metadata.
"""

from __future__ import annotations

import hashlib
from typing import ClassVar

from pydantic import JsonValue

from textgym import Prompt
from textgym_plugins.reward_model.pairs import Pair, read_pair
from textgym_plugins.row_source import Row, RowSource, Task

_REQUEST = (
    "Which of two answers to the same request is better? Respond with a single sentence of the "
    'form "The correct answer is _", filling the blank with A or B.\n\n'
    "# Request\n{request}\n\n# Answer A\n{a}\n\n# Answer B\n{b}"
)


class Preferences(RowSource):
    """Rows of `prompt`, `chosen` and `rejected`, and of `subset` where there is one."""

    name: ClassVar[str] = "preferences"

    def _read(self, row: Row, number: int) -> Task:
        pair = read_pair(row, name=f"{self.path.stem}/{number}")
        is_first = _is_chosen_first(pair)
        answers = (pair.chosen, pair.rejected) if is_first else (pair.rejected, pair.chosen)
        request = "\n\n".join(message.content for message in pair.prompt.messages)
        subset = row.get("subset")
        metadata: dict[str, JsonValue] = {
            "conversation": [message.model_dump() for message in pair.prompt.messages],
            "answers": list(answers),
        }
        if isinstance(subset, str):
            metadata["task"] = subset
        letter = "A" if is_first else "B"
        prompt = Prompt(
            id=pair.prompt.id,
            messages=_REQUEST.format(request=request, a=answers[0], b=answers[1]),
            target={"answer": letter, "choices": ["Answer A", "Answer B"]},
            reward="choice",
            metadata=metadata,
        )
        return Task(prompt, f"The correct answer is {letter}.")


def _is_chosen_first(pair: Pair) -> bool:
    texts = "\0".join(sorted((pair.chosen, pair.rejected)))
    digest = hashlib.blake2b(f"{pair.prompt.text}\0{texts}".encode(), digest_size=1).digest()
    return bool(digest[0] & 1)
