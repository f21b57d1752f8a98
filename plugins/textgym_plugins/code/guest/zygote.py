"""The warm process inside the sandbox: forks a tester or a program on command, and watches them.

It holds nothing that a program may not see: programs, tests and expected values go from the
supervisor to the forked children over descriptors that merely pass through here. Commands and
events are JSON datagrams on one SOCK_SEQPACKET socket; a command may carry descriptors.

Commands: `["program", id, memory, processes, disk, files]` with connection, stdin, stdout, stderr;
`["tester", ...the same]` with its channel; `["watch", id]`; `["kill", id]`. Nothing is answered.
Events: `["ready"]`, `["ended", id, status, why]`, `["broken", why]`.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from typing import Any, NoReturn

from textgym_plugins.code.guest import confine, program

_LOWEST = 10
_WATCH_SECONDS = 0.05
_FOLDER = sys.path[0]
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PRELOADED = (
    "bisect", "collections.abc", "copy", "functools", "heapq", "itertools", "math", "operator",
    "re", "string", "time", "typing",
)  # fmt: skip
"""What programs import most: loaded once here. More would make every fork slower."""


class Child:
    """One forked tester or program."""

    def __init__(self, number: int, pid: int, role: str, limits: confine.Limits) -> None:
        self.number = number
        self.pid = pid
        self.role = role
        self.is_watched = False
        self.limits = limits
        self.pidfd = os.pidfd_open(pid)
        self.why = ""
        """Why it was killed, if its memory or its processes were the reason."""


class Zygote:
    """Serves commands until the supervisor closes the socket."""

    def __init__(self, control: socket.socket, own_pids: int, *, is_strong: bool) -> None:
        self._control = control
        self._is_strong = is_strong
        self._children: dict[int, Child] = {}
        self._own_pids = own_pids
        self._keepers = frozenset(_pids()) if is_strong else frozenset()

    def run(self) -> None:
        """Wait for commands and for children that end."""
        self._send(["ready"])
        while True:
            poll = select.poll()
            poll.register(self._control, select.POLLIN)
            for child in self._children.values():
                poll.register(child.pidfd, select.POLLIN)
            is_watching = any(child.is_watched for child in self._children.values())
            ready = {fd for fd, _ in poll.poll(_WATCH_SECONDS * 1e3 if is_watching else None)}
            for child in list(self._children.values()):
                if child.pidfd in ready:
                    self._reap(child)
            if self._control.fileno() in ready and not self._obey():
                return
            if not ready:
                self._watch()

    def _obey(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._control, 1 << 16, 8)
        if not data:
            return False
        command, number, *arguments = json.loads(data)
        if command in ("program", "tester"):
            limits = confine.Limits(*arguments)
            pid = self._fork(command, limits, descriptors)
            self._children[number] = Child(number, pid, command, limits)
            for descriptor in descriptors:
                os.close(descriptor)
        elif number in self._children:  # it may have ended by itself
            if command == "watch":
                self._children[number].is_watched = True
            else:
                self._kill(self._children[number])
        return True

    def _fork(self, role: str, limits: confine.Limits, descriptors: list[int]) -> int:
        if self._is_strong:
            confine.libc("unshare", confine.CLONE_NEWPID)
            if role == "program":
                confine.mount_files(limits.disk)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become(role, limits, descriptors, parent)
        if self._is_strong:
            confine.libc("setns", self._own_pids, confine.CLONE_NEWPID)
        return pid

    def _become(
        self, role: str, limits: confine.Limits, descriptors: list[int], parent: int
    ) -> NoReturn:
        try:
            if not self._is_strong:
                confine.die_with(parent)
            connection, *streams = descriptors
            for number, descriptor in enumerate(streams):
                os.dup2(descriptor, number)
            if connection != program.CONNECTION:
                os.dup2(connection, program.CONNECTION, inheritable=False)
            confine.confine(limits, is_strong=self._is_strong, first_closed=program.CONNECTION + 1)
            if role == "tester":
                confine.hide_memory()
                sys.path.insert(0, _FOLDER)
                from textgym_plugins.code.guest import (
                    tester,
                )  # here, to keep it out of every program

                tester.run_tester(socket.socket(fileno=program.CONNECTION))
            program.run()
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(70)

    def _kill(self, child: Child) -> None:
        """Kill a child with all it started, and wait until they are gone."""
        if not self._is_strong:
            _kill_descendants(child.pid)
        signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        self._reap(child, is_news=bool(child.why))

    def _reap(self, child: Child, *, is_news: bool = True) -> None:
        _, status = os.waitpid(child.pid, 0)
        if self._is_strong and child.role == "program":
            confine.unmount_files()
        os.close(child.pidfd)
        del self._children[child.number]
        if not self._is_strong:
            _kill_orphans([other.pid for other in self._children.values()])
        if is_news:
            self._send(["ended", child.number, os.waitstatus_to_exitcode(status), child.why])

    def _watch(self) -> None:
        """Kill the program if its processes hold more memory, or are more, than they may."""
        programs = [child for child in self._children.values() if child.is_watched]
        if not programs:
            return
        limits = programs[0].limits
        pids = self._running()
        memory = sum(map(_resident, pids))
        if memory > limits.memory:
            memory = sum(map(_proportional, pids))
        why = ""
        if memory > limits.memory:
            why = "memory"
        elif len(pids) > limits.processes + 2:
            why = "processes"
        if why:
            for child in programs:
                child.why = why
                self._kill(child)

    def _running(self) -> list[int]:
        if self._is_strong:
            return [pid for pid in _pids() if pid not in self._keepers]
        return [
            pid
            for child in self._children.values()
            for pid in (child.pid, *_descendants(child.pid))
        ]

    def _send(self, event: list[Any]) -> None:
        self._control.send(json.dumps(event).encode())


class _Processes:
    """Reads /proc, which in the sandbox nobody can see any more but who holds it open."""

    directory = -1

    def read(self, name: str) -> str:
        """Return a file of /proc; raises OSError when its process has ended."""
        folder = self.directory if self.directory >= 0 else None
        path = name if folder is not None else f"/proc/{name}"
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)) as file:
            return file.read()


_processes = _Processes()


def _pids() -> list[int]:
    return [int(name) for name in os.listdir(_processes.directory) if name.isdigit()]


def _resident(pid: int) -> int:
    try:
        return int(_processes.read(f"{pid}/statm").split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0  # it ended meanwhile


def _proportional(pid: int) -> int:
    """Return the memory of a process, with what it shares divided among those who share it."""
    try:
        lines = _processes.read(f"{pid}/smaps_rollup").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0


def _descendants(pid: int) -> list[int]:
    """Return the processes below one, where there is no PID namespace to ask."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                children = [int(each) for each in file.read().split()]
            found += [each for child in children for each in (child, *_descendants(child))]
    except OSError:
        pass  # it ended meanwhile
    return found


