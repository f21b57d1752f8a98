"""The tester's side of the conversation with a program: names, calls, exceptions, restarts."""

from __future__ import annotations

import _socket
import builtins
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from textgym_plugins.code.guest.peer import Peer, asked
from textgym_plugins.code.guest.remote import Remote
from textgym_plugins.code.guest.wire import (
    ATOMS,
    Channel,
    Decoder,
    Encoder,
    PeerGoneError,
    WireError,
    give_form,
)

EarlyCall = tuple[int, Remote, Sequence[Any], dict[str, Any]]
"""The key of a call, the function, and what it is called with."""
_MOST_EARLY = 20_000
"""Bytes sent ahead. They must fit into the buffer of a socket, or both ends could wait to write."""
_SHARED_MODULES = ("builtins", "math", "operator")
GONE = {"timeout": "passed its time limit", "ended": "ended"}
"""What is said of a program that no longer answers."""


class Session:
    """The tester's side of the conversation with one program, or with several one after another."""

    def __init__(self, supervisor: Channel, payload: dict[str, Any]) -> None:
        self.gone: str | None = None
        """Why the program no longer answers: `ended`, `timeout` or what it sent."""
        self.load_error: str | None = None
        self.classes: frozenset[str] = frozenset()
        """The global names that the tests use as classes."""
        self.names: Sequence[str] = ()
        """What the program may define; it is asked for when the program is loaded."""
        self.kinds: Sequence[list[str] | None] = ()
        """What it defines under each of the names."""
        self.is_asked = False
        """Whether the program was asked to do anything."""
        self._supervisor = supervisor
        self._seconds: float = payload["seconds"]
        self._source: str = payload["source"]
        self._callbacks: list[Callable[..., Any]] = []
        self._exceptions: dict[str, type[Exception]] = {}
        self._peer: Peer | None = None
        self._num_early = 0
        self._sent: dict[int, int] = {}
        self._waiting: deque[tuple[int, Encoder]] = deque()
        self._early: dict[int, tuple[list[Any], Encoder]] = {}

    def start(self) -> None:
        """Load the program into a fresh process, unless one is waiting."""
        if self._peer is not None and self.gone is None:
            return
        if self._peer is not None:
            self._peer.channel.close()
            self._supervisor.send(["restart"])
        connection = _socket.socket(fileno=self._supervisor.receive_descriptor())
        os.chdir(os.environ["TMPDIR"])  # the files of this program: tests may write what it reads
        self._peer = Peer(Channel(connection), self._serve)
        self.gone = None
        for each in (self._sent, self._waiting, self._early):
            each.clear()
        self.restart_clock()
        try:
            reply = self._ask("load", self._source, self.names)
        except PeerGoneError as error:
            self.load_error = f"the program {GONE.get(str(error), error)} while it was loaded"
            return
        self.load_error = self._take_kinds(reply)

    def _take_kinds(self, reply: list[Any]) -> str | None:
        """Take what the program defines; return what is wrong with it."""
        if reply[0] != "=":
            return f"the program raised {self._describe(reply)}"
        kinds = reply[1]
        if type(kinds) is not list or len(kinds) != len(self.names):
            return f"the program {self._give_up('sent nonsense')}"
        for kind in kinds:
            if kind is not None and (type(kind) is not list or {type(k) for k in kind} != {str}):
                return f"the program {self._give_up('sent nonsense')}"
        self.kinds = kinds
        return None

    def close(self) -> None:
        """Hang up on the program."""
        if self._peer is not None:
            self._peer.channel.close()

    def restart_clock(self) -> None:
        """Give the program its time for the next test."""
        if self._peer is not None:
            self._peer.channel.set_deadline(self._seconds)

    def apply(self, operation: str, *args: object, **kwargs: object) -> Any:
        """Have the program do an operation; its arguments are changed here as they are there."""
        self.is_asked = True
        encoder = Encoder(self._handle)
        return self._result(self._ask(*_applied(operation, encoder, args, kwargs)), encoder)

    def call_early(self, calls: Iterable[EarlyCall]) -> None:
        """Send calls of functions ahead, as many as may be; `early_result` has what they return."""
        frames = b""
        for key, function, args, kwargs in calls:
            encoder = Encoder(self._handle)
            question = asked(*_applied("call", encoder, (function, *args), kwargs))
            if len(frames) + len(question) > _MOST_EARLY:
                break
            frames += question
            self._num_early += 1
            self._sent[key] = self._num_early
            self._waiting.append((self._num_early, encoder))
            self.is_asked = True
        try:
            assert self._peer is not None
            self._peer.channel.send_frames(frames)
        except PeerGoneError as error:
            self.gone = str(error)

    def has_early(self, key: int) -> bool:
        """Whether a call of this key was sent ahead to the program that is there."""
        return key in self._sent and self.gone is None

    def early_result(self, key: int) -> Any:
        """Return or raise what came of a call that was sent ahead."""
        number = self._sent.pop(key)
        while number not in self._early:
            self._take_early()
        return self._result(*self._early.pop(number))

    def _take_early(self) -> None:
        number, encoder = self._waiting.popleft()
        self._early[number] = self._guarded(Peer.reply), encoder

    def _result(self, reply: list[Any], encoder: Encoder) -> Any:
        try:
            result = self._exception(reply) if reply[0] == "!" else self._value(reply, encoder)
        except Exception as error:
            raise self._give_up(f"sent nonsense ({type(error).__name__}: {error})") from None
        if reply[0] == "!":
            raise result
        return result

    def _value(self, reply: list[Any], encoder: Encoder) -> Any:
        """Return the value of a reply, and change the arguments as the program did."""
        _, form, contents = reply
        if type(form) in ATOMS and contents is None:
            return form
        decoder = Decoder(self._object, encoder.mutables)
        value = decoder.decode(form)
        for mutable, content in zip(encoder.mutables, contents or (), strict=False):
            decoder.fill(mutable, content)
        return value

    def define_exception(self, name: str, bases: list[str]) -> type[Exception]:
        """Return a class of our own for an exception class of the program."""
        builtin = (b for b in map(_builtin_exception, bases) if b is not None)
        base = next((b for b in builtin if issubclass(b, Exception)), Exception)
        self._exceptions[name] = type(name, (base,), {})
        return self._exceptions[name]

    def _ask(self, *question: object) -> list[Any]:
        while self._waiting:
            self._take_early()
        return self._guarded(lambda peer: peer.ask(*question))

    def _guarded(self, talk: Callable[[Peer], list[Any]]) -> list[Any]:
        assert self._peer is not None
        if self.gone is not None:
            raise PeerGoneError(self.gone)
        try:
            return talk(self._peer)
        except PeerGoneError as error:
            self.gone = str(error)
            raise
        except WireError as error:
            raise self._give_up(str(error)) from None
        except Exception as error:  # a message may be anything, of up to MAX_FRAME bytes
            raise self._give_up(f"sent nonsense ({type(error).__name__})") from None

    def _give_up(self, why: str) -> PeerGoneError:
        self.gone = why
        return PeerGoneError(why)

    def _serve(self, question: list[Any]) -> list[Any]:
        """Call a function of the tests for the program."""
        try:
            _, number, form = question
            args, kwargs = Decoder(self._object).decode(form)
            value = self._callbacks[number](*args, **kwargs)
            return ["=", Encoder(self._handle).encode(value), None]
        except Exception as error:
            return ["!", type(error).__name__, [], str(error)]

    def _handle(self, value: object) -> list[Any]:
        name = value.__name__ if isinstance(value, type) else ""
        if name and self._exceptions.get(name) is value:
            return ["n", name]
        shared = _shared_name(value)
        if shared is not None:
            return ["g", *shared]
        if isinstance(value, type) or not callable(value):
            raise TypeError(f"a {type(value).__name__} of the tests cannot be given to the program")
        self._callbacks.append(value)
        return ["k", len(self._callbacks) - 1, getattr(value, "__name__", "callback")]

    def _object(self, form: list[Any]) -> object:
        match form:
            case ["h", int() as number, str() as kind, bool() as is_callable, bool() as is_based]:
                remote = Remote(self, ["h", number, kind, is_callable, is_based])
                return _awaited(remote) if kind == "coroutine" else remote
            case ["k", int() as number, _] if number >= 0:
                return self._callbacks[number]
            case ["g", "builtins", str() as name] if isinstance(getattr(builtins, name), type):
                return getattr(builtins, name)
        raise WireError(f"unknown value {form[:1]}")

    def _exception(self, reply: list[Any]) -> BaseException:
        _, name, names, message, form, state = reply
        kinds = (self._exceptions.get(n) or _builtin_exception(n) for n in [name, *names])
        kind = next((k for k in kinds if k is not None), None)
        if kind is None:  # another end of the program's than tests can expect
            return RuntimeError(f"the program raised {name}")
        decoder = Decoder(self._object)
        try:
            error = kind(*decoder.decode(form)) if form else kind(message)
        except Exception:  # its constructor may want anything
            return Exception(f"{name}: {message}")
        if kind in self._exceptions.values() and state is not None:
            vars(error).update(decoder.decode(state))
        return error

    def _describe(self, reply: list[Any]) -> str:
        return ": ".join(part for part in (reply[1:2] + reply[3:4]) if isinstance(part, str))


