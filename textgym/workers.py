"""Killable worker processes: run a function over items that may hang, crash or exhaust memory.

A worker that passes its time limit is killed with its whole process group and replaced; only the
item it held fails. `signal.alarm` cannot do this (it does not interrupt C code, and works only in
the main thread), nor can threads or `multiprocessing.Pool`, whose start methods import the caller's
`__main__` again and whose dead workers lose their items.

Workers need POSIX. They die with their parent on Linux even while they hang in C code; elsewhere
they end when they next read their pipe. What a plugin moves out of its process group (`setsid`)
is out of reach.
"""

from __future__ import annotations

import os
import selectors
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pickle import loads
from types import TracebackType
from typing import Generic, Literal, TypeVar, cast

from textgym.worker_main import LIMIT, UNLIMITED, describe, dumps
from textgym.worker_process import Reply, WorkerProcess

START_LIMIT = 120.0
"""Seconds that a worker may take to start, and again to load its function."""
MAX_START_FAILURES = 2
"""Workers in a row that may fail to start before a run makes do with those it has."""
_LIVENESS_PERIOD = 0.1

FailureKind = Literal["timeout", "memory", "crashed", "raised"]
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an item has no value."""

    kind: FailureKind
    message: str


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What became of one item: its value or its failure."""

    value: T | None
    failure: Failure | None = None
    seconds: float = 0.0
    """Wall-clock time from handing the item to a worker to its outcome."""


class WorkerPool:
    """Worker processes that are started when first needed and replaced when they die.

    Runs from several threads take turns. A pool that is copied, pickled or inherited by a forked
    process starts with no workers there.

    Args:
        num_workers: how many processes work at once.
    """

    def __init__(self, num_workers: int = 1) -> None:
        if num_workers < 1:
            raise ValueError(f"num_workers is {num_workers}; a pool needs at least 1")
        self.num_workers = num_workers
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._workers: list[WorkerProcess] = []
        weakref.finalize(self, _kill_all, self._workers, self._owner)

    def _own(self) -> None:
        """After a fork the workers, and a lock that may be held, belong to the other process."""
        if self._owner != os.getpid():
            for worker in self._workers:
                worker.abandon()
            self._workers.clear()
            self._start_afresh()

    def run(
        self,
        function: Callable[[S], T],
        items: Iterable[S],
        *,
        time_limit: float,
        memory_limit: int | None = None,
    ) -> list[Outcome[T]]:
        """Return one outcome per item, in order.

        The function is sent to each worker once and not with every item. What it imports when it
        is unpickled (its module, for one) counts towards no item's time.

        Args:
            function: any picklable function; cloudpickle takes those of `__main__` and closures.
            items: what to call it with, one at a time.
            time_limit: seconds one item may take before its worker is killed.
            memory_limit: bytes of data (RLIMIT_DATA) a worker may hold; None sets no limit.
        """
        self._own()
        with self._lock:
            limit = UNLIMITED if memory_limit is None else memory_limit
            run: _Run[S, T] = _Run(self._workers, self.num_workers, list(items), time_limit)
            try:
                return run.finish(function, limit)
            except BaseException:  # Ctrl-C, for one: nobody waits for the workers any more
                _kill_all(self._workers, self._owner)
                raise

    def close(self) -> None:
        """Kill the workers; a later run starts new ones."""
        self._own()
        with self._lock:
            _kill_all(self._workers, self._owner)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[WorkerPool], tuple[int]]:
        return type(self), (self.num_workers,)


def _kill_all(workers: list[WorkerProcess], owner: int) -> None:
    while workers and owner == os.getpid():
        workers.pop().kill()


