"""The checker: a verdict per instruction, strict or loose."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from textgym.errors import MissingExtraError
from textgym_plugins.ifeval.instruction import Instruction

Mode = Literal["strict", "loose"]


class Verdict(NamedTuple):
    """What became of one instruction."""

    instruction: str
    is_followed: bool | None
    """None where it cannot be told, because a package is missing."""
    note: str
    """What was found; the `pip install` line where a package is missing."""


def check_instructions(
    response: str, instructions: Iterable[Instruction], *, mode: Mode = "strict"
) -> list[Verdict]:
    """Return one verdict per instruction, in order.

    Args:
        response: the whole response, without the model's thinking.
        instructions: from `read_instructions`.
        mode: `strict` judges the response as it is. `loose` is content with any of eight variants
            of it: without its first line, its last line, or both, each with and without asterisks.
    """
    variants = [response] if mode == "strict" else _variants(response)
    variants = [variant for variant in variants if variant.strip()]
    return [_verdict(instruction, variants) for instruction in instructions]


def _verdict(instruction: Instruction, variants: list[str]) -> Verdict:
    note = "the response is empty"
    for index, variant in enumerate(variants):
        try:
            finding = instruction.check(variant)
        except MissingExtraError as error:
            return Verdict(instruction.id, None, str(error))
        if finding.is_followed:
            return Verdict(instruction.id, True, finding.note)
        if index == 0:
            note = finding.note
    return Verdict(instruction.id, False, note)


def _variants(response: str) -> list[str]:
    """Return the distinct variants in the order of the official checker."""
    lines = response.split("\n")
    texts = [
        response,
        "\n".join(lines[1:]).strip(),
        "\n".join(lines[:-1]).strip(),
        "\n".join(lines[1:-1]).strip(),
    ]
    return list(dict.fromkeys([*texts, *(text.replace("*", "") for text in texts)]))
