"""The documentation says what is so: its Python runs, its commands parse, its links lead somewhere.

The Python blocks of a file run in order in one namespace, in an empty folder. A block whose first
line is a comment with a file name is that file as well. What a block prints is compared with the
output block that follows at once, and the value of a line with the comment at its end. A comment
`<!-- not run: reason -->` in front of a block exempts it; a block with a title is a file of a
tutorial (test_tutorials.py).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import pytest

from textgym.cli import main as command_line
from textgym.cli.command import Command

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"^(?P<exempt><!-- not run: [^\n]+ -->\n+)?"
    r"```(?P<language>\w*)(?: title=\"(?P<title>[^\"\n]+)\")?\n(?P<text>.*?)^```$",
    re.M | re.S,
)
INLINE_COMMAND = re.compile(r"`(textgym [a-z][^`]*)`")
LINK = re.compile(r"\]\((?!\w+:)(?P<path>[^)#\s]*)(?:#[^)]*)?\)")
FILES = {
    "gsm8k_train.jsonl": [
        {"question": "How much is 2 and 2?", "answer": "2 + 2 = 4\n#### 4"},
        {"question": "How much is 2 times 600?", "answer": "2 * 600 = 1200\n#### 1,200"},
    ]
}
"""What the blocks read."""

RUNNER = r"""
import ast, contextlib, io, json, re, sys

namespace = {"__name__": "__main__"}
for text in json.load(sys.stdin):
    named = re.match(r"# (\w+\.py)\n", text)
    if named:
        open(named[1], "w").write(text)
    printed, lines = io.StringIO(), text.splitlines()
    differing = []
    with contextlib.redirect_stdout(printed):
        for node in ast.parse(text).body:
            comment = lines[node.end_lineno - 1][node.end_col_offset :].partition("#")[2].strip()
            if not isinstance(node, ast.Expr):
                exec(compile(ast.Module([node], []), "block", "exec"), namespace)
                continue
            value = eval(compile(ast.Expression(node.value), "block", "eval"), namespace)
            shown = repr(value)
            if comment and value is not None and comment not in (shown, shown[1:-1]):
                differing.append([lines[node.lineno - 1], shown])
    print(json.dumps({"printed": printed.getvalue(), "differing": differing}))
"""


class Block(NamedTuple):
    """A fenced block, and the block that follows it with nothing in between, if one does."""

    language: str
    text: str
    is_exempt: bool
    output: str | None


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = list(FENCE.finditer(text))
    blocks: list[Block] = []
    for match, following in zip_longest(found, found[1:]):
        is_output = (
            following is not None
            and not following["language"]
            and text[match.end() : following.start()] == "\n"
        )
        output = following["text"] if following is not None and is_output else None
        is_exempt = bool(match["exempt"] or match["title"])
        blocks.append(Block(match["language"], match["text"], is_exempt, output))
    return blocks


def title(page: Path) -> str:
    return str(page.relative_to(ROOT))


def run_blocks(blocks: Sequence[Block], folder: Path, site: Path) -> list[dict[str, object]]:
    """Run blocks in one process, where the plugin `brevity` is installed."""
    for name, rows in FILES.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    paths = os.pathsep.join([str(site), str(folder)])
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps([block.text for block in blocks]),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_python_blocks_run_and_give_what_they_say(
    page: Path, tmp_path: Path, brevity_site: Path
) -> None:
    blocks = [b for b in blocks_of(page) if b.language == "python" and not b.is_exempt]
    if not blocks:
        pytest.skip("the page has no Python to run")
    results = run_blocks(blocks, tmp_path, brevity_site)
    assert len(results) == len(blocks)
    for block, result in zip(blocks, results, strict=True):
        assert not result["differing"]
        if block.output is not None:
            assert result["printed"] == block.output


def commands_of(page: Path) -> list[str]:
    """Return the `textgym` commands of shell blocks and of running text."""
    lines = [
        line.partition("  #")[0]
        for block in blocks_of(page)
        if block.language in ("", "bash")
        for line in block.text.replace("\\\n", " ").splitlines()
    ]
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return [line for line in lines if line.startswith("textgym ")] + INLINE_COMMAND.findall(text)


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_commands_parse(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = command_line._load
    parsed: list[str] = []

    def load_without_effect(name: str, external: dict[str, object]) -> Command:
        def remember(_: object) -> int:
            parsed.append(name)
            return 0

        return replace(load(name, external), run=remember)

    monkeypatch.setattr(command_line, "_load", load_without_effect)
    commands = commands_of(page)
    for command in commands:
        assert command_line.main(shlex.split(command)[1:]) == 0, command
    assert len(parsed) == len(commands)


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    paths = [match["path"] for match in LINK.finditer(text) if match["path"]]
    assert [path for path in paths if not (page.parent / path).exists()] == []


def test_the_checks_find_what_is_wrong(tmp_path: Path, brevity_site: Path) -> None:
    """The value, the output and the file of a block are looked at, and an exempt block is not."""
    page = tmp_path / "page.md"
    page.write_text(
        "```python\n# part.py\nx = 2\n```\n"
        "<!-- not run: it never ends -->\n```python\nwhile True: pass\n```\n"
        "```python\nimport part\npart.x, 'a'  # 2, 'a'\npart.x  # 3\nprint(part.x)\n```\n"
        "```\n2\n```\n`textgym plugins --jsn` and [no page](nowhere.md)\n"
    )
    blocks = [block for block in blocks_of(page) if block.language == "python"]
    assert [block.is_exempt for block in blocks] == [False, True, False]
    assert [block.output for block in blocks] == [None, None, "2\n"]
    _, result = run_blocks([blocks[0], blocks[2]], tmp_path, brevity_site)
    assert result == {"printed": "2\n", "differing": [["part.x  # 3", "2"]]}
    assert commands_of(page) == ["textgym plugins --jsn"]
    assert command_line.main(["plugins", "--jsn"]) == 2
