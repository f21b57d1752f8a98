"""The program's process: loads the program and does what the tester asks of it.

Nothing here is trusted once the program has started: it shares the process. It holds no expected
value and no verdict, so all that a program gains by taking over is to answer for itself.
"""

from __future__ import annotations

import _socket
import atexit
import builtins
import io
import operator
import os
import sys
import types
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any, NoReturn

from textgym_plugins.code.guest.peer import Peer, asked
from textgym_plugins.code.guest.wire import (
    Channel,
    Decoder,
    Encoder,
    PeerGoneError,
    Pipe,
    WireError,
    exact,
    is_based,
)

CONNECTION = 3
"""The descriptor that leads to the tester, or to the supervisor for a script."""
MODULE = "solution"
_FILE = "solution.py"
_source = ""


class Callback:
    """A function of the tester, as the program sees it."""

    def __init__(self, host: Host, number: int, name: str) -> None:
        self._ask = host.call_back
        self._number = number
        self.__name__ = self.__qualname__ = name  # for `functools.wraps`

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Have the tester call its function."""
        return self._ask(self._number, args, kwargs)


def _call(function: Any, *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def _run_coroutine(value: Any) -> Any:
    import asyncio  # few programs are written with it

    return asyncio.run(value)


def _state(value: Any) -> Any:
    """Return what two equal objects of a class have in common, None for no such thing."""
    slots = [name for kind in type(value).__mro__ for name in vars(kind).get("__slots__", ())]
    state = {name: getattr(value, name, None) for name in slots if name != "__dict__"}
    if not hasattr(value, "__dict__") and not slots:
        return None
    return type(value).__name__, state | dict(getattr(value, "__dict__", {}))


OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": _call, "getattr": getattr, "setattr": setattr, "delattr": delattr, "iter": iter,
    "next": next, "len": len, "str": str, "repr": repr, "bool": bool, "hash": hash, "abs": abs,
    "round": round, "reversed": reversed, "isinstance": isinstance, "state": _state,
    "int": int, "float": float, "format": format, "enter": lambda value: value.__enter__(),
    "exit": lambda value: value.__exit__(None, None, None), "plain": exact, "await": _run_coroutine,
}  # fmt: skip
for _name in (
    "eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow",
    "matmul", "and_", "or_", "xor", "lshift", "rshift", "neg", "pos", "invert", "getitem",
    "setitem", "delitem",
):  # fmt: skip
    OPERATIONS[_name] = getattr(operator, _name)


class Host:
    """The objects of the program that the tester may ask about."""

    def __init__(self, channel: Channel) -> None:
        self.module = types.ModuleType(MODULE)
        self._objects: list[object] = []
        self._numbers: dict[int, int] = {}
        self._peer = Peer(channel, self.serve)

    def run(self) -> None:
        """Answer until the tester is gone."""
        self._peer.serve_for_ever()

    def serve(self, question: list[Any]) -> list[Any]:
        """Answer one question; what the program raises is an answer too."""
        try:
            kind, *arguments = question
            if kind == "apply":
                return self._apply(*arguments)
            if kind == "load":
                return self._load(*arguments)
            if kind == "script":
                _run_script(*arguments)
            if kind == "cell":
                return _run_cell(self.module, *arguments)
            raise WireError(f"unknown question {question[:1]}")
        except PeerGoneError:
            raise
        except BaseException as error:
            return self._report(error)

    def call_back(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function of the tester and return or raise what it does."""
        form = Encoder(self._handle).encode((args, kwargs))
        match self._peer.ask("call", number, form):
            case ["=", value, _]:
                return Decoder(self._object).decode(value)
            case ["!", name, _, message]:
                kind = getattr(builtins, name, RuntimeError)
                raise kind(message)
            case reply:
                raise WireError(f"unknown reply {reply[:1]}")

    def _load(self, source: str, names: list[str]) -> list[Any]:
        """Load the program, and say what it defines under each name."""
        load(source, self.module)
        return ["=", [self._describe(name) for name in names], None]

    def _apply(self, name: str, arguments: list[Any], keywords: Any) -> list[Any]:
        operation = OPERATIONS[name]
        decoder = Decoder(self._object)
        args = decoder.items(arguments)
        kwargs = {} if keywords is None else decoder.decode(keywords)
        value = operation(*args, **kwargs)
        encoder = Encoder(self._handle, decoder.mutables)
        is_made = operation is _call and isinstance(args[0], type) and type(value) is args[0]
        result = self._handle(value) if is_made else encoder.encode(value)
        contents = [encoder.content(mutable) for mutable in decoder.mutables]
        # `repr`, because 1, True and 1.0 are equal.
        is_same = contents == decoder.contents and repr(contents) == repr(decoder.contents)
        return ["=", result, None if is_same else contents]

    def _describe(self, name: str) -> list[str] | None:
        if name not in vars(self.module):
            return None
        value = vars(self.module)[name]
        if isinstance(value, types.ModuleType):
            return ["module"]
        if isinstance(value, type):
            if issubclass(value, Exception):
                return ["exception", *(kind.__name__ for kind in value.__mro__)]
            return ["class"]
        return ["function" if callable(value) else "value"]

    def _handle(self, value: object) -> list[Any]:
        if type(value) is Callback:
            return ["k", value._number, value.__name__]
        name = getattr(value, "__name__", None) if isinstance(value, type) else None
        if name is not None and vars(builtins).get(name) is value:
            return ["g", "builtins", name]
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)
        kind = "class" if isinstance(value, type) else type(value).__name__
        return ["h", number, kind, callable(value), is_based(type(value))]

    def _object(self, form: list[Any]) -> object:
        match form:
            case ["n", "__module__"]:
                return self.module
            case ["n", name]:
                return vars(self.module)[name]
            case ["h", number, *_]:
                return self._objects[number]
            case ["k", number, name]:
                return Callback(self, number, name)
            case ["g", module, path]:
                return operator.attrgetter(path)(sys.modules[module])
        raise WireError(f"unknown value {form[:1]}")

    def _report(self, error: BaseException) -> list[Any]:
        _print_error(error)
        names = [kind.__name__ for kind in type(error).__mro__]
        try:
            encoder = Encoder(self._handle)
            args, state = encoder.encode(error.args), encoder.encode(vars(error) or None)
        except Exception:  # an argument may be anything
            args = state = None
        return ["!", names[0], names, _text_of(error), args, state]


