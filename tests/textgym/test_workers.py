"""Workers: whatever an item does to its worker costs that item and no other."""

from __future__ import annotations

import copy
import ctypes
import gc
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from textgym import workers
from textgym.workers import WorkerPool

LIMIT = 1 << 28


def make_hostile(pid_file: str = "") -> Callable[[str], Any]:
    """Return a function that does what its item says; nested, so that it is sent by value."""

    def hostile(item: str) -> Any:
        match item:
            case "hang in C":
                signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
                re.match(r"(a+)+$", "a" * 64 + "b")
            case "exhaust memory":
                bytearray(1 << 36)
            case "grow":
                blocks = []
                while True:
                    blocks.append(bytearray(1 << 24))
            case "exit":
                os._exit(3)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "segfault":
                ctypes.string_at(0)
            case "raise":
                raise ValueError("no good")
            case "sys.exit":
                sys.exit("bye")
            case "unpicklable":
                return threading.Lock()
            case "fork and leave":
                if (child := os.fork()) == 0:
                    time.sleep(60)
                Path(pid_file).write_text(str(child))
                os._exit(0)
            case "fork and hang":
                if (child := os.fork()) == 0:
                    time.sleep(60)
                Path(pid_file).write_text(str(child))
                time.sleep(60)
            case "fork and come back":
                os.fork()
        return item

    return hostile


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as pool:
        yield pool


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def test_run_returns_values_in_order(pool: WorkerPool) -> None:
    def slow_first(x: int) -> int:
        time.sleep(0.2 if x == 0 else 0.0)
        return x * x

    outcomes = pool.run(slow_first, range(20), time_limit=10.0)

    assert [o.value for o in outcomes] == [x * x for x in range(20)]
    assert outcomes[0].seconds >= 0.2 > outcomes[1].seconds


def test_run_of_nothing_starts_nothing() -> None:
    pool = WorkerPool()
    assert pool.run(str, [], time_limit=1.0) == []
    assert pool._workers == []


