"""`python -m benchmarks [name ...]`: run the benchmarks and print one table against the peers.

Exit status 1 says that a target was missed or a benchmark failed; the others still run. What cannot
be measured here, for want of a GPU, is a row that says so and misses nothing.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from benchmarks.table import Row, print_table, write_json

NAMES = (
    "import_time",
    "environments",
    "classic",
    "exact",
    "math_reward",
    "code_execution",
    "kbqa",
    "reward_model",
    "scoring",
    "tabular",
    "engines",
    "ppo_speed",
    "time_to_95",
    "ppo_gpu",
)
"""Modules of this package; each has a `run()` that returns rows."""


def run_benchmark(name: str) -> list[Row]:
    """Return the rows of one benchmark; its module is imported now, as some load torch."""
    rows: list[Row] = importlib.import_module(f"benchmarks.{name}").run()
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named benchmarks, or all of them; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="name", help=f"of {', '.join(NAMES)}; all by default"
    )
    parser.add_argument(
        "--json", type=Path, metavar="OUT", help="write the rows to this file as well"
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        parser.error(f"no benchmark named '{unknown[0]}'; there are {', '.join(NAMES)}")

    rows: list[Row] = []
    failed: list[str] = []
    for name in options.names or NAMES:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            rows += run_benchmark(name)
        except Exception:  # one benchmark must not take the others' results with it
            traceback.print_exc()
            failed.append(name)
    if rows:
        print_table(rows)
    if options.json:
        write_json(rows, options.json)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed or not all(row.is_met or row.missing for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
