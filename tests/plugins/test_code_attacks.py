"""Programs that try to earn a pass they did not compute, to get out, or to use up the machine."""

from __future__ import annotations

import shutil
import socket
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from textgym_plugins.code.executor import Executor, Job
from textgym_plugins.code.limits import Limits
from textgym_plugins.code.result import RunResult
from textgym_plugins.code.target import read_target

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bwrap is not installed")

SECRET = "k7-Qz/1931"
ASSERTS = {
    "kind": "assert",
    "code": f"assert f(3) == {SECRET!r}\nassert f(4) == 'x' + {SECRET!r}\n",
}
CASES = {
    "kind": "function",
    "entry": "f",
    "cases": [{"args": [3], "expected": SECRET}, {"args": [4], "expected": f"x{SECRET}"}],
}
PRINTS = {"kind": "stdio", "cases": [{"stdin": "3\n", "stdout": SECRET}]}
SHORT = Limits(seconds=2.0, run_seconds=6.0, memory=256 << 20, processes=32, disk=16 << 20,
               files=128, output=1 << 20)  # fmt: skip


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(num_workers=1) as made:
        yield made
        assert made.isolation == "bubblewrap"


def run(executor: Executor, program: str, target: object, limits: Limits = SHORT) -> RunResult:
    return executor.run(Job(textwrap.dedent(program), read_target(target), limits))


ALWAYS_EQUAL = """
class Yes:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __bool__(self): return True
    def __len__(self): return 1
    def __contains__(self, item): return True
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __lt__
    def __sub__(self, other): return 0
    __rsub__ = __add__ = __radd__ = __sub__
    def __getattr__(self, name): return lambda *a, **k: True
"""

FORGERIES = {
    "os._exit": "import os\nos._exit(0)",
    "sys.exit": "import sys\nsys.exit(0)",
    "exit in the call": "import os\ndef f(n): os._exit(0)",
    "SystemExit in the call": "def f(n): raise SystemExit(0)",
    "SystemExit subclass": "class E(SystemExit, AssertionError): pass\ndef f(n): raise E(0)",
    "atexit": "import atexit, os\natexit.register(lambda: os._exit(0))\ndef f(n): raise SystemExit",
    "signal handler": """
        import os, signal
        for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1, signal.SIGXCPU):
            signal.signal(number, lambda *a: os._exit(0))
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        def f(n):
            import time; time.sleep(1)""",
    "always equal": ALWAYS_EQUAL + "\ndef f(n): return Yes()",
    "always equal class": ALWAYS_EQUAL + "\nf = lambda n: Yes",
    "equal subclass of str": """
        class S(str):
            __eq__ = lambda self, other: True
            __hash__ = str.__hash__
        def f(n): return S("no")""",
    "str that changes": """
        class S(str):
            def __str__(self): return "other"
            def __eq__(self, other): return True
            __hash__ = str.__hash__
        def f(n):
            S.__class__ = str
            return S("x")""",
    "lying class": """
        class Meta(type):
            def __instancecheck__(cls, other): return True
            def __eq__(cls, other): return True
            __hash__ = type.__hash__
        class S(metaclass=Meta):
            @property
            def __class__(self): return str
        def f(n): return S()""",
    "reads the arguments' frames": """
        import sys
        def f(n):
            frame = sys._getframe()
            found = []
            while frame:
                for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):
                    found.append(repr(value))
                frame = frame.f_back
            text = " ".join(found)
            place = text.find("k7-")
            return text[place:place + 10] if place >= 0 else "none" """,
    "reads gc": """
        import gc
        def f(n):
            gc.collect()
            for value in gc.get_objects():
                for each in gc.get_referents(value):
                    if type(each) is str and each.startswith("k7" + "-"):
                        return each
            return "none" """,
    "reads memory": """
        def f(n):
            try:
                import ctypes
                with open("/proc/self/maps") as maps: regions = maps.read()
                with open("/proc/self/mem", "rb") as memory: pass
            except OSError as error:
                return str(error)
            return "open" """,
    "reads other processes": """
        import os
        def f(n):
            seen = []
            for pid in os.listdir("/proc"):
                for name in ("cmdline", "environ", "mem", "fd"):
                    try: seen.append(open(f"/proc/{pid}/{name}", "rb").read())
                    except OSError: pass
            return repr(seen) """,
    "reads argv, environment and stdin": """
        import os, sys
        def f(n): return repr((sys.argv, dict(os.environ), sys.stdin.read()))""",
    "patched builtins": """
        import builtins
        builtins.AssertionError = type("E", (Exception,), {})
        builtins.isinstance = lambda *a: True
        builtins.type = lambda *a: str
        builtins.len = lambda *a: 1
        def f(n): return "no" """,
    "patched json": """
        import json, json.encoder, sys
        json.dumps = lambda *a, **k: '["=", true, null]'
        json.loads = lambda *a, **k: ["=", True, None]
        def f(n): return "no" """,
    "patched unittest and sys.modules": """
        import sys, unittest
        unittest.TestCase.assertEqual = lambda *a: None
        for name in list(sys.modules):
            if "guest" in name: sys.modules[name] = None
        def f(n): return "no" """,
    "patched runner": """
        import sys
        guest = sys.modules["textgym_plugins.code.guest.program"]
        guest.Host.serve = lambda self, question: ["=", True, None]
        guest.Host._apply = lambda self, operation, form: ["=", True, None]
        def f(n): return "no" """,
    "success on every descriptor": """
        import os
        def f(n):
            message = b'["done",["",""]]'
            frame = len(message).to_bytes(4, "big") + message
            for fd in range(64):
                for text in (frame, b"OK\\npassed\\n1 passed", b'["=",true,null]'):
                    try: os.write(fd, text)
                    except OSError: pass
            return "no" """,
    "answers before it is asked": """
        import os, json
        reply = json.dumps(["=", True, None]).encode()
        os.write(3, (len(reply).to_bytes(4, "big") + reply) * 20)
        def f(n): return "no" """,
    "done to the supervisor": """
        import os, json, socket
        def f(n):
            reply = json.dumps(["done", ["", ""]]).encode()
            os.write(3, len(reply).to_bytes(4, "big") + reply)
            return "no" """,
    "thread that answers later": """
        import threading, time, os
        def later():
            for _ in range(50):
                time.sleep(0.01)
                try: os.write(3, b'\\x00\\x00\\x00\\x0e["=",true,null]')
                except OSError: pass
                print("passed", flush=True)
        threading.Thread(target=later, daemon=True).start()
        def f(n):
            time.sleep(0.2)
            return "no" """,
    "no program at all": "",
    "does not compile": "def f(n:",
    "raises": "def f(n): return 1 / 0",
    "raises AssertionError": "def f(n): raise AssertionError",
    "stops iteration": "def f(n): raise StopIteration",
    "generator exit": "def f(n): raise GeneratorExit",
    "garbage on the channel": "import os\ndef f(n): os.write(3, b'\\xff' * 1000)",
    "deep value": """
        def f(n):
            value = []
            for _ in range(100000): value = [value]
            return value""",
    "endless value": """
        def f(n):
            while True: yield n""",
    "huge int": "def f(n): return 10 ** 10 ** 6",
    "NaN": "def f(n): return float('nan')",
}


