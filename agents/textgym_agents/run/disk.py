"""A disk that is full, or fails: one clear error, found before anything is lost where it can be."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from textgym.errors import TextGymError
from textgym_agents.run.directory import RunDirectory

REFUSALS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
"""Full, over quota, file too large, broken, read-only."""
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")


class DiskError(TextGymError):
    """The disk does not take what a run has to write."""


def check_room(run: RunDirectory, num_bytes: int) -> None:
    """See that a checkpoint has room beside those that are there.

    Args:
        run: where it is to be written.
        num_bytes: what it is expected to take.

    Raises:
        DiskError: there is less room than that.
    """
    free = shutil.disk_usage(run.path).free
    if free < num_bytes:
        raise DiskError(
            f"{run.path}: the next checkpoint takes {_size(num_bytes)}, and the disk has "
            f"{_size(free)} left. {_advice(run)}"
        )


@contextmanager
def disk_errors(run: RunDirectory) -> Iterator[None]:
    """Turn a refusal of the disk inside this context into a `DiskError` that says what to do."""
    try:
        yield
    except Exception as error:
        number = _number(error)
        if number not in REFUSALS:
            raise
        raise DiskError(f"{run.path}: {os.strerror(number)}. {_advice(run)}") from error


def _number(error: Exception) -> int:
    """Return the number of the system's error, 0 if it is none.

    Safetensors and tokenizers write in Rust, whose errors name the number in their text.
    """
    if isinstance(error, OSError):
        return error.errno or 0
    named = _RUST_ERROR.search(str(error))
    return int(named[1]) if named else 0


def _advice(run: RunDirectory) -> str:
    saved = run.checkpoints()
    if not saved:
        return "Nothing has been saved yet: free some space, and start again"
    return (
        f"What is saved, up to {saved[-1].name}, is untouched: free some space, and continue with: "
        f"textgym {run.kind} --resume {run.path}"
    )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"