@pytest.mark.parametrize(
    ("item", "kind", "message"),
    [
        ("hang in C", "timeout", r"longer than its limit of 0\.5 s"),
        ("exhaust memory", "memory", "MemoryError"),
        ("grow", "memory", "MemoryError"),
        ("exit", "crashed", "exited with status 3"),
        ("kill", "crashed", r"signal 9 \(SIGKILL\)"),
        ("segfault", "crashed", r"signal 11 \(SIGSEGV\)"),
        ("raise", "raised", "ValueError: no good"),
        ("sys.exit", "raised", "SystemExit: bye"),
        ("unpicklable", "raised", "cannot pickle '_thread.lock' object"),
    ],
)
def test_run_hostile_item_fails_alone(
    pool: WorkerPool, item: str, kind: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    outcomes = pool.run(
        make_hostile(),
        ["a", item, "b", "c"],
        time_limit=0.5 if kind == "timeout" else 20.0,
        memory_limit=LIMIT,
    )

    assert [o.value for o in outcomes] == ["a", None, "b", "c"]
    failure = outcomes[1].failure
    assert failure is not None
    assert failure.kind == kind
    assert re.search(message, failure.message)


def test_run_two_hanging_items_are_killed_side_by_side(pool: WorkerPool) -> None:
    pool.run(make_hostile(), ["a", "b"], time_limit=10.0)
    started = time.monotonic()
    outcomes = pool.run(make_hostile(), ["hang in C", "hang in C"], time_limit=0.5)

    assert all(o.failure is not None and o.failure.kind == "timeout" for o in outcomes)
    assert time.monotonic() - started < 0.95


@pytest.mark.parametrize("item", ["fork and leave", "fork and hang"])
def test_run_kills_the_whole_process_group(tmp_path: Path, item: str) -> None:
    pid_file = tmp_path / "pid"
    with WorkerPool() as pool:
        outcomes = pool.run(make_hostile(str(pid_file)), [item, "after"], time_limit=0.5)

        assert outcomes[0].failure is not None
        assert outcomes[0].seconds < 5.0  # the fork holds the pipe open for a minute
        assert outcomes[1].value == "after"
        assert wait_until(lambda: not is_running(int(pid_file.read_text())))


def test_run_fork_that_comes_back_answers_once(pool: WorkerPool) -> None:
    items = ["a", "fork and come back", "b", "fork and come back", "c"]
    outcomes = pool.run(make_hostile(), items, time_limit=10.0)
    assert [o.value for o in outcomes] == items


def test_run_memory_limit_is_lifted_for_the_next_run() -> None:
    def allocate(size: int) -> int:
        return len(bytearray(size))

    with WorkerPool() as pool:
        (tight,) = pool.run(allocate, [1 << 28], time_limit=10.0, memory_limit=1 << 27)
        (free,) = pool.run(allocate, [1 << 28], time_limit=10.0)
    assert tight.failure is not None
    assert tight.failure.kind == "memory"
    assert free.value == 1 << 28


def test_run_prints_go_to_stderr_and_do_not_disturb_replies(
    pool: WorkerPool, capsys: pytest.CaptureFixture[str]
) -> None:
    def chatty(x: int) -> int:
        print("said", x, "x" * 1000)
        os.write(1, b"raw\n")
        return x

    outcomes = pool.run(chatty, range(50), time_limit=10.0)

    assert [o.value for o in outcomes] == list(range(50))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "raw" in captured.err


def test_run_large_items_and_results(pool: WorkerPool) -> None:
    items = [bytes([x]) * 3_000_000 for x in range(4)]

    def double(data: bytes) -> bytes:
        return data * 2

    outcomes = pool.run(double, items, time_limit=10.0)
    assert [o.value for o in outcomes] == [item * 2 for item in items]


def test_run_item_that_cannot_be_pickled_fails_alone(pool: WorkerPool) -> None:
    outcomes: list[Any] = pool.run(repr, [1, threading.Lock(), 3], time_limit=10.0)
    assert [o.value for o in outcomes] == ["1", None, "3"]
    assert "the item cannot be sent to a worker" in outcomes[1].failure.message


def test_run_function_that_cannot_be_pickled_fails_every_item(pool: WorkerPool) -> None:
    lock = threading.Lock()
    outcomes = pool.run(lambda x: lock.locked(), [1, 2], time_limit=10.0)
    assert all(o.failure and "cannot be sent to a worker" in o.failure.message for o in outcomes)


def test_run_function_that_cannot_be_loaded_fails_every_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: WorkerPool
) -> None:
    (tmp_path / "parent_only.py").write_text("def f(x):\n    return x\n")
    monkeypatch.syspath_prepend(tmp_path)
    import parent_only  # type: ignore[import-not-found]  # written above

    (tmp_path / "parent_only.py").write_text("raise ImportError('gone')\n")
    started = time.monotonic()
    with WorkerPool() as fresh:
        outcomes = fresh.run(parent_only.f, range(100), time_limit=10.0)
    assert all(o.failure and "ImportError: gone" in o.failure.message for o in outcomes)
    assert time.monotonic() - started < 5.0


def test_run_import_time_of_the_function_is_not_the_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_module.py").write_text("def f(x):\n    return x\n")
    monkeypatch.syspath_prepend(tmp_path)
    import slow_module  # type: ignore[import-not-found]  # written above

    (tmp_path / "slow_module.py").write_text(
        "import time\ntime.sleep(0.6)\ndef f(x):\n    return x\n"
    )
    with WorkerPool() as pool:
        (outcome,) = pool.run(slow_module.f, ["a"], time_limit=0.5)
    assert outcome.value == "a"


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import sys; sys.exit('no start: ' + 'here')", "no start: here"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
    ],
)
def test_run_worker_that_cannot_start_is_reported_and_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, message: str
) -> None:
    from textgym import worker_main

    broken = tmp_path / "broken.py"
    broken.write_text(program)
    monkeypatch.setattr(worker_main, "__file__", str(broken))
    with WorkerPool(2) as pool:
        outcomes = pool.run(repr, range(10), time_limit=10.0)

        assert all(o.failure and o.failure.kind == "crashed" for o in outcomes)
        assert outcomes[0].failure is not None
        assert message in outcomes[0].failure.message
        monkeypatch.undo()
        assert pool.run(repr, [1], time_limit=10.0)[0].value == "1"