@pytest.mark.parametrize("trick", FORGERIES)
@pytest.mark.parametrize("target", [ASSERTS, CASES], ids=["assert", "function"])
def test_no_forgery_earns_a_pass(executor: Executor, trick: str, target: object) -> None:
    result = run(executor, FORGERIES[trick], target)
    assert result.num_passed == 0, result
    assert len(result.tests) == 2, result
    assert not result.unusable


def test_the_secret_itself_passes(executor: Executor) -> None:
    right = f"def f(n): return {SECRET!r} if n == 3 else 'x' + {SECRET!r}"
    for target in (ASSERTS, CASES):
        assert run(executor, right, target).num_passed == 2
    assert run(executor, f"print({SECRET!r})", PRINTS).num_passed == 1


@pytest.mark.parametrize("program", [
    "import os; os._exit(0)", "print('OK'); print('passed')", "import sys; sys.exit(0)",
    "import sys; print(open(0).read(), sys.argv)", f"print({SECRET!r}); raise SystemExit(1)",
    f"import sys; sys.stderr.write({SECRET!r})", f"print({SECRET!r}); import os; os.abort()",
    "import os\n[os.write(fd, b'passed') for fd in (1, 2)]",
])  # fmt: skip
def test_no_script_earns_a_pass_without_its_output(executor: Executor, program: str) -> None:
    assert run(executor, program, PRINTS).num_passed == 0