def _kill_descendants(pid: int) -> None:
    for descendant in _descendants(pid):
        _kill(descendant)
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _kill_orphans(children: list[int]) -> None:
    """Kill what a program left behind, which is a child of this process by now."""
    kept = {pid for child in children for pid in (child, *_descendants(child))}
    for pid in _descendants(os.getpid()):
        if pid not in kept:
            _kill(pid)
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                pass  # a grandchild: its parent, killed as well, was the one to wait for it


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it ended meanwhile


def _import_random() -> None:
    """Load `random` without its habit to reseed in each fork: equal programs draw equally."""
    register = os.register_at_fork
    try:
        os.register_at_fork = lambda **hooks: None
        random = importlib.import_module("random")
    finally:
        os.register_at_fork = register
    random.seed(0)


def main(control_fd: int, *, is_strong: bool) -> None:
    """Set up, and serve until the supervisor is gone."""
    # Above the descriptors that a child is given in fixed places.
    control = socket.socket(fileno=fcntl.fcntl(control_fd, fcntl.F_DUPFD_CLOEXEC, _LOWEST))
    os.close(control_fd)
    _import_random()
    for name in _PRELOADED:
        importlib.import_module(name)
    try:
        own_pids = -1
        if is_strong:
            _processes.directory = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
            confine.enter_user_namespace()
            keeper = os.fork()
            if keeper:  # the PID namespace begins with the next process
                control.close()
                os.waitpid(keeper, 0)
                return
            own_pids = os.open("self/ns/pid", os.O_RDONLY, dir_fd=_processes.directory)
        else:
            confine.adopt_orphans()
        confine.forbid_new_privileges()
        confine.set_fixed_limits()
        confine.die_with(0)
        program.warm_up()
        sys.path.remove(_FOLDER)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (1, 2):  # the log of the start: nobody reads it any more
            os.dup2(null, descriptor)
        program.use_streams()
        confine.filter_system_calls()
        gc.collect()
        gc.freeze()
        zygote = Zygote(control, own_pids, is_strong=is_strong)
    except OSError as error:
        control.send(json.dumps(["broken", str(error)]).encode())
        return
    zygote.run()
