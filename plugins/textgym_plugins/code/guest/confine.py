"""Take everything from a forked child that a program must not have, before the program starts.

Each child is the first process of a PID namespace of its own (when it ends, the kernel kills
everything it started) and finds a new, empty tmpfs. It loses its capabilities and the descriptors
it does not need. System calls whose effect would outlive it (keyrings, System V memory) or that
widen the kernel's surface (user namespaces, ptrace, bpf, io_uring) are denied to the whole sandbox.
"""

from __future__ import annotations

import _socket
import ctypes
import fcntl
import functools
import os
import resource
import struct
from typing import Any

from textgym_plugins.code.guest.orders import LIMITS

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_MS_NOSUID_NODEV = 0x2 | 0x4
_MS_BIND = 0x1000
_MS_REC_PRIVATE = 0x4000 | 0x40000
_MNT_DETACH = 0x2
_PR_SET_PDEATHSIG = 1
_SIGKILL = 9
_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAP_VERSION_3 = 0x20080522
_LAST_CAP = 63
_MAX_DESCRIPTOR = 1 << 20
_MAX_FILES = 1 << 17  # inodes of one tmpfs: an empty file costs memory that its size does not show

NUM_DESCRIPTORS = 4
"""A child has stdin, stdout, stderr and one connection."""
_LOWEST = 10

_libc = ctypes.CDLL(None, use_errno=True)


def _quick(name: str, *types: type) -> Any:
    """Return a function of the C library for each run: a call costs little, and tells no errno."""
    function = ctypes.CDLL(None)[name]
    function.argtypes = types
    return function


_mount = _quick("mount", *[ctypes.c_char_p] * 3, ctypes.c_ulong, ctypes.c_char_p)
_umount2 = _quick("umount2", ctypes.c_char_p, ctypes.c_int)
_unshare = _quick("unshare", ctypes.c_int)
_setns = _quick("setns", ctypes.c_int, ctypes.c_int)
_capset = _quick("capset", ctypes.c_char_p, ctypes.c_char_p)


class Limits:
    """What one program may use, as `setrlimit` and `mount` take it.

    Args:
        packed: the numbers as an order holds them; the executor's `Limits` documents the fields.
    """

    def __init__(self, packed: bytes) -> None:
        self.memory, self.processes, disk, self.files, cpu_seconds = LIMITS.unpack(packed)
        self.resources = tuple(
            (which, (limit, limit))
            for which, limit in (
                (resource.RLIMIT_DATA, self.memory),
                (resource.RLIMIT_FSIZE, disk),
                (resource.RLIMIT_NOFILE, self.files),
                (resource.RLIMIT_NPROC, self.processes + 4),  # the keepers count as well
                # Of each process. The supervisor ends a run before; this holds even if it cannot.
                (resource.RLIMIT_CPU, cpu_seconds or resource.RLIM_INFINITY),
            )
        )
        self.mount_options = f"size={disk},nr_inodes={_MAX_FILES},mode=1777".encode()


@functools.lru_cache(maxsize=4)
def read_limits(packed: bytes) -> Limits:
    """Return limits from an order; those of a worker's runs are mostly the same."""
    return Limits(packed)