@pytest.mark.parametrize("code", [
    "assert abs(f(3) - 3.5) < 1e-6", "assert 3 in f(3)", "assert f(3) > 2", "assert f(3) in (1, 2)",
    "assert f(3).startswith('k')", "assert not f(3) != 5", "assert f(3)[0] == 7",
    "assert set(f(3)) == {1, 2}", "assert isinstance(f(3), str)", "assert f(3) == f2(3) == 4",
    "import math\nassert math.isclose(f(3), 2.5)", "assert sorted(f(3)) == [1, 2]",
    "assert str(f(3)) == '5'", "try:\n    assert f(3) == 5\nexcept TypeError:\n    assert False",
    "for n in range(3):\n    assert f(n) == n + 100",
    "def check(g):\n    assert g(3) == 5\ncheck(f)",
])  # fmt: skip
def test_an_object_that_agrees_to_everything_is_not_believed(executor: Executor, code: str) -> None:
    target = {"kind": "assert", "code": code}
    result = run(executor, ALWAYS_EQUAL + "\ndef f(n): return Yes()\nf2 = f\n", target)
    assert result.num_passed == 0, result


@pytest.mark.parametrize("shadowed", ["abs", "set", "len", "sorted", "isinstance", "all", "sum"])
def test_a_built_in_of_the_tests_is_not_the_programs(executor: Executor, shadowed: str) -> None:
    program = f"{ALWAYS_EQUAL}\ndef f(n): return n\ndef {shadowed}(*a): return Yes()\n"
    code = f"assert {shadowed}(f(3)) == 12345"
    assert run(executor, program, {"kind": "assert", "code": code}).num_passed == 0


def test_a_module_of_the_tests_is_not_the_programs(executor: Executor) -> None:
    program = "class math:\n    isclose = staticmethod(lambda *a, **k: True)\ndef f(n): return 0\n"
    target = {"kind": "assert", "code": "assert math.isclose(f(3), 2.5)"}
    assert run(executor, program, target).num_passed == 0


def test_it_may_be_right_although_an_attack_was_tried(executor: Executor) -> None:
    program = (
        "import builtins\nbuiltins.AssertionError = builtins.print = None\ndef f(n): return n\n"
    )
    target = {"kind": "function", "entry": "f", "cases": [{"args": [3], "expected": 3}]}
    assert run(executor, program, target).num_passed == 1


def escape(executor: Executor, program: str) -> str:
    """Return what `f` finds out, through a test that reveals it."""
    target = {"kind": "function", "entry": "f", "cases": [{"args": [], "expected": None}]}
    result = run(executor, program, target)
    return result.tests[0].reason


