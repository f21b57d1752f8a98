"""What the supervisor and the zygote tell each other: datagrams on one SOCK_SEQPACKET socket.

An order is a struct, an event a line of text; both are read in few steps, because what the zygote
touches after a fork it has to copy.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

ORDER = struct.Struct("=c2q")
"""Kind, number of the process, and number of a program to kill first (0 for none)."""
LIMITS = struct.Struct("=5q")
"""Follows where a process is to be started: its `confine.Limits`."""
PROGRAM, TESTER, WATCH, KILL = b"p", b"t", b"w", b"k"
"""Kinds of orders; with the first two go stdin, stdout, stderr and the connection."""


class Event(NamedTuple):
    """What the zygote says: it is `ready` or `broken`, a program has `started`, or one `ended`."""

    kind: str
    number: int = 0
    status: int = 0
    """How it ended, as `os.waitstatus_to_exitcode` says it."""
    why: str = ""
    """What it used too much of, where that was the reason."""


def write_event(kind: str, number: int = 0, status: int = 0, why: str = "") -> bytes:
    """Return an event as it is sent."""
    return f"{kind} {number} {status} {why}".encode()


def read_event(data: bytes) -> Event:
    """Return an event that was sent."""
    kind, number, status, why = data.decode(errors="replace").split(" ", 3)
    return Event(kind, int(number), int(status), why)
