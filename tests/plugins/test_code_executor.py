"""Honest programs: what tests of the three kinds may do with them, and what they may do."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from textgym_plugins.code.executor import Executor, Job
from textgym_plugins.code.limits import Limits
from textgym_plugins.code.result import RunResult
from textgym_plugins.code.sandbox import SandboxError, Worker
from textgym_plugins.code.target import TargetError, read_target

needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bwrap is not installed")


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(num_workers=1) as made:
        yield made


def run(executor: Executor, program: str, code: str, limits: Limits | None = None) -> RunResult:
    target = read_target({"kind": "assert", "code": textwrap.dedent(code)})
    return executor.run(Job(textwrap.dedent(program), target, limits or Limits()))


def outcomes(result: RunResult) -> list[bool]:
    return [test.passed for test in result.tests]


VALUES = [
    "None", "True", "-7", "10**40", "2.5", "float('inf')", "1j", "'ä\\ud800'", "b'\\x00\\xff'",
    "[]",
    "[1, [2, (3, {4})]]", "(1,)", "{1: 'a', (2, 3): None}", "{1, 2}", "frozenset({1})", "range(3)",
    "bytearray(b'x')", "Ellipsis", "{'a': [True, None, 2.0, 'x']}", "-0.0",
    "[[1.5, 'a', None] * 3]",
]  # fmt: skip


@needs_bwrap
@pytest.mark.parametrize("value", VALUES)
def test_a_value_comes_back_as_it_is(executor: Executor, value: str) -> None:
    code = f"""
        assert repr(f({value})) == repr({value})
        assert f({value}) == {value} and type(f({value})) is type({value})
        assert g() == {value}
        """
    result = run(executor, f"def f(x): return x\ndef g(): return {value}\n", code)
    assert outcomes(result) == [True] * 3, result


@needs_bwrap
def test_values_of_library_types_come_back(executor: Executor) -> None:
    program = """
        import collections, datetime, decimal, fractions, enum
        def values():
            Point = collections.namedtuple("Point", "x y")
            class Level(enum.IntEnum): LOW = 1
            return [decimal.Decimal("1.10"), fractions.Fraction(1, 3), datetime.date(2024, 2, 29),
                    datetime.timedelta(days=1), collections.Counter("aab"),
                    collections.deque([1, 2]),
                    collections.OrderedDict(a=1), collections.defaultdict(list, a=[1]), Point(1, 2),
                    Level.LOW]
        """
    code = """
        import collections, datetime, decimal, fractions
        v = values()
        assert v[0] == decimal.Decimal("1.1") and v[1] == fractions.Fraction(1, 3)
        assert v[2] == datetime.date(2024, 2, 29) and v[3] == datetime.timedelta(1)
        assert v[4] == {"a": 2, "b": 1} and v[5] == collections.deque([1, 2])
        assert v[6] == {"a": 1} and v[7] == {"a": [1]} and v[8] == (1, 2) and v[9] == 1
        """
    assert outcomes(run(executor, program, code)) == [True] * 4


@needs_bwrap
def test_arguments_changed_in_place_are_changed_for_the_tests(executor: Executor) -> None:
    program = """
        def sort(items): items.sort()
        def same(items): return items
        def add(d, s, b): d["k"] = [1]; s.add(3); b.extend(b"z"); d["k"].append(d)
        def swap(pair): pair[0], pair[1] = pair[1], pair[0]
        """
    code = """
        a = [3, 1, 2]
        sort(a)
        assert a == [1, 2, 3]
        assert same(a) is a
        d, s, b = {}, {1}, bytearray(b"a")
        add(d, s, b)
        assert s == {1, 3} and b == b"az" and d["k"][0] == 1 and d["k"][1] is d
        x, y = [1], [2]
        pair = [x, y]
        swap(pair)
        assert pair[0] is y and pair[1] is x
        """
    assert outcomes(run(executor, program, code)) == [True] * 4


@needs_bwrap
def test_arguments_that_stay_equal_are_changed_all_the_same(executor: Executor) -> None:
    program = "def f(a, x): a[0] = x\ndef g(a): return len(a)"
    code = """
        a, b, c = [1], [0.0], [float("nan")]
        f(a, True)
        assert a[0] is True
        f(b, -0.0)
        assert str(b[0]) == "-0.0"
        assert g(c) == 1 and c == [c[0]]
        """
    assert outcomes(run(executor, program, code)) == [True] * 3


@needs_bwrap
def test_functions_travel_both_ways(executor: Executor) -> None:
    program = """
        def apply(function, *args): return function(*args)
        def adder(n): return lambda m: n + m
        def compose(f, g): return lambda x: f(g(x))
        def numbers():
            n = 0
            while True:
                yield n
                n += 1
        """
    code = """
        import itertools, operator
        assert apply(lambda x: x + 1, 3) == 4
        assert apply(len, [1, 2]) == 2 and apply(str.upper, "a") == "A"
        assert apply(operator.add, 1, 2) == 3
        assert adder(2)(3) == 5
        assert compose(lambda x: x * 2, adder(1))(3) == 8
        assert list(itertools.islice(numbers(), 3)) == [0, 1, 2]
        assert next(iter(numbers())) == 0
        assert apply(adder(1), 1) == 2
        """
    assert outcomes(run(executor, program, code)) == [True] * 8


@needs_bwrap
def test_classes_of_the_program_can_be_tested(executor: Executor) -> None:
    program = """
        import dataclasses
        LIMIT = 5
        class EmptyError(LookupError): pass
        class Stack:
            size = 0
            def __init__(self, *items): self.items = list(items)
            def push(self, item): self.items.append(item); return self
            def pop(self):
                if not self.items: raise EmptyError("empty")
                return self.items.pop()
            def __len__(self): return len(self.items)
            def __iter__(self): return iter(self.items)
            def __getitem__(self, index): return self.items[index]
            def __repr__(self): return f"Stack{self.items}"
        @dataclasses.dataclass
        class Vector:
            x: int
            y: int
            def __add__(self, other): return Vector(self.x + other.x, self.y + other.y)
            def __mul__(self, k): return Vector(self.x * k, self.y * k)
            @staticmethod
            def zero(): return Vector(0, 0)
        def make(): return Vector(1, 2)
        """
    code = """
        s = Stack(1).push(2)
        assert len(s) == 2 and s[0] == 1 and list(s) == [1, 2]
        assert 2 in s and repr(s) == "Stack[1, 2]"
        assert s.pop() == 2
        assert s.items == [1]
        s.items = []
        try:
            s.pop()
            assert False
        except EmptyError as error:
            assert str(error) == "empty" and isinstance(error, LookupError)
        assert Vector(1, 2) + Vector(2, 3) == Vector(3, 5)
        assert (Vector(1, 2) * 3).y == 6
        assert Vector(1, 2) != Vector(1, 3) and Vector.zero().x == 0
        assert isinstance(make(), Vector) and make().x == 1
        assert LIMIT == 5
        assert Stack.size == 0 and make() == Vector(1, 2)
        """
    result = run(executor, program, code)
    assert outcomes(result) == [True] * 11, result


@needs_bwrap
def test_expected_exceptions_are_seen(executor: Executor) -> None:
    program = "def f(n):\n    if n < 0: raise ValueError('negative')\n    return {}[n]"
    code = """
        try:
            f(-1)
            assert False, "no error"
        except ValueError as error:
            assert "negative" in str(error)
        try:
            f(1)
        except KeyError:
            caught = True
        assert caught
        import unittest
        with unittest.TestCase().assertRaises(ValueError):
            f(-2)
        """
    assert outcomes(run(executor, program, code)) == [True] * 3


@needs_bwrap
def test_unittest_classes_are_run(executor: Executor) -> None:
    code = """
        import unittest
        class TestF(unittest.TestCase):
            def test_one(self): self.assertEqual(f(1), 2)
            def test_two(self): self.assertEqual(f(2), 2)
        """
    assert outcomes(run(executor, "def f(n): return n + 1", code)) == [True, False]


@needs_bwrap
def test_test_functions_are_called_and_loops_count_once(executor: Executor) -> None:
    code = """
        def test_small():
            for n in range(5):
                assert f(n) == n + 1
        def helper(n):
            assert f(n) == 0
        def test_helper():
            helper(-1)
        if f(1) == 99:
            assert False
        """
    result = run(executor, "def f(n): return n + 1", code)
    assert outcomes(result) == [True, True]


@needs_bwrap
def test_one_failed_assertion_does_not_hide_the_next(executor: Executor) -> None:
    code = "assert f(1) == 2\nassert f(2) == 0\nassert f('x') == 1\nassert f(3) == 4\n"
    result = run(executor, "def f(n): return n + 1", code)
    assert outcomes(result) == [True, False, False, True]
    assert result.tests[1].name == "assert f(2) == 0"
    assert result.tests[2].reason.startswith("TypeError")
    assert "TypeError" in result.stderr
    assert "return n + 1" in result.stderr


@needs_bwrap
def test_calls_that_are_sent_ahead_keep_their_order(executor: Executor) -> None:
    program = """
        count = 0
        def f(n):
            global count
            count += 1
            return count
        """
    code = """
        assert f(0) == 1
        assert f(0) == 2
        x = f(0)
        assert f(x) == 4 and f(0) == 5
        assert g(1) == 6
        assert f(0) == 6
        assert len([f(0) for _ in range(2)]) == 2
        assert f(n=0) == 9
        """
    assert outcomes(run(executor, program, code)) == [True, True, True, False, True, True, True]


@needs_bwrap
def test_calls_that_are_sent_ahead_survive_the_end_of_the_program(executor: Executor) -> None:
    program = """
        import os, time
        def f(n):
            if n == 1: os._exit(0)
            if n == 3: time.sleep(60)
            return n
        """
    code = "\n".join(f"assert f({n}) == {n}" for n in range(6))
    result = run(executor, program, code, Limits(seconds=0.5))
    assert outcomes(result) == [True, False, True, False, True, True]


@needs_bwrap
def test_calls_that_are_sent_ahead_again_are_answered_again(executor: Executor) -> None:
    program = """
        count = 0
        def f(n):
            global count
            count += 1
            return count
        """
    code = """
        def check(g):
            assert g(0) in (1, 4)
            assert int("x") == g(0)
            assert g(0) in (3, 6)
        check(f)
        check(f)
        """
    assert outcomes(run(executor, program, code)) == [True, False, True]


@needs_bwrap
def test_large_answers_to_calls_that_are_sent_ahead(executor: Executor) -> None:
    code = "\n".join(f"assert len(f({n})) == 1000000" for n in range(40))
    assert outcomes(run(executor, "def f(n): return 'x' * 1000000", code)) == [True] * 40
    code = "\n".join(f"assert f({[n] * 3000}) == {n}" for n in range(40))
    assert outcomes(run(executor, "def f(n): return n[0]", code)) == [True] * 40


@needs_bwrap
def test_what_is_not_reached_fails(executor: Executor) -> None:
    code = "x = f(1)\nassert x == 1\ny = f(0)\nassert y == 1\n"
    result = run(executor, "def f(n): return 1 // n", code)
    assert outcomes(result) == [True, False]
    assert "ZeroDivisionError" in result.tests[1].reason


@needs_bwrap
def test_a_name_of_the_tests_that_the_program_lacks(executor: Executor) -> None:
    result = run(executor, "def g(n): return 1", "assert f(1) == 1")
    assert result.tests[0].reason == "NameError: name 'f' is not defined"


@needs_bwrap
@pytest.mark.parametrize(
    ("code", "reason"), [("assert (", "does not compile"), ("x = 1", "no test")]
)
def test_broken_tests_are_not_the_programs_fault(
    executor: Executor, code: str, reason: str
) -> None:
    result = run(executor, "def f(n): return 1", code)
    assert reason in result.unusable
    assert result.tests == ()


@needs_bwrap
def test_test_code_that_changes_its_process_does_not_change_the_next(executor: Executor) -> None:
    run(
        executor, "", "import math, builtins\nmath.pi = 3\nbuiltins.len = None\nassert math.pi == 3"
    )
    result = run(executor, "", "import math\nassert math.pi > 3.1 and len('a') == 1")
    assert outcomes(result) == [True]


@needs_bwrap
def test_a_pure_tester_is_kept_and_another_is_not(executor: Executor) -> None:
    run(executor, "def f(): return 1", "assert f() == 1")
    (worker,) = executor._idle
    kept = worker.tester
    assert kept is not None
    run(executor, "def f(): return 1", "assert f() == 1")
    assert worker.tester is kept
    run(executor, "def f(): return 1", "import sys\nassert f() == 1")
    assert worker.tester is None


HONEST = {
    "spawns": """
        import subprocess, sys
        def f(): return subprocess.run([sys.executable, "-c", "print(6 * 7)"], check=True,
                                       capture_output=True, text=True).stdout.strip() == "42" """,
    "shell": """
        import os
        def f(): return os.popen("echo a b | wc -w").read().strip() == "2" """,
    "threads": """
        import threading
        def f():
            found = []
            threads = [threading.Thread(target=found.append, args=(i,)) for i in range(100)]
            for t in threads: t.start()
            for t in threads: t.join()
            return sorted(found) == list(range(100))""",
    "pool of threads": """
        from concurrent.futures import ThreadPoolExecutor
        def f():
            with ThreadPoolExecutor(8) as pool: return sum(pool.map(abs, range(-50, 0))) == 1275""",
    "pool of processes": """
        import multiprocessing
        def double(n): return 2 * n
        def f():
            with multiprocessing.Pool(3) as pool:
                return pool.map(double, range(5)) == [0, 2, 4, 6, 8]""",
    "prints a lot": """
        import sys
        def f():
            for _ in range(20000): print("x" * 1000)
            sys.stderr.write("y" * 5_000_000)
            return True""",
    "recurses deeply": """
        import sys
        sys.setrecursionlimit(200000)
        def depth(n): return 0 if n == 0 else 1 + depth(n - 1)
        def f(): return depth(50000) == 50000""",
    "recurses in C": """
        import sys, functools
        sys.setrecursionlimit(20000)
        @functools.lru_cache(None)
        def depth(n): return 0 if n == 0 else 1 + depth(n - 1)
        def f(): return depth(8000) == 8000""",
    "uses memory": "def f(): return len(bytearray(b'x') * (1 << 30)) == 1 << 30",
    "uses files": """
        import os, tempfile
        def f():
            with tempfile.NamedTemporaryFile("w+") as file:
                file.write("x" * 50_000_000); file.flush()
                return os.path.getsize(file.name) == 50_000_000""",
    "opens many": "import os\ndef f(): return len([os.open('/', 0) for _ in range(3000)]) == 3000",
    "asyncio": """
        import asyncio
        async def wait(n): await asyncio.sleep(0.001); return n
        def f(): return asyncio.run(wait(3)) == 3""",
    "local server": """
        import socket, threading
        def f():
            server = socket.create_server(("127.0.0.1", 0))
            threading.Thread(target=lambda: server.accept()[0].sendall(b"hi"), daemon=True).start()
            return socket.create_connection(server.getsockname()).recv(2) == b"hi" """,
    "main guard": "def f(): return True\nif __name__ == '__main__': raise SystemExit",
    "pickles": """
        import dataclasses, pickle
        @dataclasses.dataclass
        class A: x: int
        def f(): return pickle.loads(pickle.dumps(A(3))) == A(3)""",
}


@needs_bwrap
@pytest.mark.parametrize("kind", HONEST)
def test_an_honest_program_passes(executor: Executor, kind: str) -> None:
    result = run(executor, HONEST[kind], "assert f() is True")
    assert outcomes(result) == [True], result


@needs_bwrap
@pytest.mark.parametrize("program", [
    "import sys\nprint(sum(map(int, sys.stdin.read().split())))",
    "a = int(input())\nb = int(input())\nprint(a + b)\nexit()",
    "def main():\n    print(int(input()) + int(input()))\nif __name__ == '__main__':\n    main()",
    "print('5  ', end='\\n\\n')\nimport sys; sys.exit(0)",
    "import threading\nthreading.Timer(0.05, print, ('5',)).start()",
    "import atexit\natexit.register(print, 5)",
    "import os\nos.write(1, b'5')\nos._exit(0)",
    "import subprocess\nsubprocess.run(['echo', '5'])",
])  # fmt: skip
def test_scripts_are_compared_by_what_they_print(executor: Executor, program: str) -> None:
    cases = [{"stdin": "2\n3\n", "stdout": "5\n"}]
    result = executor.run(Job(program, read_target({"kind": "stdio", "cases": cases})))
    assert outcomes(result) == [True], result


@needs_bwrap
def test_a_large_stdin_and_stdout(executor: Executor) -> None:
    text = "line of text\n" * 400_000
    target = read_target({"kind": "stdio", "cases": [{"stdin": text, "stdout": text}]})
    assert outcomes(executor.run(Job("import sys\nprint(sys.stdin.read())", target))) == [True]


@needs_bwrap
@pytest.mark.parametrize(("expected", "returned", "is_equal"), [
    (1, "1", True), (1, "True", False), (True, "1", False), (1, "1.0", True), (0.3, "0.1 + 0.2",
    True),
    ("1", "1", False), ([1, 2], "(1, 2)", True), ([1, 2], "{1, 2}", False), (None, "0", False),
    ({"a": [1]}, "{'a': (1,)}", True), ({"1": 2}, "{1: 2}", True), ({"a": 1}, "{'a': 1, 'b': 2}",
    False),
    ([0, 1], "(i for i in range(2))", True), ([], "None", False), ("x", "['x']", False),
    (10**30, "10**30", True), (10**30, "10**30 + 1", False), (0, "False", False),
])  # fmt: skip
def test_function_cases_compare_by_type_and_value(
    executor: Executor, expected: object, returned: str, is_equal: bool
) -> None:
    target = {"kind": "function", "entry": "f", "cases": [{"args": [], "expected": expected}]}
    result = executor.run(Job(f"def f(): return {returned}", read_target(target)))
    assert outcomes(result) == [is_equal], result


@needs_bwrap
def test_methods_and_keywords(executor: Executor) -> None:
    cases = [{"args": [1], "kwargs": {"k": 2}, "expected": 3}]
    target = read_target({"kind": "function", "entry": "Solution.add", "cases": cases})
    program = "class Solution:\n    def add(self, n, *, k): return n + k"
    assert outcomes(executor.run(Job(program, target))) == [True]


@needs_bwrap
def test_stops_early_where_told(executor: Executor) -> None:
    target = read_target({"kind": "assert", "code": "assert f(0)\nassert f(1)\nassert f(0)"})
    result = executor.run(Job("def f(n): return not n", target, stops_early=True))
    assert outcomes(result) == [True, False, False]
    assert result.tests[2].reason == "not run"


@needs_bwrap
def test_the_run_as_a_whole_has_a_limit(executor: Executor) -> None:
    limits = Limits(seconds=0.6, run_seconds=1.5)
    code = "assert f(0)\n" + "assert f(1)\n" * 10
    program = "import time\ndef f(n):\n    time.sleep(9 * n)\n    return True"
    started = time.monotonic()
    result = run(executor, program, code, limits)
    assert time.monotonic() - started < 4
    assert outcomes(result) == [True] + [False] * 10
    assert result.tests[-1].reason == "not run in time"


@needs_bwrap
def test_equal_runs_are_equal(executor: Executor) -> None:
    program = "import random\ndef f(): return (random.random(), hash('a'), list({'x', 'y', 'z'}))"
    results = {run(executor, program, "assert f() == 0").tests for _ in range(3)}
    values = {run(executor, program, "x = f()\nassert x == 0, x").tests[0].reason for _ in range(3)}
    assert len(results) == len(values) == 1


@needs_bwrap
def test_a_lost_worker_costs_nothing(executor: Executor) -> None:
    run(executor, "def f(): return 1", "assert f() == 1")
    (worker,) = executor._idle
    worker.process.kill()
    worker.process.wait()
    assert outcomes(run(executor, "def f(): return 1", "assert f() == 1")) == [True]


@needs_bwrap
def test_a_spare_program_that_died_is_not_used(executor: Executor) -> None:
    run(executor, "def f(): return 1", "assert f() == 1")
    (worker,) = executor._idle
    assert worker.spare is not None
    worker.spare._connection.sendall(b"no message at all")  # ends what reads it
    deadline = time.monotonic() + 5
    while not select.select([worker.control], [], [], 0.05)[0]:
        assert time.monotonic() < deadline
    time.sleep(0.1)
    assert outcomes(run(executor, "def f(): return 1", "assert f() == 1")) == [True]


def test_work_is_shared_out_in_order_and_errors_are_raised() -> None:
    with Executor(num_workers=3) as made:
        assert made.map(lambda n: 2 * n, range(50)) == [2 * n for n in range(50)]
        with pytest.raises(ZeroDivisionError):
            made.map(lambda n: 1 // n, [2, 1, 0, 1])


@needs_bwrap
def test_the_workers_end_with_their_executor() -> None:
    with Executor(num_workers=1) as fresh:
        run(fresh, "def f(): return 1", "assert f() == 1")
        process = fresh._idle[0].process
    assert process.returncode is not None


@needs_bwrap
def test_the_workers_end_when_the_caller_is_killed() -> None:
    program = (
        "import os, signal, sys\n"
        "from textgym_plugins.code.sandbox import Worker\n"
        "worker = Worker(is_strong=True)\n"
        "print(worker.process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    status = Path(f"/proc/{int(done.stdout)}/status")
    deadline = time.monotonic() + 10
    while status.exists() and "zombie" not in status.read_text():
        assert time.monotonic() < deadline, "the sandbox outlives its caller"
        time.sleep(0.05)


def test_without_bubblewrap_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    target = read_target({"kind": "assert", "code": "assert f() == 1"})
    with Executor(num_workers=1) as executor, pytest.raises(SandboxError, match="bubblewrap") as e:
        executor.run(Job("def f(): return 1", target))
    assert "allow_weak_isolation=True" in str(e.value)


def test_a_bubblewrap_that_does_not_work_is_quoted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create a namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SandboxError, match="sandbox cannot be started"):
        Worker(is_strong=True)


def running_with(text: str) -> list[Path]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            found += [path] if text in path.read_text(errors="replace") else []
    return found


def test_weak_isolation_runs_with_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    limits = Limits(seconds=1.0)
    with Executor(num_workers=1, allow_weak_isolation=True) as executor:
        assert outcomes(run(executor, "def f(): return 1", "assert f() == 1")) == [True]
        assert executor.isolation == "weak"
        for program in (
            "def f():\n    while True: pass", "import os\ndef f(): os._exit(0)",
            "def f(): return bytearray(1 << 33)", "class A:\n    __eq__ = lambda *a: True\nf = A",
        ):  # fmt: skip
            assert outcomes(run(executor, program, "assert f() == 1", limits)) == [False]
        target = read_target({"kind": "stdio", "cases": [{"stdin": "1", "stdout": "2"}]})
        assert outcomes(executor.run(Job("print(int(input()) + 1)", target))) == [True]
        name = f"{os.getpid()}.97531"
        program = f"""
            import os, subprocess, sys
            def f():
                sleep = "import time; time.sleep({name})"
                subprocess.Popen([sys.executable, "-c", sleep], start_new_session=True)
                if os.fork() == 0:
                    subprocess.Popen([sys.executable, "-c", sleep], start_new_session=True)
                    os._exit(0)
                return 1
            """
        assert outcomes(run(executor, program, "assert f() == 1")) == [True]
        deadline = time.monotonic() + 20  # on a busy machine the last of them begins late
        while running_with(name) and time.monotonic() < deadline:
            run(executor, "def f(): return 1", "assert f() == 1")
        assert running_with(name) == []


@pytest.mark.parametrize(("target", "message"), [
    (None, "valid dictionary"), ({"kind": "other"}, "kind"), ({"kind": "assert"}, "code"),
    ({"kind": "assert", "code": ""}, "code"), ({"kind": "function", "entry": "f", "cases": []},
    "cases"),
    ({"kind": "function", "entry": "f.g.h", "cases": [{"expected": 1}]}, "entry"),
    ({"kind": "stdio", "cases": [{"stdin": 3, "stdout": ""}]}, "stdin"),
    ({"kind": "assert", "code": "x", "cod": 1}, "cod"),
])  # fmt: skip
def test_a_target_that_is_none_says_which_field(target: object, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        read_target(target)
