"""What one program may use. The defaults let an honest program spawn, thread, print and recurse."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """Limits of one run; each program runs within all of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seconds: float = Field(default=10.0, gt=0, le=600)
    """Wall-clock time of one test; loading the program has as much."""
    run_seconds: float = Field(default=60.0, gt=0, le=3600)
    """Wall-clock time of all tests together; tests not reached by then fail."""
    memory: int = Field(default=2 << 30, ge=64 << 20)
    """Bytes of memory, of each process and of all together."""
    processes: int = Field(default=256, ge=1, le=4096)
    """Processes and threads at one time."""
    disk: int = Field(default=1 << 30, ge=1 << 20)
    """Bytes of all files together, in /tmp and /dev/shm; they live in memory."""
    files: int = Field(default=4096, ge=32)
    """Open descriptors of each process."""
    output: int = Field(default=64 << 20, ge=1 << 10)
    """Bytes printed to stdout and stderr together."""
