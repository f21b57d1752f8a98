"""Find the program in a completion.

It is the last fenced Python block after the closing think tag; without one, the last block without
a language; without any fence, the text itself, or what of it is code. A block without a statement
(output, a remark) is none, and where the function under test is known, one that does not define it
gives way to one that does. What the block uses and an earlier one defines belongs to it.
"""

from __future__ import annotations

import ast
import builtins
import functools
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import NamedTuple

from textgym_plugins.code.fences import Block, fenced_blocks
from textgym_plugins.code.parsing import MAX_PROGRAM, Parser
from textgym_plugins.thinking import after_thinking

_MAX_TRIES = 12
_MAX_BLOCKS = 20
_CODE_LINE = re.compile(r"(?:(?:async )?def|class|import|from|@)\b|@\w")


class Program(NamedTuple):
    """The text of a program and how it was found; None and why there is none."""

    text: str | None
    how: str


def extract_program(completion: str, *, header: str = "", entry: str | None = None) -> Program:
    """Return the program of a completion.

    Args:
        completion: the whole text of the policy.
        header: code that the completion may leave out; its last function may have no body.
        entry: the function under test, where it is known.
    """
    text = after_thinking(completion)
    if text is None:
        return Program(None, "the think tag is never closed")
    text, parser = text.removeprefix("\ufeff"), Parser()
    found = _from_fences(text, entry, parser) or _from_text(text, header, parser)
    if found.text is None:
        return found
    if len(found.text) > MAX_PROGRAM:
        return Program(None, f"the program is longer than {MAX_PROGRAM >> 10} KiB")
    return Program(_with_header(found.text, header, entry, parser), found.how)


def header_of(prompt: str) -> str:
    """Return the code that a prompt wants to have completed, or an empty string.

    That is the prompt itself, or its last fenced block, if it ends in a function without a body.
    """
    blocks = list(fenced_blocks(prompt, Parser()))
    candidates = [prompt, *(block.text for block in blocks[-1:])]
    for text in reversed(candidates):
        if len(text) <= MAX_PROGRAM and "def " in text and _stub(text) is not None:
            return text
    return ""


def _from_fences(text: str, entry: str | None, parser: Parser) -> Program | None:
    blocks = list(fenced_blocks(text, parser))
    chosen = [block for block in blocks if block.is_python]
    how = "last Python block"
    if not chosen:
        chosen, how = [block for block in blocks if block.is_unnamed], "last block"
    if not chosen:
        return Program(None, "no block of Python") if blocks else None
    chosen = _up_to_program(chosen[-_MAX_BLOCKS:], entry, parser)
    last = chosen[-1]
    if not last.is_closed:
        how += ", never closed"
    program = last.text
    for block in reversed(chosen[:-1]):
        if _needs(program, block.text, parser):
            program = f"{block.text}\n{program}"
    return Program(program, how if program == last.text else f"{how} with what it uses")


def _up_to_program(blocks: list[Block], entry: str | None, parser: Parser) -> list[Block]:
    """Return the blocks up to the one that is the program."""
    ends = [end for end in range(len(blocks), 0, -1) if not _is_words(blocks[end - 1].text, parser)]
    if not blocks[-1].is_python:  # what is no Python is the output of a program, or its input
        ends = [end for end in ends if parser.parse(blocks[end - 1].text) is not None] or ends
    for end in ends:
        tree = parser.parse(blocks[end - 1].text)
        if entry is not None and tree is not None and entry in _definitions(tree):
            return blocks[:end]
    return blocks[: ends[0]] if ends else blocks


def _needs(program: str, earlier: str, parser: Parser) -> bool:
    """Whether a program uses a name that it does not define and an earlier block does."""
    tree, before = parser.parse(program), parser.parse(earlier)
    if tree is None or before is None:
        return False
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    defined = _definitions(before)
    return bool((names & defined) - _definitions(tree) - vars(builtins).keys())


def _definitions(tree: ast.Module) -> set[str]:
    """Return the names that the top level of a program defines."""
    names: set[str] = set()
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name=name):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {(alias.asname or alias.name).partition(".")[0] for alias in aliases}
            case ast.Assign(targets=targets):
                names |= {
                    n.id for each in targets for n in ast.walk(each) if isinstance(n, ast.Name)
                }
    return names