def test_nothing_of_the_host_can_be_read(executor: Executor, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("host")
    secret.chmod(0o644)
    paths = [secret, __file__, "/etc/passwd", "/etc/shadow", "/etc/hostname", "/proc/1/status"]
    said = escape(
        executor,
        f"""
        import os
        def f():
            return [path for path in {list(map(str, paths))!r} if os.path.exists(path)] + [
                os.listdir(path) for path in ("/proc", "/empty") if os.listdir(path)]
        """,
    )
    assert said == "wrong: returned []"


def test_nothing_can_be_written_but_tmp(executor: Executor) -> None:
    said = escape(
        executor,
        """
        import os, sys
        def f():
            folders = ["/", "/dev", "/dev/shm", "/empty", "/etc", "/proc", "/textgym", "/tmp",
                       "/usr", "/usr/bin", "/usr/local/lib", "/var/tmp", "/run",
                       os.path.dirname(os.__file__)]
            written = []
            for folder in folders:
                try:
                    with open(os.path.join(folder, "mark"), "w"): written.append(folder)
                except OSError: pass
            return written
        """,
    )
    assert said == "wrong: returned ['/dev/shm', '/tmp']"


def test_no_network_not_even_the_loopback_of_the_host(executor: Executor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        said = escape(
            executor,
            f"""
            import socket
            def f():
                found = []
                for address in (("127.0.0.1", {port}), ("8.8.8.8", 53)):
                    try: socket.create_connection(address, timeout=0.5); found.append(address)
                    except OSError: pass
                return found
            """,
        )
    assert said == "wrong: returned []"


def test_the_environment_is_not_the_callers(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTGYM_TEST_SECRET", "host")
    with Executor(num_workers=1) as fresh:
        said = escape(fresh, "import os\ndef f(): return sorted(os.environ)")
    assert "TEXTGYM" not in said
    assert "LD_" not in said
    assert "HOME" in said


def test_a_program_has_its_streams_and_one_connection(executor: Executor) -> None:
    said = escape(
        executor,
        """
        import os
        def f():
            found = []
            for fd in range(4096):
                try: found.append((fd, os.get_inheritable(fd)))
                except OSError: pass
            return found
        """,
    )
    assert said == "wrong: returned [(0, True), (1, True), (2, True), (3, False)]"


def test_the_testers_code_is_no_module_of_the_program(executor: Executor) -> None:
    said = escape(
        executor,
        """
        import importlib, sys
        def f():
            try: importlib.import_module("textgym_plugins.code.guest.tester")
            except ModuleNotFoundError: return [name for name in sys.modules if "tester" in name]
        """,
    )
    assert said == "wrong: returned []"


def test_no_process_outside_can_be_seen_or_killed(executor: Executor) -> None:
    said = escape(
        executor,
        """
        import os, signal
        def f():
            found = [pid for pid in range(2, 3000) if _exists(pid)]
            return os.getpid(), found, os.getppid()
        def _exists(pid):
            try: os.kill(pid, 0)
            except ProcessLookupError: return False
            except OSError: return True
            return True
        """,
    )
    assert said == "wrong: returned (1, [], 0)"


@pytest.mark.parametrize("call", [
    "libc.unshare(0x10000000)", "libc.unshare(0x20000)", "libc.ptrace(0, 0, 0, 0)",
    "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)", "libc.umount2(b'/tmp', 2)",
    "libc.setns(0, 0)", "libc.syscall(250, 0, 0)", "libc.syscall(425, 1, 0)",
    "libc.chroot(b'/tmp')",
    "libc.setuid(0)", "libc.shmget(1, 4096, 0o1666)", "libc.sethostname(b'x', 1)",
    "libc.prctl(24, 0, 0, 0, 0)",
])  # fmt: skip
def test_privileged_calls_are_refused(executor: Executor, call: str) -> None:
    program = f"import ctypes\nlibc = ctypes.CDLL(None)\ndef f(): return {call}"
    assert escape(executor, program) == "wrong: returned -1"


def test_setuid_programs_gain_nothing(executor: Executor) -> None:
    said = escape(
        executor,
        """
        import ctypes, subprocess
        def f():
            return ctypes.CDLL(None).prctl(39, 0, 0, 0, 0), subprocess.run(
                ["id", "-u"], capture_output=True, text=True).stdout.strip() == "0"
        """,
    )
    assert said == "wrong: returned (1, False)"


LEAVE = {
    "file": "open('/tmp/mark', 'w').write('x')",
    "shared memory": "open('/dev/shm/mark', 'w').write('x')",
    "mode": "import os; os.chmod('/tmp', 0o700)",
    "module": "import math; math.pi = 3",
    "environment": "import os; os.environ['MARK'] = 'x'",
    "working directory": "import os; os.chdir('/')",
    "daemon": """import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            time.sleep(0.01)
            try: open('/tmp/mark', 'w').write('x')
            except OSError: pass
    os._exit(0)""",
    "listener": """import socket
server = socket.create_server(('127.0.0.1', 45123)); server.setblocking(False)
name = socket.socket(socket.AF_UNIX); name.bind('\\0mark'); name.listen()""",
}
LOOK = """
import math, os, socket
def f():
    found = [path for path in ("/tmp/mark", "/dev/shm/mark") if os.path.exists(path)]
    found += [math.pi] if math.pi == 3 else []
    found += [name for name in ("MARK",) if name in os.environ]
    found += [os.getcwd()] if os.getcwd() != "/tmp" else []
    found += [oct(os.stat("/tmp").st_mode)] if os.stat("/tmp").st_mode & 0o7777 != 0o1777 else []
    for family, address in ((socket.AF_INET, ("127.0.0.1", 45123)), (socket.AF_UNIX, "\\0mark")):
        try: socket.socket(family).connect(address); found.append(address)
        except OSError: pass
    return found
"""


@pytest.mark.parametrize("kind", LEAVE)
def test_nothing_gets_from_one_run_to_the_next(executor: Executor, kind: str) -> None:
    right = f"{LEAVE[kind]}\ndef f(n): return {SECRET!r} if n == 3 else 'x' + {SECRET!r}"
    assert run(executor, right, CASES).num_passed == 2, "the first run must do its work"
    assert escape(executor, LOOK) == "wrong: returned []"


def test_the_last_runs_program_and_tests_are_nowhere_in_memory(executor: Executor) -> None:
    run(executor, f"def f(n): return 'left{SECRET}behind'", CASES)
    look = """
        import ctypes, gc, re
        def f():
            pattern = re.compile(rb"k7[-]Qz[/]1931")  # does not match itself
            objects = [o for value in gc.get_objects() for o in (value, *gc.get_referents(value))]
            pages = {id(value) >> 12 for value in objects}
            return sum(len(pattern.findall(ctypes.string_at(page << 12, 4096))) for page in pages)
        """
    assert escape(executor, look) == "wrong: returned 0"
    assert escape(executor, f"{look}\n        mine = {SECRET!r}") != "wrong: returned 0", "it looks"


BOMBS = {
    "fork": """
        import os
        def f(n):
            while True:
                try: os.fork()
                except OSError: pass""",
    "thread": """
        import threading, time
        def f(n):
            while True: threading.Thread(target=time.sleep, args=(60,)).start()""",
    "memory": "def f(n):\n    kept = []\n    while True: kept.append(bytearray(1 << 24))",
    "memory of many": """
        import os, time
        def f(n):
            for _ in range(12):
                if os.fork() == 0:
                    kept = bytearray(b"x" * (60 << 20)); time.sleep(60)
            time.sleep(60)""",
    "shared memory": """
        import mmap, time
        def f(n):
            kept = []
            while True:
                kept.append(mmap.mmap(-1, 1 << 24)); kept[-1].write(b"x" * (1 << 24))""",
    "disk": """
        def f(n):
            with open("/tmp/x", "wb") as file:
                while True: file.write(bytes(1 << 20))""",
    "many files": """
        def f(n):
            for i in range(10 ** 9):
                open(f"/tmp/{i}", "w").close()""",
    "output": "def f(n):\n    while True: print('x' * 10000)",
    "recursion": """
        import sys
        sys.setrecursionlimit(10 ** 9)
        def f(n): return [f(n)] and sorted([1], key=f)""",
    "sleep": "import time\ndef f(n): time.sleep(1000)",
    "loop": "def f(n):\n    while True: pass",
    "regex": "import re\ndef f(n): return re.match(r'(a+)+$', 'a' * 60 + 'b')",
    "huge int": "def f(n): return 7 ** 10 ** 9",
    "descriptors": """
        import os
        def f(n):
            kept = []
            while True: kept.append(os.open("/", 0))""",
    "ignored signals": """
        import signal, time
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        def f(n):
            while True: time.sleep(1)""",
    "daemon": """
        import os, time
        def f(n):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0: time.sleep(1000)
                os._exit(0)
            time.sleep(1000)""",
    "load": "while True: pass",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_costs_its_time_and_nothing_else(executor: Executor, bomb: str) -> None:
    limits = SHORT.model_copy(update={"seconds": 0.7, "run_seconds": 3.0})
    target = {"kind": "function", "entry": "f", "cases": [{"args": [3], "expected": SECRET}]}
    started = time.monotonic()
    result = run(executor, BOMBS[bomb], target, limits)
    assert result.num_passed == 0, result
    assert time.monotonic() - started < 6.0
    again = run(executor, f"def f(n): return {SECRET!r}", target)
    assert again.num_passed == 1, again


def test_a_bomb_in_one_test_leaves_the_others_their_share(executor: Executor) -> None:
    program = """
        import os, time
        def f(n):
            if n == 1: time.sleep(100)
            if n == 2: os._exit(0)
            if n == 3: return bytearray(1 << 30)
            return n
        """
    cases = [{"args": [n], "expected": n} for n in range(6)]
    limits = SHORT.model_copy(update={"seconds": 0.7})
    result = run(executor, program, {"kind": "function", "entry": "f", "cases": cases}, limits)
    assert [test.passed for test in result.tests] == [True, False, False, False, True, True]
    assert "time limit" in result.tests[1].reason
    assert "ended" in result.tests[2].reason


def test_a_script_bomb_is_killed_in_time(executor: Executor) -> None:
    limits = SHORT.model_copy(update={"seconds": 0.7})
    for program, why in (
        ("while True: pass", "time limit"),
        ("while True: print('x' * 9999)", "printed more"),
        ("import os\nif os.fork() == 0:\n    while True: pass\n", "printed ''"),
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=(9,)).start()",
            "time limit",
        ),
    ):
        started = time.monotonic()
        result = run(executor, program, PRINTS, limits)
        assert why in result.tests[0].reason
        assert time.monotonic() - started < 3.0


def test_bombs_in_several_workers_do_not_disturb_an_honest_run() -> None:
    bomb = Job("def f(n):\n    while True: pass", read_target(CASES), SHORT.model_copy(
        update={"seconds": 0.5}))  # fmt: skip
    right = Job(f"def f(n): return {SECRET!r} if n == 3 else 'x' + {SECRET!r}", read_target(CASES))
    with Executor(num_workers=2) as executor:
        results = executor.run_batch([bomb, right, bomb, right])
    assert [isinstance(r, RunResult) and r.num_passed for r in results] == [0, 2, 0, 2]
    assert threading.active_count() < 50
