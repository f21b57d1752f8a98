"""One command in several processes: one of them speaks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from textgym.cli.main import FAILED, INTERRUPTED
from textgym.errors import TextGymError
from textgym_agents.processes import Processes, launched


@contextmanager
def launched_command() -> Iterator[Processes]:
    """Give the processes of the command; all but the main one warn and fail without a word.

    What fails in one of them is told by the main one; a bug shows its traceback in any.
    """
    with launched() as processes:
        if not processes.is_main:
            warnings.simplefilter("ignore")
        try:
            yield processes
        except (TextGymError, KeyboardInterrupt) as error:
            if processes.is_main:
                raise
            code = INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
            raise SystemExit(code) from None