class _Run(Generic[S, T]):
    """One call of `WorkerPool.run`: an event loop over the pipes of the workers."""

    def __init__(
        self, workers: list[WorkerProcess], num_workers: int, items: list[S], time_limit: float
    ) -> None:
        self._workers = workers
        self._num_workers = num_workers
        self._items = items
        self._time_limit = time_limit
        self._function = b""
        self._outcomes: list[Outcome[T] | None] = [None] * len(items)
        self._pending = deque(range(len(items)))
        self._num_busy = 0
        self._num_start_failures = 0
        self._start_failure = ""
        self._next_liveness_check = time.monotonic() + _LIVENESS_PERIOD
        self._selector = selectors.DefaultSelector()

    def finish(self, function: Callable[[S], T], memory_limit: int) -> list[Outcome[T]]:
        """Drive the workers until every item has its outcome."""
        try:
            self._function = LIMIT.pack(memory_limit) + dumps(function)
        except Exception as error:  # whatever a third-party __reduce__ raises
            self._give_up("raised", f"the function cannot be sent to a worker: {describe(error)}")
        with self._selector:
            for worker in list(self._workers):
                self._watch(worker)
                if worker.is_dead():  # since the last run, so that no item is to blame
                    self._discard(worker)
            self._assign()
            while self._pending or self._num_busy:
                self._wait()
                self._assign()
        return cast("list[Outcome[T]]", self._outcomes)

    def _assign(self) -> None:
        """Start the workers that are missing, and give each idle one its next item."""
        wanted = min(self._num_workers, len(self._pending) + self._num_busy)
        while len(self._workers) < wanted and self._num_start_failures < MAX_START_FAILURES:
            self._start()
        if not self._workers:
            self._give_up("crashed", self._start_failure)
        for worker in self._workers:
            if worker.phase == "idle" and self._pending and worker.loaded != self._function:
                worker.loaded = self._function
                self._send(worker, b"F", 0, self._function, START_LIMIT)
            while worker.phase == "idle" and self._pending:
                self._send_item(worker, self._pending.popleft())

    def _start(self) -> None:
        try:
            worker = WorkerProcess()
        except OSError as error:
            self._count_start_failure(f"a worker process cannot be started: {describe(error)}")
            return
        worker.deadline = time.monotonic() + START_LIMIT
        self._workers.append(worker)
        self._watch(worker)

    def _watch(self, worker: WorkerProcess) -> None:
        self._selector.register(worker.reply_fd, selectors.EVENT_READ, worker)
        self._selector.register(worker.output_fd, selectors.EVENT_READ, worker)
        self._watch_requests(worker)

    def _watch_requests(self, worker: WorkerProcess) -> None:
        watched = worker.request_fd in self._selector.get_map()
        if worker.wants_to_write and not watched:
            self._selector.register(worker.request_fd, selectors.EVENT_WRITE, worker)
        elif watched and not worker.wants_to_write:
            self._selector.unregister(worker.request_fd)

    def _send_item(self, worker: WorkerProcess, index: int) -> None:
        try:
            data = dumps(self._items[index])
        except Exception as error:  # whatever a third-party __reduce__ raises
            message = f"the item cannot be sent to a worker: {describe(error)}"
            self._outcomes[index] = Outcome(None, Failure("raised", message))
            return
        self._num_busy += 1
        self._send(worker, b"I", index, data, self._time_limit)

    def _send(
        self, worker: WorkerProcess, kind: bytes, index: int, data: bytes, limit: float
    ) -> None:
        worker.phase = "busy" if kind == b"I" else "loading"
        worker.index = index
        worker.since = time.monotonic()
        worker.deadline = worker.since + limit
        worker.send(kind, index, data)
        if worker.wants_to_write:
            self._watch_requests(worker)

    def _wait(self) -> None:
        deadlines = [w.deadline for w in self._workers if w.phase != "idle"]
        timeout = min([_LIVENESS_PERIOD, *(d - time.monotonic() for d in deadlines)])
        for key, _ in self._selector.select(max(timeout, 0.0)):
            worker: WorkerProcess = key.data
            if worker not in self._workers:
                continue  # killed by an event before this one
            if key.fd == worker.reply_fd:
                self._read(worker)
            elif key.fd == worker.request_fd:
                worker.flush()
                self._watch_requests(worker)
            elif not worker.forward_output():
                self._selector.unregister(worker.output_fd)
        self._check_limits()

    def _read(self, worker: WorkerProcess) -> None:
        replies, closed = worker.receive()
        for reply in replies:
            self._take(worker, reply)
        if closed and worker in self._workers:
            self._bury(worker)

    def _take(self, worker: WorkerProcess, reply: Reply) -> None:
        if worker.phase == "loading" and reply.kind in b"EM":
            if worker.loaded == self._function:
                message = reply.payload.decode(errors="replace")
                self._give_up("raised", f"the function cannot be loaded in a worker: {message}")
            worker.loaded = None
        elif worker.phase == "loading":
            self._num_start_failures = 0
        elif worker.phase == "busy" and reply.item_index == worker.index:
            self._settle(worker, *_read_value(reply))
        worker.phase = "idle"
        if reply.kind == b"M":
            self._discard(worker)  # what it still holds would make the next item fail too

    def _check_limits(self) -> None:
        now = time.monotonic()
        for worker in list(self._workers):
            if worker.phase != "idle" and now > worker.deadline:
                self._expire(worker)
        if now > self._next_liveness_check:
            # A process forked by a plugin can hold the pipe of its dead parent open.
            self._next_liveness_check = now + _LIVENESS_PERIOD
            for worker in list(self._workers):
                if worker.is_dead():
                    self._read(worker)
                    if worker in self._workers:
                        self._bury(worker)

    def _expire(self, worker: WorkerProcess) -> None:
        phase = worker.phase
        self._discard(worker)
        if phase == "busy":
            message = f"took longer than its limit of {self._time_limit:g} s and was killed"
            self._settle(worker, None, Failure("timeout", message))
        else:
            self._count_start_failure(
                f"a worker process was still {phase} after {START_LIMIT:g} s"
                f"{_last_words(worker.output_tail)}"
            )

    def _bury(self, worker: WorkerProcess) -> None:
        phase = worker.phase
        how = self._discard(worker)
        if phase == "busy":
            self._settle(worker, None, Failure("crashed", f"the worker process {how}"))
        elif phase != "idle":
            self._count_start_failure(
                f"a worker process {how} while {phase}{_last_words(worker.output_tail)}"
            )

    def _discard(self, worker: WorkerProcess) -> str:
        self._workers.remove(worker)
        for fd in (worker.reply_fd, worker.output_fd, worker.request_fd):
            if fd in self._selector.get_map():
                self._selector.unregister(fd)
        return worker.kill()

    def _settle(self, worker: WorkerProcess, value: T | None, failure: Failure | None) -> None:
        seconds = time.monotonic() - worker.since
        self._outcomes[worker.index] = Outcome(value, failure, seconds)
        self._num_busy -= 1

    def _count_start_failure(self, message: str) -> None:
        self._num_start_failures += 1
        self._start_failure = message

    def _give_up(self, kind: FailureKind, message: str) -> None:
        while self._pending:
            self._outcomes[self._pending.popleft()] = Outcome(None, Failure(kind, message))


def _read_value(reply: Reply) -> tuple[T | None, Failure | None]:
    if reply.kind == b"V":
        try:
            return loads(reply.payload), None
        except Exception as error:  # whatever a third-party __setstate__ raises
            message = f"its result cannot be read back: {describe(error)}"
            return None, Failure("raised", message)
    message = reply.payload.decode(errors="replace")
    return None, Failure("memory" if reply.kind == b"M" else "raised", message)


def _last_words(output: str) -> str:
    return f"; its last output:\n{output.strip()}" if output.strip() else " and printed nothing"
