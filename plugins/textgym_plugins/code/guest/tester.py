"""The tester's process: runs the tests, and alone knows what they expect.

It is forked from the same clean process as the program and confined in the same way, in a PID
namespace of its own, so the program can neither see nor reach it. What the tests call goes through
`Session` to the program; what comes back is compared here.
"""

from __future__ import annotations

import _socket
import contextlib
import functools
import importlib
import os
import random
import sys
import time
import traceback
import types
from collections.abc import Callable
from typing import Any, NoReturn

from textgym_plugins.code.guest import asserts
from textgym_plugins.code.guest.asserts import Plan
from textgym_plugins.code.guest.compare import matches
from textgym_plugins.code.guest.remote import Remote, plain
from textgym_plugins.code.guest.session import GONE, EarlyCall, Session
from textgym_plugins.code.guest.wire import Channel, PeerGoneError

_MAX_REASON = 400
_REPORT_SECONDS = 0.2
_MOST_EARLY = 100


class StopTestsError(BaseException):
    """The rest of the tests need not run."""


class Recorder:
    """Keeps and reports which tests passed."""

    def __init__(
        self,
        supervisor: Channel,
        session: Session,
        texts: list[str],
        is_repeated: list[bool],
        *,
        stops: bool,
    ) -> None:
        self.texts = texts
        self.outcomes: list[str | None] = [None] * len(texts)
        """Per test: None if it did not run, an empty string if it passed, else what went wrong."""
        self._supervisor = supervisor
        self._session = session
        self._stops = stops
        self._is_stopped = False
        self._reported = time.monotonic()
        self._is_repeated = is_repeated

    def ask(self, *rows: tuple[int, Callable[[], Any], tuple[Any, ...], dict[str, Any]]) -> None:
        """Send the calls of coming tests ahead, as far as they are calls of program functions."""
        if self._is_stopped:
            return
        self._session.start()
        calls: list[EarlyCall] = []
        for index, named, args, kwargs in rows[:_MOST_EARLY]:
            try:
                function = named()
            except NameError:
                continue  # the test itself will say so
            if type(function) is Remote and function.is_function:
                calls.append((index, function, args, kwargs))
        if calls and self._session.load_error is None:
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
        self._supervisor.send(["outcomes", self.settled(None), self.texts])

    def settled(self, end: str | None) -> list[str | None]:
        """Return the outcomes where the code does not come to its end.

        A test in a loop has then not passed: how often it should have run is not known.
        """
        return [
            end if outcome is None or (is_repeated and not outcome) else outcome
            for outcome, is_repeated in zip(self.outcomes, self._is_repeated, strict=True)
        ]


Results = tuple[Recorder, list[str | None]]


def explain(error: BaseException) -> str:
    """Return what a failed test says."""
    if isinstance(error, PeerGoneError):
        return f"the program {GONE.get(str(error), error)}"
    try:
        text = str(error)
    except Exception:  # it may hold anything: an object of the program, a number of 5000 digits
        text = ""
    except PeerGoneError as gone:
        return explain(gone)
    kind = "wrong" if isinstance(error, AssertionError) else type(error).__name__
    return f"{kind}: {text}" if text else kind


def run_tester(connection: _socket.socket) -> NoReturn:
    """Read tests from the supervisor, run them, and report, until there are no more."""
    try:
        supervisor = Channel(connection, reads_ahead=False)
        session = None
        while True:
            payload = supervisor.receive()
            if session is not None:
                session.close()  # only now: a program that noticed would have to run to its end
            session = Session(supervisor, payload)
            supervisor.send(_outcome_of(supervisor, session, payload))
    except PeerGoneError:
        pass  # the supervisor has closed the channel
    finally:
        os._exit(0)


def _outcome_of(supervisor: Channel, session: Session, payload: dict[str, Any]) -> list[Any]:
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


def _run_cases(supervisor: Channel, session: Session, payload: dict[str, Any]) -> Results:
    cases, entry = payload["cases"], payload["entry"]
    texts = [_shown_case(entry, case) for case in cases]
    once = [False] * len(texts)
    recorder = Recorder(supervisor, session, texts, once, stops=payload["stops"])
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
    session.classes = frozenset({name} if method else ())
    function: Any = Remote(session, ["n", name])
    if method:
        function = getattr(function(), method)
    value = recorder.answer(index, function, *case["args"], **case["kwargs"])
    if isinstance(value, Remote):
        value = plain(value) if value.is_based else list(value)
    if not matches(value, case["expected"], tolerance=tolerance):
        raise AssertionError(f"returned {_short(value)}")


def _run_asserts(supervisor: Channel, session: Session, payload: dict[str, Any]) -> Results:
    plan = asserts.make_plan(payload["code"], frozenset(payload["names"]), payload["entry"])
    if not plan.is_pure:
        supervisor.send(["impure"])  # before it runs: afterwards this process may say anything
    session.names, session.classes = plan.names, plan.classes
    session.start()
    recorder = Recorder(supervisor, session, plan.texts, plan.is_repeated, stops=payload["stops"])
    if session.load_error is not None:
        return recorder, [session.load_error] * max(1, len(plan.texts))
    namespace: dict[str, Any] = {"__name__": "tests", asserts.RECORDER: recorder}
    try:
        _bind(namespace, session, plan)
    except PeerGoneError as error:
        return recorder, [explain(error)] * max(1, len(plan.texts))
    end = _execute(plan, namespace, payload["entry"])
    if not plan.texts:
        return recorder, _suite_outcomes(namespace, session) or ([end] if end else [])
    if end is not None:
        return recorder, recorder.settled(end)
    return recorder, _with_unreached(recorder.outcomes, plan, is_asked=session.is_asked)


def _suite_outcomes(namespace: dict[str, Any], session: Session) -> list[str | None]:
    if "unittest" not in sys.modules:
        return []
    from textgym_plugins.code.guest.suites import run_suites  # few tests are written with it

    return run_suites(namespace, session)


def _bind(namespace: dict[str, Any], session: Session, plan: Plan) -> None:
    """Give the tests the names they read: from the program, or modules of our own."""
    for name, kind in zip(plan.names, session.kinds, strict=True):
        if name in plan.modules or (kind == ["module"] and name in sys.stdlib_module_names):
            namespace[name] = importlib.import_module(name)
        elif kind is not None and kind[0] == "exception":
            namespace[name] = session.define_exception(name, kind[1:])
        elif kind is not None and kind[0] == "value":
            with contextlib.suppress(Exception, SystemExit):  # it then has no such name
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
            check(_named(entry, namespace))
        for name in plan.functions:
            namespace[name]()
    except StopTestsError:
        return "not run"
    except BaseException as error:
        return explain(error)
    return None


def _named(entry: str, namespace: dict[str, Any]) -> Any:
    name, *path = entry.split(".")
    if name not in namespace:
        raise NameError(f"name '{name}' is not defined")
    return functools.reduce(getattr, path, namespace[name])


def _with_unreached(outcomes: list[str | None], plan: Plan, *, is_asked: bool) -> list[str | None]:
    """Fail what should have run and did not.

    A test in a branch need not have run; but if none has, it was the program's answers that led
    past all of them.
    """
    is_empty = is_asked and all(outcome is None for outcome in outcomes)
    return [
        "was never reached" if outcome is None and (is_certain or is_empty) else outcome
        for outcome, is_certain in zip(outcomes, plan.is_certain, strict=True)
    ]


def _shown_case(entry: str, case: dict[str, Any]) -> str:
    return f"{entry}({', '.join(_short(argument) for argument in case['args'])})"


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception:
        return f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:80]}..."
