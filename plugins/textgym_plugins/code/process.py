"""Our ends of the processes in a worker: what we give them, read of them, and how they end."""

from __future__ import annotations

import fcntl
import json
import math
import os
import socket
import struct
import time
from dataclasses import dataclass, field

from textgym_plugins.code.guest.orders import KILL, PROGRAM, TESTER, WATCH
from textgym_plugins.code.limits import Limits
from textgym_plugins.code.sandbox import SandboxError, Worker

HEADER = struct.Struct("!I")
_CHUNK = 1 << 18
_TAIL = 4096
_START_SECONDS = 60.0
_CPU_GRACE = 2
_UNWATCHED_SECONDS = 0.03
"""Most runs are over before watching them is worth a message."""


@dataclass
class Output:
    """What a program printed: stdout whole, where it is compared, and the end of stderr."""

    limit: int
    keeps_stdout: bool = False
    size: int = 0
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)

    @property
    def is_over(self) -> bool:
        """Whether the program printed more than it may."""
        return self.size > self.limit

    @property
    def stderr_text(self) -> str:
        """The end of stderr."""
        return self.stderr.decode(errors="replace")

    def drain(self, descriptor: int, name: str) -> bool:
        """Read once; return whether there may be more."""
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return True
        self.size += len(data)
        if name == "stderr":
            self.stderr += data
            del self.stderr[:-_TAIL]
        elif self.keeps_stdout and not self.is_over:
            self.stdout += data
        return bool(data)


class Program:
    """A process that waits for a source, with the descriptors that lead to it.

    A script gets a file as stdin, and its stdout is read; of any other program only stderr is.

    Args:
        worker: where it is started.
        limits: what it may use.
        is_script: what it will be.
        after: one that is killed first, with all it started.
    """

    def __init__(
        self, worker: Worker, limits: Limits, *, is_script: bool, after: Program | None = None
    ) -> None:
        self.limits = limits
        self.is_script = is_script
        self.number = worker.next_number()
        self._worker = worker
        self._is_watched = False
        self._connection, theirs = socket.socketpair()
        err, err_theirs = os.pipe()
        self.streams = {err: "stderr"}
        self._stdin = -1
        if is_script:
            stdin = self._stdin = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            out, stdout = os.pipe()
            self.streams[out] = "stdout"
        else:  # opened anew: flags and locks belong to what was opened, and would outlive the run
            stdin = stdout = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            worker.send(
                PROGRAM,
                self.number,
                ended=after.number if after else 0,
                limits=_numbers(limits, math.ceil(limits.run_seconds) + _CPU_GRACE),
                descriptors=(stdin, stdout, err_theirs, theirs.fileno()),
            )
        finally:
            theirs.close()
            os.close(err_theirs)
            os.close(stdout)
        for descriptor in self.streams:
            os.set_blocking(descriptor, False)

    @property
    def connection(self) -> socket.socket:
        """Our end of what it is told by, and answers on."""
        return self._connection

    def start_script(self, source: str, stdin: str) -> None:
        """Have it run a source as a script that reads `stdin`."""
        view = memoryview(stdin.encode())
        while view:  # at the place given, so that the offset the program reads from stays 0
            view = view[os.pwrite(self._stdin, view, os.fstat(self._stdin).st_size) :]
        seals = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(self._stdin, fcntl.F_ADD_SEALS, seals)
        self._connection.settimeout(self.limits.seconds)
        send(self._connection, ["?", "script", source])
        self._connection.close()

    def hand_over(self, tester: Tester) -> None:
        """Give the tester the connection; we keep no end of it."""
        try:
            socket.send_fds(tester.channel, [b"F"], [self._connection.fileno()])
        except OSError as error:
            raise SandboxError(f"the tester is gone: {error.strerror}") from None
        self._connection.close()

    def patience(self, left: float) -> float:
        """Return how long to wait for news of it; then it is to be watched."""
        return left if self._is_watched else min(left, _UNWATCHED_SECONDS)

    def watch(self) -> None:
        """Have its memory and processes watched from now on."""
        if not self._is_watched:
            self._is_watched = True
            self._worker.send(WATCH, self.number)

    def forget(self, descriptor: int) -> None:
        """Close a stream that has ended."""
        del self.streams[descriptor]
        os.close(descriptor)

    def end(self) -> None:
        """Kill it with all it started, and close what is open."""
        self._worker.send(KILL, self.number)
        self.close()

    def close(self) -> None:
        """Close what is open."""
        self._connection.close()
        for descriptor in self.streams:
            os.close(descriptor)
        self.streams = {}
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1


class Tester:
    """A process that waits for tests."""

    def __init__(self, worker: Worker, limits: Limits) -> None:
        self.number = worker.next_number()
        self._worker = worker
        self.channel, theirs = socket.socketpair()
        self.seconds = 0.0
        """How long it may take to read or write."""
        with theirs, open(os.devnull, "r+b") as null:
            descriptors = (*[null.fileno()] * 3, theirs.fileno())
            worker.send(TESTER, self.number, limits=_numbers(limits, 0), descriptors=descriptors)

    def give(self, payload: object, seconds: float) -> None:
        """Send it tests; from now on it may take so many seconds to read or write."""
        if seconds != self.seconds:
            self.channel.settimeout(seconds)
            self.seconds = seconds
        send(self.channel, payload)

    def end(self) -> None:
        """Kill it."""
        self._worker.send(KILL, self.number)
        self.close()

    def close(self) -> None:
        """Hang up."""
        self.channel.close()


def take_program(worker: Worker, limits: Limits, *, is_script: bool) -> Program:
    """Return a program process that waits: the spare one, if it fits and lives, or a new one.

    It has been forked by then. What the worker still had to clean up after the last program is
    so no part of this one's time.
    """
    spare, worker.spare = worker.spare, None
    if spare is not None:
        is_lost = not _is_there(worker, spare)
        if (spare.limits, spare.is_script) == (limits, is_script) and not is_lost:
            return spare
        spare.end()
    program = Program(worker, limits, is_script=is_script)
    if not _is_there(worker, program):
        raise SandboxError("the worker of the sandbox cannot start a program")
    return program


def _is_there(worker: Worker, program: Program) -> bool:
    """Wait until a program has started; return whether it has not ended again."""
    deadline = time.monotonic() + _START_SECONDS
    is_started = False
    while not is_started or worker.has_event():
        event = worker.event(max(deadline - time.monotonic(), 0.001))
        if event.number == program.number:
            is_started = True
            if event.kind == "ended":
                return False
    return True


def send(connection: socket.socket, message: object) -> None:
    """Send a message to a tester or a script."""
    data = json.dumps(message).encode()
    try:
        connection.sendall(HEADER.pack(len(data)) + data)
    except OSError as error:
        raise SandboxError(f"a process of the sandbox does not listen: {error}") from None


def _numbers(limits: Limits, cpu_seconds: int) -> tuple[int, ...]:
    return limits.memory, limits.processes, limits.disk, limits.files, cpu_seconds
