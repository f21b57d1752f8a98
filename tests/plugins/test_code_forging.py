"""Programs that break the tests off, and test code that attacks the tester or the caller."""

from __future__ import annotations

import ast
import shutil
import textwrap
from collections.abc import Iterator

import pytest

from textgym_plugins.code.executor import Executor, Job
from textgym_plugins.code.guest import purity
from textgym_plugins.code.guest.classes import class_names
from textgym_plugins.code.guest.trees import walk
from textgym_plugins.code.limits import Limits
from textgym_plugins.code.result import RunResult
from textgym_plugins.code.target import TargetError, read_target

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bwrap is not installed")

SHORT = Limits(seconds=2.0, run_seconds=6.0, memory=256 << 20, processes=32, disk=16 << 20,
               output=1 << 20)  # fmt: skip
RIGHT = "def f(n): return n + 1"
SIMPLE = "assert f(1) == 2\nassert f(2) == 3"


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(num_workers=1) as made:
        yield made


def run(executor: Executor, program: str, code: str, **fields: object) -> RunResult:
    target = read_target({"kind": "assert", "code": textwrap.dedent(code), **fields})
    return executor.run(Job(textwrap.dedent(program), target, SHORT))


LOOPS = {
    "for": "for n in range(3):\n    r = f(n)\n    assert r == n + 1",
    "while": "n = 0\nwhile n < 3:\n    r = f(n)\n    assert r == n + 1\n    n += 1",
    "in check": "def check(g):\n    for n in range(3):\n        r = g(n)\n"
    "        assert r == n + 1\ncheck(f)",
    "check in a loop": "def check(g, n):\n    r = g(n)\n    assert r == n + 1\n"
    "for n in range(3):\n    check(f, n)",
    "check called twice": "def check(g, n):\n    r = g(n)\n    assert r == n + 1\n"
    "check(f, 0)\ncheck(f, 1)\ncheck(f, 2)",
    "helper": "def same(n):\n    r = f(n)\n    assert r == n + 1\nsame(0)\nsame(1)",
    "check by a name": "def check(g, n):\n    r = g(n)\n    assert r == n + 1\n"
    "c = check\nc(f, 0)\nc(f, 1)",
    "try in a loop": "for n in range(3):\n    r = f(n)\n    try:\n        assert r == n + 1\n"
    "    except KeyError:\n        pass",
}
ENDS = {
    "raises": "raise ValueError",
    "exits": "raise SystemExit(0)",
    "dies": "import os; os._exit(0)",
    "hangs": "while True: pass",
    "floods": "import os\n    while True: os.write(2, bytes(65536))",
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("end", ["raises", "dies"])
def test_a_loop_that_breaks_off_has_not_passed(executor: Executor, loop: str, end: str) -> None:
    program = f"def f(n):\n    if n == 0: return 1\n    {ENDS[end]}"
    assert run(executor, program, LOOPS[loop]).num_passed == 0
    assert run(executor, RIGHT, LOOPS[loop]).num_passed == 1


@pytest.mark.parametrize("end", ENDS)
def test_what_is_known_of_a_loop_before_its_end_is_no_pass(executor: Executor, end: str) -> None:
    """The tester reports now and then; the first report says that all went well so far."""
    program = f"import time\ndef f(n):\n    if n == 0: time.sleep(0.3); return 1\n    {ENDS[end]}"
    assert run(executor, program, LOOPS["for"]).num_passed == 0


def test_single_tests_keep_what_they_had_when_the_code_breaks_off(executor: Executor) -> None:
    program = "def f(n):\n    if n == 1: return 2\n    raise ValueError"
    code = "assert f(1) == 2\nif True:\n    assert f(1) == 2\nr = f(5)\nassert r == 6"
    assert [test.passed for test in run(executor, program, code).tests] == [True, True, False]


def test_answers_that_lead_past_all_tests_are_no_abstention(executor: Executor) -> None:
    for code in ("for r in f(3):\n    assert r > 0", "if f(3):\n    assert f(3) == 4"):
        result = run(executor, "def f(n): return []", code)
        assert (result.num_passed, len(result.tests), result.unusable) == (0, 1, "")
    assert run(executor, RIGHT, "if False:\n    assert f(1) == 2").unusable


@pytest.mark.parametrize("error", ["SyntaxError", "ValueError", "SystemExit", "KeyboardInterrupt"])
def test_a_program_cannot_unmake_its_sample(executor: Executor, error: str) -> None:
    program = f"""
        import sys, types
        class Module(types.ModuleType):
            def __getattribute__(self, name):
                if name == "f": raise {error}("no")
                return super().__getattribute__(name)
        f = 5
        sys.modules[__name__].__class__ = Module
        """
    result = run(executor, program, "assert f == 6")
    assert (result.num_passed, result.unusable) == (0, "")


@pytest.mark.parametrize("reply", [
    """'["=", ' + '[' * 50000 + ']' * 50000 + ', null]'""", """'["!", 1]'""", "'{}'", "'[]'", "'5'",
    """'["=", [' + '["l", []],' * 2000000 + '0], null]'""", """'["!", ["x"], {}, 5, 5, 5]'""",
    "'[0, 0]'", "'nonsense'",
])  # fmt: skip
def test_any_reply_is_a_failed_test(executor: Executor, reply: str) -> None:
    program = f"""
        import os, struct
        data = ({reply}).encode()
        data = struct.pack("!I", len(data)) + data
        while data: data = data[os.write(3, data):]
        """
    result = run(executor, program, SIMPLE)
    assert (result.num_passed, len(result.tests), result.unusable) == (0, 2, "")
    assert run(executor, RIGHT, SIMPLE).num_passed == 2


@pytest.mark.parametrize("report", [
    "hello", "{}", "[[[", '["outcomes", 5, null]', '["done", 5, null]', '["done", [{}], [5]]',
    '["unusable", {}]', '["broken", "x"]', '["outcomes", ["", ""], ["a"]]', "[" * 100_000,
])  # fmt: skip
def test_test_code_that_reports_nonsense_fails_and_nothing_else(
    executor: Executor, report: str
) -> None:
    code = f"""
        import os, struct
        data = {report!r}.encode()
        os.write(3, struct.pack("!I", len(data)) + data)
        assert f(1) == 2
        """
    assert run(executor, RIGHT, code).num_passed == 0
    assert run(executor, RIGHT, SIMPLE).num_passed == 2


IMPURE = {
    "class pattern": "import copy\nmatch copy.deepcopy:\n    case object(__globals__=g): pass",
    "frame of a generator": "(x for x in [1]).gi_frame.f_builtins['left'] = 1",
    "loader": "__loader__.load_module('sys').modules['left'] = 1",
    "star import": "from functools import *\nupdate_wrapper(print, f, ('__code__',), ())",
    "registry": "import copy\ncopy.dispatch_table['left'] = 1",
    "formatter": "import string\nstring.Formatter().get_field('0.__globals__', [f], {})",
    "metaclass": "K = type(int)('K', (int,), {'__eq__': lambda s, o: True})",
    "relative import": "from . import session",
    "module of a module": "import statistics\nstatistics.math.floor = 1",
    "global": "def g():\n    global f",
    "attribute": "f.x = 1",
    "augmented": "f.x += 1",
    "loop variable": "for f.x in [1]: pass",
    "with variable": "with f as f.x: pass",
    "exec": "exec('1')",
    "unknown attribute": "f.push(1)",
}


@pytest.mark.parametrize("code", IMPURE.values(), ids=IMPURE)
def test_code_that_could_leave_something_behind_is_not_pure(code: str) -> None:
    assert not purity.is_pure(walk(ast.parse(code)))


def test_common_test_code_is_pure() -> None:
    code = """
        import math, copy
        from collections import Counter
        METADATA = {'author': 'x'}
        def check(candidate):
            for x in range(3):
                data = copy.deepcopy([x])
                assert math.isclose(candidate(data), 2.0), "text {}".format(x)
            assert Counter(candidate("a").split()).most_common(1)[0][1] == 1
            try:
                candidate(None)
                assert False
            except ValueError as error:
                assert error.args == ("no",)
        """
    assert purity.is_pure(walk(ast.parse(textwrap.dedent(code))))


def test_hostile_test_code_leaves_nothing_for_the_next_tests(executor: Executor) -> None:
    for name in ("frame of a generator", "loader"):
        run(executor, RIGHT, f"{IMPURE[name]}\nassert f(1) == 2")
        look = (
            "import builtins, sys\nassert 'left' not in sys.modules\n"
            "assert not hasattr(builtins, 'left')\nassert f(1) == 2"
        )
        assert run(executor, RIGHT, look).num_passed == 3


def test_an_entry_is_a_name() -> None:
    for entry in ("__import__('os').getpid()", "f()", "1f", "", "f.", "a b"):
        with pytest.raises(TargetError, match="entry"):
            read_target({"kind": "assert", "code": SIMPLE, "entry": entry})


@pytest.mark.parametrize("code", [
    "assert abs(Add(1, 2) - 3) < 1e-6", "assert Add(1, 2) >= 3", "assert Add('a').startswith('b')",
    "x = Add(1)\nassert x.count(1) == 3", "assert 3 + Add(1) == 9", "assert Add(1)[0] == 5",
])  # fmt: skip
def test_a_capital_letter_makes_no_class(executor: Executor, code: str) -> None:
    program = """
        class X:
            def __sub__(self, other): return 0
            __radd__ = __getitem__ = __sub__
            def __lt__(self, other): return True
            __le__ = __gt__ = __ge__ = __eq__ = __lt__
            def startswith(self, *a): return True
            def count(self, *a): return 3
        def Add(*a): return X()
        """
    assert run(executor, program, code).num_passed == 0


@pytest.mark.parametrize("code", [
    "b = Box()", "isinstance(Box(1), Box)", "Box(Box.SIZE)", "b = Box(1)\nb.push(2)", "Box(1).size",
    "b = Box(1)\nb.append(2)\nb.pop()", "assert Box(1) + Box(2) == Box(3)",
    "with Box(1) as b: pass",
    "self.b = Box(1)\nself.b.push(2)", "assert Box(1) * 2 == Box(2)",
])  # fmt: skip
def test_what_tests_use_as_a_class_is_one(code: str) -> None:
    assert "Box" in class_names(walk(ast.parse(code)))


def test_a_lost_worker_costs_a_second_try() -> None:
    with Executor(num_workers=1) as made:
        assert run(made, RIGHT, SIMPLE).num_passed == 2
        [worker] = made._idle
        worker.process.kill()
        worker.process.wait()
        assert run(made, RIGHT, SIMPLE).num_passed == 2  # on a second one


def test_text_that_cannot_be_written_is_no_test() -> None:
    for case in ({"stdin": "\ud800", "stdout": "1"}, {"stdin": "1", "stdout": "a\udfff"}):
        with pytest.raises(TargetError, match=r"cases\.0\.std"):
            read_target({"kind": "stdio", "cases": [case]})
