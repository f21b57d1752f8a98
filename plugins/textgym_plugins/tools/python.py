"""The tool `python`: an interpreter in the code sandbox, whose variables last for an episode.

A console is a sandbox of its own. There are at most `consoles` of them in a process; an episode
that has lost its console to another one, or that is taken up from a saved state, gets a new one in
which its earlier code is run again. Programs draw equal random numbers, so this shows only in what
code measures of the world: the time, process ids, `os.urandom`.
"""

from __future__ import annotations

import atexit
import functools
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from textgym import Prompt, Tool, ToolArguments, ToolError, ToolUnavailableError
from textgym_plugins.code.console import Console, Said
from textgym_plugins.code.limits import Limits
from textgym_plugins.code.sandbox import SandboxError, Worker

_MAX_SOURCE = 20_000


class Code(ToolArguments):
    """The arguments of `python`."""

    code: str
    """Python code. Variables stay for the next call; the last expression's value is printed."""


class PythonInterpreter(Tool):
    """Runs code in a sandbox that keeps its variables within an episode."""

    name: ClassVar[str] = "python"
    description: ClassVar[str] = "Run Python code and read what it prints. No network, no files."
    arguments: ClassVar[type[Code]] = Code
    runs: ClassVar[Literal["inline", "thread", "timed"]] = "thread"

    limits: Limits = Limits(memory=1 << 30, output=1 << 20, processes=64, disk=256 << 20)
    """What the code of one episode may use; `seconds` of the tool replaces that of the limits."""
    consoles: PositiveInt = Field(default=16, le=512)
    """Interpreters of this process; further episodes take turns."""
    allow_weak_isolation: bool = False
    """Run code with limits but without a boundary where bubblewrap does not work. It can then
    read, write and connect to whatever this process can."""

    def open(self, prompt: Prompt, earlier: Sequence[Code] = ()) -> PythonSession:
        """Begin an episode; nothing is started before the first call."""
        del prompt
        return PythonSession(self, [each.code for each in earlier])


class PythonSession:
    """The interpreter of one episode."""

    def __init__(self, tool: PythonInterpreter, earlier: list[str]) -> None:
        self._consoles = _consoles(os.getpid(), tool.consoles, tool.allow_weak_isolation)
        self._limits = tool.limits.model_copy(
            update={
                "seconds": tool.seconds,
                "run_seconds": min(3600.0, 2 * tool.seconds * tool.max_calls),
            }
        )
        self._earlier = earlier

    def call(self, arguments: Code) -> str:
        """Return what the code prints; errors are printed, as in a terminal.

        Raises:
            ToolError: it is too long, or ended the interpreter, whose variables are gone.
            ToolUnavailableError: the sandbox cannot be started.
        """
        source = arguments.code
        if len(source) > _MAX_SOURCE:
            raise ToolError(f"the code has {len(source)} characters; at most {_MAX_SOURCE}")
        try:
            said = self._run(source)
        except SandboxError as error:
            self._consoles.give_up(self)
            raise ToolUnavailableError(str(error)) from error
        if said.ended:
            self._earlier = []
            printed = f"{said.output.rstrip()}\n" if said.output.strip() else ""
            raise ToolError(f"{printed}the interpreter {said.ended}; its variables are gone")
        self._earlier.append(source)
        return said.output.rstrip() or "(no output)"

    def _run(self, source: str) -> Said:
        with self._consoles.lend(self, self._limits) as (console, is_new):
            if is_new:
                for each in self._earlier:
                    console.run(each)
            return console.run(_encodable(source))

    def close(self) -> None:
        """End the interpreter."""
        self._consoles.give_up(self)


class Consoles:
    """The consoles of a process, each lent to one episode until it, or another, needs it."""

    def __init__(self, most: int, *, allow_weak_isolation: bool) -> None:
        self._most = most
        self._allows_weak = allow_weak_isolation
        self._free = threading.Condition()
        self._held: OrderedDict[PythonSession, Console] = OrderedDict()
        self._num_lent = 0

    def lend(self, session: PythonSession, limits: Limits) -> _Loan:
        """Return a loan of the session's console, or of a new one."""
        return _Loan(self, session, limits)

    def take(self, session: PythonSession, limits: Limits) -> tuple[Console, bool]:
        """Return the session's console, and whether it is new; wait while all others work."""
        with self._free:
            console = self._held.pop(session, None)
            if console is None:
                self._free.wait_for(lambda: self._num_lent < self._most)
                while self._held and len(self._held) + self._num_lent >= self._most:
                    self._held.popitem(last=False)[1].close()  # the one unused for longest
            self._num_lent += 1
        if console is not None:
            return console, False
        try:
            return Console(self._worker(), limits), True
        except BaseException:
            self.put_back(session, None)
            raise

    def put_back(self, session: PythonSession, console: Console | None) -> None:
        """End a loan; without a console there is one less."""
        with self._free:
            self._num_lent -= 1
            if console is not None:
                self._held[session] = console
            self._free.notify()

    def give_up(self, session: PythonSession) -> None:
        """Close the session's console."""
        with self._free:
            console = self._held.pop(session, None)
        if console is not None:
            console.close()

    def close(self) -> None:
        """Close all consoles that are not at work."""
        with self._free:
            consoles, self._held = list(self._held.values()), OrderedDict()
        for console in consoles:
            console.close()

    def _worker(self) -> Worker:
        try:
            return Worker(is_strong=True)
        except SandboxError:
            if not self._allows_weak:
                raise
        return Worker(is_strong=False)


class _Loan:
    """A console while a session uses it; one that fails is closed."""

    def __init__(self, consoles: Consoles, session: PythonSession, limits: Limits) -> None:
        self._consoles = consoles
        self._session = session
        self._limits = limits

    def __enter__(self) -> tuple[Console, bool]:
        self._console, is_new = self._consoles.take(self._session, self._limits)
        return self._console, is_new

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._console.close()
        self._consoles.put_back(self._session, self._console if kind is None else None)


def _encodable(source: str) -> str:
    """Return code without lone surrogates, which cannot be sent."""
    return source.encode(errors="replace").decode()


@functools.cache
def _consoles(pid: int, most: int, allow_weak_isolation: bool) -> Consoles:
    """Return the consoles of this process for a configuration; a forked process gets its own."""
    consoles = Consoles(most, allow_weak_isolation=allow_weak_isolation)
    atexit.register(lambda: consoles.close() if os.getpid() == pid else None)
    return consoles
