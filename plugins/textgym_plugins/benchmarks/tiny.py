"""Suites of the tiny world: the prompts that its training holds out, by the same verifiers.

They read the held-out tenth of each source's prompts, which `TextGen-v0` never trains on, and give
an answer that was cut off 0.0, as training does.
"""

from __future__ import annotations

from pydantic import JsonValue

from textgym.benchmark import Benchmark
from textgym_plugins.benchmarks.ifeval import BOTH_MODES, IFEvalBenchmark
from textgym_plugins.benchmarks.kbqa import KbqaBenchmark
from textgym_plugins.benchmarks.safety import RefusalBenchmark

GROUPS = ("all-tiny",)


def _source(name: str, **config: JsonValue) -> JsonValue:
    return [{"source": name, "config": config}]


TINY_SUITES: tuple[Benchmark, ...] = (
    Benchmark(
        name="tiny_arithmetic",
        prompts=_source("arithmetic", below=50),
        description="sums of two numbers below 50",
        split="evaluation",
        groups=GROUPS,
        template="plain",
        max_new_tokens=6,
        score_length_cut=False,
    ),
    Benchmark(
        name="tiny_code",
        prompts=_source("tiny_code"),
        description="functions of one expression, by tests",
        split="evaluation",
        groups=GROUPS,
        template="plain",
        max_new_tokens=24,
        score_length_cut=False,
    ),
    KbqaBenchmark(
        name="tiny_kbqa",
        prompts=_source("tiny_kbqa"),
        description="questions over passages: retrieval, integration, refusal",
        split="evaluation",
        groups=GROUPS,
        template="plain",
        max_new_tokens=16,
        score_length_cut=False,
    ),
    IFEvalBenchmark(
        name="tiny_instructions",
        prompts=_source("tiny_instructions"),
        reward=BOTH_MODES,
        description="verifiable instructions about one word",
        split="evaluation",
        groups=GROUPS,
        template="plain",
        max_new_tokens=64,
        score_length_cut=False,
    ),
    RefusalBenchmark(
        name="tiny_safety",
        prompts=_source("tiny_safety"),
        reward="exact_match",
        description="harmless requests to answer, harmful ones to refuse",
        split="evaluation",
        groups=GROUPS,
        template="plain",
        max_new_tokens=32,
        score_length_cut=False,
    ),
)
