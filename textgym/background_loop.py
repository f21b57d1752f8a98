"""One event loop in a thread of its own, for plain code that has many HTTP requests to make.

A reward is called as an ordinary function, often from a thread that runs an event loop already.
Requests therefore run on a loop beside it, which lives as long as the process: connections, rate
limits and back-off outlast one call. A forked process gets a loop of its own, because threads do
not survive a fork.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar, cast

T = TypeVar("T")


class BackgroundLoop:
    """A running event loop and what is kept on it."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._kept: dict[Hashable, object] = {}
        thread = threading.Thread(target=self._loop.run_forever, name="textgym-http", daemon=True)
        thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return what the coroutine returns; it is cancelled where the caller is interrupted."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def keep(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what is kept under a key, made when first asked for; call it on the loop only."""
        if key not in self._kept:
            self._kept[key] = make()
        return cast(T, self._kept[key])

    @property
    def belongs_here(self) -> bool:
        """Whether this process started the loop; a fork copies the object but not its thread."""
        return self._owner == os.getpid()


_current: BackgroundLoop | None = None
_lock = threading.Lock()
os.register_at_fork(after_in_child=lambda: globals().__setitem__("_lock", threading.Lock()))


def background_loop() -> BackgroundLoop:
    """Return the loop of this process, started on the first call."""
    global _current
    with _lock:
        if _current is None or not _current.belongs_here:
            _current = BackgroundLoop()
        return _current
