"""The prompt source `tiny_instructions`: a word to write, and one or two verifiable instructions.

The instructions are of IFEval's types (Zhou et al. 2023, arXiv:2311.07911), those of them that a
dozen characters can follow and that need no detection of the language.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from pydantic import JsonValue

from textgym import Demonstrations, Prompt
from textgym_plugins.tiny.source import Task, TinySource

_WORDS = (
    "apple bread cake dates egg fish grape honey ink jam kale lemon milk nuts olive pear "
    "quince rice salt tea urn vine wheat yam"
).split()

_REQUEST = "Write {}."
_CASE = "change_case:capital_word_frequency"
_END = "startend:end_checker"
_QUOTES = "startend:quotation"
_JSON = "detectable_format:json_format"
_REPEAT = "combination:repeat_prompt"


class _Instruction(NamedTuple):
    """An instruction, and what follows it and what does not, as templates around a text."""

    type: str
    arguments: dict[str, JsonValue]
    text: str
    follow: str
    violate: str = "{text}"
    conflicts: tuple[str, ...] = ()
    """Types of later instructions that cannot be followed at the same time."""


# In the order in which they are put around the word: the last one is outermost.
_INSTRUCTIONS = (
    _Instruction(
        _CASE,
        {"capital_frequency": 1, "capital_relation": "at least"},
        "Use capitals.",
        follow="{upper}",
        conflicts=(_CASE,),
    ),
    _Instruction(
        _CASE,
        {"capital_frequency": 1, "capital_relation": "less than"},
        "Use no capitals.",
        follow="{text}",
        violate="{upper}",
    ),
    _Instruction(
        "punctuation:no_comma",
        {},
        "Use no comma.",
        follow="{text}",
        violate="{text},",
    ),
    _Instruction(
        "length_constraints:number_words",
        {"num_words": 3, "relation": "at least"},
        "Use 3 words.",
        follow="{text} {text} {text}",
        conflicts=(_END, _REPEAT),
    ),
    _Instruction("detectable_format:title", {}, "Use a title.", follow="<<{text}>>"),
    _Instruction(
        "detectable_format:number_bullet_lists",
        {"num_bullets": 1},
        "Use a bullet.",
        follow="* {text}",
        conflicts=(_QUOTES, _JSON, _REPEAT),
    ),
    _Instruction(
        _END, {"end_phrase": "ok"}, "End with ok.", follow="{text} ok", conflicts=(_END, _JSON)
    ),
    _Instruction(
        _END, {"end_phrase": "bye"}, "End with bye.", follow="{text} bye", conflicts=(_JSON,)
    ),
    _Instruction(_QUOTES, {}, "Use quotes.", follow='"{text}"', conflicts=(_JSON, _REPEAT)),
    _Instruction(_JSON, {}, "Use JSON.", follow='["{text}"]', conflicts=(_REPEAT,)),
    _Instruction(_REPEAT, {}, "Repeat that first.", follow="{request} {text}"),
)


def _combinations() -> list[tuple[_Instruction, ...]]:
    """Return each instruction alone, and each two that can be followed at the same time."""
    pairs = itertools.combinations(_INSTRUCTIONS, 2)
    alone: list[tuple[_Instruction, ...]] = [(each,) for each in _INSTRUCTIONS]
    return alone + [(a, b) for a, b in pairs if b.type not in a.conflicts]


_COMBINATIONS = _combinations()


class TinyInstructions(TinySource):
    """Requests such as `Write tea. Use quotes.`, all with a word that has to be written."""

    name: ClassVar[str] = "tiny_instructions"

    def _sizes(self) -> Sequence[int]:
        return [len(_WORDS) * len(_COMBINATIONS)]

    def _make(self, kind: int, number: int, name: str) -> Task:
        which, place = divmod(number, len(_WORDS))
        instructions, word = _COMBINATIONS[which], _WORDS[place]
        request, other = _REQUEST.format(word), _WORDS[(place + 1) % len(_WORDS)]
        arguments: list[JsonValue] = [{"keywords": [word]}]
        types: list[JsonValue] = ["keywords:existence"]
        for each in instructions:
            types.append(each.type)
            is_repeat = each.type == _REPEAT
            arguments.append({"prompt_to_repeat": request} if is_repeat else each.arguments)
        prompt = Prompt(
            id=name,
            messages=" ".join([request, *(each.text for each in instructions)]),
            target={"instruction_id_list": types, "kwargs": arguments},
            reward="ifeval",
            metadata={"task": self.name},
        )
        wrong = [_follow(instructions, word, but=each) for each in instructions]
        wrong.append(_follow(instructions, other))
        return Task(prompt, Demonstrations((_follow(instructions, word),), tuple(wrong)))


def _follow(
    instructions: Sequence[_Instruction], word: str, *, but: _Instruction | None = None
) -> str:
    """Return a completion that writes the word and follows all instructions, or all but one."""
    text, request = word, _REQUEST.format(word)
    for each in instructions:
        template = each.violate if each is but else each.follow
        text = template.format(text=text, upper=text.upper(), request=request)
    return text
