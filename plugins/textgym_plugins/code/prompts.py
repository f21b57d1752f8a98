"""The prompt sources `humaneval` and `mbpp`: rows of the public files, as prompts of the reward."""

from __future__ import annotations

import ast
from typing import ClassVar

from textgym import Prompt
from textgym_plugins.row_source import Row, RowSource, Task

_INSTRUCTION = "Complete the following Python function. Answer with the whole function.\n\n"


class HumanEval(RowSource):
    """OpenAI's HumanEval: complete a function from its signature and docstring."""

    name: ClassVar[str] = "humaneval"

    def _read(self, row: Row, number: int) -> Task:
        solution = row.get("canonical_solution")
        reference = None if solution is None else f"```python\n{row['prompt']}{solution}\n```"
        return Task(self._prompt(row), reference)

    def _prompt(self, row: Row) -> Prompt:
        header, entry, test = (str(row[name]) for name in ("prompt", "entry_point", "test"))
        return Prompt(
            id=str(row["task_id"]),
            messages=f"{_INSTRUCTION}```python\n{header.strip()}\n```",
            target={
                "kind": "assert",
                "code": f"{_helpers(header, entry)}{test}\ncheck({entry})\n",
                "entry": entry,
                "header": header,
            },
            reward="code",
        )


class Mbpp(RowSource):
    """Mostly Basic Python Problems: write a function from one sentence and an example."""

    name: ClassVar[str] = "mbpp"

    def _read(self, row: Row, number: int) -> Task:
        code = row.get("code")
        return Task(self._prompt(row), None if code is None else f"```python\n{code}\n```")

    def _prompt(self, row: Row) -> Prompt:
        tests = row["test_list"]
        imports = row.get("test_imports") or []
        setup = str(row.get("test_setup_code") or "")
        if not isinstance(tests, list) or not isinstance(imports, list) or not tests:
            raise TypeError("'test_list' must be a list of assertions")
        text = str(row.get("prompt") or row.get("text"))
        code = row.get("code")
        return Prompt(
            id=f"MBPP/{row['task_id']}",
            messages=f"{text}\nYour code should pass this test:\n{tests[0]}",
            target={
                "kind": "assert",
                "code": "\n".join([*map(str, imports), setup, *map(str, tests)]),
                "names": list(_defined(str(code))) if code is not None else [],
            },
            reward="code",
        )


def _helpers(header: str, entry: str) -> str:
    """Return what a header defines beside the function to complete.

    The tests may call it (`poly` checks the root that `find_zero` returns), and must not call a
    program's own version of it.
    """
    tree = ast.parse(f"{header.rstrip()}\n    pass\n")
    kept = [node for node in tree.body if getattr(node, "name", None) != entry]
    return "".join(f"{ast.unparse(node)}\n\n\n" for node in kept)


def _defined(code: str) -> list[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node.name for node in ast.parse(code).body if isinstance(node, kinds)]
