"""Find the program in a completion.

It is the last fenced Python block after the closing think tag; without one, the last block without
a language; without any fence, the text itself, or what of it is code. A block that was never closed
reaches to the end. A last block that only *uses* what an earlier one defines (an example of a call)
belongs to it, so both are the program.
"""

from __future__ import annotations

import ast
import functools
import re
import textwrap
import threading
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from textgym_plugins.thinking import after_thinking

MAX_PROGRAM = 1 << 17
_MAX_FENCES = 400
_MAX_TRIES = 12
_FENCE = re.compile(r"^[ \t]{0,8}(`{3,}|~{3,})[ \t]*([^`\n]*)$", re.MULTILINE)
_PYTHON = frozenset({"python", "python3", "py", "py3", "python2", "pycon", "ipython"})
_CODE_LINE = re.compile(r"(?:(?:async )?def|class|import|from|@)\b|@\w")


_PARSING = threading.Lock()
"""`catch_warnings` changes what all threads share."""


class Program(NamedTuple):
    """The text of a program and how it was found; None and why there is none."""

    text: str | None
    how: str


class Block(NamedTuple):
    """A fenced block."""

    language: str
    text: str
    is_closed: bool


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
    found = _from_fences(text) or _from_text(text, header)
    if found.text is None:
        return found
    if len(found.text) > MAX_PROGRAM:
        return Program(None, f"the program is longer than {MAX_PROGRAM >> 10} KiB")
    return Program(_with_header(found.text, header, entry), found.how)


def header_of(prompt: str) -> str:
    """Return the code that a prompt wants to have completed, or an empty string.

    That is the prompt itself, or its last fenced block, if it ends in a function without a body.
    """
    candidates = [prompt, *(block.text for block in list(_blocks(prompt))[-1:])]
    for text in reversed(candidates):
        if len(text) <= MAX_PROGRAM and "def " in text and _stub(text) is not None:
            return text
    return ""


def _from_fences(text: str) -> Program | None:
    blocks = list(_blocks(text))
    chosen = [block for block in blocks if block.language in _PYTHON]
    how = "last Python block"
    if not chosen:
        chosen, how = [block for block in blocks if not block.language], "last block"
    if not chosen:
        return Program(None, "no block of Python") if blocks else None
    last = chosen[-1]
    if not last.is_closed:
        how += ", never closed"
    text = last.text
    for block in reversed(chosen[:-1]):
        if not _only_uses(text, block.text):
            break
        text, how = f"{block.text}\n{text}", f"{how} with the one it uses"
        break
    return Program(text, how)


