"""Running vLLM in the trainer's process without its changes to that process.

vLLM seeds every global random generator when it starts, draws from torch's at every step, replaces
`torch.set_num_threads` by a function that does nothing, and puts libraries into LD_PRELOAD that
every process started later (a reward's worker, a sandbox) would load. All of it is put back here.
What stays: memory is bound to the NUMA node of the engine, and `torch.distributed` has a default
process group while the engine lives.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator

import numpy as np
import torch

KEPT_PREFIX = "VLLM_"


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Undo what is done to random generators, threads and environment inside this context."""
    environment = dict(os.environ)
    set_num_threads, num_threads = torch.set_num_threads, torch.get_num_threads()
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
            torch.set_num_threads = set_num_threads
            if torch.get_num_threads() != num_threads:
                torch.set_num_threads(num_threads)
            _restore(environment)


def _restore(environment: dict[str, str]) -> None:
    """Bring back the environment; vLLM's own variables stay, it reads them later."""
    for name in set(os.environ) - set(environment):
        if not name.startswith(KEPT_PREFIX):
            del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value and not name.startswith(KEPT_PREFIX):
            os.environ[name] = value
