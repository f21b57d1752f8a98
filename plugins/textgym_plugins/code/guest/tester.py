"""The tester's process: runs the tests, and alone knows what they expect.

It is forked from the same clean process as the program and confined in the same way, in a PID
namespace of its own, so the program can neither see nor reach it. What the tests call goes through
`Session` to the program; what comes back is compared here.
"""

from __future__ import annotations

import importlib
import os
import random
import socket
import sys
import time
import traceback
import types
from collections.abc import Callable
from typing import Any, NoReturn

from textgym_plugins.code.guest import asserts
from textgym_plugins.code.guest.asserts import Plan
from textgym_plugins.code.guest.compare import matches
from textgym_plugins.code.guest.remote import Remote
from textgym_plugins.code.guest.session import GONE, EarlyCall, Session
from textgym_plugins.code.guest.wire import Channel, PeerGoneError

_MAX_REASON = 400
_REPORT_SECONDS = 0.2
_MOST_EARLY, _MOST_EARLY_TEXT = 100, 20_000
"""What is sent ahead must fit into the buffer of a socket, or both ends could wait to write."""


class StopTestsError(BaseException):
    """The rest of the tests need not run."""


class Recorder:
    """Keeps and reports which tests passed."""

    def __init__(
        self, supervisor: Channel, session: Session, texts: list[str], *, stops: bool
    ) -> None:
        self.texts = texts
        self.outcomes: list[str | None] = [None] * len(texts)
        """Per test: None if it did not run, an empty string if it passed, else what went wrong."""
        self._supervisor = supervisor
        self._session = session
        self._stops = stops
        self._is_stopped = False
        self._reported = time.monotonic()

    def ask(self, *rows: tuple[int, Callable[[], Any], tuple[Any, ...], dict[str, Any]]) -> None:
        """Send the calls of coming tests ahead, as far as they are calls of program functions."""
        if self._is_stopped:
            return
        self._session.start()
        calls: list[EarlyCall] = []
        size = 0
        for index, named, args, kwargs in rows[:_MOST_EARLY]:
            size += len(repr((args, kwargs)))
            if size > _MOST_EARLY_TEXT:
                break
            try:
                function = named()
            except NameError:
                continue  # the test itself will say so
            if type(function) is Remote and function.is_function:
                calls.append((index, function, args, kwargs))
        if self._session.load_error is None:
            self._session.call_early(calls)

    def answer(self, index: int, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the value of a call, from what was sent ahead if it was."""
        if self._session.has_early(index):
            return self._session.early_result(index)
        return function(*args, **kwargs)

    def begin(self, index: int) -> None:
        """Start the clock of a test."""
        if self._is_stopped:
            raise StopTestsError
        self._session.start()
        self._session.restart_clock()
        if self._session.load_error is not None:
            raise RuntimeError(self._session.load_error)

    def succeed(self, index: int) -> None:
        """Record that a test held; not if the program was lost on the way, whoever hid that."""
        if self._session.gone is not None:
            self.fail(index, PeerGoneError(self._session.gone))
        elif self.outcomes[index] is None:
            self.outcomes[index] = ""
        if time.monotonic() - self._reported > _REPORT_SECONDS:
            self._report()
        self._session.restart_clock()

    def fail(self, index: int, error: BaseException) -> None:
        """Record that a test failed."""
        if isinstance(error, StopTestsError):
            raise error
        if not self.outcomes[index]:
            self.outcomes[index] = explain(error)[:_MAX_REASON]
            self._report()
        if self._stops:
            self._is_stopped = True
            raise StopTestsError
        self._session.restart_clock()

    def _report(self) -> None:
        """Tell the supervisor what is known, in case the rest takes too long."""
        self._reported = time.monotonic()
        self._supervisor.send(["outcomes", self.outcomes, self.texts])


Results = tuple[Recorder, list[str | None]]


def explain(error: BaseException) -> str:
    """Return what a failed test says."""
    if isinstance(error, PeerGoneError):
        return f"the program {GONE.get(str(error), error)}"
    if isinstance(error, AssertionError):
        return f"wrong{f': {error}' if str(error) else ''}"
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def run_tester(connection: socket.socket) -> NoReturn:
    """Read tests from the supervisor, run them, and report, until there are no more."""
    try:
        supervisor = Channel(connection, reads_ahead=False)
        while True:
            payload = supervisor.receive()
            supervisor.send(_outcome_of(supervisor, payload))
    except PeerGoneError:
        pass  # the supervisor has closed the channel
    finally:
        os._exit(0)


def _outcome_of(supervisor: Channel, payload: dict[str, Any]) -> list[Any]:
    session = Session(supervisor, payload)
    try:
        random.seed(payload["seed"])  # the program was forked with the same generator
        run = _run_asserts if payload["kind"] == "assert" else _run_cases
        recorder, outcomes = run(supervisor, session, payload)
        return ["done", outcomes, recorder.texts]
    except SyntaxError as error:
        return ["unusable", f"the test code does not compile: {error}"]
    except PeerGoneError as error:
        return ["lost", explain(error)]
    except BaseException:
        return ["broken", traceback.format_exc(limit=-3)]
    finally:
        session.close()


def _run_cases(supervisor: Channel, session: Session, payload: dict[str, Any]) -> Results:
    cases, entry = payload["cases"], payload["entry"]
    texts = [_shown_case(entry, case) for case in cases]
    recorder = Recorder(supervisor, session, texts, stops=payload["stops"])
    function = Remote(session, ["n", entry]) if "." not in entry else None
    rows = [(i, lambda: function, case["args"], case["kwargs"]) for i, case in enumerate(cases)]
    try:
        recorder.ask(*rows)
        for index, case in enumerate(cases):
            try:
                recorder.begin(index)
                _run_case(recorder, session, entry, index, case, payload["tolerance"])
            except BaseException as error:
                recorder.fail(index, error)
            else:
                recorder.succeed(index)
    except StopTestsError:
        pass
    return recorder, recorder.outcomes


def _run_case(
    recorder: Recorder,
    session: Session,
    entry: str,
    index: int,
    case: dict[str, Any],
    tolerance: float,
) -> None:
    name, _, method = entry.partition(".")
    function: Any = Remote(session, ["n", name])
    if method:
        function = getattr(function(), method)
    value = recorder.answer(index, function, *case["args"], **case["kwargs"])
    if isinstance(value, Remote) and hasattr(value, "__next__"):
        value = list(value)
    if not matches(value, case["expected"], tolerance=tolerance):
        raise AssertionError(f"returned {_short(value)}")


def _run_asserts(supervisor: Channel, session: Session, payload: dict[str, Any]) -> Results:
    plan = asserts.make_plan(payload["code"], frozenset(payload["names"]), payload["entry"])
    if not plan.is_pure:
        supervisor.send(["impure"])  # before it runs: afterwards this process may say anything
    session.start()
    recorder = Recorder(supervisor, session, plan.texts, stops=payload["stops"])
    if session.load_error is not None:
        return recorder, [session.load_error] * max(1, len(plan.texts))
    namespace: dict[str, Any] = {"__name__": "tests", asserts.RECORDER: recorder}
    try:
        _bind(namespace, session, plan)
    except PeerGoneError as error:
        return recorder, [explain(error)] * max(1, len(plan.texts))
    end = _execute(plan, namespace, payload["entry"])
    if not plan.texts:
        return recorder, _unittest_outcomes(namespace) or ([end] if end else [])
    return recorder, [
        end if outcome is None and end is not None else outcome
        for outcome in _without_unreached(recorder.outcomes, plan, is_complete=end is None)
    ]


def _bind(namespace: dict[str, Any], session: Session, plan: Plan) -> None:
    """Give the tests the names they read: from the program, or modules of our own."""
    for name, kind in zip(plan.names, session.kinds_of(plan.names), strict=True):
        if name in plan.modules or (kind == ["module"] and name in sys.stdlib_module_names):
            namespace[name] = importlib.import_module(name)
        elif kind is not None and kind[0] == "exception":
            namespace[name] = session.define_exception(name, kind[1:])
        elif kind is not None and kind[0] == "value":
            namespace[name] = session.apply("getattr", _module(session), name)
        elif kind is not None:
            namespace[name] = Remote(session, ["n", name])


def _module(session: Session) -> Remote:
    return Remote(session, ["n", "__module__"])


def _execute(plan: Plan, namespace: dict[str, Any], entry: str | None) -> str | None:
    """Run the test code; return None if it came to its end, else why not."""
    try:
        exec(plan.code, namespace)
        check = namespace.get("check")
        if entry and isinstance(check, types.FunctionType) and not plan.calls_check:
            check(eval(entry, namespace))
        for name in plan.functions:
            namespace[name]()
    except StopTestsError:
        return "not run"
    except BaseException as error:
        return explain(error)
    return None


def _without_unreached(
    outcomes: list[str | None], plan: Plan, *, is_complete: bool
) -> list[str | None]:
    """Fail what should have run and did not."""
    return [
        "was never reached" if is_complete and outcome is None and is_certain else outcome
        for outcome, is_certain in zip(outcomes, plan.is_certain, strict=True)
    ]


def _unittest_outcomes(namespace: dict[str, Any]) -> list[str | None]:
    """Run the test classes; one outcome per test method."""
    import unittest  # few tests are written with it

    outcomes: list[str | None] = []
    for value in list(namespace.values()):
        if isinstance(value, type) and issubclass(value, unittest.TestCase):
            for case in unittest.defaultTestLoader.loadTestsFromTestCase(value):
                result = unittest.TestResult()
                case.run(result)
                problems = [*result.errors, *result.failures]
                outcomes.append(problems[0][1].strip()[-_MAX_REASON:] if problems else "")
    return outcomes


def _shown_case(entry: str, case: dict[str, Any]) -> str:
    return f"{entry}({', '.join(_short(argument) for argument in case['args'])})"


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception:
        return f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:80]}..."
