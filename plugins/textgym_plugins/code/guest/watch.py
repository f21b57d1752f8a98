"""Look at what the processes of a program hold together, from outside of them.

The limits of the kernel hold each process; what is shared, or held by none in particular, is only
seen here. Nothing in the sandbox sees /proc any more but who holds it open.
"""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

from textgym_plugins.code.guest import confine

_PAGE = os.sysconf("SC_PAGE_SIZE")


class _Usage(NamedTuple):
    resident: int
    other: int
    """Address space that is no private writable memory: hardly more than in a fresh process."""


def calm(group: int) -> None:
    """Give a process group what the worker and its neighbours leave of the processors."""
    with contextlib.suppress(OSError):  # it ended meanwhile, or runs under another user
        os.setpriority(os.PRIO_PGRP, group, 19)


class Watch:
    """Reads /proc.

    Args:
        directory: an open descriptor of it; -1 for /proc itself.
    """

    def __init__(self, directory: int = -1) -> None:
        self._directory = directory
        self._base = self._usage("self").other
        self._statistics = -1
        self.look_at_network()

    def pids(self) -> list[int]:
        """Return all processes that can be seen."""
        names = os.listdir(self._directory if self._directory >= 0 else "/proc")
        return [int(name) for name in names if name.isdigit()]

    def descendants(self, pid: int) -> list[int]:
        """Return the processes below one, where there is no PID namespace to ask."""
        found: list[int] = []
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children") as file:
                    children = [int(each) for each in file.read().split()]
                found += [each for child in children for each in (child, *self.descendants(child))]
        except OSError:
            pass  # it ended meanwhile
        return found

    def memory(self, pids: list[int], limit: int) -> int:
        """Return how much memory processes hold; exactly, if it may be more than the limit."""
        usages = [self._usage(pid) for pid in pids]
        resident = sum(usage.resident for usage in usages)
        other = sum(max(0, usage.other - self._base) for usage in usages)
        if resident <= limit and other <= limit:
            return resident
        shared: dict[str, int] = {}
        for pid in pids:
            shared |= self._shared_mappings(pid)
        return sum(map(self._own_memory, pids)) + sum(shared.values())

    def look_at_network(self) -> None:
        """Look at the network namespace in which this process is now."""
        if self._statistics >= 0:
            os.close(self._statistics)
        self._statistics = -1
        with contextlib.suppress(OSError):  # a kernel without a network
            folder = self._directory if self._directory >= 0 else None
            path = "self/net/sockstat" if folder is not None else "/proc/self/net/sockstat"
            opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
            self._statistics = confine.raised(opened)
        self._idle = self._counts()
        self._num_sockets = self._sockets()[0]

    def num_sockets(self) -> int:
        """Return how many sockets the network namespace has beyond those of the worker."""
        return self._sockets()[0] - self._num_sockets

    def is_network_used(self) -> bool:
        """Whether connections are left, which would keep the next program from their ports."""
        if self._counts() == self._idle:
            return False
        sockets, waiting = self._sockets()
        return sockets > self._num_sockets or waiting > 0

    def _usage(self, pid: int | str) -> _Usage:
        fields = [int(field) * _PAGE for field in self._read(f"{pid}/statm").split()]
        return _Usage(fields[1], fields[0] - fields[5]) if fields else _Usage(0, 0)

    def _own_memory(self, pid: int) -> int:
        """Return what a process holds and its page tables, shared files divided among sharers.

        What it shares without a file is left out: it counts whole, whether it is looked at or not.
        """
        sizes = _table(self._read(f"{pid}/smaps_rollup"))
        tables = _table(self._read(f"{pid}/status")).get("VmPTE", 0)
        if "Pss" not in sizes:
            return self._usage(pid).resident + tables
        return sizes["Pss"] - sizes.get("Pss_Shmem", 0) + tables

    def _shared_mappings(self, pid: int) -> dict[str, int]:
        """Return the size of each shared mapping without a file, by its number.

        Its memory stays when no process has it in its page tables any more.
        """
        found: dict[str, int] = {}
        for line in self._read(f"{pid}/maps").splitlines():
            place, mode, _, _, inode, *path = line.split(maxsplit=5)
            if mode[3:] == "s" and path and path[0].startswith("/dev/zero"):
                start, _, end = place.partition("-")
                found[inode] = found.get(inode, 0) + int(end, 16) - int(start, 16)
        return found

    def _sockets(self) -> tuple[int, int]:
        """Return the sockets of the network namespace, and the connections that wait to end."""
        words = self._counts().split()
        return (int(words[2]), int(words[9])) if len(words) > 9 else (0, 0)

    def _counts(self) -> bytes:
        """Return `sockets: used 8`, `TCP: inuse 0 orphan 0 tw 0`, as the kernel writes it.

        What follows in the file changes with what other namespaces do.
        """
        if self._statistics < 0:
            return b""
        return os.pread(self._statistics, 256, 0).partition(b" alloc")[0]

    def _read(self, name: str) -> str:
        """Return a file of /proc; nothing, if its process has ended."""
        folder = self._directory if self._directory >= 0 else None
        path = name if folder is not None else f"/proc/{name}"
        try:
            with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)) as file:
                return file.read()
        except OSError:
            return ""


def _table(text: str) -> dict[str, int]:
    """Return the sizes of a file with lines like `Pss: 12 kB`, in bytes."""
    rows = (line.split() for line in text.splitlines())
    return {row[0].rstrip(":"): int(row[1]) << 10 for row in rows if row[-1:] == ["kB"]}
