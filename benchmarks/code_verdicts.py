"""What the reward `code` says of right programs, and of nearly right ones.

`python -m benchmarks.code_verdicts` runs the canonical solutions of HumanEval and MBPP through the
reward, and of each solution one mutant: the program with one operator or constant changed, so that
its own tests notice when they are executed plainly, without this library. All of the former should
pass and none of the latter. Exit status 1 says that it was otherwise.
"""

from __future__ import annotations

import ast
import copy
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from rich.console import Console
from rich.table import Table

import textgym
from benchmarks.places import DATA
from textgym_plugins.code import CodeReward, HumanEval, Mbpp

FILES = {"humaneval": "human_eval.jsonl", "mbpp": "mbpp.jsonl"}
_PLAIN_SECONDS = 1.0

_SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE,
    ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd, ast.RShift: ast.LShift, ast.LShift: ast.RShift, ast.USub: ast.UAdd,
}  # fmt: skip


class Problem(NamedTuple):
    """A canonical program, the plain test code that judges it, and the prompt."""

    program: str
    test: str
    prompt: textgym.Prompt


def read_problems(name: Literal["humaneval", "mbpp"], path: Path) -> list[Problem]:
    """Return the problems of a file of HumanEval or MBPP."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if name == "humaneval":
        humaneval = HumanEval(path=path)
        return [
            Problem(
                row["prompt"] + row["canonical_solution"],
                f"{row['test']}\ncheck({row['entry_point']})\n",
                humaneval.prompt(index),
            )
            for index, row in enumerate(rows)
        ]
    mbpp = Mbpp(path=path)
    return [
        Problem(
            row["code"], "\n".join([*row["test_imports"], *row["test_list"]]), mbpp.prompt(index)
        )
        for index, row in enumerate(rows)
    ]


def mutant_samples(problems: list[Problem]) -> list[textgym.Sample]:
    """Return one mutant of each program that has one which its tests notice."""
    found = [(next(_mutants_noticed(p.program, p.test), None), p.prompt) for p in problems]
    return [sample_of(mutant, prompt) for mutant, prompt in found if mutant is not None]


def sample_of(program: str, prompt: textgym.Prompt) -> textgym.Sample:
    """Return the completion that a model would write."""
    return textgym.Sample(prompt=prompt, completion=f"```python\n{program}\n```")


def _mutants_noticed(program: str, test: str) -> Iterator[str]:
    tree = ast.parse(program)
    for index, _ in enumerate(ast.walk(tree.body[-1])):  # before it may stand helpers of the prompt
        changed = copy.deepcopy(tree)
        node = list(ast.walk(changed.body[-1]))[index]
        if _mutate(node) and not _passes_plainly(mutant := ast.unparse(changed), test):
            yield mutant


def _mutate(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp | ast.UnaryOp | ast.BoolOp) and type(node.op) in _SWAPPED:
        node.op = _SWAPPED[type(node.op)]()  # type: ignore[assignment]
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in _SWAPPED:
        node.ops[0] = _SWAPPED[type(node.ops[0])]()  # type: ignore[call-overload]
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        node.value += 1  # type: ignore[operator]
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        node.value = not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        node.value += "x"
    else:
        return False
    return True


def _passes_plainly(program: str, test: str) -> bool:
    """Execute program and test in one namespace; a program that does not end in time fails."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, _PLAIN_SECONDS)
    try:
        exec(f"{program}\n{test}", {"__name__": "plain"})
    except Exception:
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return True


def main() -> int:
    """Print how many programs pass, and return the exit status."""
    table = Table("problems", "solutions that pass", "mutants that pass", title="reward code")
    reward = CodeReward(value="all")
    is_as_it_should_be = True
    for name in ("humaneval", "mbpp"):
        problems = read_problems(name, DATA / FILES[name])
        samples = [sample_of(p.program, p.prompt) for p in problems]
        passed, total = _count(reward, samples)
        mutants_passed, num_mutants = _count(reward, mutant_samples(problems))
        table.add_row(name, f"{passed}/{total}", f"{mutants_passed}/{num_mutants}")
        is_as_it_should_be &= passed == total and mutants_passed == 0
    Console().print(table)
    return 0 if is_as_it_should_be else 1


def _count(reward: CodeReward, samples: list[textgym.Sample]) -> tuple[int, int]:
    return sum(score.value == 1.0 for score in reward.score_batch(samples)), len(samples)


if __name__ == "__main__":
    sys.exit(main())
