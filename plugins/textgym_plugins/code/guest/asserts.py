"""Turn assert code into single tests: each assertion is recorded, and the next one still runs.

A test is an `assert` statement, or a whole `try` or `with` statement that holds one or expects an
exception. An assertion in a loop is one test, which passes if it holds every time.
"""

from __future__ import annotations

import ast
import builtins
import collections
import functools
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from textgym_plugins.code.guest import purity
from textgym_plugins.code.guest.ahead import EarlyCall, early_call
from textgym_plugins.code.guest.classes import class_names
from textgym_plugins.code.guest.trees import walk

RECORDER = "__textgym_test__"
_ERROR = "__textgym_error__"
_FILE = "tests.py"
_RAISES = frozenset({"raises", "assertRaises", "assertRaisesRegex"})
_MAX_TEXT = 160
_BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")
"""Where a statement holds statements, or what holds them, in the order of the text."""


class _Place(TypedDict):
    lineno: int
    col_offset: int


# Nodes that are made here all say that they are from the beginning; those that are always the same
# are made once.
_PLACE: _Place = {"lineno": 1, "col_offset": 0}
_LOAD = ast.Load()
_METHODS = {
    name: ast.Attribute(ast.Name(RECORDER, _LOAD, **_PLACE), name, _LOAD, **_PLACE)
    for name in ("ask", "answer", "begin", "succeed", "fail")
}
_ANY = ast.Name("BaseException", _LOAD, **_PLACE)
_CAUGHT = ast.Name(_ERROR, _LOAD, **_PLACE)


@dataclass
class Plan:
    """Compiled test code, and what is known of it before it runs."""

    code: Any
    texts: list[str]
    """The source of each test."""
    is_certain: list[bool]
    """Whether the test runs each time the code does: it is in no branch and no helper."""
    names: list[str]
    """Global names that the code reads and that may belong to the program."""
    modules: frozenset[str]
    """Modules of the standard library that it uses without importing them."""
    functions: list[str]
    """`test_...` functions without parameters, which nothing in the code calls."""
    calls_check: bool
    """Whether the code calls `check` itself."""
    is_pure: bool
    """Whether the code can leave nothing behind in the process that runs it."""
    is_repeated: list[bool]
    """Whether the test may run several times, so that it holds only if the code came to its end."""
    classes: frozenset[str]
    """Names that the code uses as classes."""


@functools.lru_cache(maxsize=256)
def make_plan(source: str, owned: frozenset[str], entry: str | None = None) -> Plan:
    """Compile test code; raises SyntaxError if it is none.

    Args:
        source: the test code.
        owned: names that the program is known to define, though they are built in (`sum`).
        entry: the one that is tested; it is wanted even if the code does not read it.
    """
    tree = ast.parse(source, _FILE)
    nodes = walk(tree)
    uses = [node for node in nodes if isinstance(node, ast.Name)]
    read = {node.id for node in uses if isinstance(node.ctx, ast.Load)}
    modules = frozenset(
        node.value.id
        for node in nodes
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in sys.stdlib_module_names
    )
    functions = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test")
        and node.name not in read
        and not node.args.args
    ]
    bound = _bound(tree)
    is_pure, classes = purity.is_pure(nodes), class_names(nodes)
    if entry is not None:
        owned, read = owned | {entry}, read | {entry}
    names = _program_names(nodes, read - bound, owned - bound)
    marker = _Marker(source, frozenset(names), _called_once(tree, uses))
    code = compile(marker.visit(tree), _FILE, "exec")
    return Plan(
        code, marker.texts, marker.is_certain, names, modules, functions, "check" in read, is_pure,
        marker.is_repeated, classes,
    )  # fmt: skip


def _bound(tree: ast.Module) -> set[str]:
    """Return the global names that the code itself defines, wherever in it."""
    bound: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign):
            bound |= {n.id for t in node.targets for n in walk(t) if isinstance(n, ast.Name)}
    return bound


def _program_names(nodes: Sequence[ast.AST], read: set[str], owned: frozenset[str]) -> list[str]:
    """Return the names that the program may answer for.

    A built-in stays what it is, or the program could judge itself with an `abs` or a `set` of its
    own, unless it is known to be what is tested, or nothing else in the code can be.
    """
    foreign = {name for name in read if not hasattr(builtins, name)}
    owned_builtins = (owned & read) - foreign
    if not owned and not foreign & _called(nodes):
        owned_builtins = _innermost_builtin(nodes)
    return sorted(foreign | owned_builtins)


