"""What `import textgym` costs beside its dependencies: fresh interpreters, in pairs, medians.

Each pair runs both programs one after the other, in alternating order, so that what else the
machine does weighs on both. The time is taken inside the interpreter: its own start-up is not ours.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from benchmarks.table import Row, print_table

NUM_PAIRS = 25
TARGET = 1.3
OURS = "import textgym"
PEER = "import gymnasium, pydantic, pluggy"


def measure(num_pairs: int = NUM_PAIRS) -> tuple[str, float, float, float, float]:
    """Return name, our seconds, the peer's seconds, the ratio and the target."""
    taken: dict[str, list[float]] = {OURS: [], PEER: []}
    for program in taken:
        _seconds(program)  # writes the byte code and warms the file cache
    for index in range(num_pairs):
        for program in (OURS, PEER) if index % 2 else (PEER, OURS):
            taken[program].append(_seconds(program))
    ours, peer = (statistics.median(taken[program]) for program in (OURS, PEER))
    return "import", ours, peer, ours / peer, TARGET


def _seconds(statement: str) -> float:
    program = (
        "import time; started = time.perf_counter()\n"
        f"{statement}\n"
        "print(time.perf_counter() - started)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def run() -> list[Row]:
    """Return the one row of this benchmark."""
    name, ours, peer, _, target = measure()
    return [Row(name, ours, peer, "s", target, is_cost=True, note=f"{OURS} / {PEER}")]


if __name__ == "__main__":
    print_table(run())
