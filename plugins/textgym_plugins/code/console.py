"""An interpreter in the sandbox that keeps its variables: one piece of code after another.

Each console has a worker, and so a sandbox, of its own. What it says is shown to whoever asked and
is never trusted: the program could write any of it itself.
"""

from __future__ import annotations

import math
import os
import select
import time
from dataclasses import dataclass

from textgym_plugins.code.limits import Limits
from textgym_plugins.code.process import HEADER, Program, send, take_program
from textgym_plugins.code.sandbox import SandboxError, Worker

_CHUNK = 1 << 16


@dataclass(frozen=True)
class Said:
    """What became of a piece of code."""

    output: str
    """What it printed to stdout and stderr, and the value of its last expression; errors are
    printed with their traceback."""
    ended: str = ""
    """Why the interpreter is gone, with its variables; empty while it is there."""


class Console:
    """One interpreter. It is started by the first piece of code.

    Args:
        worker: runs nothing else meanwhile.
        limits: what all pieces together may use, but for `seconds`, which is for each, and
            `output`, which is too.
    """

    def __init__(self, worker: Worker, limits: Limits) -> None:
        self._worker = worker
        self._limits = limits
        self._program: Program | None = None
        self._poll = select.poll()

    def run(self, source: str) -> Said:
        """Run a piece of code; whatever it does, this returns in time.

        Raises:
            SandboxError: the worker was lost; close the console.
        """
        program = self._program or self._start()
        program.connection.settimeout(self._limits.seconds)
        try:
            send(program.connection, ["?", "cell", source])
        except SandboxError:  # it ended between two pieces
            return Said("", self._end("ended"))
        deadline = time.monotonic() + self._limits.seconds
        output, ended = self._listen(program, deadline)
        text = output.decode(errors="replace")
        return Said(text, self._end(ended) if ended else "")

    def close(self) -> None:
        """End the interpreter and its worker."""
        if self._program is not None:
            self._program.close()
            self._program = None
        self._worker.close()

    def _start(self) -> Program:
        program = self._program = take_program(self._worker, self._limits, is_script=True)
        self._poll = select.poll()
        for descriptor in (program.connection.fileno(), *program.streams):
            self._poll.register(descriptor, select.POLLIN)
        self._poll.register(self._worker.control, select.POLLIN)
        return program

    def _end(self, why: str) -> str:
        assert self._program is not None
        self._program.end()
        self._program = None
        return why

    def _listen(self, program: Program, deadline: float) -> tuple[bytearray, str]:
        """Return what was printed until the reply came, and why none will come any more."""
        output, reply = bytearray(), bytearray()
        while not _is_whole(reply):
            left = deadline - time.monotonic()
            if left <= 0:
                return output, f"passed its time limit of {self._limits.seconds:g} s"
            ready = dict(self._poll.poll(math.ceil(program.patience(left) * 1e3)))
            if not ready:
                program.watch()
            self._drain(program, output)
            if program.connection.fileno() in ready:
                data = program.connection.recv(_CHUNK)
                reply += data
                if not data:
                    return output, self._why_ended(program)
            elif self._worker.control.fileno() in ready:
                return output, self._why_ended(program)
            if len(output) + len(reply) > self._limits.output:
                return output, f"printed more than {self._limits.output} bytes"
        self._drain(program, output)
        return output, ""

    def _drain(self, program: Program, output: bytearray) -> None:
        """Read what is there, up to a little more than is allowed."""
        for descriptor in list(program.streams):
            while len(output) <= self._limits.output:
                try:
                    data = os.read(descriptor, _CHUNK)
                except BlockingIOError:
                    break
                output += data
                if not data:  # the program has closed it; poll would report that for ever
                    self._poll.unregister(descriptor)
                    program.forget(descriptor)
                    break

    def _why_ended(self, program: Program) -> str:
        """Return the reason that the worker gives, if it says so soon."""
        while self._worker.has_event(1.0):
            event = self._worker.event(1.0)
            if event.number == program.number and event.kind == "ended":
                return f"used too much ({event.why})" if event.why else "ended"
        return "ended"


def _is_whole(reply: bytearray) -> bool:
    if len(reply) < HEADER.size:
        return False
    (length,) = HEADER.unpack_from(reply)
    return len(reply) >= HEADER.size + int(length)
