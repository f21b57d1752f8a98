"""HumanEval's canonical solutions, run in the sandbox and by a process per check.

The peer is the design of openai/human-eval's `check_correctness`, written afresh: for each check a
manager process that holds the verdict, and a forked process that makes a temporary folder, disables
what could hurt and executes prompt, completion and test in one namespace under an interval timer.
It has no boundary; ours has all of it. Both check with two workers, the peer from a pool of threads
as the original does.

Where the two differ in cost otherwise: the original's guard disables about thirty functions, ours
eight, which costs nothing either way. The peer forks the process that calls it, here one that has
loaded numpy, gymnasium and textgym; called from an interpreter with numpy alone, as the original's
script is, a check takes about 0.85 of the time, from one that has loaded torch more. Our side also
finds the program in the completion and counts the tests one by one. It keeps the compiled tests of
a prompt, which come again and again in training; here they are new in every round.

A machine that is busy with other work slows both, but not from one second to the next alike. So
each round of the peer stands between two of ours, and the round whose ratio is the median is shown.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import textgym
from benchmarks.places import DATA
from benchmarks.table import Row, print_table

NUM_WORKERS = 2
NUM_ROUNDS = 7
TARGET = 5.0
_SECONDS = 10.0

Problem = dict[str, str]


def check(problem: Problem) -> bool:
    """Return whether a problem's canonical solution passes, in a process of its own."""
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager:
        verdicts = manager.list()
        process = context.Process(target=_execute, args=(problem, verdicts))
        process.start()
        process.join(_SECONDS + 1)
        if process.is_alive():
            process.kill()
        return list(verdicts) == ["passed"]


def _execute(problem: Problem, verdicts: Any) -> None:
    program = (
        f"{problem['prompt']}{problem['canonical_solution']}\n{problem['test']}\n"
        f"check({problem['entry_point']})"
    )
    chdir, rmdir, unlink = os.chdir, os.rmdir, os.unlink
    home = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        chdir(folder)
        _disable()
        try:
            with _quiet(), _alarm(_SECONDS):
                exec(program, {})
            verdicts.append("passed")
        except BaseException as error:
            verdicts.append(f"failed: {error}")
        os.chdir, os.rmdir, os.unlink = chdir, rmdir, unlink
        chdir(home)


def _disable() -> None:
    faulthandler.disable()
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in ("kill", "system", "putenv", "remove", "fork", "rmdir", "chdir", "unlink"):
        setattr(os, name, None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        yield


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def measure_peer(problems: list[Problem]) -> float:
    """Return checks per second of the process-per-check design."""
    started = time.perf_counter()
    with ThreadPoolExecutor(NUM_WORKERS) as pool:
        passed = sum(pool.map(check, problems))
    seconds = time.perf_counter() - started
    if passed != len(problems):
        raise RuntimeError(f"the peer passes {passed} of {len(problems)}")
    return len(problems) / seconds


def measure_ours(samples: list[textgym.Sample], reward: textgym.Reward) -> float:
    """Return runs per second in the sandbox."""
    started = time.perf_counter()
    scores = reward.score_batch(samples)
    seconds = time.perf_counter() - started
    wrong = [score.reason for score in scores if score.value != 1.0]
    if wrong:
        raise RuntimeError(f"{len(wrong)} of {len(scores)} fail: {wrong[0]}")
    return len(samples) / seconds


def with_new_tests(samples: list[textgym.Sample], number: int) -> list[textgym.Sample]:
    """Return samples whose test code differs by a comment, so that nothing is known of it yet."""
    renewed = []
    for sample in samples:
        target = sample.prompt.target
        assert isinstance(target, dict)
        new = {**target, "code": f"{target['code']}# {number}\n"}
        prompt = sample.prompt.model_copy(update={"target": new})
        renewed.append(textgym.Sample(prompt=prompt, completion=sample.completion))
    return renewed


def run() -> list[Row]:
    """Return the one row of this benchmark; none where the data is not at hand."""
    path = DATA / "human_eval.jsonl"
    if not path.exists():
        print(f"{path} is missing (set TEXTGYM_SHARED_DATA)", file=sys.stderr)
        return []
    problems = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    source = textgym.make_prompt_source("humaneval", path=path)
    samples = [
        textgym.Sample(prompt=source.prompt(index), completion=problem["canonical_solution"])
        for index, problem in enumerate(problems)
    ]
    reward = textgym.make_reward("code", num_workers=NUM_WORKERS)
    measure_ours(samples, reward)  # starts the workers, which then stay warm
    rounds = []
    for number in range(NUM_ROUNDS):
        before = measure_ours(with_new_tests(samples, 2 * number), reward)
        peer = measure_peer(problems)
        after = measure_ours(with_new_tests(samples, 2 * number + 1), reward)
        rounds.append((statistics.harmonic_mean((before, after)), peer))
    ours, peer = sorted(rounds, key=lambda rates: rates[0] / rates[1])[NUM_ROUNDS // 2]
    note = f"HumanEval, {NUM_WORKERS} workers, full sandbox / a process per check"
    return [Row("code execution", ours, peer, "runs/s", TARGET, note=note)]


if __name__ == "__main__":
    print_table(run())
