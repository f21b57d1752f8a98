"""Benchmark suites: the tiny world, and public test sets from their own files."""

from textgym import Benchmark
from textgym_plugins.benchmarks.public import PUBLIC_SUITES
from textgym_plugins.benchmarks.tiny import TINY_SUITES

SUITES: tuple[Benchmark, ...] = (*TINY_SUITES, *PUBLIC_SUITES)

__all__ = ["SUITES"]
