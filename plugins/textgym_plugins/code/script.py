"""Run the stdin/stdout cases: the program as a script, compared by what it prints."""

from __future__ import annotations

import selectors
import time

from textgym_plugins.code.limits import Limits
from textgym_plugins.code.process import Output, Program, take_program
from textgym_plugins.code.result import RunResult, TestResult
from textgym_plugins.code.sandbox import Worker
from textgym_plugins.code.target import StdioCase, StdioTarget


def run_script_cases(
    worker: Worker, source: str, target: StdioTarget, limits: Limits, *, stops: bool
) -> RunResult:
    """Return one result per case; with `stops`, those after the first that fails are not run."""
    started = time.monotonic()
    end = started + limits.run_seconds
    tests: list[TestResult] = []
    stderr, is_stopped = "", False
    for number, case in enumerate(target.cases, 1):
        if is_stopped:
            reason = "not run"
        elif time.monotonic() >= end:
            reason = "not run in time"
        else:
            reason, printed = _run_case(worker, source, case, limits, end)
            stderr = printed if reason or not stderr else stderr
            is_stopped = stops and bool(reason)
        tests.append(TestResult(f"case {number}", not reason, reason))
    return RunResult(tuple(tests), stderr, time.monotonic() - started)


def _run_case(
    worker: Worker, source: str, case: StdioCase, limits: Limits, end: float
) -> tuple[str, str]:
    """Return why the case failed (empty if it passed), and the end of stderr."""
    output = Output(limits.output, keeps_stdout=True)
    program = take_program(worker, limits, is_script=True)
    try:
        program.start_script(source, case.stdin)
        deadline = min(end, time.monotonic() + limits.seconds)
        reason = _await_end(worker, program, output, deadline)
    finally:
        program.close()
    worker.spare = Program(worker, limits, is_script=True, after=program)
    if not reason and not _same_text(output.stdout, case.stdout):
        shown = output.stdout[:80].decode(errors="replace")
        reason = f"printed {shown!r}{'...' if len(output.stdout) > 80 else ''}"
    return reason, output.stderr_text


def _await_end(worker: Worker, program: Program, output: Output, deadline: float) -> str:
    """Wait until the script has ended and its output is read; return why it failed."""
    reason: str | None = None
    with selectors.PollSelector() as selector:
        selector.register(worker.control, selectors.EVENT_READ)
        for descriptor, name in program.streams.items():
            selector.register(descriptor, selectors.EVENT_READ, name)
        while reason is None or len(selector.get_map()) > 1:
            left = deadline - time.monotonic()
            if left <= 0:
                return f"passed its time limit of {program.limits.seconds:g} s"
            ready = selector.select(program.patience(left))
            if not ready:
                program.watch()
            for key, _ in ready:
                if key.data is None:
                    event = worker.event(1.0)
                    if event.kind == "ended" and event.number == program.number:
                        reason = _why(event.status, event.why)
                elif not output.drain(key.fd, key.data):
                    selector.unregister(key.fd)
            if output.is_over:
                return f"printed more than {output.limit} bytes"
    return reason


def _why(status: int, why: str) -> str:
    if why:
        return f"used too much ({why})"
    if status:
        return f"ended with {'signal' if status < 0 else 'exit status'} {abs(status)}"
    return ""


def _same_text(printed: bytearray, expected: str) -> bool:
    """Compare line by line, without what stands blank at the ends of lines and of the text.

    Lines are counted before they are made: a flood of them would cost the caller gigabytes.
    """
    try:
        text = printed.decode("utf-8").rstrip()
    except UnicodeDecodeError:
        return False
    expected = expected.rstrip()
    return text.count("\n") == expected.count("\n") and _lines(text) == _lines(expected)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.split("\n")]