def _called(nodes: Sequence[ast.AST]) -> set[str]:
    return {
        node.func.id
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


def _innermost_builtin(nodes: Sequence[ast.AST]) -> frozenset[str]:
    """Return the one built-in that every assertion calls innermost: `sum` of `sum(1, 2) == 3`."""
    common: set[str] | None = None
    for node in nodes:
        if isinstance(node, ast.Assert):
            calls = {
                call.func.id
                for call in walk(node.test)
                if isinstance(call, ast.Call)
                and isinstance(call.func, ast.Name)
                and not any(_called(walk(argument)) for argument in call.args)
            }
            common = calls if common is None else common & calls
    return frozenset(common) if common is not None and len(common) == 1 else frozenset()


def _called_once(tree: ast.Module, names: Sequence[ast.Name]) -> frozenset[str]:
    """Return the functions that the code calls in one statement of its own, or not at all."""
    uses = collections.Counter(node.id for node in names)
    for node in tree.body:
        match node:
            case ast.Expr(value=ast.Call(func=ast.Name(id=name))):
                uses[name] -= uses[name] == 1
    functions = (node.name for node in tree.body if isinstance(node, ast.FunctionDef))
    return frozenset(name for name in functions if not uses[name])


class _Marker(ast.NodeTransformer):
    """Wraps each test, and leaves test classes to unittest. It looks at statements alone."""

    def __init__(self, source: str, names: frozenset[str], called_once: frozenset[str]) -> None:
        self._names = names
        self._called_once = called_once
        self._early: dict[ast.stmt, EarlyCall] = {}
        self.texts: list[str] = []
        self.is_certain: list[bool] = []
        self.is_repeated: list[bool] = []
        self._lines = source.splitlines()
        self._depth = 0
        self._num_loops = 0

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for name in _BLOCKS:
            block = getattr(node, name, None)
            if block:
                setattr(node, name, [self.visit(each) for each in block])
        return node

    def visit_Module(self, node: ast.Module) -> ast.AST:
        self.generic_visit(node)
        node.body = self._with_questions(node.body)
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        call = early_call(node, self._names)
        wrapped = self._wrap(node)
        if call is not None:
            index = len(self.texts) - 1
            self._early[wrapped] = EarlyCall(index, call.func, call.args, call.keywords)
            call.args = [ast.Constant(index, **_PLACE), call.func, *call.args]
            call.func = _METHODS["answer"]
        return wrapped

    def visit_Try(self, node: ast.Try) -> ast.AST:
        return self._wrap(node) if _judges(node) else self._nested(node)

    def visit_With(self, node: ast.With) -> ast.AST:
        return self._wrap(node) if _judges(node) else self._nested(node)

    def visit_If(self, node: ast.If) -> ast.AST:
        return self._nested(node)

    def visit_While(self, node: ast.While) -> ast.AST:
        return self._loop(node)

    def visit_For(self, node: ast.For) -> ast.AST:
        return self._loop(node)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AST:
        return self._loop(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._loop(node)

    def visit_Match(self, node: ast.Match) -> ast.AST:
        return self._nested(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        is_helper = not node.name.startswith(("check", "test"))
        is_repeated = node.name not in self._called_once
        self._depth += is_helper
        self._num_loops += is_repeated
        self.generic_visit(node)
        self._num_loops -= is_repeated
        self._depth -= is_helper
        node.body = self._with_questions(node.body)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return node

    def _loop(self, node: ast.AST) -> ast.AST:
        self._num_loops += 1
        try:
            return self._nested(node)
        finally:
            self._num_loops -= 1

    def _nested(self, node: ast.AST) -> ast.AST:
        self._depth += 1
        try:
            return self.generic_visit(node)
        finally:
            self._depth -= 1

    def _with_questions(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """Put in front of each row of early calls one statement that sends them all."""
        complete: list[ast.stmt] = []
        for is_early, group in itertools.groupby(body, lambda each: each in self._early):
            statements = list(group)
            if is_early and len(statements) > 1:
                complete.append(_ask_early([self._early[each] for each in statements]))
            complete += statements
        return complete

    def _wrap(self, node: ast.stmt) -> ast.stmt:
        index = len(self.texts)
        text = " ".join(" ".join(self._lines[node.lineno - 1 : node.end_lineno]).split())
        self.texts.append(text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}...")
        self.is_certain.append(self._depth == 0)
        self.is_repeated.append(self._num_loops > 0)
        number = ast.Constant(index, **_PLACE)
        failed = ast.ExceptHandler(_ANY, _ERROR, [_record("fail", number, _CAUGHT)], **_PLACE)
        passed = _record("succeed", number)
        return ast.Try([_record("begin", number), node], [failed], [passed], [], **_PLACE)


def _record(method: str, *arguments: ast.expr) -> ast.stmt:
    return ast.Expr(ast.Call(_METHODS[method], list(arguments), [], **_PLACE), **_PLACE)


def _ask_early(questions: list[EarlyCall]) -> ast.stmt:
    """Return `recorder.ask((index, lambda: function, args, kwargs), ...)`.

    The function is named within a lambda: that it does not exist is for its test to find out.
    """
    nothing = ast.arguments([], [], None, [], [], None, [])
    rows: list[ast.expr] = []
    for call in questions:
        keywords = ast.Dict(
            [ast.Constant(keyword.arg, **_PLACE) for keyword in call.keywords],
            [keyword.value for keyword in call.keywords],
            **_PLACE,
        )
        row: list[ast.expr] = [
            ast.Constant(call.number, **_PLACE),
            ast.Lambda(nothing, call.function, **_PLACE),
            ast.Tuple(call.arguments, _LOAD, **_PLACE),
            keywords,
        ]
        rows.append(ast.Tuple(row, _LOAD, **_PLACE))
    return _record("ask", *rows)


def _judges(node: ast.stmt) -> bool:
    """Whether a try or with statement is a test as a whole."""
    for part in walk(node):
        if isinstance(part, ast.Assert):
            return True
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute | ast.Name):
            name = part.func.attr if isinstance(part.func, ast.Attribute) else part.func.id
            if name in _RAISES:
                return True
    return False
