"""Start the worker in its sandbox: the bubblewrap command line, and the hand-shake.

The sandbox is a namespace of each kind, a system that is read-only and consists of /usr and the
interpreter alone, no network but an empty loopback, and an environment of our own. The worker in it
makes a further user, PID and mount namespace for what it runs, see `guest.confine`.
"""

from __future__ import annotations

import functools
import marshal
import math
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textgym.errors import TextGymError
from textgym_plugins.code.guest.orders import LIMITS, ORDER, Event, read_event

if TYPE_CHECKING:
    from textgym_plugins.code.process import Program, Tester

_GUEST = Path(__file__).parent / "guest"
_PACKAGE = "textgym_plugins.code.guest"
_START_SECONDS = 60.0
_CLOSE_SECONDS = 2.0
_BOOT = (
    "import marshal, sys; modules = marshal.load(sys.stdin.buffer); "
    f"exec(marshal.loads(modules['{_PACKAGE}.carried'])); "
    "carried = Carried(modules); carried.install(); "
    f"from {_PACKAGE}.zygote import main; main({{fd}}, carried, is_strong={{strong}})"
)
_LINKING = {"LD_BIND_NOW": "1"}
"""What is linked when it is first called would be linked in every fork again."""
_ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "TMPDIR": "/tmp",
    "TZ": "UTC",
}
ADVICE = (
    "Install the package 'bubblewrap' and see what `textgym doctor` says of it, or pass "
    "allow_weak_isolation=True to run programs with limits but without a boundary"
)


class SandboxError(TextGymError):
    """No worker can be started, or one was lost; no program is to blame."""


class Worker:
    """One warm worker process. It runs one program at a time.

    Args:
        is_strong: inside bubblewrap. Otherwise only limits hold, and programs can read, write and
            connect to whatever the caller can.
    """

    def __init__(self, *, is_strong: bool) -> None:
        if sys.platform != "linux":
            raise SandboxError(f"programs are run on Linux only; this is {sys.platform}")
        self.is_strong = is_strong
        self.tester: Tester | None = None
        """Waits for the next tests."""
        self.spare: Program | None = None
        """Waits for the next source; forked while the last run was being judged."""
        self._count = 0
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._poll = select.poll()
        self._poll.register(self.control, select.POLLIN)
        self._folder = None if is_strong else tempfile.TemporaryDirectory(prefix="textgym-code-")
        with theirs, tempfile.TemporaryFile() as log:
            self.process = self._start(theirs, log)
            theirs.close()
            try:
                self._wait_until_ready(log)
            except BaseException:
                self.close()
                raise

    def send(
        self,
        kind: bytes,
        number: int,
        *,
        ended: int = 0,
        limits: Sequence[int] = (),
        descriptors: Sequence[int] = (),
    ) -> None:
        """Send the worker an order, see `guest.orders`."""
        order = ORDER.pack(kind, number, ended)
        if limits:
            order += LIMITS.pack(*limits)
        try:
            socket.send_fds(self.control, [order], list(descriptors))
        except OSError as error:
            raise SandboxError(f"the worker of the sandbox is gone: {error.strerror}") from None

    def event(self, timeout: float) -> Event:
        """Return what the worker says next."""
        if not self.has_event(timeout):
            raise SandboxError(f"the worker of the sandbox is silent for {timeout:g} s")
        try:
            data = self.control.recv(1 << 16)
        except OSError as error:
            raise SandboxError(f"the worker of the sandbox is gone: {error.strerror}") from None
        if not data:
            raise SandboxError("the worker of the sandbox ended")
        return read_event(data)

    def has_event(self, timeout: float = 0.0) -> bool:
        """Wait until the worker has said something, or is gone; return whether it has."""
        return bool(self._poll.poll(math.ceil(timeout * 1e3)))

    def close(self) -> None:
        """End the worker and everything in its sandbox."""
        for process in (self.tester, self.spare):
            if process is not None:
                process.close()
        self.tester = self.spare = None
        self.control.close()
        try:  # the worker ends when its socket does; killed, it would leave a process to be reaped
            self.process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self._folder is not None:
            self._folder.cleanup()

    def next_number(self) -> int:
        """Return a number that no process of this worker has had."""
        self._count += 1
        return self._count

    def _start(self, theirs: socket.socket, log: Any) -> subprocess.Popen[bytes]:
        boot = _BOOT.format(fd=theirs.fileno(), strong=self.is_strong)
        command = [os.path.realpath(sys.executable), "-s", "-S", "-P", "-c", boot]
        if self.is_strong:
            command = [*bubblewrap_command(), *command]
        environment = _ENVIRONMENT | _LINKING
        if self._folder is not None:
            environment |= {"HOME": self._folder.name, "TMPDIR": self._folder.name}
        with tempfile.TemporaryFile() as code:
            code.write(_guest_code())
            code.seek(0)
            try:
                return subprocess.Popen(
                    command,
                    stdin=code,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    cwd="/" if self._folder is None else self._folder.name,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            except OSError as error:
                raise SandboxError(f"{command[0]} cannot be started: {error.strerror}") from None

    def _wait_until_ready(self, log: Any) -> None:
        try:
            event = self.event(_START_SECONDS)
        except SandboxError as error:
            event = Event("broken", why=str(error))
        if event.kind != "ready":
            log.seek(0)
            said = " ".join(log.read(2000).decode(errors="replace").split())
            raise SandboxError(f"the sandbox cannot be started: {said or event.why}. {ADVICE}")


@functools.cache
def _guest_code() -> bytes:
    """Return what `guest.carried` imports from: the modules of the guest, compiled."""
    packages = _PACKAGE.split(".")
    modules = {".".join(packages[:end]): b"" for end in range(1, len(packages) + 1)}
    for path in sorted(_GUEST.glob("[!_]*.py")):
        code = compile(path.read_text(encoding="utf-8"), f"<{path.stem}>", "exec")
        modules[f"{_PACKAGE}.{path.stem}"] = marshal.dumps(code)
    return marshal.dumps(modules)


def bubblewrap_command() -> list[str]:
    """Return the command that the interpreter is appended to."""
    program = shutil.which("bwrap")
    if program is None:
        raise SandboxError(f"programs run inside bubblewrap, and bwrap is not installed. {ADVICE}")
    base = sys.base_prefix
    is_root = os.geteuid() == 0
    command = [os.path.realpath(program), "--unshare-all", "--unshare-user", "--new-session"]
    command += ["--hostname", "sandbox", "--ro-bind", "/usr", "/usr"]
    for folder in ("/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(folder):
            command += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            command += ["--ro-bind", folder, folder]
    command += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    command += ["--ro-bind-try", "/etc/alternatives", "/etc/alternatives"]
    command += ["--proc", "/proc", "--tmpfs", "/dev", "--dir", "/tmp", "--dir", "/empty"]
    for device in ("null", "zero", "full", "random", "urandom"):
        command += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    command += ["--symlink", "/tmp", "/dev/shm", "--symlink", "/tmp/.stdin", "/dev/stdin"]
    if not Path(base).is_relative_to("/usr"):
        command += ["--ro-bind", "@0" if is_root else base, base]
    command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"]
    if is_root:
        launcher = [os.path.realpath(sys.executable), "-I", "-S", str(_GUEST / "launch.py")]
        return [*launcher, base, *command]
    return command
