"""Ctrl-C without loss: the first one asks the loop to stop, the second one stops it at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STDERR = 2
MESSAGE = "stopping after this step and saving it"


class Interrupt:
    """Context in which the first SIGINT or SIGTERM only sets `requested`.

    Outside the main thread, where Python allows no handlers, it does nothing.

    Args:
        message: what the first one is answered with; None leaves that to another process.
    """

    def __init__(self, message: str | None = MESSAGE) -> None:
        self.requested = False
        self._answer = f"\n{message}; once more stops at once\n".encode() if message else b""
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        # Not `print`: the handler may have interrupted one, whose buffer is not reentrant.
        if self._answer:
            os.write(STDERR, self._answer)
