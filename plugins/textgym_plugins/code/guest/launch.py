"""Start bubblewrap as an unprivileged user although the caller is root.

Run as a file by root. The kernel does not limit the processes of root, and root may read more than
a program should; so bubblewrap starts as `nobody`. What `nobody` cannot reach (an interpreter below
/root) is bound to a place of its own first, in a mount namespace that only this process sees.

Arguments: the folders to stage, joined by colons, then the command, in which `@0` and `@1` stand
for them.
"""

from __future__ import annotations

import ctypes
import os
import sys

_CLONE_NEWNS = 0x20000
_MS_BIND_REC, _MS_REC_PRIVATE = 0x1000 | 0x4000, 0x4000 | 0x40000
_STAGE = "/mnt"
_NOBODY = 65534


def main(folders: list[str], command: list[str]) -> None:
    """Replace this process by the command."""
    library = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: object) -> None:
        if getattr(library, name)(*arguments) < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{name}: {os.strerror(number)}")

    call("unshare", _CLONE_NEWNS)
    call("mount", b"none", b"/", None, _MS_REC_PRIVATE, None)
    opened = [os.open(folder, os.O_PATH) for folder in folders]
    call("mount", b"tmpfs", _STAGE.encode(), b"tmpfs", 0, b"mode=755")
    for number, descriptor in enumerate(opened):
        place = f"{_STAGE}/{number}"
        os.mkdir(place, 0o755)
        source = f"/proc/self/fd/{descriptor}".encode()
        call("mount", source, place.encode(), None, _MS_BIND_REC, None)
        os.close(descriptor)
        command = [place if part == f"@{number}" else part for part in command]
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    os.execv(command[0], command)


if __name__ == "__main__":
    try:
        main(sys.argv[1].split(":"), sys.argv[2:])
    except OSError as error:
        sys.exit(f"{error.strerror or error}")