def _from_text(text: str, header: str, parser: Parser) -> Program:
    """Take a completion without a fence: code, the body of the header's function, or prose."""
    if not text.strip():
        return Program(None, "empty")
    if len(text) > MAX_PROGRAM:
        return Program(None, f"the text is longer than {MAX_PROGRAM >> 10} KiB")
    if header and _completes(header, text, parser) is not None:
        return Program(text, "completion of the header")
    lines = text.strip("\n").splitlines()
    starts = [i for i, line in enumerate(lines) if _CODE_LINE.match(line)]
    whole = "\n".join(lines)
    if parser.parse(whole) is not None and not _is_words(whole, parser):
        return Program(whole, "the text as code")
    if header and lines[0][:1].isspace():
        body = _longest(lines, lambda part: _completes(header, part, parser) is not None)
        if body is not None:
            return Program(body, "beginning of the text, as a body")
    for start in starts[:_MAX_TRIES]:
        code = _longest(lines[start:], lambda part: parser.parse(part) is not None)
        if code is not None:
            return Program(code, "code between prose")
    return Program(None, "no code")


def _longest(lines: list[str], is_good: Callable[[str], bool]) -> str | None:
    """Return the longest beginning that is good, tried at most a few times, by the likeliest end.

    A beginning ends where a line without indentation follows that is no code.
    """
    ends = [len(lines)]
    ends += [i for i in range(len(lines) - 1, 0, -1) if lines[i] and not lines[i][0].isspace()]
    for end in ends[:_MAX_TRIES]:
        part = "\n".join(lines[:end])
        if part.strip() and is_good(part):
            return part
    return None


def _is_words(text: str, parser: Parser) -> bool:
    """Whether text that parses is no program: a word, a number, a tuple of words, a comment."""
    tree = parser.parse(text)
    return tree is not None and all(
        isinstance(node, ast.Expr) and not any(isinstance(n, ast.Call) for n in ast.walk(node))
        for node in tree.body
    )


def _with_header(text: str, header: str, entry: str | None, parser: Parser) -> str:
    """Put in front of a program what it leaves out of the header."""
    if not header:
        return text
    stub = _stub(header)
    if stub is None:
        return f"{header}\n{text}"
    tree = parser.parse(text)
    wanted = {entry} if entry else _definitions(stub)
    if tree is not None and wanted & _definitions(tree):
        return _before_last_function(header, stub) + text
    whole = _completes(header, text, parser)
    return whole if whole is not None else text


def _completes(header: str, text: str, parser: Parser) -> str | None:
    """Return header and body as one program, the body indented if it is not; None if it is none."""
    stub = _stub(header)
    if stub is None:
        return None
    for body in _indented(text):
        whole = f"{header.rstrip()}\n{body}"
        tree = parser.parse(whole)
        if tree is not None and _has_body(tree, stub):
            return whole
    return None


def _indented(text: str) -> Iterator[str]:
    """Yield a body as it stands, and as it may have to be indented."""
    yield text
    yield textwrap.indent(text, "    ")
    yield textwrap.indent(textwrap.dedent(text), "    ")


def _has_body(tree: ast.Module, stub: ast.Module) -> bool:
    """Whether the function that ends the header got more than its docstring."""
    last = stub.body[-1]
    assert isinstance(last, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    given = next((n for n in tree.body if getattr(n, "name", None) == last.name), None)
    return given is not None and len(getattr(given, "body", ())) >= len(last.body)


@functools.lru_cache(maxsize=256)
def _stub(header: str) -> ast.Module | None:
    """Return the header with `pass` for the body it lacks; None if it lacks none."""
    tree = Parser().parse(f"{header.rstrip()}\n    pass\n")
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    if tree is None or not tree.body or not isinstance(tree.body[-1], kinds):
        return None
    *before, _ = tree.body[-1].body
    is_bare = all(isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant) for n in before)
    return tree if is_bare else None


def _before_last_function(header: str, stub: ast.Module) -> str:
    """Return imports and helpers of a header, without the function that the program brings."""
    last = stub.body[-1]
    decorators = getattr(last, "decorator_list", [])
    first = min([last.lineno, *(node.lineno for node in decorators)])
    return "".join(header.splitlines(keepends=True)[: first - 1])
