"""Values and calls between the tester and the program, which trust each other with nothing.

Values travel as JSON whose lists are tagged (`["t", 1, 2]` is the tuple `(1, 2)`), so a decoder
builds exact built-in types and nothing else: no pickle, no class of the sender. Mutable containers
are numbered in the order they are met, which keeps aliases and cycles and lets the answer to a call
say how the arguments were changed. What has no such form stays where it is and travels as a handle
(`["h", 3]`), see `remote`.

Both ends of a `Peer` may ask while they are being asked: a program may call a function of the test.
"""

from __future__ import annotations

import _socket
import collections
import functools
import importlib
import itertools
import json
import os
import struct
import sys
import time
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any

MAX_FRAME = 64 << 20
_CHUNK = 1 << 16
_SLACK = 0.5
_MAX_FIELDS = 250
_HEADER = struct.Struct("!I")
_DESCRIPTOR = struct.Struct("@i")
# What `json.dumps` and `json.loads` come down to, without what they do around it: a run is a few
# dozen messages, and each function that a fresh process runs costs it pages of memory.
_text_parts = json.encoder.c_make_encoder(  # type: ignore[attr-defined]  # not in typeshed
    None, None, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, True
)
_read_text = json.JSONDecoder().raw_decode
ATOMS = frozenset({type(None), bool, float, str})
"""What is its own form; so are ints of few digits."""
_INTS = {int}
_INT_BOUND = 1 << 62
_VALUES: dict[tuple[str, str], Callable[[Any], list[Any]]] = {
    ("decimal", "Decimal"): lambda value: [str(value)],
    ("fractions", "Fraction"): lambda value: [hex(value.numerator), hex(value.denominator)],
    ("datetime", "timedelta"): lambda value: [value.days, value.seconds, value.microseconds],
    ("datetime", "date"): lambda value: [value.isoformat()],
    ("datetime", "time"): lambda value: [value.isoformat()],
    ("datetime", "datetime"): lambda value: [value.isoformat()],
}
"""Immutable values of modules that are not loaded before somebody has such a value."""
_FACTORIES: dict[str, Callable[[], Any]] = {
    kind.__name__: kind for kind in (int, float, str, list, dict, set, tuple, bool)
}


class WireError(Exception):
    """A message that no honest peer sends."""


class PeerGoneError(BaseException):
    """The other end closed, or did not answer in time; no `except Exception` may swallow it."""


class Encoder:
    """Turns one message's values into tagged JSON.

    Args:
        handle: gives the tagged form of an object that has none here.
        known: mutable containers that the other end holds already, by number.
    """

    def __init__(self, handle: Callable[[object], list[Any]], known: Sequence[object] = ()) -> None:
        self._handle = handle
        self.mutables: list[object] = list(known)
        self._numbers = {id(value): number for number, value in enumerate(known)}

    def encode(self, value: Any) -> Any:
        """Return the tagged form of a value."""
        kind = type(value)
        if kind in ATOMS:
            return value
        if kind is int:
            return value if -_INT_BOUND < value < _INT_BOUND else ["i", hex(value)]
        encode = _ENCODERS.get(kind)
        if encode is not None:
            return encode(self, value)
        name = (kind.__module__, kind.__name__)
        if name in _VALUES and getattr(sys.modules[name[0]], name[1], None) is kind:
            return ["v", *name, *_VALUES[name](value)]
        if not is_based(kind) or _has_methods(kind):
            return self._handle(value)
        fields = getattr(kind, "_fields", None)
        if isinstance(value, tuple) and type(fields) is tuple and len(fields) == len(value):
            return ["N", kind.__name__, list(fields), *self.items(tuple.__iter__(value))]
        return self.encode(exact(value))

    def content(self, value: Any) -> Any:
        """Return what a mutable container holds, without its number."""
        if isinstance(value, dict):
            return self._pairs(value)
        return value.hex() if isinstance(value, bytearray) else self.items(value)

    def items(self, values: Iterable[Any]) -> list[Any]:
        """Return the tagged forms of values."""
        values = list(values)
        kinds = set(map(type, values))
        if kinds <= ATOMS or (
            kinds == _INTS and -_INT_BOUND < min(values) <= max(values) < _INT_BOUND
        ):
            return values
        return [self.encode(value) for value in values]

    def _pairs(self, value: dict[Any, Any]) -> list[Any]:
        return self.items(part for pair in dict.items(value) for part in pair)

    def _mutable(self, tag: str, value: object) -> list[Any]:
        number = self._numbers.get(id(value))
        if number is not None:
            return ["&", number]
        self._numbers[id(value)] = len(self.mutables)
        self.mutables.append(value)
        if tag == "D":
            factory = getattr(getattr(value, "default_factory", None), "__name__", "")
            return [tag, factory if factory in _FACTORIES else "", self.content(value)]
        return [tag, self.content(value)]


