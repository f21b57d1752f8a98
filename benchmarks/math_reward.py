"""The reward `math` beside math-verify on the same real answers: one process, one core, in pairs.

What is timed, on every sample whatever the two say of it:

- ours: `MathReward.score_batch` on all samples, with whatever it sends to its worker for algebra;
- the peer: `parse` and `verify` of math-verify without its own time limits.

Both read the gold answer once per row and not once per answer, both start every round with empty
caches (ours with those of its modules, the peer with SymPy's), and the rounds alternate. Reading
the files and starting the worker are not timed. The data is real and not part of the repository.
"""

from __future__ import annotations

import logging
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache

from benchmarks.places import DATA
from benchmarks.table import Row, print_table
from textgym import Sample
from textgym.sample_files import read_samples
from textgym_plugins.math import MathReward

GSM8K = ("GSM8K solutions", "gsm8k_model_solutions.jsonl", 8.0, 3)
MATH = ("Qwen responses", "qwen_math_responses.jsonl", 1.5, 5)
"""Name of the row, file, target, number of pairs."""

Judge = Callable[[Sequence[Sample]], list[bool]]


def run() -> list[Row]:
    """Return one row per file: answers judged per second, ours and the peer's."""
    return [_row(*benchmark) for benchmark in (GSM8K, MATH)]


def _row(name: str, file: str, target: float, num_pairs: int) -> Row:
    if not (DATA / file).exists():
        raise FileNotFoundError(f"no {file} in {DATA}; set TEXTGYM_SHARED_DATA to its folder")
    samples = [judged.sample for judged in read_samples(DATA / file).samples]
    judges: dict[str, Judge] = {"ours": _ours, "peer": _peer}
    verdicts = {side: judge(samples) for side, judge in judges.items()}  # warms imports and worker
    taken: dict[str, list[float]] = {"ours": [], "peer": []}
    for index in range(num_pairs):
        for side in ("ours", "peer") if index % 2 else ("peer", "ours"):
            taken[side].append(_seconds(judges[side], samples))
    speeds = {side: len(samples) / statistics.median(seconds) for side, seconds in taken.items()}
    num_differ = sum(a != b for a, b in zip(verdicts["ours"], verdicts["peer"], strict=True))
    note = f"against math-verify; {len(samples)} answers, {num_differ} judged differently"
    return Row(name, speeds["ours"], speeds["peer"], "answers/s", target, note=note)


def _seconds(judge: Judge, samples: Sequence[Sample]) -> float:
    _clear_caches()
    started = time.perf_counter()
    judge(samples)
    return time.perf_counter() - started


def _clear_caches() -> None:
    """Empty every bounded cache of the reward's modules, and SymPy's."""
    from sympy.core.cache import clear_cache

    clear_cache()
    for name, module in list(sys.modules.items()):
        if name.startswith("textgym_plugins.math."):
            for cached in vars(module).values():
                # The unbounded cache is the worker pool, which is to stay warm.
                if hasattr(cached, "cache_clear") and cached.cache_parameters()["maxsize"]:
                    cached.cache_clear()


def _ours(samples: Sequence[Sample]) -> list[bool]:
    return [score.value == 1.0 for score in MathReward().score_batch(samples)]


def _peer(samples: Sequence[Sample]) -> list[bool]:
    from math_verify import parse, verify

    # It warns on every call that its time limits are off, as they are meant to be.
    logging.getLogger("math_verify").setLevel(logging.ERROR)

    @cache
    def gold(target: str) -> list[object]:
        text = target if "\n" in target else f"${target}$"  # a solution, or the LaTeX of an answer
        return list(parse(text, parsing_timeout=None))

    return [
        bool(
            verify(
                gold(str(sample.prompt.target)),
                parse(sample.completion, parsing_timeout=None),
                timeout_seconds=None,
            )
        )
        for sample in samples
    ]


if __name__ == "__main__":
    print_table(run())