# Made before any fork, as the streams below are: what a child makes costs it page faults.
_CHANNEL = Channel(Pipe(CONNECTION))
_HOST = Host(_CHANNEL)


def load(source: str, module: types.ModuleType) -> None:
    """Run the program as a module, which then holds its functions."""
    sys.modules[module.__name__] = module
    global _source
    _source = source
    exec(compile(source, _FILE, "exec"), vars(module))


_WARM_UP = """
import math
def f(*args):
    return [args, {1: "x"}, (2.5, None)]
"""


def warm_up() -> None:
    """Go through conversations, so that no child is the first to run this code.

    The interpreter specialises code as it runs, in place: after a fork every page that this touches
    would have to be copied, in every run again.
    """
    arguments = Encoder(lambda value: ["n", value]).items([[1, 2], "x", {"a": (1,)}])
    questions = asked("load", _WARM_UP, ["f", "g"])
    questions += asked("apply", "call", [["n", "f"], *arguments], None) * 2
    for _ in range(20):
        ours, theirs = _socket.socketpair()
        with closing(ours), closing(theirs), suppress(PeerGoneError):
            ours.sendall(questions)
            ours.shutdown(_socket.SHUT_WR)
            Host(Channel(Pipe(theirs.fileno()))).run()
    del sys.modules[MODULE]


def run() -> NoReturn:
    """Be what the first message says: a script with its source, or a module that is asked."""
    try:
        _HOST.run()
    except (PeerGoneError, WireError):
        pass
    finally:
        os._exit(0)


def _run_cell(module: types.ModuleType, source: str) -> list[Any]:
    """Run a piece of code after others in one module, and print the value of its last expression.

    What it raises is printed, SystemExit too: only the process itself can end.
    """
    import ast  # only consoles need it

    global _source
    _source = source
    module.__name__ = "__main__"
    sys.modules["__main__"] = module
    with suppress(OSError):  # it has closed its stdout
        os.dup2(1, 2)  # so that output and errors arrive in order
    try:
        tree: ast.Module = compile(source, _FILE, "exec", int(ast.PyCF_ONLY_AST))
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, _FILE, "exec"), vars(module))
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), _FILE, "eval"), vars(module))
            if value is not None:
                print(repr(value))
    except BaseException as error:
        sys.stdout.flush()
        _print_error(error)
    sys.stdout.flush()
    sys.stderr.flush()
    return ["=", None, None]


def _run_script(source: str) -> NoReturn:
    """Be the program of one stdin/stdout case: a script with the exit status of a script."""
    os.close(CONNECTION)
    status = 0
    module = types.ModuleType("__main__")
    _become_file(source, module)
    try:
        load(source, module)
    except SystemExit as error:
        status = _status_of(error)
    except BaseException as error:
        _print_error(error)
        status = 1
    try:
        if "threading" in sys.modules:  # as the interpreter does when it ends
            sys.modules["threading"]._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        status = 1
    finally:
        os._exit(status & 0xFF)


def _become_file(source: str, module: types.ModuleType) -> None:
    """Put the script where it can be read and started again, and stdin where it may be looked for.

    There is no /proc in the sandbox, so /dev/stdin is a link to a place for a copy.
    """
    path = os.path.join(os.environ["TMPDIR"], _FILE)
    with open(path, "w", encoding="utf-8", errors="replace") as file:
        file.write(source)
    module.__file__ = path
    sys.argv = [path]
    if "/dev/stdin" in source and not os.path.exists("/dev/stdin"):
        with open(os.readlink("/dev/stdin"), "wb") as copy:
            copy.write(os.pread(0, os.fstat(0).st_size, 0))


for _name in ("exit", "quit"):  # which `site` defines elsewhere
    setattr(builtins, _name, sys.exit)


def _stream(
    descriptor: int, mode: str, errors: str, *, is_flushed_by_line: bool
) -> io.TextIOWrapper:
    raw = open(descriptor, f"{mode}b", closefd=False)
    return io.TextIOWrapper(raw, "utf-8", errors=errors, line_buffering=is_flushed_by_line)


# Made before any fork: the descriptors behind them are put in place in each child.
_STREAMS = {
    "stdin": _stream(0, "r", "surrogateescape", is_flushed_by_line=False),
    "stdout": _stream(1, "w", "surrogateescape", is_flushed_by_line=False),
    "stderr": _stream(2, "w", "backslashreplace", is_flushed_by_line=True),
}


def use_streams() -> None:
    """Make sys.stdin, stdout and stderr what a fresh interpreter has on descriptors 0, 1 and 2."""
    for name, stream in _STREAMS.items():
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _status_of(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    print(error.code, file=sys.stderr)
    return 1


def _print_error(error: BaseException) -> None:
    """Print the end of the traceback, without the lines of this file."""
    import linecache
    import traceback  # only a program that fails needs it

    linecache.cache[_FILE] = (len(_source), None, _source.splitlines(keepends=True), _FILE)
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace, limit=-4)
    sys.stderr.flush()


def _text_of(error: BaseException) -> str:
    try:
        return str(error)[:2000]
    except Exception:  # the program's own __str__
        return ""
