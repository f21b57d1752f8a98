"""Supervise one run: give out the tests, drain the output, keep the time, and end everything.

This is the one place that decides; it runs in the caller's process. It reads from the tester only
short reports, and from the program only bytes of output, which are never interpreted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import select
import time
from collections.abc import Iterator
from typing import Any

from textgym_plugins.code.limits import Limits
from textgym_plugins.code.process import HEADER, Output, Program, Tester, take_program
from textgym_plugins.code.result import RunResult, TestResult
from textgym_plugins.code.sandbox import SandboxError, Worker
from textgym_plugins.code.script import run_script_cases
from textgym_plugins.code.target import AssertTarget, FunctionTarget, StdioTarget, Target

_GRACE = 2.0
"""Seconds that the tester may take for itself beyond the time of a test."""
_CHUNK = 1 << 18
_MAX_REPORT = 16 << 20
_MAX_REPORTS = 64 << 20


def run_target(
    worker: Worker, source: str, target: Target, limits: Limits, *, stops: bool, tolerance: float
) -> RunResult:
    """Run a program against its tests.

    Args:
        worker: runs it; where SandboxError is raised, the worker must not be used again.
        source: the program.
        target: its tests.
        limits: what it may use.
        stops: end at the first test that fails.
        tolerance: relative difference at which floats of function cases still count as equal.
    """
    if isinstance(target, StdioTarget):
        return run_script_cases(worker, source, target, limits, stops=stops)
    payload = _payload(source, target, limits, stops=stops, tolerance=tolerance)
    return _Supervision(worker, limits).run(payload)


def _payload(
    source: str,
    target: AssertTarget | FunctionTarget,
    limits: Limits,
    *,
    stops: bool,
    tolerance: float,
) -> dict[str, Any]:
    tests = target.model_dump(exclude={"header"})
    # Test code that draws at random draws the same each time, and not what the program would.
    seed = hashlib.sha256(json.dumps(tests).encode()).hexdigest()
    return {
        **tests, "source": source, "seconds": limits.seconds, "stops": stops,
        "tolerance": tolerance, "seed": seed,
    }  # fmt: skip


class _NonsenseError(Exception):
    """A report that no honest tester sends."""


def _outcomes(value: object) -> list[str | None]:
    if not isinstance(value, list) or any(type(each) not in (str, type(None)) for each in value):
        raise _NonsenseError("outcomes that are none")
    return value


def _texts(value: object) -> list[str]:
    if not isinstance(value, list) or any(type(each) is not str for each in value):
        raise _NonsenseError("texts that are none")
    return value


class _Supervision:
    """One tester with the programs it asks for."""

    def __init__(self, worker: Worker, limits: Limits) -> None:
        self._worker = worker
        self._limits = limits
        self._output = Output(limits.output)
        self._texts: list[str] = []
        self._outcomes: list[str | None] = []
        self._why_ended = ""
        self._is_pure = True
        self._is_reusable = False
        self._received = bytearray()
        self._num_left = _MAX_REPORTS
        self._tests: tuple[TestResult, ...] | None = None
        self._unusable = ""
        self._poll = select.poll()

    def run(self, payload: dict[str, Any]) -> RunResult:
        """Run the tests; whatever the program does, this ends in time."""
        started = time.monotonic()
        worker = self._worker
        if worker.tester is None:
            worker.tester = Tester(worker, self._limits)
        self._tester = worker.tester
        # It compiles them while the program starts.
        self._tester.give(payload, _GRACE + self._limits.seconds)
        self._program = take_program(worker, self._limits, is_script=False)
        self._program.hand_over(self._tester)
        self._poll.register(worker.control, select.POLLIN)
        self._poll.register(self._tester.channel, select.POLLIN)
        self._register_streams()
        try:
            tests = self._loop()
        finally:
            self._program.close()
            if not self._is_reusable:
                self._tester.end()
                worker.tester = None
        worker.spare = Program(worker, self._limits, is_script=False, after=self._program)
        seconds = time.monotonic() - started
        return RunResult(tests, self._output.stderr_text, seconds, self._unusable)

    def _register_streams(self) -> None:
        for descriptor in self._program.streams:
            self._poll.register(descriptor, select.POLLIN)

    def _loop(self) -> tuple[TestResult, ...]:
        end = time.monotonic() + self._limits.run_seconds
        patience = 2 * (self._limits.seconds + _GRACE)  # loading, then a test
        last = time.monotonic()
        while self._tests is None:
            now = time.monotonic()
            left = min(end, last + patience) - now
            if left <= 0:
                return self._finish("not run in time" if now >= end else "the tests did not go on")
            ready = self._poll.poll(math.ceil(self._program.patience(left) * 1e3))
            if not ready:
                self._program.watch()
            for descriptor, _ in ready:
                if descriptor == self._tester.channel.fileno():
                    last = time.monotonic()
                self._take(descriptor)
            if self._output.is_over:
                return self._finish(f"the program printed more than {self._limits.output} bytes")
        return self._tests

    def _take(self, descriptor: int) -> None:
        if descriptor == self._tester.channel.fileno():
            self._take_reports()
        elif descriptor == self._worker.control.fileno():
            event = self._worker.event(1.0)
            if event.kind == "ended" and event.number == self._program.number:
                self._why_ended = event.why
        elif descriptor in self._program.streams:
            if not self._output.drain(descriptor, self._program.streams[descriptor]):
                self._poll.unregister(descriptor)

    def _take_reports(self) -> None:
        try:
            data = self._tester.channel.recv(_CHUNK)
        except OSError:
            data = b""
        if not data:
            if self._tests is None:
                self._tests = self._finish("the tests did not end")
            return
        self._received += data
        self._num_left -= len(data)
        try:
            if self._num_left < 0:
                raise _NonsenseError("reports without end")
            for report in self._reports():
                self._take_report(report)
        except (_NonsenseError, ValueError, RecursionError) as error:
            if self._is_pure:
                raise SandboxError(f"the tester sent nonsense: {error}") from None
            self._tests = self._finish("the test code sent nonsense")  # it may say anything

    def _reports(self) -> Iterator[object]:
        while len(self._received) >= HEADER.size:
            (length,) = HEADER.unpack_from(self._received)
            if length > _MAX_REPORT:
                raise _NonsenseError("a report that is too long")
            if len(self._received) < HEADER.size + length:
                return
            data = bytes(self._received[HEADER.size : HEADER.size + length])
            del self._received[: HEADER.size + length]
            yield json.loads(data)

    def _take_report(self, report: object) -> None:
        match report:
            case ["impure"]:
                self._is_pure = False
            case ["outcomes", outcomes, texts]:
                checked = _outcomes(outcomes), _texts(texts)
                if len(checked[0]) != len(checked[1]):
                    raise _NonsenseError("outcomes of other tests")
                self._outcomes, self._texts = checked
            case ["restart"]:
                self._restart()
            case ["done", outcomes, texts]:
                self._is_reusable = self._is_pure
                self._tests = self._judged(_outcomes(outcomes), _texts(texts))
            case ["lost", str(reason)]:
                self._tests = self._finish(reason)
            case ["unusable", str(reason)]:
                self._tests, self._unusable = (), reason
            case ["broken", str(reason)] if self._is_pure:
                raise SandboxError(f"the tester broke: {reason}")
            case _:
                raise _NonsenseError("a report of no known kind")

    def _restart(self) -> None:
        """End the program, and start another one from the same source."""
        for descriptor in self._program.streams:
            with contextlib.suppress(KeyError):  # it was at its end
                self._poll.unregister(descriptor)
        self._program.end()
        self._program = take_program(self._worker, self._limits, is_script=False)
        self._register_streams()
        self._program.hand_over(self._tester)

    def _judged(self, outcomes: list[str | None], texts: list[str]) -> tuple[TestResult, ...]:
        """Make results of the final outcomes: None is a test that did not apply, '' a pass."""
        if len(texts) != len(outcomes):  # test methods of a class, which are found as they run
            texts = [f"test {number}" for number in range(1, len(outcomes) + 1)]
        pairs = zip(texts, outcomes, strict=True)
        tests = tuple([TestResult(t, not o, self._explain(o)) for t, o in pairs if o is not None])
        self._unusable = "" if tests else "the target holds no test that ran"
        return tests

    def _finish(self, reason: str) -> tuple[TestResult, ...]:
        """Fail what has no outcome yet."""
        pairs = zip(self._texts or ["the program"], self._outcomes or [None], strict=True)
        return tuple(
            [TestResult(t, o == "", reason if o is None else self._explain(o)) for t, o in pairs]
        )

    def _explain(self, outcome: str) -> str:
        is_killed = outcome.startswith("the program ended") and self._why_ended
        return f"the program used too much ({self._why_ended})" if is_killed else outcome