give_form(Remote, lambda remote: remote._form)


def _applied(
    operation: str, encoder: Encoder, args: tuple[object, ...], kwargs: dict[str, Any]
) -> tuple[object, ...]:
    """Return the question that has the program do an operation."""
    return "apply", operation, encoder.items(args), encoder.encode(kwargs) if kwargs else None


async def _awaited(remote: Remote) -> Any:
    """Stand for a coroutine of the program, which runs to its end when it is awaited."""
    return remote._do("await")


def _builtin_exception(name: str) -> type[BaseException] | None:
    kind = getattr(builtins, name, None)
    is_exception = isinstance(kind, type) and issubclass(kind, Exception | SystemExit)
    return kind if is_exception else None


def _shared_name(value: object) -> tuple[str, str] | None:
    """Return module and path of a function that the program has as well, such as `str.upper`."""
    name = getattr(value, "__qualname__", None)
    owner = getattr(value, "__objclass__", None)
    module = getattr(owner, "__module__", None) or getattr(value, "__module__", None)
    if module is None and isinstance(name, str):
        module = "builtins"
    if module == "_operator":
        module = "operator"
    if module not in _SHARED_MODULES or not isinstance(name, str):
        return None
    target: object = sys.modules[module]
    for part in name.split("."):
        target = getattr(target, part, None)
    return (module, name) if target is value else None
