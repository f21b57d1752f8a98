"""The warm process inside the sandbox: forks a tester or a program on order, and watches them.

It holds nothing that a program may not see: programs, tests and expected values go from the
supervisor to the forked children over descriptors that merely pass through here.

Half of a short run is memory: each page that this process or a child touches after a fork is
copied. So what happens in every run is done in few steps here, with few objects.
"""

from __future__ import annotations

import _socket
import contextlib
import gc
import importlib
import os
import select
import signal
import struct
from typing import TYPE_CHECKING, NoReturn

from textgym_plugins.code.guest import confine, program
from textgym_plugins.code.guest.orders import LIMITS, ORDER, PROGRAM, TESTER, WATCH, write_event
from textgym_plugins.code.guest.watch import Watch, calm

if TYPE_CHECKING:
    from textgym_plugins.code.guest.carried import Carried

_DESCRIPTORS = struct.pack("4i", *range(confine.NUM_DESCRIPTORS))
"""The descriptors that come with an order, which take the lowest places that are free."""
_ORDER_SIZE = ORDER.size + LIMITS.size
_ANCILLARY_SIZE = _socket.CMSG_SPACE(len(_DESCRIPTORS))
_SIGKILL = int(signal.SIGKILL)
_WATCH_MILLISECONDS = 50
_CROWD = 32
_PRELOADED = (
    "bisect", "collections.abc", "copy", "functools", "heapq", "itertools", "math", "operator",
    "re", "string", "time", "typing",
)  # fmt: skip
"""What programs import most: loaded once here. More would make every fork slower."""


class Child:
    """One forked tester or program."""

    __slots__ = ("kind", "limits", "number", "pid", "pidfd", "why")

    def __init__(self, number: int, pid: int, kind: bytes, limits: confine.Limits) -> None:
        self.number = number
        self.pid = pid
        self.kind = kind
        self.limits = limits
        self.pidfd = os.pidfd_open(pid)
        self.why = ""
        """Why it was killed, if its memory or its processes were the reason."""


