"""The child side of `textgym.workers`: load a function once, then answer items until told to stop.

Run as a file by path, so that starting it imports neither textgym nor the parent's `__main__`;
what the function needs is imported when the function is unpickled. Requests and replies travel on
two pipes of their own: a plugin may print whatever it likes.

A frame is a header (kind, item index, payload length) and a payload.
Requests: F function (memory limit, pickle), I item (pickle).
Replies: S started, L function loaded, V value (pickle), E exception (text), M out of memory (text).
"""

from __future__ import annotations

import faulthandler
import gc
import os
import pickle
import struct
import sys
from collections.abc import Callable
from typing import Any

HEADER = struct.Struct("!cQQ")
LIMIT = struct.Struct("!q")
UNLIMITED = -1
_PR_SET_PDEATHSIG = 1
_SIGKILL = 9


def dumps(value: object) -> bytes:
    """Pickle a value; by value what another process could not import from `__main__`."""
    try:
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        if b"__main__" not in data:
            return data
    except (pickle.PicklingError, AttributeError, TypeError):
        pass  # a lambda or a local class: cloudpickle takes those, or raises in its turn
    import cloudpickle  # type: ignore[import-untyped]  # it has neither stubs nor py.typed

    return bytes(cloudpickle.dumps(value, pickle.HIGHEST_PROTOCOL))


def describe(error: BaseException) -> str:
    """Return `Type: message` on one line of bounded length."""
    try:
        message = " ".join(str(error).split())[:1000]
    except Exception:  # a third-party __str__ may raise anything
        message = "<its message cannot be read>"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def main(request_fd: int, reply_fd: int, parent_pid: int) -> None:
    """Serve requests until the parent closes the pipe."""
    _die_with_parent(parent_pid)
    os.set_inheritable(request_fd, False)
    os.set_inheritable(reply_fd, False)
    faulthandler.enable()
    requests = os.fdopen(request_fd, "rb")
    sys.path[:] = pickle.load(requests)
    function: Callable[[Any], Any] = _no_function
    _reply(reply_fd, b"S", 0, b"")
    while header := requests.read(HEADER.size):
        kind, index, length = HEADER.unpack(header)
        payload = requests.read(length)
        if kind == b"F":
            loaded = _answer(_load, payload)
            if isinstance(loaded, _Failure):
                _reply(reply_fd, loaded.kind, index, loaded.message.encode())
            else:
                function = loaded
                _reply(reply_fd, b"L", index, b"")
        else:
            _reply(reply_fd, *_run(function, index, payload))


class _Failure:
    def __init__(self, kind: bytes, message: str) -> None:
        self.kind = kind
        self.message = message


def _load(payload: bytes) -> Callable[[Any], Any]:
    (limit,) = LIMIT.unpack_from(payload)
    _limit_memory(limit)
    function: Callable[[Any], Any] = pickle.loads(payload[LIMIT.size :])
    return function


def _run(function: Callable[[Any], Any], index: int, payload: bytes) -> tuple[bytes, int, bytes]:
    pid = os.getpid()
    result = _answer(lambda data: dumps(function(pickle.loads(data))), payload)
    if os.getpid() != pid:
        os._exit(0)  # the function forked and the fork came back too: only one may answer
    if isinstance(result, _Failure):
        return result.kind, index, result.message.encode(errors="replace")
    return b"V", index, result


def _answer(call: Callable[[bytes], Any], payload: bytes) -> Any:
    """Return what `call` returns, or the failure: nothing a plugin raises may end the worker."""
    try:
        return call(payload)
    except MemoryError as error:
        error.__traceback__ = (
            None  # lets go of what the frames hold, so that there is room to reply
        )
        gc.collect()
        return _Failure(b"M", describe(error))
    except BaseException as error:
        return _Failure(b"E", describe(error))


def _reply(reply_fd: int, kind: bytes, index: int, payload: bytes) -> None:
    data = memoryview(HEADER.pack(kind, index, len(payload)) + payload)
    while data:
        data = data[os.write(reply_fd, data) :]


def _no_function(item: object) -> object:
    raise RuntimeError("the worker was sent an item before a function")


def _limit_memory(limit: int) -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = resource.RLIM_INFINITY if limit == UNLIMITED else limit
    if hard != resource.RLIM_INFINITY:
        soft = hard if soft == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent dies: it may then hang in C code."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)  # the parent died before the request reached the kernel


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