def test_run_worker_that_never_gets_ready_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from textgym import worker_main

    (tmp_path / "idle.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr(worker_main, "__file__", str(tmp_path / "idle.py"))
    monkeypatch.setattr(workers, "START_LIMIT", 0.3)
    with WorkerPool() as pool:
        (outcome,) = pool.run(repr, [1], time_limit=10.0)
    assert outcome.failure is not None
    assert "was still starting after 0.3 s" in outcome.failure.message


def test_run_is_repeated_by_the_same_worker() -> None:
    with WorkerPool() as pool:
        pids = {pool.run(lambda _: os.getpid(), [0], time_limit=10.0)[0].value for _ in range(3)}
    assert len(pids) == 1


def test_worker_that_died_between_runs_costs_no_item(pool: WorkerPool) -> None:
    pool.run(repr, [1, 2], time_limit=10.0)
    for worker in pool._workers:
        os.kill(worker._process.pid, signal.SIGKILL)
    assert wait_until(lambda: all(worker.is_dead() for worker in pool._workers))
    assert [o.value for o in pool.run(repr, [3, 4, 5], time_limit=10.0)] == ["3", "4", "5"]


def test_run_makes_do_with_the_workers_that_start(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[workers.WorkerProcess] = []

    class Scarce(workers.WorkerProcess):
        def __init__(self) -> None:
            if started:
                raise BlockingIOError("no more processes")
            super().__init__()
            started.append(self)

    monkeypatch.setattr(workers, "WorkerProcess", Scarce)
    with WorkerPool(4) as pool:
        outcomes = pool.run(make_hostile(), ["a", "b", "c", "exit", "d"], time_limit=10.0)
    assert [o.value for o in outcomes[:3]] == ["a", "b", "c"]
    assert outcomes[4].failure is not None
    assert "cannot be started: BlockingIOError: no more processes" in outcomes[4].failure.message


def test_run_from_several_threads_takes_turns() -> None:
    results: dict[int, list[int | None]] = {}
    with WorkerPool(2) as pool:

        def work(base: int) -> None:
            outcomes = pool.run(abs, range(-base - 5, -base), time_limit=10.0)
            results[base] = [o.value for o in outcomes]

        threads = [threading.Thread(target=work, args=(n * 10,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        # Started from threads that have ended by now: PDEATHSIG would have killed them.
        pids = [w._process.pid for w in pool._workers]
        assert all(is_running(pid) for pid in pids)
    assert results == {n * 10: [n * 10 + 5 - i for i in range(5)] for n in range(4)}


def test_close_kills_and_a_later_run_starts_again() -> None:
    pool = WorkerPool()
    (first,) = pool.run(lambda _: os.getpid(), [0], time_limit=10.0)
    pool.close()
    pool.close()
    assert first.value is not None
    assert not is_running(first.value)
    (second,) = pool.run(lambda _: os.getpid(), [0], time_limit=10.0)
    assert second.value != first.value
    pool.close()


def test_dropped_pool_kills_its_workers_and_leaks_no_descriptor() -> None:
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    pool = WorkerPool(2)
    pids = [o.value for o in pool.run(lambda _: os.getpid(), range(8), time_limit=10.0)]
    del pool
    gc.collect()
    assert not any(is_running(pid) for pid in pids if pid is not None)
    assert set(os.listdir("/proc/self/fd")) <= before


def test_killed_workers_leak_no_descriptor() -> None:
    with WorkerPool() as pool:
        pool.run(make_hostile(), ["a"], time_limit=10.0)
        before = len(os.listdir("/proc/self/fd"))
        pool.run(make_hostile(), ["exit", "kill", "exit", "a"], time_limit=10.0)
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_copy_of_a_pool_has_workers_of_its_own(
    pool: WorkerPool, duplicate: Callable[[WorkerPool], WorkerPool]
) -> None:
    pool.run(repr, [1], time_limit=10.0)
    with duplicate(pool) as other:
        assert other.num_workers == 2
        assert other._workers == []
        assert other.run(repr, [2], time_limit=10.0)[0].value == "2"


def test_pool_works_in_a_forked_process_while_its_lock_is_held(pool: WorkerPool) -> None:
    pool.run(repr, [1], time_limit=10.0)
    (parents,) = {pool._workers[0]._process.pid}
    read, write = os.pipe()
    with pool._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # a hang must fail the test, not stop it
            (outcome,) = pool.run(lambda _: os.getppid(), [0], time_limit=10.0)
            pool.close()
            os.write(write, str(outcome.value == os.getpid()).encode())
            os._exit(0)
    os.close(write)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(read, 10) == b"True"
    os.close(read)
    assert is_running(parents)
    assert pool.run(repr, [3], time_limit=10.0)[0].value == "3"


def test_run_takes_functions_and_classes_of_main(tmp_path: Path) -> None:
    program = """
        from dataclasses import dataclass
        from typing import ClassVar
        import textgym

        @dataclass(frozen=True)
        class Pair:
            x: int

        class Half(textgym.Reward):
            name: ClassVar[str] = "half"
            def score(self, sample):
                return textgym.Score(0.5)

        def double(pair):
            return Pair(2 * pair.x)

        print("imported", flush=True)   # no guard: a second import would print it again
        prompt = textgym.Prompt(id="1", messages="q")
        with textgym.WorkerPool(2) as pool:
            (outcome,) = pool.run(double, [Pair(21)], time_limit=10.0)
            assert outcome.value == Pair(42), outcome
        with textgym.Scorer([Half(), lambda sample: 1.0]) as scorer:
            (score,) = scorer.score_batch([textgym.Sample(prompt, "a")])
            assert score.value == 1.5, score
    """
    path = tmp_path / "notebook.py"
    path.write_text(textwrap.dedent(program))
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "imported\n"


PARENT = """
    import os, re, sys, textgym, threading, time

    def work(item):
        print("PID", os.getpid(), flush=True)
        re.match(r"(a+)+$", "a" * 64 + "b")   # holds the interpreter lock for ever

    textgym.WorkerPool(2).run(work, [1, 2], time_limit=600.0)
"""


def start_parent(tmp_path: Path) -> tuple[subprocess.Popen[str], list[int]]:
    path = tmp_path / "parent.py"
    path.write_text(textwrap.dedent(PARENT))
    parent = subprocess.Popen([sys.executable, path], stderr=subprocess.PIPE, text=True)
    assert parent.stderr is not None
    pids: list[int] = []
    while len(pids) < 2 and (line := parent.stderr.readline()):
        pids += [int(pid) for pid in re.findall(r"PID (\d+)", line)]
    assert all(is_running(pid) for pid in pids)
    return parent, pids


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_workers_hanging_in_c_die_with_their_parent(tmp_path: Path, how: signal.Signals) -> None:
    parent, pids = start_parent(tmp_path)
    assert len(pids) == 2
    parent.send_signal(how)
    parent.communicate(timeout=30)
    assert parent.returncode == -how
    assert wait_until(lambda: not any(is_running(pid) for pid in pids))


def test_workers_have_one_thread_each_and_the_memory_limit(pool: WorkerPool) -> None:
    def look(_: int) -> tuple[str, int]:
        return os.environ["OMP_NUM_THREADS"], resource.getrlimit(resource.RLIMIT_DATA)[0]

    (outcome,) = pool.run(look, [0], time_limit=10.0, memory_limit=LIMIT)
    assert outcome.value == ("1", LIMIT)


def test_num_workers_must_be_positive() -> None:
    with pytest.raises(ValueError, match="num_workers is 0; a pool needs at least 1"):
        WorkerPool(0)