_ENCODERS: dict[type, Callable[[Encoder, Any], list[Any]]] = {
    list: lambda coder, value: coder._mutable("l", value),
    dict: lambda coder, value: coder._mutable("d", value),
    set: lambda coder, value: coder._mutable("s", value),
    bytearray: lambda coder, value: coder._mutable("y", value),
    collections.deque: lambda coder, value: coder._mutable("q", value),
    collections.Counter: lambda coder, value: coder._mutable("C", value),
    collections.OrderedDict: lambda coder, value: coder._mutable("O", value),
    collections.defaultdict: lambda coder, value: coder._mutable("D", value),
    tuple: lambda coder, value: ["t", *coder.items(value)],
    frozenset: lambda coder, value: ["f", *coder.items(value)],
    bytes: lambda coder, value: ["b", value.hex()],
    complex: lambda coder, value: ["c", value.real, value.imag],
    range: lambda coder, value: ["r", value.start, value.stop, value.step],
    type(Ellipsis): lambda coder, value: ["."],
}
_BASES: dict[type, Callable[[Any], Any]] = {
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    tuple: lambda value: tuple(tuple.__iter__(value)),
    list: lambda value: list(list.__iter__(value)),
    dict: lambda value: dict(dict.items(value)),
    set: lambda value: set(set.__iter__(value)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
    bytes: lambda value: bytes(bytes.__iter__(value)),
}


_BASE_KINDS = tuple(_BASES)


def give_form(kind: type, form: Callable[[Any], list[Any]]) -> None:
    """Have the objects of a class encoded by a function, in this process."""
    _ENCODERS[kind] = lambda coder, value: form(value)


def is_based(kind: type) -> bool:
    """Whether a class extends a built-in one that has a form here."""
    return kind not in _ENCODERS and issubclass(kind, _BASE_KINDS)


def _has_methods(kind: type) -> bool:
    """Whether a class adds to its built-in base what no value of the base could answer for."""
    own = itertools.takewhile(lambda owner: owner not in _ENCODERS, kind.__mro__)
    return any(
        isinstance(member, types.FunctionType) and not name.startswith("_")
        for owner in own
        for name, member in vars(owner).items()
    )


def exact(value: object) -> object:
    """Return an instance of a subclass (a named tuple, an IntEnum) as its built-in base."""
    for base, convert in _BASES.items():
        if isinstance(value, base):
            return convert(value)
    raise TypeError(type(value).__name__)


class Decoder:
    """Builds the values of one message; `known` as in `Encoder`, `handle` its inverse."""

    def __init__(self, handle: Callable[[list[Any]], object], known: Iterable[object] = ()) -> None:
        self._handle = handle
        self.mutables: list[Any] = list(known)
        self.contents: list[Any] = []
        """What the mutable containers that were decoded held, in the same order."""

    def decode(self, form: Any) -> Any:
        """Return the value of a tagged form; raises WireError for anything else."""
        if type(form) is not list:
            if type(form) is dict:
                raise WireError("a bare object")
            return form
        try:
            decode = _DECODERS.get(form[0])
            return self._handle(form) if decode is None else decode(self, form)
        except WireError:
            raise
        except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise WireError(f"{type(error).__name__} in a value") from None

    def fill(self, value: Any, content: Any) -> None:
        """Make a mutable container hold what was sent for it."""
        if isinstance(value, bytearray):
            value[:] = bytes.fromhex(content)
            return
        items = self.items(content)
        if isinstance(value, list):
            value[:] = items
            return
        value.clear()
        if isinstance(value, dict):
            is_ordered = isinstance(value, collections.OrderedDict)
            update = collections.OrderedDict.update if is_ordered else dict.update
            update(value, zip(items[::2], items[1::2], strict=True))
        elif isinstance(value, set):
            value.update(items)
        else:
            value.extend(items)

    def items(self, forms: list[Any]) -> list[Any]:
        """Return the values of tagged forms."""
        if type(forms) is not list:
            raise WireError("items are no list")
        return [self.decode(f) if type(f) in (list, dict) else f for f in forms]

    def _mutable(self, form: list[Any], value: Any) -> Any:
        self.mutables.append(value)
        self.contents.append(form[-1])
        self.fill(value, form[-1])
        return value


@functools.lru_cache(maxsize=64)
def _named_tuple(name: str, fields: tuple[str, ...]) -> Callable[..., object]:
    """Return a class of named tuples; it checks that the names are names and nothing else."""
    if len(fields) > _MAX_FIELDS or any(type(field) is not str for field in (name, *fields)):
        raise WireError("a named tuple without names")
    return collections.namedtuple(name, fields)


_DECODERS: dict[str, Callable[[Decoder, list[Any]], Any]] = {
    "l": lambda coder, form: coder._mutable(form, []),
    "d": lambda coder, form: coder._mutable(form, {}),
    "s": lambda coder, form: coder._mutable(form, set()),
    "y": lambda coder, form: coder._mutable(form, bytearray()),
    "q": lambda coder, form: coder._mutable(form, collections.deque()),
    "C": lambda coder, form: coder._mutable(form, collections.Counter()),
    "O": lambda coder, form: coder._mutable(form, collections.OrderedDict()),
    "D": lambda coder, form: coder._mutable(form, collections.defaultdict(_FACTORIES.get(form[1]))),
    "&": lambda coder, form: coder.mutables[_natural(form[1])],
    "t": lambda coder, form: tuple(coder.items(form[1:])),
    "f": lambda coder, form: frozenset(coder.items(form[1:])),
    "N": lambda coder, form: _named_tuple(form[1], tuple(form[2]))(*coder.items(form[3:])),
    "i": lambda coder, form: int(form[1], 16),
    "b": lambda coder, form: bytes.fromhex(form[1]),
    "c": lambda coder, form: complex(float(form[1]), float(form[2])),
    "r": lambda coder, form: range(*form[1:]),
    ".": lambda coder, form: Ellipsis,
    "v": lambda coder, form: _value(form[1], form[2], form[3:]),
}


def _value(module: str, name: str, parts: list[Any]) -> Any:
    if (module, name) not in _VALUES:
        raise WireError(f"no value of type {name}")
    kind = getattr(importlib.import_module(module), name)
    if name == "Fraction":
        return kind(*(int(part, 16) for part in parts))
    return kind.fromisoformat(*parts) if hasattr(kind, "fromisoformat") else kind(*parts)


def _natural(value: object) -> int:
    if type(value) is not int or value < 0:
        raise WireError("a number was expected")
    return value


class Pipe:
    """A descriptor as a connection, for a process that has no use for timeouts."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def recv(self, size: int) -> bytes:
        """Read at most `size` bytes."""
        return os.read(self._descriptor, size)

    def sendall(self, data: bytes | bytearray) -> None:
        """Write all of the data."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]


class Channel:
    """Frames of JSON on a stream socket: four bytes of length, then the text.

    Args:
        connection: the socket.
        reads_ahead: take whatever has arrived. Not where descriptors are sent between the frames.
    """

    def __init__(self, connection: _socket.socket | Pipe, *, reads_ahead: bool = True) -> None:
        self._connection = connection
        self._reads_ahead = reads_ahead
        self._buffer = bytearray()
        self._deadline: float | None = None
        self._timeout_seconds = 0.0

    def set_deadline(self, seconds: float) -> None:
        """Give up, from now on, when `seconds` have passed; before this, wait for ever."""
        self._deadline = time.monotonic() + seconds
        if not 0 < self._timeout_seconds <= seconds:
            self._set_timeout(seconds)

    def close(self) -> None:
        """Close the connection."""
        if isinstance(self._connection, _socket.socket):
            self._connection.close()

    def receive_descriptor(self) -> int:
        """Return a descriptor that the other end hands over."""
        assert isinstance(self._connection, _socket.socket)
        _, ancillary, _, _ = self._connection.recvmsg(1, _socket.CMSG_SPACE(_DESCRIPTOR.size))
        if not ancillary:
            raise PeerGoneError("ended")
        (descriptor,) = _DESCRIPTOR.unpack(ancillary[0][2])
        return int(descriptor)

    def send(self, message: object) -> None:
        """Send one message."""
        self.send_frames(frame(message))

    def send_frames(self, frames: bytes) -> None:
        """Send messages that are framed already."""
        try:
            self._connection.sendall(frames)
        except OSError as error:
            raise PeerGoneError(_why(error)) from None

    def receive(self) -> Any:
        """Return the next message."""
        buffer = self._buffer
        while len(buffer) < _HEADER.size:
            self._read(_HEADER.size - len(buffer))
        (length,) = _HEADER.unpack_from(buffer)
        if length > MAX_FRAME:
            raise WireError(f"a message of {length >> 20} MB is too large")
        end = _HEADER.size + length
        while len(buffer) < end:
            self._read(end - len(buffer))
        data = buffer[_HEADER.size : end]
        del buffer[:end]
        return _message(data)

    def _read(self, missing: int) -> None:
        if self._deadline is not None:
            self._check_time(self._deadline)
        wanted = _CHUNK if self._reads_ahead else min(missing, _CHUNK)
        try:
            part = self._connection.recv(wanted)
        except OSError as error:
            raise PeerGoneError(_why(error)) from None
        if not part:
            raise PeerGoneError("ended")
        self._buffer += part

    def _check_time(self, deadline: float) -> None:
        now = time.monotonic()
        if now >= deadline:
            raise PeerGoneError("timeout")
        # The kernel's timeout is for each call; it is renewed only when it has become too long.
        if now + self._timeout_seconds > deadline + _SLACK:
            self._set_timeout(deadline - now)

    def _set_timeout(self, seconds: float) -> None:
        self._timeout_seconds = max(seconds, 1e-3)
        assert isinstance(self._connection, _socket.socket)
        value = struct.pack("@ll", *divmod(int(self._timeout_seconds * 1e6), 1_000_000))
        for option in (_socket.SO_RCVTIMEO, _socket.SO_SNDTIMEO):
            self._connection.setsockopt(_socket.SOL_SOCKET, option, value)


def frame(message: object) -> bytes:
    """Return a message as it is sent; raises WireError if it is too large."""
    data = "".join(_text_parts(message, 0)).encode()
    if len(data) > MAX_FRAME:
        raise WireError(f"a value of {len(data) >> 20} MB is too large")
    return _HEADER.pack(len(data)) + data


def _message(data: bytearray) -> Any:
    try:
        text = data.decode()
        message, end = _read_text(text)
    except (ValueError, RecursionError):
        raise WireError("a message is not JSON") from None
    if end != len(text):
        raise WireError("a message is more than one")
    return message


def _why(error: OSError) -> str:
    return "timeout" if isinstance(error, TimeoutError | BlockingIOError) else "ended"