def libc(name: str, *arguments: object) -> int:
    """Call a function of the C library; raise OSError where it says -1."""
    result = int(getattr(_libc, name)(*arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def raised(descriptor: int) -> int:
    """Move a descriptor out of the places where those of a child arrive."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _LOWEST)
    os.close(descriptor)
    return moved


def enter_user_namespace() -> None:
    """Become the owner of new user, mount and (for the children) PID namespaces."""
    uid, gid = os.getuid(), os.getgid()
    libc("unshare", CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    libc("mount", b"none", b"/", None, _MS_REC_PRIVATE, None)
    libc("mount", b"/empty", b"/proc", None, _MS_BIND, None)


def mount_files(options: bytes) -> None:
    """Mount a new tmpfs of limited size as /tmp, to which /dev/shm leads as well."""
    if _mount(b"tmpfs", b"/tmp", b"tmpfs", _MS_NOSUID_NODEV, options) < 0:
        libc("mount", b"tmpfs", b"/tmp", b"tmpfs", _MS_NOSUID_NODEV, options)


def unmount_files() -> None:
    """Throw the tmpfs away, with all that is in it."""
    if _umount2(b"/tmp", _MNT_DETACH) < 0:
        libc("umount2", b"/tmp", _MNT_DETACH)


def begin_pids() -> None:
    """Make the next child of this process the first of a new PID namespace."""
    if _unshare(CLONE_NEWPID) < 0:
        libc("unshare", CLONE_NEWPID)


def end_pids(own: int) -> None:
    """Make the next children of this process ones of its own namespace again."""
    if _setns(own, CLONE_NEWPID) < 0:
        libc("setns", own, CLONE_NEWPID)


def confine(limits: Limits, *, is_strong: bool) -> None:
    """Give up what this process does not need, and all descriptors after the first four.

    Without the namespaces (`is_strong=False`) only limits, session and system calls are left.
    """
    if not is_strong:
        os.setsid()  # to be killed as a group, where there is no PID namespace to end
    else:
        os.setpgid(0, 0)  # a signal to the group would reach those whom the PID namespace hides
        os.chdir("/tmp")
        if _FILTER is None:  # it denies what of System V would outlive the program
            libc("unshare", CLONE_NEWIPC)
    os.closerange(NUM_DESCRIPTORS, _MAX_DESCRIPTOR)
    for which, limit in limits.resources:
        try:
            resource.setrlimit(which, limit)
        except ValueError:  # what holds already is less
            _, hard = resource.getrlimit(which)
            resource.setrlimit(which, (hard, hard))
    if _capset(_CAP_HEADER, _NO_CAPABILITIES) < 0:
        libc("capset", _CAP_HEADER, _NO_CAPABILITIES)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies."""
    libc("prctl", _PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if parent and os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of what the children of this process leave behind."""
    libc("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def hide_memory() -> None:
    """Keep other processes of the same user from reading this one's memory."""
    libc("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)


def set_fixed_limits() -> None:
    """Set the limits that are the same for this process and all its children."""
    for which in (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE):
        resource.setrlimit(which, (0, 0))


def new_network() -> None:
    """Become the owner of a new network namespace, with nothing but a loopback."""
    libc("unshare", CLONE_NEWNET)
    control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    try:
        request = struct.pack("16sH22x", b"lo", _IFF_UP)
        fcntl.ioctl(control.fileno(), _SIOCSIFFLAGS, request)
    finally:
        control.close()


def forbid_new_privileges() -> None:
    """See that no program this process or a child executes can gain a privilege."""
    for capability in range(_LAST_CAP + 1):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # this kernel has fewer, or this process may not: then it has none to drop
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    libc("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def filter_system_calls() -> None:
    """Deny this process and all its children what none of them needs.

    Loading a filter costs as much as a third of a fork, so the worker does it once, for itself as
    well. It therefore lets pass what the worker needs its capabilities for (mounts, PID
    namespaces); the children have none, and no way to a user namespace where they would get some.
    """
    if _FILTER is not None:
        libc("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, _FILTER_PROGRAM, 0, 0)


_DENIED = {
    # memfd_create memfd_secret (memory that no process seems to hold)
    # | ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd | keyctl add_key request_key
    # | shmget msgget semget mq_open | pivot_root chroot open_tree move_mount fsopen fsconfig
    # fsmount fspick mount_setattr | bpf perf_event_open userfaultfd io_uring_setup io_uring_enter
    # io_uring_register | swapon reboot init_module finit_module delete_module kexec_load acct
    # clock_settime
    "x86_64": (
        319, 447,
        101, 310, 311, 312, 438, 250, 248, 249, 29, 68, 64, 240, 155, 161, 428, 429, 430, 431, 432,
        433, 442, 321, 298, 323, 425, 426, 427, 167, 169, 175, 313, 176, 246, 163, 227,
    ),
    "aarch64": (
        279, 447,
        117, 270, 271, 272, 438, 219, 217, 218, 194, 186, 190, 180, 41, 51, 428, 429, 430, 431, 432,
        433, 442, 280, 241, 282, 425, 426, 427, 224, 142, 105, 273, 106, 104, 89, 112,
    ),
}  # fmt: skip
_ARCHITECTURE = {"x86_64": (0xC000003E, (56, 272), 41), "aarch64": (0xC00000B7, (220, 97), 198)}
"""AUDIT_ARCH of the machine and its numbers of `clone`, `unshare` and `socket`."""
_FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK. Others (AF_VSOCK) may know nothing of namespaces."""
_CLONE3 = 435
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _EPERM, _ENOSYS, _KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
_EAFNOSUPPORT = 0x00050061
_X32 = 0x40000000


def _filter() -> bytes | None:
    """Return the seccomp filter of this machine, None for an architecture without a table."""
    machine = os.uname().machine
    if machine not in _DENIED:
        return None
    audit, makers, opens = _ARCHITECTURE[machine]

    def op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("=HBBI", code, if_true, if_false, value)

    program = [op(_LOAD, 4), op(_EQUAL, audit, 1, 0), op(_RETURN, _KILL), op(_LOAD, 0)]
    if machine == "x86_64":
        program += [op(_AT_LEAST, _X32, 0, 1), op(_RETURN, _ENOSYS)]
    for number in _DENIED[machine]:
        program += [op(_EQUAL, number, 0, 1), op(_RETURN, _EPERM)]
    checked = [op(_EQUAL, each, len(_FAMILIES) - i, 0) for i, each in enumerate(_FAMILIES)]
    checked = [op(_LOAD, 16), *checked, op(_RETURN, _EAFNOSUPPORT), op(_RETURN, _ALLOW)]
    program += [op(_EQUAL, opens, 0, len(checked)), *checked]
    # clone3 hides its flags behind a pointer; without it the C library falls back to clone.
    program += [op(_EQUAL, _CLONE3, 0, 1), op(_RETURN, _ENOSYS)]
    program += [op(_EQUAL, makers[0], 1, 0), op(_EQUAL, makers[1], 0, 3), op(_LOAD, 16)]
    program += [op(_ANY_BIT, CLONE_NEWUSER, 0, 1), op(_RETURN, _EPERM)]
    program += [op(_RETURN, _ALLOW)]
    return b"".join(program)


# Made here once: what a child builds for itself costs it page faults.
_FILTER = _filter()
_FILTER_BUFFER = ctypes.create_string_buffer(_FILTER or b"")
_FILTER_PROGRAM = struct.pack("@HP", len(_FILTER or b"") // 8, ctypes.addressof(_FILTER_BUFFER))
_CAP_HEADER = struct.pack("<II", _CAP_VERSION_3, 0)
_NO_CAPABILITIES = bytes(24)
