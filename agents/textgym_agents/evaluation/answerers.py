"""Who answers the prompts of a suite: the contract, and an answerer that is a plain function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pydantic import JsonValue

from textgym.benchmark import Benchmark
from textgym.prompt import Prompt
from textgym.prompt_source import Demonstrations
from textgym.sample import FinishReason


def _nothing() -> Demonstrations:
    return Demonstrations()


class Question(NamedTuple):
    """One answer that is wanted."""

    prompt: Prompt
    text: str
    """The prompt as the model reads it, in its chat template."""
    index: int  # type: ignore[assignment]  # nobody needs the tuple's method
    """Number of the prompt in its suite."""
    sample: int = 0
    """Which of the answers to this prompt."""
    demonstrate: Callable[[], Demonstrations] = _nothing
    """What the prompt's source shows of right and wrong answers; for policies that are a script."""


class Answer(NamedTuple):
    """What came of a question."""

    text: str
    finish_reason: FinishReason = "stop"
    num_tokens: int = 0
    """The end token included; 0 where nobody counted."""
    failure: str = ""
    """Why there is no answer. With `finish_reason` `abort` it may be had another time (an endpoint
    that is down); otherwise never (a prompt that is too long)."""


class Answerer(Protocol):
    """Turns rendered prompts into completions."""

    @property
    def batch_size(self) -> int:
        """Questions to ask at once; what is answered is written after each batch."""
        ...

    def describe(self) -> dict[str, JsonValue]:
        """Return what the answers depend on; answers of two descriptions are never mixed."""
        ...

    def rendering(self, benchmark: Benchmark) -> Mapping[str, JsonValue]:
        """Return keyword arguments of `TextGen-v0` that say how prompts are rendered."""
        ...

    def answer(
        self, questions: Sequence[Question], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[Answer]:
        """Return one answer per question.

        Args:
            questions: at most `batch_size` of them.
            max_new_tokens: longest answer, the end token included.
            temperature: 0 for the most likely tokens.
            seed: of the samples of these questions.
        """
        ...


@dataclass(frozen=True)
class Scripted:
    """A policy that is a function.

    Args:
        function: returns the answer to a question, or its text.
        name: what it is called in the description.
    """

    function: Callable[[Question], Answer | str]
    name: str = "scripted"
    batch_size: int = 256

    def describe(self) -> dict[str, JsonValue]:
        """Return the name."""
        return {"kind": "script", "name": self.name}

    def rendering(self, benchmark: Benchmark) -> Mapping[str, JsonValue]:
        """Return the suite's template; a function does not read it."""
        return {"template": benchmark.template or "plain"}

    def answer(
        self, questions: Sequence[Question], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[Answer]:
        """Return what the function says, whole."""
        del max_new_tokens, temperature, seed
        answers = [self.function(question) for question in questions]
        return [Answer(each) if isinstance(each, str) else each for each in answers]
