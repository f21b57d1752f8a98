"""One worker, seen from the parent: start it, exchange frames without blocking, kill its group."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

from textgym import worker_main
from textgym.worker_main import HEADER

_CHUNK = 1 << 18
_OUTPUT_TAIL = 2000
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS", "RAYON_NUM_THREADS",
)  # fmt: skip

Phase = Literal["starting", "loading", "idle", "busy"]


class Reply(NamedTuple):
    """One frame from the worker; `worker_main` lists the kinds."""

    kind: bytes
    item_index: int
    payload: bytes


class WorkerProcess:
    """A running child with its pipes. All its methods return at once, except `kill`.

    `phase`, `index`, `since` and `deadline` say what the child is busy with; they belong to
    `textgym.workers`.
    """

    def __init__(self) -> None:
        child_requests, self.request_fd = os.pipe()
        self.reply_fd, child_replies = os.pipe()
        self.loaded: bytes | None = None
        """The function that the child holds or was sent, pickled."""
        self.phase: Phase = "starting"
        self.index = -1
        self.since = self.deadline = 0.0
        self.output_tail = ""
        self._outgoing = memoryview(b"")
        self._incoming = bytearray()
        try:
            self._process = _spawn(child_requests, child_replies)
        except BaseException:
            os.close(self.request_fd)
            os.close(self.reply_fd)
            raise
        finally:
            os.close(child_requests)
            os.close(child_replies)
        assert self._process.stdout is not None
        self.output_fd = self._process.stdout.fileno()
        for fd in (self.request_fd, self.reply_fd, self.output_fd):
            os.set_blocking(fd, False)
        self._queue(pickle.dumps([os.path.abspath(p) if p == "" else p for p in sys.path]))

    @property
    def wants_to_write(self) -> bool:
        """Whether part of a request still waits for room in the pipe."""
        return bool(self._outgoing)

    def send(self, kind: bytes, index: int, payload: bytes) -> None:
        """Queue one request and write as much of it as the pipe takes."""
        self._queue(HEADER.pack(kind, index, len(payload)) + payload)

    def _queue(self, data: bytes) -> None:
        self._outgoing = memoryview(bytes(self._outgoing) + data)
        self.flush()

    def flush(self) -> None:
        """Write as much as the pipe takes; a broken pipe is noticed where replies are read."""
        try:
            while self._outgoing:
                self._outgoing = self._outgoing[os.write(self.request_fd, self._outgoing) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._outgoing = memoryview(b"")

    def receive(self) -> tuple[list[Reply], bool]:
        """Return the replies that are complete, and whether the child has closed its end."""
        closed = False
        try:
            while chunk := os.read(self.reply_fd, _CHUNK):
                self._incoming += chunk
                if len(chunk) < _CHUNK:
                    break
            else:
                closed = True
        except BlockingIOError:
            pass
        replies = []
        while (reply := self._next_reply()) is not None:
            replies.append(reply)
        return replies, closed

    def _next_reply(self) -> Reply | None:
        if len(self._incoming) < HEADER.size:
            return None
        kind, index, length = HEADER.unpack_from(self._incoming)
        end = HEADER.size + length
        if len(self._incoming) < end:
            return None
        payload = bytes(self._incoming[HEADER.size : end])
        del self._incoming[:end]
        return Reply(kind, index, payload)

    def forward_output(self) -> bool:
        """Pass on what the child printed, and keep its end; return whether the pipe is open."""
        try:
            data = os.read(self.output_fd, _CHUNK)
        except BlockingIOError:
            return True
        text = data.decode(errors="replace")
        self.output_tail = (self.output_tail + text)[-_OUTPUT_TAIL:]
        if text and sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):  # our own stderr may be closed
                sys.stderr.write(text)
        return bool(data)

    def is_dead(self) -> bool:
        """Whether the child has ended. It is not reaped: its process group can still be named."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            return os.waitid(os.P_PID, self._process.pid, flags) is not None
        except ChildProcessError:
            return True

    def kill(self) -> str:
        """Kill the whole process group, release the pipes, and return how the child had ended."""
        # Not reaped yet, so its id still names its own group and no one else's.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        self.forward_output()
        self.abandon()
        return _describe_exit(self._process.returncode)

    def abandon(self) -> None:
        """Close the pipes and leave the process alone: it may be the child of another process."""
        os.close(self.request_fd)
        os.close(self.reply_fd)
        assert self._process.stdout is not None
        self._process.stdout.close()


def _spawn(request_fd: int, reply_fd: int) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-P", worker_main.__file__]
    environment = dict(os.environ, TOKENIZERS_PARALLELISM="false")
    environment.update(dict.fromkeys(_THREAD_VARIABLES, "1"))

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*arguments, str(request_fd), str(reply_fd), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # plugins print; both streams are passed on to our stderr
            stderr=subprocess.STDOUT,
            pass_fds=(request_fd, reply_fd),
            start_new_session=True,
            env=environment,
        )

    return _spawner(os.getpid()).submit(start).result()


@functools.cache
def _spawner(pid: int) -> ThreadPoolExecutor:
    """Return the one thread that starts children.

    Linux delivers PR_SET_PDEATHSIG when the *thread* that started the child ends, so children must
    not be started from a caller's thread, which may be short-lived. Keyed by process id, because
    threads do not survive a fork.
    """
    return ThreadPoolExecutor(1, thread_name_prefix="textgym-spawner")


def _describe_exit(returncode: int | None) -> str:
    if returncode is None:
        return "did not end within 10 s of SIGKILL"
    if returncode >= 0:
        return f"exited with status {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = "unknown"
    return f"was ended by signal {-returncode} ({name})"