class Zygote:
    """Serves orders until the supervisor closes the socket."""

    def __init__(
        self,
        control: _socket.socket,
        carried: Carried,
        own_pids: int,
        proc: int,
        *,
        is_strong: bool,
    ) -> None:
        self._control = control
        self._carried = carried
        self._is_strong = is_strong
        self._children: dict[int, Child] = {}
        self._watched: dict[int, Child] = {}
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._control_fd = control.fileno()
        self._own_pids = own_pids
        self._looks = Watch(proc)
        self._keepers = frozenset(self._looks.pids()) if is_strong else frozenset()

    def run(self) -> None:
        """Wait for orders and for children that end."""
        os.closerange(0, confine.NUM_DESCRIPTORS)  # where those of the next child arrive
        self._control.send(write_event("ready"))
        while True:
            ready = self._poll.poll(_WATCH_MILLISECONDS if self._watched else None)
            for descriptor, _ in ready:
                if descriptor != self._control_fd:
                    self._reap_ended(descriptor)
            # Then the order: it may reuse the number of a descriptor that is gone.
            if any(descriptor == self._control_fd for descriptor, _ in ready) and not self._obey():
                return
            if not ready:
                self._watch()

    def _obey(self) -> bool:
        data, ancillary, _, _ = self._control.recvmsg(_ORDER_SIZE, _ANCILLARY_SIZE)
        if not data:
            return False
        kind, number, ended = ORDER.unpack_from(data)
        for each in (ended, number):
            child = self._children.get(each)  # it may have ended by itself
            if child is not None and kind == WATCH:
                self._watched[number] = child
            elif child is not None:
                self._kill(child)
        if kind == PROGRAM or kind == TESTER:
            if ancillary[0][2] != _DESCRIPTORS:
                raise OSError("the descriptors are not in their places")
            self._fork(kind, number, confine.read_limits(data[ORDER.size :]))
        return True

    def _fork(self, kind: bytes, number: int, limits: confine.Limits) -> None:
        if self._is_strong:
            confine.begin_pids()
            if kind == PROGRAM:
                confine.mount_files(limits.mount_options)
        os.set_inheritable(program.CONNECTION, False)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become(kind, limits, parent)
        if self._is_strong:
            confine.end_pids(self._own_pids)
        child = self._children[number] = Child(number, pid, kind, limits)
        self._poll.register(child.pidfd, select.POLLIN)
        os.closerange(0, confine.NUM_DESCRIPTORS)
        if kind == PROGRAM:
            self._control.send(write_event("started", number))

    def _become(self, kind: bytes, limits: confine.Limits, parent: int) -> NoReturn:
        try:
            if not self._is_strong:
                confine.die_with(parent)
            confine.confine(limits, is_strong=self._is_strong)
            if kind == TESTER:
                confine.hide_memory()
                self._carried.install()
                from textgym_plugins.code.guest import (
                    tester,
                )  # here, to keep it out of every program

                tester.run_tester(_socket.socket(fileno=program.CONNECTION))
            program.run()
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(70)

    def _kill(self, child: Child) -> None:
        """Kill a child with all it started, and wait until they are gone."""
        if not self._is_strong:
            _kill_descendants(self._looks, child.pid)
        signal.pidfd_send_signal(child.pidfd, _SIGKILL)
        self._reap(child, is_news=bool(child.why))

    def _reap_ended(self, pidfd: int) -> None:
        for child in self._children.values():
            if child.pidfd == pidfd:
                self._reap(child)
                return

    def _reap(self, child: Child, *, is_news: bool = True) -> None:
        _, status = os.waitpid(child.pid, 0)
        if self._is_strong and child.kind == PROGRAM:
            confine.unmount_files()
            if self._looks.is_network_used():
                with contextlib.suppress(OSError):  # there may be only so many
                    confine.new_network()
                self._looks.look_at_network()
        self._poll.unregister(child.pidfd)
        os.close(child.pidfd)
        del self._children[child.number]
        self._watched.pop(child.number, None)
        if not self._is_strong:
            _kill_orphans(self._looks, [other.pid for other in self._children.values()])
        if is_news:
            status = os.waitstatus_to_exitcode(status)
            self._control.send(write_event("ended", child.number, status, child.why))

    def _watch(self) -> None:
        """Kill the program if its processes hold more memory, or are more, than they may."""
        programs = list(self._watched.values())
        if not programs:
            return
        limits = programs[0].limits
        pids = self._running()
        if len(pids) > _CROWD:  # or it would keep this process from its processor
            for child in programs:
                calm(child.pid)
        why = ""
        if self._looks.memory(pids, limits.memory) > limits.memory:
            why = "memory"
        elif len(pids) > limits.processes + 2:
            why = "processes"
        elif self._is_strong and self._looks.num_sockets() > limits.files:
            why = "sockets"
        if why:
            for child in programs:
                child.why = why
                self._kill(child)

    def _running(self) -> list[int]:
        if self._is_strong:
            return [pid for pid in self._looks.pids() if pid not in self._keepers]
        return [
            pid
            for child in self._children.values()
            for pid in (child.pid, *self._looks.descendants(child.pid))
        ]


def _kill_descendants(watch: Watch, pid: int) -> None:
    for descendant in watch.descendants(pid):
        _kill(descendant)
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _kill_orphans(watch: Watch, children: list[int]) -> None:
    """Kill what a program left behind, which is a child of this process by now."""
    kept = {pid for child in children for pid in (child, *watch.descendants(child))}
    for pid in watch.descendants(os.getpid()):
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


def main(control_fd: int, carried: Carried, *, is_strong: bool) -> None:
    """Set up, and serve until the supervisor is gone.

    Args:
        control_fd: the socket that leads to the supervisor.
        carried: finds the modules of this package.
        is_strong: in bubblewrap, with the right to make namespaces.
    """
    os.environ.pop("LD_BIND_NOW")  # it was for this process
    control = _socket.socket(fileno=confine.raised(control_fd))
    _import_random()
    for name in _PRELOADED:
        importlib.import_module(name)
    try:
        own_pids = proc = -1
        if is_strong:
            proc = confine.raised(os.open("/proc", os.O_RDONLY | os.O_DIRECTORY))
            confine.enter_user_namespace()
            keeper = os.fork()
            if keeper:  # the PID namespace begins with the next process
                control.close()
                os.waitpid(keeper, 0)
                return
            own_pids = confine.raised(os.open("self/ns/pid", os.O_RDONLY, dir_fd=proc))
        else:
            confine.adopt_orphans()
        confine.forbid_new_privileges()
        confine.set_fixed_limits()
        confine.die_with(0)
        program.warm_up()
        carried.remove()
        program.use_streams()
        confine.filter_system_calls()
        gc.collect()
        gc.freeze()
        zygote = Zygote(control, carried, own_pids, proc, is_strong=is_strong)
    except OSError as error:
        control.send(write_event("broken", why=str(error)))
        return
    zygote.run()
