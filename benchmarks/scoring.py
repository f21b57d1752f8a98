"""What scoring costs around the rewards: the rubric per sample, and a hit of the score cache.

The rubric's peer is a loop that calls the same rewards: no boundary, no weights, no parts. The
rewards are real and cheap (`math` on sums, some 10 us), so that the overhead shows. The peer of a
cache hit is, first, the judgement that it saves, of `math` on products that only the algebra system
can compare; and second, diskcache, which keeps pickles in SQLite: the same keys, one `get` each,
nothing else. Ours is the whole way through the scorer, with the key, checksum and parts.

Ours and the peer take turns in one process and medians are compared.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import diskcache  # type: ignore[import-untyped]  # it has neither stubs nor py.typed

from benchmarks.table import Row, print_table
from textgym import Prompt, Sample, Scorer, make_prompt_source, make_reward
from textgym.score_keys import reward_scope, sample_key

NUM_SAMPLES = 500
NUM_ALGEBRA = 10
NUM_PAIRS = 9
_THOUGHT = "First the tens, then the ones, and then both together. " * 4


def run() -> list[Row]:
    """Return the rows of the rubric and of the cache."""
    with tempfile.TemporaryDirectory() as folder:
        return [*_rubric(), *_cache(Path(folder))]


def _rubric() -> list[Row]:
    samples, math = _sums(), make_reward("math")
    alone = Scorer(math)
    three = Scorer(
        [
            {"reward": math, "name": "gate", "gate": {"threshold": 0.5}},
            {"reward": math, "name": "first", "weight": 0.7},
            {"reward": math, "name": "second", "weight": 0.3},
        ]
    )
    right = [sample for sample in samples if math.score(sample).value == 1.0]

    def call(batch: list[Sample], times: int) -> Callable[[], object]:
        return lambda: [[math.score(sample) for sample in batch] for _ in range(times)]

    one_pair = _paired(lambda: alone.score_batch(samples), call(samples, 1))
    three_pair = _paired(lambda: three.score_batch(right), call(right, 3))
    return [
        Row("rubric of one reward / the reward itself", *_per_sample(one_pair, samples),
            "us/sample", target=1.5, is_cost=True, note=_overhead(one_pair, samples)),
        Row("rubric of a gate and two rewards / the three", *_per_sample(three_pair, right),
            "us/sample", target=1.5, is_cost=True, note=_overhead(three_pair, right)),
    ]  # fmt: skip


def _cache(folder: Path) -> list[Row]:
    math, sums, algebra = make_reward("math"), _sums(), _algebra()
    scope = reward_scope(math)
    assert scope is not None
    peer = diskcache.Cache(str(folder / "diskcache"))
    with Scorer(math, cache=folder / "scores.sqlite") as cached, Scorer(math) as afresh:
        for sample, score in zip(sums, cached.score_batch(sums), strict=True):
            peer[sample_key(scope, sample)] = score
        cached.score_batch(algebra)
        judged = _paired(lambda: cached.score_batch(algebra), lambda: afresh.score_batch(algebra))
        kept = _paired(
            lambda: cached.score_batch(sums),
            lambda: [peer[sample_key(scope, sample)] for sample in sums],
        )
        assert cached.cache is not None
        assert cached.cache.counts["misses"] == len(sums) + len(algebra)
    peer.close()
    return [
        Row("score cache hits / `math` with the algebra system", *_rates(judged, algebra),
            "samples/s", target=20.0),
        Row("score cache hits / diskcache", *_rates(kept, sums), "samples/s", target=1.0),
    ]  # fmt: skip


def _sums() -> list[Sample]:
    """Return sums with an answer at the end of some text, every fourth of them wrong."""
    source = make_prompt_source("arithmetic", digits=3)
    samples = []
    for index in range(NUM_SAMPLES):
        prompt = source.prompt(index)
        answer = int(str(prompt.target)) + (index % 4 == 0)
        samples.append(Sample(prompt, f"{_THOUGHT}So it is \\boxed{{{answer}}}."))
    return samples


def _algebra() -> list[Sample]:
    """Return products that have been multiplied out."""
    samples = []
    for k in range(1, NUM_ALGEBRA + 1):
        prompt = Prompt(id=f"product {k}", messages="Multiply it out.", target=f"(x+{k})(x-{k})")
        samples.append(Sample(prompt, f"That is \\boxed{{x^2-{k * k}}}."))
    return samples


def _paired(ours: Callable[[], object], peer: Callable[[], object]) -> tuple[float, float]:
    """Return the median seconds of both, measured in turns."""
    ours(), peer()
    pairs = [(_seconds(ours), _seconds(peer)) for _ in range(NUM_PAIRS)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _per_sample(pair: tuple[float, float], samples: list[Sample]) -> tuple[float, float]:
    return 1e6 * pair[0] / len(samples), 1e6 * pair[1] / len(samples)


def _overhead(pair: tuple[float, float], samples: list[Sample]) -> str:
    return f"{1e6 * (pair[0] - pair[1]) / len(samples):.1f} us on top"


def _rates(pair: tuple[float, float], samples: list[Sample]) -> tuple[float, float]:
    return len(samples) / pair[0], len(samples) / pair[1]


if __name__ == "__main__":
    print_table(run())
