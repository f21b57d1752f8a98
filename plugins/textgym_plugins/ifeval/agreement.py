"""Compare this checker with verdicts that another checker gave.

`python -m textgym_plugins.ifeval.agreement RESPONSES.jsonl PROMPTS.jsonl` prints how many verdicts
agree, per instruction type and mode, and every difference. A line of RESPONSES holds `prompt`,
`response`, `instruction_id_list` and the verdicts `strict`, `loose` (lists of booleans); PROMPTS is
IFEval's prompt file, which has the arguments.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from textgym.errors import PromptError
from textgym.jsonl import PromptProblem, read_rows
from textgym_plugins.ifeval.checker import Mode, Verdict, check_instructions
from textgym_plugins.ifeval.instruction import Instruction, read_instructions
from textgym_plugins.ifeval.source import read_ifeval_prompts


class Comparison(NamedTuple):
    """Two verdicts on one instruction of one response."""

    line: int
    mode: Mode
    verdict: Verdict
    given: bool

    @property
    def agrees(self) -> bool:
        """Whether they are the same; a verdict that cannot be given is not."""
        return self.verdict.is_followed == self.given


def compare(responses: Path, prompts: Path) -> Iterator[Comparison]:
    """Yield each verdict of a file of judged responses beside our own.

    Raises:
        PromptError: a file cannot be read, or a line lacks what it needs.
    """
    known = {prompt.text: prompt for prompt in read_ifeval_prompts(prompts)[0]}
    for line, row in read_rows(responses):
        if isinstance(row, PromptProblem):
            raise PromptError(str(row))
        text, response = row.get("prompt"), row.get("response")
        if not isinstance(response, str) or not isinstance(text, str) or text not in known:
            raise PromptError(f"{responses}:{line}: no 'response', or its 'prompt' is not known")
        instructions = read_instructions(known[text].target, prompt=text)
        yield from _compare_row(responses, line, row, response, instructions)


def _compare_row(
    path: Path,
    line: int,
    row: Mapping[str, object],
    response: str,
    instructions: Sequence[Instruction],
) -> Iterator[Comparison]:
    modes: tuple[Mode, ...] = get_args(Mode)
    for mode in modes:
        given = row.get(mode)
        if not isinstance(given, list) or len(given) != len(instructions):
            raise PromptError(f"{path}:{line}: '{mode}' is no list of {len(instructions)} verdicts")
        verdicts = check_instructions(response, instructions, mode=mode)
        for verdict, theirs in zip(verdicts, given, strict=True):
            yield Comparison(line, mode, verdict, bool(theirs))


def report(comparisons: Sequence[Comparison]) -> str:
    """Return the agreement per type and mode, and every difference, as text."""
    modes: tuple[Mode, ...] = get_args(Mode)
    total = Counter((c.verdict.instruction, c.mode) for c in comparisons)
    agreed = Counter((c.verdict.instruction, c.mode) for c in comparisons if c.agrees)
    lines = [f"{'instruction':45}" + "".join(f"{mode:>18}" for mode in modes)]
    for name in sorted({c.verdict.instruction for c in comparisons}):
        cells = (f"{agreed[name, mode]}/{total[name, mode]}" for mode in modes)
        lines.append(f"{name:45}" + "".join(f"{cell:>18}" for cell in cells))
    lines.append(f"{'all':45}" + "".join(f"{_share(comparisons, mode):>18}" for mode in modes))
    for c in comparisons:
        if not c.agrees:
            ours = f"{c.verdict.is_followed} ({c.verdict.note})"
            lines.append(f"line {c.line}, {c.mode}, {c.verdict.instruction}: {ours}, not {c.given}")
    return "\n".join(lines)


def _share(comparisons: Sequence[Comparison], mode: Mode) -> str:
    agreeing = [c.agrees for c in comparisons if c.mode == mode]
    return f"{sum(agreeing)}/{len(agreeing)} = {sum(agreeing) / max(len(agreeing), 1):.2%}"


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(prog="python -m textgym_plugins.ifeval.agreement")
    parser.add_argument("responses", type=Path, help="responses with verdicts, JSONL")
    parser.add_argument("prompts", type=Path, help="IFEval's prompt file, JSONL")
    arguments = parser.parse_args()
    try:
        print(report(list(compare(arguments.responses, arguments.prompts))))
    except PromptError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
