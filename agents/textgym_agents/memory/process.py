"""Memory that the operating system has given to this process."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """Return the largest resident memory so far.

    Linux carries `ru_maxrss` over from the parent process through exec, so a small child of a large
    parent would report the parent; `VmHWM` belongs to this process alone.
    """
    return _status("VmHWM") or _max_rss()


def resident_bytes() -> int:
    """Return the resident memory as it is; the peak where the system does not say."""
    return _status("VmRSS") or _max_rss()


def _status(name: str) -> int | None:
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def _max_rss() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
