"""Run programs on a few warm workers: in batches, from any thread, without ever hanging.

Workers start when they are needed and stay. One that is lost costs the run that it was in a second
try on a fresh one; what fails twice is reported as a failure of the infrastructure.
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeVar

from textgym_plugins.code.limits import Limits
from textgym_plugins.code.result import RunResult
from textgym_plugins.code.run import run_target
from textgym_plugins.code.sandbox import SandboxError, Worker
from textgym_plugins.code.target import Target

T = TypeVar("T")
R = TypeVar("R")

_MOST_WORKERS = 8


@dataclass(frozen=True)
class Job:
    """A program and its tests."""

    program: str
    target: Target
    limits: Limits = field(default_factory=Limits)
    stops_early: bool = False
    """End at the first test that fails."""
    tolerance: float = 1e-9
    """Relative difference at which floats that a function returns still count as equal."""


class Executor:
    """Runs jobs, several at a time.

    Args:
        num_workers: how many run at once; None for one per core, at most eight.
        allow_weak_isolation: run programs without a boundary where bubblewrap does not work.
    """

    def __init__(
        self, *, num_workers: int | None = None, allow_weak_isolation: bool = False
    ) -> None:
        self.num_workers = num_workers or min(_num_cores(), _MOST_WORKERS)
        self._allows_weak = allow_weak_isolation
        self._is_strong: bool | None = None
        self._idle: list[Worker] = []
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    @property
    def isolation(self) -> str:
        """`bubblewrap`, `weak`, or `unknown` before the first worker has started."""
        return {True: "bubblewrap", False: "weak", None: "unknown"}[self._is_strong]

    def run(self, job: Job) -> RunResult:
        """Run one job.

        Raises:
            SandboxError: no worker can be started, or two in a row were lost.
        """
        try:
            return self._run_once(job)
        except WorkerLostError:
            return self._run_once(job)

    def run_batch(self, jobs: Sequence[Job]) -> list[RunResult | SandboxError]:
        """Return one result per job, in order, or what kept it from running."""
        return self.map(self.attempt, jobs)

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Return the results of a function that runs a job, as many at a time as there are workers.

        What it does besides, such as reading a program out of a text, then costs no worker's time.
        """
        if len(items) <= 1 or self.num_workers == 1:
            return [function(item) for item in items]
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self.num_workers, "textgym-code")
        numbers = iter(range(len(items)))  # shared: each thread takes the next
        results: dict[int, R] = {}

        def work() -> None:
            for number in numbers:
                results[number] = function(items[number])

        tasks = [self._threads.submit(work) for _ in range(min(self.num_workers, len(items)))]
        for task in tasks:
            task.result()
        return [results[number] for number in range(len(items))]

    def attempt(self, job: Job) -> RunResult | SandboxError:
        """Return the result of a job, or what kept it from running."""
        try:
            return self.run(job)
        except SandboxError as error:
            return error

    def close(self) -> None:
        """End the workers."""
        with self._lock:
            workers, self._idle = self._idle, []
            threads, self._threads = self._threads, None
        for worker in workers:
            worker.close()
        if threads is not None:
            threads.shutdown()

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run_once(self, job: Job) -> RunResult:
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        worker = worker or self._start()
        try:
            result = run_target(
                worker,
                job.program,
                job.target,
                job.limits,
                stops=job.stops_early,
                tolerance=job.tolerance,
            )
        except SandboxError as error:
            worker.close()
            raise WorkerLostError(str(error)) from error
        except BaseException:
            worker.close()
            raise
        with self._lock:
            self._idle.append(worker)
        return result

    def _start(self) -> Worker:
        if self._is_strong is not False:
            try:
                worker = Worker(is_strong=True)
            except SandboxError:
                if not self._allows_weak or self._is_strong:
                    raise
            else:
                self._is_strong = True
                return worker
        worker = Worker(is_strong=False)
        self._is_strong = False
        return worker


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class WorkerLostError(SandboxError):
    """A worker that had started was lost in a run."""


def shared_executor(num_workers: int | None, *, allow_weak_isolation: bool) -> Executor:
    """Return the executor of this process for a configuration; a forked process gets its own."""
    return _shared_executor(os.getpid(), num_workers, allow_weak_isolation)


@functools.cache
def _shared_executor(pid: int, num_workers: int | None, allow_weak_isolation: bool) -> Executor:
    executor = Executor(num_workers=num_workers, allow_weak_isolation=allow_weak_isolation)
    atexit.register(lambda: executor.close() if os.getpid() == pid else None)
    return executor
