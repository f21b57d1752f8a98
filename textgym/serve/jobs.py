"""The work of a service: bounded in number and time, and done once for each request id.

A request with an id is computed once however often it is sent: while it runs, its repetitions wait
for the same outcome; afterwards they get the kept answer until the window ends. Only answers that
hold no failed sample are kept, because what failed for a passing reason should be tried again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from textgym.serve.settings import Limits


class Answer(NamedTuple):
    """The body of an answer, and whether it may be given again."""

    body: bytes
    is_final: bool


class RefusedError(Exception):
    """A request that is answered with an error status."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass
class _Job:
    digest: bytes
    task: asyncio.Task[Answer]
    ends: float | None = None
    """When the kept answer is dropped; None while the work runs."""
    size: int = 0


class Jobs:
    """Runs functions in threads. Used on the event loop of the service only."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._threads = ThreadPoolExecutor(limits.num_threads, thread_name_prefix="textgym-job")
        self._jobs: OrderedDict[str, _Job] = OrderedDict()
        self._kept_bytes = 0
        self._tasks: set[asyncio.Task[Answer]] = set()

    @property
    def num_pending(self) -> int:
        """Requests that are worked on or wait for a thread."""
        return len(self._tasks)

    async def run(
        self, request_id: str | None, request: bytes, work: Callable[[], Answer]
    ) -> bytes:
        """Return the body of the answer to a request.

        Args:
            request_id: equal for repetitions of one request; None is never a repetition.
            request: the whole request, by which an id that is used twice is found out.
            work: computes the answer in a thread.

        Raises:
            RefusedError: too much is pending, the work takes too long, or the id is taken.
        """
        self._forget()
        digest = hashlib.sha256(request).digest()
        job = self._jobs.get(request_id) if request_id is not None else None
        if job is not None and job.digest != digest:
            raise RefusedError(
                422, "id_taken", "this X-Request-Id belongs to another request; use a new id"
            )
        if job is None:
            job = _Job(digest, self._start(work))
            if request_id is not None:
                self._jobs[request_id] = job
                job.task.add_done_callback(lambda task: self._keep(request_id, job, task))
        try:
            async with asyncio.timeout(self._limits.time_limit):
                return (await asyncio.shield(job.task)).body
        except TimeoutError:
            raise RefusedError(
                504,
                "time_limit",
                f"no answer within {self._limits.time_limit:g} s; the same X-Request-Id gets it "
                "when it is there, smaller requests are answered sooner",
            ) from None

    def close(self) -> None:
        """Let running work end and start none."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _start(self, work: Callable[[], Answer]) -> asyncio.Task[Answer]:
        if self.num_pending >= self._limits.max_pending:
            raise RefusedError(
                503,
                "busy",
                f"{self.num_pending} requests are pending, which is the limit; try later",
            )
        task = asyncio.create_task(self._work(work))
        self._tasks.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._tasks.discard)
        return task

    async def _work(self, work: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _keep(self, request_id: str, job: _Job, task: asyncio.Task[Answer]) -> None:
        if task.cancelled() or task.exception() is not None or not task.result().is_final:
            del self._jobs[request_id]
            return
        job.ends = asyncio.get_running_loop().time() + self._limits.window
        job.size = len(task.result().body)
        self._kept_bytes += job.size
        self._jobs.move_to_end(request_id)
        self._forget()

    def _forget(self) -> None:
        """Drop kept answers whose window has ended, and the oldest while there are too many."""
        now = asyncio.get_running_loop().time()
        for request_id, job in list(self._jobs.items()):
            if job.ends is None:
                continue
            if now < job.ends and self._kept_bytes <= self._limits.max_kept_bytes:
                break
            self._kept_bytes -= job.size
            del self._jobs[request_id]
