"""Start bubblewrap as an unprivileged user although the caller is root.

Run as a file by root. The kernel does not limit the processes of root, and root may read more than
a program should; so bubblewrap starts as `nobody`. What `nobody` cannot reach (an interpreter below
/root) is bound to a place of its own first, in a mount namespace that only this process sees.

Arguments: the folder to stage, then the command, in which `@0` stands for its place.
"""

from __future__ import annotations

import ctypes
import os
import sys

_CLONE_NEWNS = 0x20000
_MS_BIND_REC, _MS_REC_PRIVATE = 0x1000 | 0x4000, 0x4000 | 0x40000
_STAGE = "/mnt"
_NOBODY = 65534


def main(folder: str, command: list[str]) -> None:
    """Replace this process by the command."""
    library = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: object) -> None:
        if getattr(library, name)(*arguments) < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{name}: {os.strerror(number)}")

    call("unshare", _CLONE_NEWNS)
    call("mount", b"none", b"/", None, _MS_REC_PRIVATE, None)
    opened = os.open(folder, os.O_PATH)
    call("mount", b"tmpfs", _STAGE.encode(), b"tmpfs", 0, b"mode=755")
    place = f"{_STAGE}/0"
    os.mkdir(place, 0o755)
    call("mount", f"/proc/self/fd/{opened}".encode(), place.encode(), None, _MS_BIND_REC, None)
    os.close(opened)
    command = [place if part == "@0" else part for part in command]
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    os.execv(command[0], command)


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2:])
    except OSError as error:
        sys.exit(f"{error.strerror or error}")
