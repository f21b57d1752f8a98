"""Doing the runs of a comparison one after the other, and going on where one was stopped."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

from textgym.errors import ConfigError
from textgym_agents.compare_tuning.jobs import RESULT_FILE, Job, TuningResult, read_result
from textgym_agents.run.directory import write_atomically

JOB_FILE = "job.json"
LOG_FILE = "log.txt"
STOPPED = 130


def run_jobs(
    start: Job | None, jobs: Sequence[Job], *, on_result: Callable[[Job, TuningResult], None]
) -> list[TuningResult]:
    """Do what is left of a comparison and return the results of its modes.

    Args:
        start: the cold start that all begin with.
        jobs: one for each mode.
        on_result: told of each run as it ends.

    Raises:
        ConfigError: the cold start failed.
        KeyboardInterrupt: after Ctrl-C, once the run has written a checkpoint.
    """
    if start is not None:
        began = _result_of(start)
        on_result(start, began)
        if began.status == "failed":
            raise ConfigError(f"the cold start failed: {began.error}")
    results = []
    for job in jobs:
        results.append(_result_of(job))
        on_result(job, results[-1])
    return results


def _result_of(job: Job) -> TuningResult:
    """Return the result of a run that is done, or do it."""
    result = read_result(job)
    if result is not None and result.status == "done":
        return result
    _prepare(job)
    code = _run_process(job)
    if code == STOPPED:
        raise KeyboardInterrupt
    result = read_result(job)
    if result is None:
        log = (job.path / LOG_FILE).read_text(encoding="utf-8", errors="replace")
        last = log.strip().splitlines()[-1:] or ["it said nothing"]
        reason = f"the process ended with code {code}: {last[0]}"
        result = TuningResult(config=job.config, status="failed", error=reason)
        write_atomically(job.path / RESULT_FILE, result.model_dump_json(indent=2))
    return result


def _prepare(job: Job) -> None:
    """Write down what is to be done; a run of another configuration is deleted."""
    text, file = job.model_dump_json(indent=2), job.path / JOB_FILE
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        shutil.rmtree(job.path, ignore_errors=True)
    job.path.mkdir(parents=True, exist_ok=True)
    (job.path / RESULT_FILE).unlink(missing_ok=True)
    write_atomically(file, text)


def _run_process(job: Job) -> int:
    command = [sys.executable, "-m", "textgym_agents.compare_tuning.job", str(job.path / JOB_FILE)]
    with (job.path / LOG_FILE).open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)  # it writes a checkpoint first
            process.wait()
            raise
        finally:  # a second Ctrl-C
            process.kill()
            process.wait()
