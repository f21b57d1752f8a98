"""The prompt source `tiny_kbqa`: questions over a few short passages, some without an answer.

The abilities are those of the RGB benchmark (Chen et al. 2023, arXiv:2309.01431) in miniature:
`retrieval`, where one of the passages holds the answer, `integration`, where two hold a part each,
and `refusal`, where none does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, NamedTuple, Self

from pydantic import Field, JsonValue, model_validator

from textgym import Demonstrations, Prompt
from textgym_plugins.numbering import digits_of, pick_distinct
from textgym_plugins.tiny.source import Task, TinySource

Ability = Literal["retrieval", "integration", "refusal"]
Language = Literal["en", "zh"]


class _Words(NamedTuple):
    """What a language brings along; the numbers are the same in all.

    People differ in their last byte, so a model that reads bytes can tell them apart by one.
    """

    people: str
    comma: str
    refusal: str


_WORDS: dict[Language, _Words] = {
    "en": _Words("Ann Bob Cai Dot Eve Fay Gus Hal", ", ", "unknown"),
    "zh": _Words("王 李 张 刘 陈 杨 赵 黄", "、", "不知道"),
}
_NUM_PEOPLE = 8
_ROOMS = range(100, 1000)
"""Numbers, because each of their digits has to be looked up: words would be guessed from their
first letter, and a model learns to look things up some times more slowly from them."""


class TinyKbqa(TinySource):
    """Passages such as `Ann: 417`, a room to a person, and a question about one or two of them."""

    name: ClassVar[str] = "tiny_kbqa"

    abilities: tuple[Ability, ...] = Field(default=("retrieval", "integration", "refusal"))
    """What is asked for, as many prompts of each."""
    languages: tuple[Language, ...] = ("en", "zh")
    """The languages, as many prompts of each."""
    num_passages: int = Field(default=3, ge=2, le=7)
    """Passages of a prompt."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for field in ("abilities", "languages"):
            values = getattr(self, field)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{field}={list(values)} must name at least one, each once")
        return self

    def _sizes(self) -> Sequence[int]:
        return [math.prod(self._radices(ability)) for _, ability in self._kinds]

    @property
    def _kinds(self) -> list[tuple[Language, Ability]]:
        return list(itertools.product(self.languages, self.abilities))

    def _radices(self, ability: Ability) -> list[int]:
        """Return the radices of who is asked about, of the rooms, and of the people.

        A question that is to be refused asks about one more person, and no one in the passages.
        """
        count, is_refusal = self.num_passages, ability == "refusal"
        rooms = [len(_ROOMS) - i for i in range(count)]
        people = [_NUM_PEOPLE - i for i in range(count + is_refusal)]
        return [1 if is_refusal else count, *rooms, *people]

    def _make(self, kind: int, number: int, name: str) -> Task:
        language, ability = self._kinds[kind]
        words, count = _WORDS[language], self.num_passages
        first, *digits = digits_of(number, self._radices(ability))
        rooms = [str(room) for room in pick_distinct(_ROOMS, digits[:count])]
        people = pick_distinct(words.people.split(), digits[count:])
        passages = tuple(map("{}: {}".format, people, rooms))
        asked = _ASK[ability](words, people, rooms, first)
        prompt = Prompt(
            id=name,
            messages="\n".join([*passages, asked.question]),
            target=asked.target,
            reward="kbqa",
            passages=passages,
            answerable=ability != "refusal",
            metadata={"task": f"{self.name}/{ability}", "language": language},
        )
        wrong = tuple(dict.fromkeys(asked.wrong))  # a slip may hit upon another room
        return Task(prompt, Demonstrations((asked.right,), wrong))


class _Asked(NamedTuple):
    question: str
    target: JsonValue
    right: str
    wrong: tuple[str, ...]


def _ask_retrieval(words: _Words, people: list[str], rooms: list[str], first: int) -> _Asked:
    question = f"{people[first]}?"
    right, other, *_ = _rotated(rooms, first)
    return _Asked(question, [right], right, (*_slips(right), other, words.refusal))


def _ask_integration(words: _Words, people: list[str], rooms: list[str], first: int) -> _Asked:
    question = words.comma.join(_rotated(people, first)[:2]) + "?"
    one, two, *_ = _rotated(rooms, first)
    wrong = [words.comma.join((one, slip)) for slip in _slips(two)]
    wrong += [one, two, words.refusal]
    return _Asked(question, [[one], [two]], words.comma.join((one, two)), tuple(wrong))


def _ask_refusal(words: _Words, people: list[str], rooms: list[str], first: int) -> _Asked:
    return _Asked(f"{people[-1]}?", None, words.refusal, tuple(rooms))


_ASK: dict[Ability, Callable[[_Words, list[str], list[str], int], _Asked]] = {
    "retrieval": _ask_retrieval,
    "integration": _ask_integration,
    "refusal": _ask_refusal,
}


def _slips(room: str) -> tuple[str, str]:
    """Return a number with another last digit, in two ways."""
    last = int(room[-1])
    return f"{room[:-1]}{(last + 1) % 10}", f"{room[:-1]}{(last + 9) % 10}"


def _rotated(items: list[str], start: int) -> list[str]:
    return [*items[start:], *items[:start]]
