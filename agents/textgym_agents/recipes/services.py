"""Services that run beside a stage: `textgym serve`, on a free port of this machine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from textgym.errors import ConfigError

_END_SECONDS = 40.0
"""How long a service may take to end its running requests."""


@contextmanager
def serve(args: Sequence[str], log: Path) -> Iterator[str]:
    """Run `textgym serve ARGS` and yield the address at which it listens.

    Args:
        args: the service and its options, without `--port`.
        log: a file for what it says.

    Raises:
        ConfigError: it ended before it listened; the message holds the end of the log.
    """
    command = [sys.executable, "-m", "textgym", "serve", *args, "--port", "0"]
    with log.open("a", encoding="utf-8") as file:
        # A group of its own: Ctrl-C ends the stage first, which still asks the service.
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=file, text=True, process_group=0
        )
        try:
            yield _address(process, args, log)
        finally:
            _end(process)


def _address(process: subprocess.Popen[str], args: Sequence[str], log: Path) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()  # one line of JSON, once it listens; empty where it ended
    if not line:
        said = log.read_text(encoding="utf-8").strip().splitlines()[-3:]
        raise ConfigError(f"the service 'textgym serve {' '.join(args)}' did not start: {said}")
    return str(json.loads(line)["url"])


def _end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
