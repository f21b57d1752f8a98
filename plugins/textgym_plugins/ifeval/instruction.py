"""The table of instruction types, and how a prompt's target becomes instructions to check.

The target is the one of IFEval's own prompt file: `{"instruction_id_list": [...], "kwargs":
[...]}`, one object of arguments per instruction. Arguments that are null are ignored, because some
copies of the data set hold every argument of every type. The ids may carry the language prefix
that multilingual copies give them, `en:`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from textgym.errors import PromptError, did_you_mean
from textgym.validation import shown
from textgym_plugins.ifeval import checks
from textgym_plugins.ifeval.checks import Finding

Argument = int | str | tuple[str, ...]


class Kind(NamedTuple):
    """What an argument must be."""

    words: str
    read: Callable[[object], Argument | None]
    """Returns the argument, None where it is not of this kind."""


class InstructionType(NamedTuple):
    """One type of instruction: how it is checked, which arguments it needs."""

    check: Callable[..., Finding]
    arguments: Mapping[str, Kind]


def _read_count(value: object) -> int | None:
    if isinstance(value, float) and value.is_integer():  # a table of mixed columns turns 3 to 3.0
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _read_ordinal(value: object) -> int | None:
    return _read_count(value) or None


def _read_text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _read_texts(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, list | tuple) or not value:
        return None
    return tuple(value) if all(_read_text(item) for item in value) else None


def _read_relation(value: object) -> str | None:
    return value if value in ("less than", "at least") and isinstance(value, str) else None


def _read_letter(value: object) -> str | None:
    return value if isinstance(value, str) and len(value) == 1 else None


_COUNT = Kind("a whole number from 0", _read_count)
_ORDINAL = Kind("a whole number from 1", _read_ordinal)
_TEXT = Kind("a text", _read_text)
_TEXTS = Kind("a list of texts", _read_texts)
_RELATION = Kind("'less than' or 'at least'", _read_relation)
_LETTER = Kind("one character", _read_letter)

TYPES: dict[str, InstructionType] = {
    "change_case:capital_word_frequency": InstructionType(
        checks.capital_word_frequency, {"capital_frequency": _COUNT, "capital_relation": _RELATION}
    ),
    "change_case:english_capital": InstructionType(checks.english_capital, {}),
    "change_case:english_lowercase": InstructionType(checks.english_lowercase, {}),
    "combination:repeat_prompt": InstructionType(checks.repeat_prompt, {"prompt_to_repeat": _TEXT}),
    "combination:two_responses": InstructionType(checks.two_responses, {}),
    "detectable_content:number_placeholders": InstructionType(
        checks.number_placeholders, {"num_placeholders": _COUNT}
    ),
    "detectable_content:postscript": InstructionType(
        checks.postscript, {"postscript_marker": _TEXT}
    ),
    "detectable_format:constrained_response": InstructionType(checks.constrained_response, {}),
    "detectable_format:json_format": InstructionType(checks.json_format, {}),
    "detectable_format:multiple_sections": InstructionType(
        checks.multiple_sections, {"section_spliter": _TEXT, "num_sections": _COUNT}
    ),
    "detectable_format:number_bullet_lists": InstructionType(
        checks.number_bullet_lists, {"num_bullets": _COUNT}
    ),
    "detectable_format:number_highlighted_sections": InstructionType(
        checks.number_highlighted_sections, {"num_highlights": _COUNT}
    ),
    "detectable_format:title": InstructionType(checks.title, {}),
    "keywords:existence": InstructionType(checks.keyword_existence, {"keywords": _TEXTS}),
    "keywords:forbidden_words": InstructionType(
        checks.forbidden_words, {"forbidden_words": _TEXTS}
    ),
    "keywords:frequency": InstructionType(
        checks.keyword_frequency, {"keyword": _TEXT, "frequency": _COUNT, "relation": _RELATION}
    ),
    "keywords:letter_frequency": InstructionType(
        checks.letter_frequency,
        {"letter": _LETTER, "let_frequency": _COUNT, "let_relation": _RELATION},
    ),
    "language:response_language": InstructionType(checks.response_language, {"language": _TEXT}),
    "length_constraints:nth_paragraph_first_word": InstructionType(
        checks.nth_paragraph_first_word,
        {"num_paragraphs": _COUNT, "nth_paragraph": _ORDINAL, "first_word": _TEXT},
    ),
    "length_constraints:number_paragraphs": InstructionType(
        checks.number_paragraphs, {"num_paragraphs": _COUNT}
    ),
    "length_constraints:number_sentences": InstructionType(
        checks.number_sentences, {"num_sentences": _COUNT, "relation": _RELATION}
    ),
    "length_constraints:number_words": InstructionType(
        checks.number_words, {"num_words": _COUNT, "relation": _RELATION}
    ),
    "punctuation:no_comma": InstructionType(checks.no_comma, {}),
    "startend:end_checker": InstructionType(checks.end_checker, {"end_phrase": _TEXT}),
    "startend:quotation": InstructionType(checks.quotation, {}),
}
"""The 25 types of IFEval, by id."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a prompt, ready to be checked."""

    id: str
    arguments: Mapping[str, Argument]

    def check(self, response: str) -> Finding:
        """Return whether a response follows the instruction, taken as it is (strict)."""
        return TYPES[self.id].check(response, **self.arguments)


def read_instructions(target: object, *, prompt: str = "") -> tuple[Instruction, ...]:
    """Return the instructions of a target.

    Args:
        target: ids and arguments, in the form of IFEval's prompt file.
        prompt: the text that `combination:repeat_prompt` means where its arguments name none.

    Raises:
        PromptError: the target has another form, an unknown id, or an argument is missing or wrong.
    """
    if not isinstance(target, Mapping) or "instruction_id_list" not in target:
        raise PromptError(
            f"the target is {shown(target)}; expected 'instruction_id_list', 'kwargs'"
        )
    ids, values = target["instruction_id_list"], target.get("kwargs")
    if not isinstance(ids, Sequence) or isinstance(ids, str) or not ids:
        raise PromptError(f"instruction_id_list is {shown(ids)}; expected a list of ids")
    if values is None:
        values = [{}] * len(ids)
    if not isinstance(values, Sequence) or len(values) != len(ids):
        raise PromptError(f"kwargs must be a list of {len(ids)} objects, one per instruction")
    return tuple(
        _read(index, identifier, given, prompt)
        for index, (identifier, given) in enumerate(zip(ids, values, strict=True))
    )


def _read(index: int, identifier: object, given: object, prompt: str) -> Instruction:
    name = identifier.removeprefix("en:") if isinstance(identifier, str) else ""
    kinds = TYPES.get(name)
    if kinds is None:
        hint = did_you_mean(name, TYPES)
        raise PromptError(
            f"instruction_id_list[{index}]: no instruction {shown(identifier)}.{hint}"
        )
    if not isinstance(given, Mapping):
        raise PromptError(f"kwargs[{index}] is {shown(given)}; expected an object")
    arguments: dict[str, Argument] = {}
    for argument, kind in kinds.arguments.items():
        value = given.get(argument)
        if value is None and argument == "prompt_to_repeat":
            value = prompt
        read = kind.read(value)
        if read is None:
            where = f"kwargs[{index}].{argument}"
            raise PromptError(f"{where} of '{name}' is {shown(value)}; expected {kind.words}")
        arguments[argument] = read
    return Instruction(name, arguments)