def _blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks; a fence closes with as many of the same marks and nothing else."""
    opening: re.Match[str] | None = None
    for count, match in enumerate(_FENCE.finditer(text)):
        if count >= _MAX_FENCES:
            break
        if opening is None:
            opening = match
        elif match[1].startswith(opening[1]) and not match[2].strip():
            yield _block(text, opening, match.start(), is_closed=True)
            opening = None
        elif match[2].split() and match[2].split()[0].lower() in _PYTHON:
            # A block that opens while another is open: the first was never closed.
            yield _block(text, opening, match.start(), is_closed=False)
            opening = match
    if opening is not None:
        yield _block(text, opening, len(text), is_closed=False)


def _block(text: str, opening: re.Match[str], end: int, *, is_closed: bool) -> Block:
    words = opening[2].strip().lower().lstrip("{.").split()
    language = words[0].rstrip("}") if words else ""
    body = textwrap.dedent(text[opening.end() + 1 : end])
    if language == "pycon":
        body = _without_prompts(body)
    return Block(language, body, is_closed)


def _without_prompts(body: str) -> str:
    kept = [line[4:] for line in body.splitlines() if line.startswith((">>> ", "... "))]
    return "\n".join(kept) if kept else body


def _only_uses(text: str, earlier: str) -> bool:
    """Whether a block defines none of the functions and classes of an earlier one but uses some."""
    tree, before = _parse(text), _parse(earlier)
    if tree is None or before is None:
        return False
    defined = _definitions(before)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return bool(defined & used) and not _definitions(tree)


def _definitions(tree: ast.Module) -> set[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in tree.body if isinstance(node, kinds)}


def _from_text(text: str, header: str) -> Program:
    """Take a completion without a fence: code, the body of the header's function, or prose."""
    if not text.strip():
        return Program(None, "empty")
    if len(text) > MAX_PROGRAM:
        return Program(None, f"the text is longer than {MAX_PROGRAM >> 10} KiB")
    if header and _completes(header, text) is not None:
        return Program(text, "completion of the header")
    lines = text.strip("\n").splitlines()
    starts = [i for i, line in enumerate(lines) if _CODE_LINE.match(line)]
    whole = "\n".join(lines)
    if _parse(whole) is not None and not _is_words(whole):
        return Program(whole, "the text as code")
    if header and lines[0][:1].isspace():
        body = _longest(lines, lambda part: _completes(header, part) is not None)
        if body is not None:
            return Program(body, "beginning of the text, as a body")
    for start in starts[:_MAX_TRIES]:
        code = _longest(lines[start:], lambda part: _parse(part) is not None)
        if code is not None:
            return Program(code, "code between prose")
    return Program(None, "no code")


def _longest(lines: list[str], is_good: object) -> str | None:
    """Return the longest beginning that is good, tried at most a few times, by the likeliest end.

    A beginning ends where a line without indentation follows that is no code.
    """
    assert callable(is_good)
    ends = [len(lines)]
    ends += [i for i in range(len(lines) - 1, 0, -1) if lines[i] and not lines[i][0].isspace()]
    for end in ends[:_MAX_TRIES]:
        part = "\n".join(lines[:end])
        if part.strip() and is_good(part):
            return part
    return None


def _is_words(text: str) -> bool:
    """Whether text that parses is no program: a word, a number, a tuple of words."""
    tree = _parse(text)
    return tree is not None and all(
        isinstance(node, ast.Expr) and not any(isinstance(n, ast.Call) for n in ast.walk(node))
        for node in tree.body
    )


def _with_header(text: str, header: str, entry: str | None) -> str:
    """Put in front of a program what it leaves out of the header."""
    if not header:
        return text
    stub = _stub(header)
    if stub is None:
        return f"{header}\n{text}"
    tree = _parse(text)
    wanted = {entry} if entry else _definitions(stub)
    if tree is not None and wanted & _definitions(tree):
        return _before_last_function(header, stub) + text
    whole = _completes(header, text)
    return whole if whole is not None else text


@functools.lru_cache(maxsize=16)
def _completes(header: str, text: str) -> str | None:
    """Return header and body as one program, the body indented if it is not; None if it is none."""
    for body in (
        text,
        textwrap.indent(text, "    "),
        textwrap.indent(textwrap.dedent(text), "    "),
    ):
        whole = f"{header.rstrip()}\n{body}"
        tree, stub = _parse(whole), _stub(header)
        if tree is not None and stub is not None and _has_body(tree, stub):
            return whole
    return None


def _has_body(tree: ast.Module, stub: ast.Module) -> bool:
    """Whether the function that ends the header got more than its docstring."""
    last = stub.body[-1]
    assert isinstance(last, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    given = next((n for n in tree.body if getattr(n, "name", None) == last.name), None)
    return given is not None and len(getattr(given, "body", ())) >= len(last.body)


@functools.lru_cache(maxsize=256)
def _stub(header: str) -> ast.Module | None:
    """Return the header with `pass` for the body it lacks; None if it lacks none."""
    tree = _parse(f"{header.rstrip()}\n    pass\n")
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


def _parse(text: str) -> ast.Module | None:
    try:
        with _PARSING, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an invalid escape, say: it is not our text
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
